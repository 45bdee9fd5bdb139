//! The command line: what can be asked for, and how failures are said.
//!
//! Exit codes are 0, 1 for a finding or a failure of the machine, and 2 for wrong usage or
//! input. An error is one line on standard error: what was done, to what, and the cause.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command;
use crate::confine::Role;

/// Lets a workload reach only the names its security group or firewall rule lists.
#[derive(Debug, Parser)]
#[command(name = "postern", version, max_term_width = 100)]
#[command(after_help = "Example:\n  postern run --inventory inventory.toml")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the firewall: takes over forwarding in this network namespace and judges flows
    #[command(after_help = "Examples:\n  postern run --inventory inventory.toml\n  \
        postern run --config /etc/postern/postern.toml")]
    Run(RunArgs),
    /// Judges the flows of a packet capture, without privileges
    #[command(after_help = "Example:\n  postern replay --inventory inventory.toml monday.pcapng")]
    Replay(ReplayArgs),
    /// Checks annotations, an inventory or settings, and says where each mistake is
    #[command(
        after_help = "Examples:\n  postern lint --inventory inventory.toml\n  \
        postern lint --cloud aws 'postern:tls:api.github.com,*.example.org'"
    )]
    Lint(LintArgs),
    /// Says which rule decides a connection, and why
    #[command(after_help = "Examples:\n  \
        postern explain --inventory inventory.toml 10.0.1.5 tls api.github.com\n  \
        postern explain --live 10.0.1.5 ssh git.example.org:2222")]
    Explain(ExplainArgs),
    /// Says how the running daemon is
    #[command(after_help = "Example:\n  postern status --json")]
    Status(StatusArgs),
    /// Shows the flow log that waits in the spool
    #[command(after_help = "Example:\n  postern flows --follow --refused")]
    Flows(FlowsArgs),
    /// Writes an allowlist from what see-thru let pass
    #[command(after_help = "Example:\n  postern learn --format terraform flow.jsonl")]
    Learn(LearnArgs),
    /// Lists each allowed name with its use, and names nobody used
    #[command(after_help = "Example:\n  postern review --inventory inventory.toml flow.jsonl")]
    Review(ReviewArgs),
    /// Resolves names on behalf of the daemon, which starts it
    #[command(hide = true)]
    Witness(WitnessArgs),
    /// Gives up rights as a part of the daemon does, and tries what is forbidden
    #[command(hide = true)]
    Trial(TrialArgs),
    /// Writes manual pages and shell completions
    #[command(hide = true)]
    Documentation(DocumentationArgs),
}

/// Arguments of `postern run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The daemon's settings [default: /etc/postern/postern.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Takes the policy from this inventory instead of the control socket
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// Copies every log line to standard output
    #[arg(long)]
    pub log_stdout: bool,
}

/// Arguments of `postern replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The policy to judge by
    #[arg(long, value_name = "FILE")]
    pub inventory: PathBuf,
    /// Takes every destination as an address of the name it is claimed for
    #[arg(long)]
    pub no_binding: bool,
    /// One JSON object per flow line, with the flow log's field names
    #[arg(long)]
    pub json: bool,
    /// Captures, pcap or pcapng
    #[arg(required = true, value_name = "CAPTURE")]
    pub captures: Vec<PathBuf>,
}

/// Arguments of `postern lint`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).multiple(false))]
pub struct LintArgs {
    /// Whose limits on descriptions apply
    #[arg(long, value_enum, default_value_t = Cloud::File)]
    pub cloud: Cloud,
    /// An inventory to check
    #[arg(long, value_name = "FILE", group = "input")]
    pub inventory: Option<PathBuf>,
    /// The daemon's settings to check
    #[arg(long, value_name = "FILE", group = "input")]
    pub config: Option<PathBuf>,
    /// One JSON object per finding
    #[arg(long)]
    pub json: bool,
    /// Annotations to check, as they would stand in a description
    #[arg(value_name = "ANNOTATION", group = "input")]
    pub annotations: Vec<String>,
}

/// Where a description is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cloud {
    /// A security-group rule: 255 characters of a small set.
    Aws,
    /// A VPC firewall rule: 2,048 characters.
    Gcp,
    /// An inventory: no limit.
    File,
}

/// What a connection would speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Spoken {
    /// TLS; port 443 unless written.
    Tls,
    /// SSH; port 22 unless written.
    Ssh,
    /// Plain HTTP; port 80 unless written.
    Http,
}

impl Spoken {
    /// Its name, as in an annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Ssh => "ssh",
            Self::Http => "http",
        }
    }

    /// The port where none is written.
    pub const fn port(self) -> u16 {
        match self {
            Self::Tls => 443,
            Self::Ssh => 22,
            Self::Http => 80,
        }
    }
}

