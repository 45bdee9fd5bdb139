//! The programs under test, where cargo put them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// `program` of `package`: what the environment variable `variable` names, or what cargo built beside this program.
///
/// One that is older than a source of it is used all the same, and standard error says so: whoever reads why a test failed
/// reads it there.
pub fn find(variable: &str, program: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let me = std::env::current_exe().context("finding this program")?;
    let mut places = me
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(program));
    let found = places.find(|path| path.is_file()).with_context(|| {
        let near = me.display();
        format!("no {program} near {near}; build it with `cargo build -p {package}`")
    })?;
    if let Some(newer) = newer_source(&found) {
        let newer = newer.display();
        let text =
            format!("{program} is older than {newer}; build it with `cargo build -p {package}`");
        drop(writeln!(std::io::stderr(), "{text}"));
    }
    Ok(found)
}

/// A source that was written after `program`, of those which cargo lists beside it (`program.d`).
fn newer_source(program: &Path) -> Option<PathBuf> {
    let built = modified(program)?;
    let listed = std::fs::read_to_string(program.with_extension("d")).ok()?;
    let (_, sources) = listed.split_once(": ")?;
    sources
        .split_whitespace()
        .map(PathBuf::from)
        .find(|source| modified(source).is_none_or(|written| written > built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}
