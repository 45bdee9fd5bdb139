//! Every boot of a run, in order, and what is tried in each.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::image::{Guest, Report, Stage, build};
use e2e::topology::{API, EVIL};
use e2e::wait;

mod aws;
mod contents;
mod elsewhere;
mod faults;
mod gcp;
mod judged;

/// An emulated machine takes its time to boot, more so when the host is busy.
const BOOT: Duration = Duration::from_secs(300);
/// For a policy to arrive, a daemon to come back, a name to be resolved.
const SOON: Duration = Duration::from_secs(180);

/// Boots the image as often as it takes.
///
/// # Errors
/// When the world around the appliance cannot be built; what the appliance does wrong is in the report.
pub(crate) fn run() -> Result<Report> {
    let mut report = Report::default();
    let stage = Stage::new()?;
    build::newer_packages(stage.folder())?;
    let disk = stage.folder().join("aws.qcow2");
    build::overlay(&disk)?;
    if let Err(error) = aws::run(&stage, &disk, &mut report) {
        report.claim("the boots as an EC2 instance", |_| Err(error));
    }
    let disk = stage.folder().join("gcp.qcow2");
    build::overlay(&disk)?;
    if let Err(error) = gcp::run(&stage, &disk, &mut report) {
        report.claim("the boot as a Compute Engine instance", |_| Err(error));
    }
    let disk = stage.folder().join("elsewhere.qcow2");
    build::overlay(&disk)?;
    if let Err(error) = elsewhere::run(&stage, &disk, &mut report) {
        report.claim("the boot in neither cloud", |_| Err(error));
    }
    report.claim(
        "nothing_unlisted_leaves_before_during_or_after_boot",
        |report| {
            report.figure("attempts to reach what is not listed", stage.knocks());
            ensure!(stage.knocks() > 0, "nobody knocked");
            stage.nothing_unlisted_left()
        },
    );
    Ok(report)
}

/// What is allowed passes, what is not does not.
fn enforces(stage: &Stage, guest: &mut Guest) -> Result<()> {
    let served = wait::holds(SOON, || stage.served(API));
    ensure!(served, "an allowed name is not served: {}", told(guest));
    ensure!(!stage.served(EVIL), "a name that is not allowed is served");
    stage.nothing_unlisted_left()
}

/// What the appliance says about itself, for a failure.
fn told(guest: &mut Guest) -> String {
    let commands = "postern status; SYSTEMD_COLORS=0 systemctl --failed --no-pager; journalctl -b --no-pager -n 60 \
                    -u 'postern*' -u systemd-networkd; cat /etc/resolv.conf; ip -br addr; ip route";
    let said = guest.run(&format!("({commands}) || true"));
    said.unwrap_or_else(|error| format!("{error:#}\n{}", guest.tail()))
}
