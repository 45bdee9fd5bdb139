//! One boot for every test of a run, however many processes the runner spreads them over.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::boot::{Programs, Report, boot, work_dir};
use nix::fcntl::{Flock, FlockArg};

/// The report of this run's boot; the first test to ask boots, the others wait for it and read.
#[expect(
    clippy::panic,
    reason = "without a boot every test fails, each with the whole reason"
)]
pub(crate) fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| match once(Path::new(env!("CARGO_BIN_EXE_boot-guest"))) {
        Ok(report) => report,
        Err(error) => panic!("no boot: {error:#}"),
    })
}

/// Boots unless another process of this run has, and returns what that boot gave.
fn once(guest: &Path) -> Result<Report> {
    // nextest runs each test in a process of its own and names the run; elsewhere all tests of a run are threads
    // of this process, and the process names it. A result never outlives its run.
    let run =
        std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("pid-{}", std::process::id()));
    let mut work = work_dir(guest);
    if std::env::var_os("POSTERN_BOOT_KERNEL").is_some() {
        work.push("given");
    }
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let lock = File::create(work.join("lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let kept = work.join("run.json");
    if let Some((of, outcome)) = read(&kept)
        && of == run
    {
        return outcome.map_err(|error| anyhow!(error));
    }
    let outcome = postern(guest).and_then(|postern| {
        boot(
            &work,
            &Programs {
                guest,
                postern: &postern,
            },
        )
    });
    let told = outcome.as_ref().map_err(|error| format!("{error:#}"));
    fs::write(&kept, serde_json::to_string_pretty(&(run, told))?)?;
    outcome
}

fn read(kept: &Path) -> Option<(String, Result<Report, String>)> {
    serde_json::from_str(&fs::read_to_string(kept).ok()?).ok()
}

/// The daemon: `POSTERN_BIN`, or built into the same folder as the guest driver.
fn postern(guest: &Path) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("POSTERN_BIN") {
        return Ok(path.into());
    }
    let profile = guest.parent().context("the guest driver's folder")?;
    let target = profile.parent().context("the target folder")?;
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "build",
        "--quiet",
        "--package",
        "firewall",
        "--bin",
        "postern",
    ]);
    build
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("--target-dir")
        .arg(target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let status = build.status().context("running cargo")?;
    ensure!(status.success(), "building the daemon: {build:?}: {status}");
    Ok(profile.join("postern"))
}
