//! The command line: one file per command.

use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

use crate::config::Config;
use crate::config::Origins;

mod banner;
mod binding;
mod changes;
mod check;
mod completions;
mod control;
mod credential;
mod doctor;
mod init;
mod man;
mod reload;
mod serve;
mod status;

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
    /// Write a configuration for this machine, with fresh secrets
    Init(init::Arguments),
    /// Validate the configuration, and show what is in force
    Check(check::Arguments),
    /// Look at the running server, or at any URL, and name the cure of each fault
    Doctor(doctor::Arguments),
    /// Show who is there and what is relayed, from the running server
    Status(status::Arguments),
    /// Have the running server read its configuration again
    Reload(reload::Arguments),
    /// Print iceServers with a fresh credential
    Credential(credential::Arguments),
    /// Print the completions of a shell
    Completions(completions::Arguments),
    /// Print the man page
    Man,
}

const AFTER_HELP: &str = "\
Any key can be set by environment too: THROUGHWAY__TURN__REALM=example.org is realm in [turn].
Certificates (certs/, acme/) and how much was relayed (relayed.json) are kept in $STATE_DIRECTORY,
else beside the configuration file, else here. All commands but serve and init look for
/etc/throughway/throughway.toml when --config names no file.

Exit codes: 0 ended as asked; 1 a failure of ours; 2 something for you to correct (it says what);
3 doctor found a fault; 4 no server answers (status, reload).";

/// The configuration of an installed server: where commands about it look when they are told of no other.
const INSTALLED: &str = "/etc/throughway/throughway.toml";

/// Why a command failed.
enum Failure {
    /// The operator can cure it: exit code 2.
    Operator(String),
    /// Nobody knows yet: exit code 1.
    Ours(String),
    /// `doctor` has told of one: exit code 3.
    Faults,
    /// There is no server to ask: exit code 4.
    NoServer(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Ours(error.to_string())
    }
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let file = arguments.config.as_deref();
    let done = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(file),
        Command::Init(asked) => init::run(file, asked),
        Command::Check(asked) => check::run(file, &asked),
        Command::Doctor(asked) => doctor::run(file, &asked),
        Command::Status(asked) => status::run(file, &asked),
        Command::Reload(asked) => reload::run(file, &asked),
        Command::Credential(asked) => credential::run(file, &asked),
        Command::Completions(asked) => completions::run(&asked),
        Command::Man => man::run(),
    };
    let (code, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Faults) => return ExitCode::from(3),
        Err(Failure::Operator(message)) => (2, message),
        Err(Failure::Ours(message)) => (1, message),
        Err(Failure::NoServer(message)) => (4, message),
    };
    eprintln!("throughway: {message}");
    ExitCode::from(code)
}

/// The configuration that a command is about.
struct Loaded {
    /// None: the defaults.
    file: Option<PathBuf>,
    config: Config,
    origins: Origins,
}

impl Loaded {
    /// Reads `file`, or that of the installed server if there is one, and the environment on top.
    fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let installed = Path::new(INSTALLED);
        let file = file.or_else(|| installed.exists().then_some(installed));
        let (config, origins) = Config::load_with_origins(file, serve::environment())
            .map_err(|error| Failure::Operator(error.to_string()))?;
        Ok(Self { file: file.map(Path::to_owned), config, origins })
    }
}

/// Runs what waits for the network.
fn block_on<T>(doing: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(doing);
    // A name that is still being looked up is nobody's concern.
    runtime.shutdown_background();
    Ok(done)
}

/// Prints what was asked for.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads no further has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
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

    #[test]
    fn every_help_fits_a_screen_and_says_more_than_the_name() {
        let mut command = Arguments::command();
        command.build();

        for mut one in command.get_subcommands().filter(|one| one.get_name() != "help").cloned() {
            let help = one.render_help().to_string();

            assert!(help.lines().count() <= 50 && help.lines().all(|line| line.len() <= 100), "{help}");
            assert!(one.get_about().is_some_and(|about| about.to_string().len() > 10), "{help}");
            assert!(one.get_arguments().all(|argument| argument.get_help().is_some()), "{help}");
        }
    }
}