/// Arguments of `postern explain`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).multiple(false))]
pub struct ExplainArgs {
    /// Decides by this inventory
    #[arg(long, value_name = "FILE", group = "source")]
    pub inventory: Option<PathBuf>,
    /// Asks the running daemon
    #[arg(long, group = "source")]
    pub live: bool,
    /// The daemon's settings, for its control socket
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// The client's address
    pub src: IpAddr,
    /// The protocol it would speak
    #[arg(value_enum)]
    pub kind: Spoken,
    /// The name claimed, with a port unless it is 443, 22 or 80
    #[arg(value_name = "NAME[:PORT]")]
    pub name: String,
    /// The address dialled [default: one that is bound to the name]
    pub dst: Option<IpAddr>,
}

/// Arguments of `postern status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The daemon's settings, for its control socket
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `postern flows`.
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// The daemon's settings, for its spool
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Goes on as lines are written
    #[arg(long)]
    pub follow: bool,
    /// Only refused flows
    #[arg(long)]
    pub refused: bool,
    /// The lines as they are, instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `postern learn`.
#[derive(Debug, Args)]
pub struct LearnArgs {
    /// What to write
    #[arg(long, value_enum, default_value_t = LearnFormat::Annotation)]
    pub format: LearnFormat,
    /// Only what this group's see-thru let pass
    #[arg(long)]
    pub gid: Option<String>,
    /// Flow logs, one JSON object per line
    #[arg(required = true, value_name = "FLOWLOG")]
    pub logs: Vec<PathBuf>,
}

/// What `postern learn` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LearnFormat {
    /// One annotation per line, each within AWS's 255 characters.
    Annotation,
    /// Egress rules of a security group.
    Terraform,
    /// `[[group]]` tables.
    Inventory,
}

/// Arguments of `postern review`.
#[derive(Debug, Args)]
pub struct ReviewArgs {
    /// The policy whose unused names to list
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// One JSON object per name
    #[arg(long)]
    pub json: bool,
    /// Flow and end logs, one JSON object per line
    #[arg(required = true, value_name = "FLOWLOG")]
    pub logs: Vec<PathBuf>,
}

/// Arguments of `postern documentation`.
#[derive(Debug, Args)]
pub struct DocumentationArgs {
    /// The folder that gets `man` and `completions`
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
}

/// Arguments of `postern witness`.
#[derive(Debug, Args)]
pub struct WitnessArgs {
    /// May have the DNS front
    #[arg(long)]
    pub listen: bool,
}

/// Arguments of `postern trial`.
#[derive(Debug, Args)]
pub struct TrialArgs {
    /// Whose rights
    #[arg(long = "as", value_enum)]
    pub role: Role,
    /// The daemon's settings
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A file that the daemon has no business with
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
    /// Where the metadata service would be
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metadata: SocketAddr,
}

/// Why a command failed, and with which exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    cause: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// Wrong usage or input: exit code 2.
    pub fn input(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code: 2,
            cause: cause.into(),
        }
    }

    /// The machine does not do what it should: exit code 1.
    pub fn machine(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code: 1,
            cause: cause.into(),
        }
    }
}

/// What a command that ran has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing amiss: exit code 0.
    None,
    /// Something a person should look at: exit code 1.
    Some,
}

/// Runs a command and turns its end into an exit code.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(args) => command::run::run(&args),
        Command::Replay(args) => command::replay::run(&args),
        Command::Lint(args) => command::lint::run(&args),
        Command::Explain(args) => command::explain::run(&args),
        Command::Status(args) => command::status::run(&args),
        Command::Flows(args) => command::flows::run(&args),
        Command::Learn(args) => command::learn::run(&args),
        Command::Review(args) => command::review::run(&args),
        Command::Documentation(args) => command::documentation::run(&args),
        Command::Trial(args) => command::trial::run(&args),
        Command::Witness(args) => crate::witness::run_child(args.listen)
            .map(|()| Finding::None)
            .map_err(Failure::machine),
    };
    match result {
        Ok(Finding::None) => ExitCode::SUCCESS,
        Ok(Finding::Some) => ExitCode::from(1),
        Err(failure) => {
            let line = format!("postern: {}\n", chain(failure.cause.as_ref()));
            // Nobody is left to tell when standard error is gone.
            drop(std::io::stderr().write_all(line.as_bytes()));
            ExitCode::from(failure.code)
        }
    }
}

/// Sends our own log to standard error; `RUST_LOG` chooses how much, `info` by default.
pub fn install_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOGGED));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Whoever answers DNS decides how often the resolver's library warns; our own counters say as much.
const LOGGED: &str = "info,hickory_net=error,hickory_proto=error,hickory_resolver=error";

/// An error and its causes, once each, joined by colons.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent wrappers repeat what they wrap.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Prints to standard output; a reader that went away ends the command quietly.
pub(crate) fn print(text: &str) {
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// Our name and version, for whoever connects.
pub const PROGRAM: &str = concat!("postern ", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_an_example() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let after = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                after.contains(&format!("postern {}", command.get_name())),
                "{after}"
            );
        }
    }

    #[test]
    fn chain_says_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading configuration x.toml")]
        struct Outer(#[source] std::num::ParseIntError);
        let cause = "x".parse::<u8>().unwrap_err();
        let said = chain(&Outer(cause));
        assert_eq!(
            said,
            "reading configuration x.toml: invalid digit found in string"
        );
    }
}
