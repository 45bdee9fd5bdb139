//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::{configure, documentation, gcp, once, preflight, run};

/// Reads policy from security groups or firewall rules, publishes it to postern, ships its logs.
#[derive(Debug, Parser)]
#[command(
    name = "postern-cloudsync",
    version,
    after_help = "Example: postern-cloudsync once --provider aws --dry-run"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the daemon's policy current and ship its logs, until stopped.
    #[command(after_help = "Example: postern-cloudsync run --config /etc/postern/cloudsync.toml")]
    Run {
        /// The configuration; /etc/postern/cloudsync.toml if it is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Read the policy once, print it with its faults, and publish it unless told not to.
    ///
    /// Exits 0 when all is well, 1 when there are faults, 2 when it cannot be read.
    #[command(
        after_help = "Example: postern-cloudsync once --provider aws --dry-run\n\
        Credentials, region and endpoints come from the SDK's own environment variables,\n\
        such as AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL, or from the configuration."
    )]
    Once(once::Options),
    /// Print the addresses that Google's load balancers forward to this instance, one a line.
    ///
    /// The guest has to take them for its own: health checks ask there. Fails where no metadata
    /// server of Google's answers, so that silence is not taken for "none".
    #[command(after_help = "Example: postern-cloudsync forwarded")]
    Forwarded,
    /// Look for what would keep this deployment from working: permissions, end points, clock, public
    /// address, routes, unreadable groups, rules that shut out what their annotation opens.
    ///
    /// One line and one fix each. Exits 0 when all is well, 1 when something is not, 2 when it cannot look.
    #[command(after_help = "Example: sudo -u postern-sync postern-cloudsync preflight --json")]
    Preflight(preflight::Options),
    /// Write configuration files from the instance's user data, at boot.
    ///
    /// Finds out which cloud this is, waits for its metadata service, and checks everything before it writes.
    #[command(after_help = "Example: postern-cloudsync configure --out /run/postern-configure")]
    Configure(configure::Options),
    /// Write manual pages and shell completions.
    #[command(hide = true)]
    Documentation(documentation::Options),
}

/// Runs what was asked for.
///
/// # Errors
///
/// When it cannot be done; a finding is no error but an exit code.
pub(crate) async fn dispatch(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Run { config } => {
            run::run(Config::load(config.as_deref())?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Once(options) => once::once(options).await,
        Command::Forwarded => {
            let Some(addresses) = gcp::forwarded().await else {
                anyhow::bail!("the metadata server does not answer");
            };
            let mut out = std::io::stdout().lock();
            for address in addresses {
                writeln!(out, "{address}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Preflight(options) => preflight::preflight(options).await,
        Command::Configure(options) => {
            configure::configure(&options)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Documentation(options) => {
            documentation::documentation(&options)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
