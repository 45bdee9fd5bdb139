//! Instructions and allocations of the packet path, counted under callgrind.
//!
//! What the C library executes is left out: which copy loop it picks depends on the processor. The rest is the same
//! on every machine of an architecture as long as the compiler is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::lab::build;

/// What one thousand repetitions took, divided by a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Instructions outside the C library.
    pub instructions: u64,
    /// Calls of `malloc`, `calloc` and `realloc`.
    pub allocations: u64,
}

/// Repetitions of one run; `FLOWS` of `firewall/inspect/benches/counted.rs`.
const REPETITIONS: u64 = 1_000;

/// The program whose instructions are counted, built as the release is.
#[derive(Debug)]
pub struct Counted {
    program: PathBuf,
}

impl Counted {
    /// Builds it.
    pub fn build() -> Result<Self> {
        let program = build::bench("inspect", "counted")?;
        Ok(Self { program })
    }

    /// Runs one of its parts under callgrind.
    pub fn run(&self, name: &str) -> Result<Count> {
        let folder = tempfile::tempdir().context("making a folder")?;
        let file = folder.path().join("callgrind.out");
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--toggle-collect=counted::measured*"])
            .args(["--compress-strings=no", "--compress-pos=no"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(&self.program)
            .arg(name)
            .stdin(Stdio::null())
            .output()
            .context("running valgrind; apt-get install valgrind brings it")?;
        if !output.status.success() {
            bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let profile = std::fs::read_to_string(&file).context("reading callgrind's file")?;
        let total = sum(&profile, &self.program);
        if total.instructions == 0 {
            bail!("{name}: nothing was counted; is the function `measured` still there?");
        }
        Ok(Count {
            instructions: total.instructions / REPETITIONS,
            allocations: total.allocations / REPETITIONS,
        })
    }
}

/// Adds up a profile: costs of lines in `program` itself, and calls from there to the allocator.
fn sum(profile: &str, program: &Path) -> Count {
    let mut total = Count::default();
    let is_ours = |object: &str| Path::new(object) == program;
    let (mut ours, mut allocates, mut is_call) = (false, false, false);
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            ours = is_ours(object);
        } else if let Some(callee) = line.strip_prefix("cfn=") {
            allocates = ["malloc", "calloc", "realloc"].contains(&callee);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let number = calls.split(' ').next().and_then(|n| n.parse::<u64>().ok());
            if ours && allocates {
                total.allocations += number.unwrap_or_default();
            }
            // The next line is the cost of what was called, which is counted where it is spent.
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let cost = line.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
            if ours && !is_call {
                total.instructions += cost.unwrap_or_default();
            }
            is_call = false;
        }
    }
    total
}

/// What is expected, as it is kept in the clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// `rustc --version` of the machine that counted.
    pub rustc: String,
    /// Its architecture.
    pub architecture: String,
    /// By name.
    pub counts: BTreeMap<String, Count>,
}

/// `rustc --version` of the compiler that cargo uses here.
pub fn rustc() -> Result<String> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(program)
        .arg("--version")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .context("running rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callees_and_the_c_library_are_counted_once_and_never() {
        let profile = "events: Ir\nob=/t/counted-1\nfl=???\nfn=a\n0 10\ncob=/lib/libc.so.6\ncfi=???\ncfn=malloc\n\
                       calls=3 0\n0 900\n0 5\ncfn=b\ncalls=1 0\n0 70\n\nob=/lib/libc.so.6\nfn=malloc\n0 900\n\n\
                       ob=/t/counted-1\nfn=b\n0 70\n";
        let total = sum(profile, Path::new("/t/counted-1"));
        assert_eq!(
            total,
            Count {
                instructions: 85,
                allocations: 3
            }
        );
    }
}
