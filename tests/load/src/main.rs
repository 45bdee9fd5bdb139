//! The load generator of `cargo race`: a server and a client whose packets look like TLS 1.3 and whose work is next to
//! nothing, so that what is measured is what stands between them.
//!
//! The exchange is the whole of a TLS 1.3 connection with one request: client hello, the server's first flight, the
//! client's finished message and request, one answer. The client then closes with a reset, so that neither end keeps a
//! port in TIME_WAIT. Every command prints one JSON object.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line's output"
)]

mod client;
mod exchange;
mod server;
mod stats;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Generates the load of `cargo race`.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers on a port of every address of the namespace until it is killed.
    Serve {
        /// The port.
        #[arg(long, default_value_t = 443)]
        port: u16,
        /// What to answer a whole client hello with.
        #[arg(long)]
        flight: PathBuf,
    },
    /// Workers that connect, exchange and connect again.
    Saturate {
        #[command(flatten)]
        target: Target,
        /// How many at a time.
        #[arg(long, default_value_t = 64)]
        workers: usize,
    },
    /// So many connections a second, whether or not earlier ones have ended.
    Paced {
        #[command(flatten)]
        target: Target,
        /// Connections a second.
        #[arg(long, default_value_t = 500)]
        per_second: u32,
    },
    /// As `paced`, with a hello that is refused: from the hello to the close.
    Refused {
        #[command(flatten)]
        target: Target,
        /// Connections a second.
        #[arg(long, default_value_t = 300)]
        per_second: u32,
    },
    /// Downloads over some connections at once.
    Bulk {
        #[command(flatten)]
        target: Target,
        /// Connections.
        #[arg(long)]
        streams: usize,
    },
    /// Opens connections, says `{"ready":N}`, and keeps them until standard input ends.
    Hold {
        #[command(flatten)]
        target: Target,
        /// Connections.
        #[arg(long)]
        flows: usize,
        /// Send only the first half of each hello.
        #[arg(long)]
        half: bool,
    },
}

/// Whom to connect to, from where, saying what.
#[derive(Debug, Clone, Args)]
struct Target {
    /// The hello; its name is replaced.
    #[arg(long)]
    hello: PathBuf,
    /// The name in the hello, whose first four digits are replaced by the number of the name in use.
    #[arg(long)]
    name: String,
    /// How many names; name N belongs to server N modulo `--servers`.
    #[arg(long, default_value_t = 1000)]
    names: u32,
    /// The first of the addresses to connect from.
    #[arg(long)]
    source: Ipv4Addr,
    /// How many there are.
    #[arg(long, default_value_t = 16)]
    sources: u32,
    /// The first of the servers' addresses.
    #[arg(long)]
    server: Ipv4Addr,
    /// How many there are.
    #[arg(long, default_value_t = 16)]
    servers: u32,
    /// The port.
    #[arg(long, default_value_t = 443)]
    port: u16,
    /// How long to measure.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long to run before that.
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
}

impl Target {
    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let (_, most) =
        getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    runtime.block_on(async {
        match arguments.command {
            Command::Serve { port, flight } => server::serve(port, &flight).await,
            Command::Saturate { target, workers } => {
                let script = client::Script::read(&target)?;
                client::saturate(script, workers, target.warm_up(), target.measured()).await
            }
            Command::Paced { target, per_second } => {
                let script = client::Script::read(&target)?;
                client::paced(
                    script,
                    per_second,
                    target.measured(),
                    client::connect_to_answer,
                )
                .await
            }
            Command::Refused { target, per_second } => {
                let script = client::Script::read(&target)?;
                client::paced(
                    script,
                    per_second,
                    target.measured(),
                    client::hello_to_close,
                )
                .await
            }
            Command::Bulk { target, streams } => {
                let script = client::Script::read(&target)?;
                client::bulk(script, streams, target.warm_up(), target.measured()).await
            }
            Command::Hold {
                target,
                flows,
                half,
            } => {
                let script = client::Script::read(&target)?;
                client::hold(script, flows, half).await
            }
        }
    })
}
