//! Every boot of a run, in order, and what is tried in each.

use anyhow::{Result, ensure};
use e2e::image::claims::{
    BOOT, SOON, enforces, green, health, lockdown_first, native_queue, ready_first, told,
};
use e2e::image::{Report, Stage, build};

mod aws;
mod contents;
mod elsewhere;
mod faults;
mod gcp;
mod judged;

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
