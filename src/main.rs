//! The `throughway` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    throughway::cli::run()
}
