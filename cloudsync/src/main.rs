//! `postern-cloudsync`: reads policy out of the cloud, hands it to the daemon, ships the logs.
//!
//! Touches no packet and needs no capability. Whatever fails here, the daemon enforces the
//! policy it has, and the logs wait in the spool.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser as _;

mod assemble;
mod aws;
mod cli;
mod cloud;
mod config;
mod configure;
mod documentation;
mod documents;
mod durable;
mod file;
mod gcp;
mod link;
mod once;
mod preflight;
mod run;
mod schedule;
mod ship;
mod sync;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("POSTERN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,postern_cloudsync=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    // One thread is plenty: this waits for others nearly all of the time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            runtime.block_on(tokio::task::LocalSet::new().run_until(cli::dispatch(args)))
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            complain(&chain(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

/// Every command ends its errors here, once.
#[expect(
    clippy::print_stderr,
    reason = "the last word of a command that failed"
)]
fn complain(message: &str) {
    eprintln!("postern-cloudsync: {message}");
}

/// An error and its causes, as one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
