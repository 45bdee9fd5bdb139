//! `cargo suite`: the test tiers, each with its own set-up, a line per step.

mod step;
pub mod tiers;

pub use step::{Outcome, Runner};

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The repository's root.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The cargo that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(ROOT);
    command
}

/// Where cargo builds: the folder two above this program.
pub fn target_dir() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding this program")?;
    me.ancestors()
        .nth(2)
        .map(PathBuf::from)
        .context("the target folder")
}

/// cargo-nextest: the installed one, else one built under the target folder.
pub fn nextest() -> Result<PathBuf> {
    if let Some(found) = crate::prerequisites::find("cargo-nextest") {
        return Ok(found);
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let tools = target_dir()?.join("tools");
    let candidates = home
        .into_iter()
        .chain([tools.clone()])
        .map(|root| root.join("bin/cargo-nextest"));
    if let Some(found) = candidates.into_iter().find(|path| path.is_file()) {
        return Ok(found);
    }
    let status = cargo()
        .args(["install", "--quiet", "--locked", "cargo-nextest", "--root"])
        .arg(&tools)
        .stdout(std::io::stderr())
        .status()
        .context("running cargo install")?;
    if !status.success() {
        bail!("cargo install --locked cargo-nextest: {status}");
    }
    Ok(tools.join("bin/cargo-nextest"))
}
