//! One run for every test, however many processes the runner spreads them over.

use std::fs::{self, File};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use e2e::image::{Report, build};
use nix::fcntl::{Flock, FlockArg};

/// The report of this run; the first test to ask makes it, the others wait for it and read.
#[expect(
    clippy::panic,
    reason = "without a run every test fails, each with the whole reason"
)]
pub(crate) fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| match once() {
        Ok(report) => report,
        Err(error) => panic!("no run: {error:#}"),
    })
}

fn once() -> Result<Report> {
    // nextest runs each test in a process of its own and names the run; elsewhere the process names it.
    let run =
        std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("pid-{}", std::process::id()));
    let folder = build::folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let kept = folder.join("run.json");
    if let Some((of, outcome)) = read(&kept)
        && of == run
    {
        return outcome.map_err(|error| anyhow!(error));
    }
    let outcome = crate::scenario::run();
    let told = outcome.as_ref().map_err(|error| format!("{error:#}"));
    fs::write(&kept, serde_json::to_string_pretty(&(run, told))?)?;
    outcome
}

fn read(kept: &Path) -> Option<(String, Result<Report, String>)> {
    serde_json::from_str(&fs::read_to_string(kept).ok()?).ok()
}
