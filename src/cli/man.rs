//! `throughway man`: the manual page, one for all commands.

use std::fmt::Write;
use std::io;

use clap::CommandFactory;
use clap_mangen::Man;

use super::Failure;

pub(super) fn run() -> Result<(), Failure> {
    super::print(&page()?)
}

/// The page in roff: the program's own sections, then each command with what its help says.
fn page() -> io::Result<String> {
    let mut command = super::Arguments::command();
    command.build();
    let mut own = Vec::new();
    let man = Man::new(command.clone()).section("1").manual("Throughway");
    man.render_title(&mut own)?;
    man.render_name_section(&mut own)?;
    man.render_synopsis_section(&mut own)?;
    man.render_description_section(&mut own)?;
    man.render_options_section(&mut own)?;
    let mut page = String::from_utf8_lossy(&own).into_owned();
    // Writing to a String never fails.
    for mut one in command.get_subcommands().filter(|one| one.get_name() != "help").cloned() {
        let _ = writeln!(page, ".SH THROUGHWAY {}\n.nf", one.get_name().to_uppercase());
        preformatted(&one.render_help().to_string(), &mut page);
        page.push_str(".fi\n");
    }
    page.push_str(".SH ENVIRONMENT, FILES, EXIT STATUS\n.nf\n");
    preformatted(super::AFTER_HELP, &mut page);
    page.push_str(".fi\n");
    Ok(page)
}

/// Lines as they are: what roff would take for a command or an escape is escaped.
fn preformatted(text: &str, page: &mut String) {
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        let _ = writeln!(page, "{guard}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_and_the_exit_codes() {
        let page = page().unwrap();

        for command in super::super::Arguments::command().get_subcommands() {
            let heading = format!("\n.SH THROUGHWAY {}\n", command.get_name().to_uppercase());
            assert!(page.contains(&heading), "{heading} is missing in\n{page}");
        }
        assert!(page.starts_with(".ie") || page.contains(".TH throughway 1"), "{page}");
        assert!(page.contains("Exit codes: 0 ended as asked"), "{page}");
    }

    #[test]
    fn a_line_that_looks_like_a_command_is_text() {
        let mut page = String::new();

        preformatted(".SH x\n'a\\b-c", &mut page);

        assert_eq!(page, "\\&.SH x\n\\&'a\\eb\\-c\n");
    }
}
