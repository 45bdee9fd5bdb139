//! `postern trial`: what a part of the daemon can no longer do, tried.

use serde_json::json;

use crate::cli::{Failure, Finding, TrialArgs, print};
use crate::config::Config;
use crate::confine;

/// Makes the attempts; exit code 1 when one succeeds.
pub(crate) fn run(args: &TrialArgs) -> Result<Finding, Failure> {
    let config = Config::load(args.config.as_deref()).map_err(Failure::input)?;
    let attempts = confine::run_trial(args.role, &config, &args.secret, args.metadata)
        .map_err(Failure::machine)?;
    let mut finding = Finding::None;
    for (attempt, result) in attempts {
        let why = result.err().map(|error| error.to_string());
        if why.is_none() {
            finding = Finding::Some;
        }
        let line = json!({"attempt": attempt, "refused": why.is_some(), "why": why});
        print(&format!("{line}\n"));
    }
    Ok(finding)
}
