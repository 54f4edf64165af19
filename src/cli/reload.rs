//! `throughway reload`: has the running server read its configuration again.

use std::path::Path;

use hyper::Method;
use hyper::StatusCode;
use serde_json::Value;

use super::Failure;
use super::Loaded;
use super::control;

/// `throughway reload`.
#[derive(clap::Args)]
#[command(after_help = "\
The same as SIGHUP, but that it says what became of it. A configuration that can't be used changes
nothing: the server goes on with the one that it has, and this ends with exit code 2.")]
pub(super) struct Arguments {
    /// Print {"applied", "needsRestart"} or {"error"} as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(file: Option<&Path>, asked: &Arguments) -> Result<(), Failure> {
    let Loaded { config, .. } = Loaded::read(file)?;
    let (status, answer) = super::block_on(control::ask(&config, Method::POST, control::RELOAD))??;
    if asked.json {
        super::print(&format!("{answer}\n"))?;
    }
    if status != StatusCode::OK {
        let why = answer.get("error").and_then(Value::as_str).unwrap_or("the server says no");
        return Err(Failure::Operator(format!("the configuration stays as it was: {why}")));
    }
    if asked.json { Ok(()) } else { super::print(&in_words(&answer)) }
}

fn in_words(answer: &Value) -> String {
    let keys = |name: &str| {
        let list = answer.get(name).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(|key| format!("    {key}\n")).collect::<String>()
    };
    let (applied, needs_restart) = (keys("applied"), keys("needsRestart"));
    let mut text = match (applied.as_str(), needs_restart.as_str()) {
        ("", "") => "No setting has changed.\n".to_owned(),
        ("", _) => String::new(),
        (applied, _) => format!("In force now:\n{applied}"),
    };
    if !needs_restart.is_empty() {
        text.push_str(&format!("Changed, but only a restart puts it to work:\n{needs_restart}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_holds_and_what_waits_for_a_restart_are_told_apart() {
        let both = json!({ "applied": ["turn.secrets"], "needsRestart": ["turn.realm"] });
        let later = json!({ "applied": [], "needsRestart": ["turn.realm"] });
        let nothing = json!({ "applied": [], "needsRestart": [] });

        assert_eq!(
            in_words(&both),
            "In force now:\n    turn.secrets\nChanged, but only a restart puts it to work:\n    turn.realm\n"
        );
        assert_eq!(in_words(&later), "Changed, but only a restart puts it to work:\n    turn.realm\n");
        assert_eq!(in_words(&nothing), "No setting has changed.\n");
    }
}
