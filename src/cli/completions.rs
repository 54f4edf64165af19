//! `throughway completions SHELL`: what lets a shell complete our commands.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Failure;

/// `throughway completions`.
#[derive(clap::Args)]
#[command(after_help = "For bash: throughway completions bash > /etc/bash_completion.d/throughway")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(asked: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut super::Arguments::command(), "throughway", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}
