//! Building our programs with the cargo that runs us, so that nothing is ever judged with yesterday's.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Builds `postern` beside this program. What cargo says goes to standard error.
pub fn daemon() -> Result<()> {
    build("firewall")
}

/// Builds `postern-cloudsync` beside this program; the first time that takes minutes.
pub fn sidecar() -> Result<()> {
    build("cloudsync")
}

/// Builds packages for release beside the folder of this program's profile.
pub fn release(packages: &[&str]) -> Result<()> {
    cargo(packages, true)
}

fn build(package: &str) -> Result<()> {
    cargo(&[package], !cfg!(debug_assertions))
}

fn cargo(packages: &[&str], release: bool) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if release {
        command.arg("--release");
    }
    let status = command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("running cargo build")?;
    if !status.success() {
        bail!(
            "cargo build --package {}: {status}",
            packages.join(" --package ")
        );
    }
    Ok(())
}
