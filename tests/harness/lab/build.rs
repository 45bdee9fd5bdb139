//! Building our programs with the cargo that runs us, so that nothing is ever judged with yesterday's.

use std::path::PathBuf;
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

/// Builds a benchmark as the release is built; where it is.
pub fn bench(package: &str, name: &str) -> Result<PathBuf> {
    let output = program()
        .args(["bench", "--quiet", "--no-run", "--message-format", "json"])
        .args(["--package", package, "--bench", name])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo bench")?;
    if !output.status.success() {
        bail!(
            "cargo bench --package {package} --bench {name}: {}",
            output.status
        );
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message.pointer("/target/name")?.as_str()? == name;
        let path = message.get("executable")?.as_str()?;
        is_it.then(|| PathBuf::from(path))
    });
    found.with_context(|| format!("cargo says of no program {name}"))
}

fn build(package: &str) -> Result<()> {
    cargo(&[package], !cfg!(debug_assertions))
}

fn cargo(packages: &[&str], release: bool) -> Result<()> {
    let mut command = program();
    command.args(["build", "--quiet"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if release {
        command.arg("--release");
    }
    let status = command
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

/// The cargo that runs us, in this clone.
fn program() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}
