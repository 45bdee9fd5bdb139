//! The Debian packages the boot tier needs, installed when we are root and named when we are not.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// A file that proves a package is there, and the package.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/bin/busybox", "busybox-static"),
    ("/usr/bin/cpio", "cpio"),
    ("/usr/bin/zstd", "zstd"),
    ("/usr/sbin/depmod", "kmod"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/dpkg-deb", "dpkg"),
];

/// Makes sure every prerequisite is installed.
pub(super) fn ensure() -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the boot tier runs Debian's amd64 cloud kernel with programs of this machine: it needs an x86-64 host"
    );
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(proof, _)| !Path::new(proof).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!(
        "apt-get install --no-install-recommends {}",
        missing.join(" ")
    );
    if !nix::unistd::geteuid().is_root() {
        bail!("the boot tier needs packages that are not installed; as root: {line}");
    }
    // The lists of a fresh image may be absent or stale: refresh them only when the first try fails.
    if install(&missing).is_err() {
        apt_update()?;
        install(&missing).with_context(|| format!("could not install prerequisites: {line}"))?;
    }
    Ok(())
}

/// Refreshes apt's package lists.
pub(super) fn apt_update() -> Result<()> {
    run(Command::new("apt-get").args(["-q", "-o", "DPkg::Lock::Timeout=120", "update"]))
}

fn install(packages: &[&str]) -> Result<()> {
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args([
            "-q",
            "-y",
            "-o",
            "DPkg::Lock::Timeout=120",
            "install",
            "--no-install-recommends",
        ])
        .args(packages))
}

/// Runs a command to its end; the error holds what it printed.
pub(super) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// As [`run`], returning standard output.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let name = format!("{command:?}");
    let out = command
        .output()
        .with_context(|| format!("running {name}"))?;
    ensure!(
        out.status.success(),
        "{name}: {}: {}{}",
        out.status,
        String::from_utf8_lossy(&out.stderr).trim(),
        String::from_utf8_lossy(&out.stdout).trim(),
    );
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
