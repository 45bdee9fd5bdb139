//! The boot tier's host side: Debian's stock cloud kernel, an initramfs with our own programs, qemu.
//!
//! The kernels of build machines often lack the native nft `queue` statement and the flowtable, so the data
//! plane as it ships is proved by booting the kernel it ships on: this machine's Debian's, or with `POSTERN_BOOT_KERNEL`
//! another that is unpacked in a folder (the image tier gives its own). Nothing here needs KVM or a disk image; with
//! the packages present nothing needs root. A boot ends in one [`Report`], read from the guest's second serial
//! port.

mod initramfs;
mod kernel;
mod prerequisites;
mod qemu;
pub mod report;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use qemu::CPU;
pub use report::Report;

/// What goes into a guest besides the kernel and Debian's tools.
#[derive(Debug, Clone)]
pub struct Programs<'a> {
    /// The guest driver, which becomes `/bin/boot-guest` and runs as the only job of `/init`.
    pub guest: &'a Path,
    /// The daemon under test, which becomes `/bin/postern`.
    pub postern: &'a Path,
}

/// How long the guest may take, power-on to power-off: most of a minute where nobody else wants the processors.
const GUEST_LIMIT: Duration = Duration::from_secs(600);

/// Boots once and returns what the guest reported.
///
/// `work` receives the kernel (kept between runs, by version), the initramfs, the console log and the result
/// lines; it belongs under the target directory. Fails with the command that repairs the matter when a
/// prerequisite is missing, and with the end of the console log when the guest does not finish.
pub fn boot(work: &Path, programs: &Programs<'_>) -> Result<Report> {
    std::fs::create_dir_all(work).with_context(|| format!("creating {}", work.display()))?;
    prerequisites::ensure()?;
    let started = Instant::now();
    let kernel = kernel::choose(work)?;
    let image = initramfs::build(work, &kernel, programs)?;
    let built = started.elapsed();
    let mut report = qemu::run(work, &kernel, &image, GUEST_LIMIT)?;
    report.host.build_ms = millis(built);
    report.host.boot_ms = millis(started.elapsed().saturating_sub(built));
    Ok(report)
}

/// Where the tier keeps its files: `boot/` in the target directory that holds `program`.
pub fn work_dir(program: &Path) -> PathBuf {
    // target/<profile>/<program>
    let target = program.parent().and_then(Path::parent);
    target.map_or_else(
        || PathBuf::from("target/boot"),
        |target| target.join("boot"),
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
