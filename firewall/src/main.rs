//! The Postern daemon and command line: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use firewall::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    firewall::cli::install_logging();
    firewall::cli::run(cli)
}
