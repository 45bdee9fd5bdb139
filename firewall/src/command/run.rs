//! `postern run`.

use crate::cli::{Failure, Finding, RunArgs};
use crate::config::Config;
use crate::daemon::{self, DaemonError};

/// Runs the daemon until it is told to stop.
pub(crate) fn run(args: &RunArgs) -> Result<Finding, Failure> {
    let mut config = Config::load(args.config.as_deref()).map_err(Failure::input)?;
    if let Some(inventory) = &args.inventory {
        config.inventory = Some(inventory.clone());
    }
    config.log_stdout |= args.log_stdout;
    match daemon::run(config) {
        Ok(()) => Ok(Finding::None),
        Err(error @ DaemonError::Inventory(_)) => Err(Failure::input(error)),
        Err(error) => Err(Failure::machine(error)),
    }
}
