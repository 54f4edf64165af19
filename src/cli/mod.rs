//! The command line: one file per command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

mod banner;
mod serve;

/// Gets WebRTC calls through: wss signaling, a STUN/TURN relay and pages to use them, in one process.
///
/// Without a command it serves; without a configuration file, on defaults that are fit for a try.
#[derive(Parser)]
#[command(name = "throughway", version, after_help = AFTER_HELP)]
struct Arguments {
    /// The configuration file (TOML); config/throughway.toml explains every key
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Start the server (what happens without a command, too)
    Serve,
}

const AFTER_HELP: &str = "\
Any key can be set by environment too: THROUGHWAY__TURN__REALM=example.org is realm in [turn].
Certificates (certs/, acme/) and how much was relayed (relayed.json) are kept in $STATE_DIRECTORY,
else beside the configuration file, else here.

Exit codes: 0 ended as asked; 1 a failure of ours; 2 something for you to correct (it says what).";

/// Why a command failed.
enum Failure {
    /// The operator can cure it: exit code 2.
    Operator(String),
    /// Nobody knows yet: exit code 1.
    Ours(String),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(arguments.config.as_deref()),
    };
    let (code, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Operator(message)) => (2, message),
        Err(Failure::Ours(message)) => (1, message),
    };
    eprintln!("throughway: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_defined_and_config_stands_on_either_side() {
        Arguments::command().debug_assert();

        for line in [["throughway", "--config", "f", "serve"], ["throughway", "serve", "--config", "f"]] {
            assert_eq!(Arguments::try_parse_from(line).unwrap().config, Some("f".into()));
        }
    }
}
