//! Steps: run a command, keep what it said, print one line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

/// Tests or checks that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
}

impl Outcome {
    const PASSED: Self = Self {
        passed: 1,
        failed: 0,
    };
    const FAILED: Self = Self {
        passed: 0,
        failed: 1,
    };

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs steps and counts.
#[derive(Debug)]
pub struct Runner {
    logs: PathBuf,
    total: Outcome,
}

impl Runner {
    /// Keeps what steps say under `logs`.
    pub fn new(logs: &Path) -> Result<Self> {
        std::fs::create_dir_all(logs).with_context(|| format!("making {}", logs.display()))?;
        Ok(Self {
            logs: logs.to_owned(),
            total: Outcome::default(),
        })
    }

    /// What all steps so far add up to.
    pub fn total(&self) -> Outcome {
        self.total
    }

    /// Runs a command as a step that passes or fails as a whole, or test by test if it is nextest.
    pub fn command(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let log = self.logs.join(format!(
            "{}.log",
            name.replace(": ", "-").replace([' ', '/'], "-")
        ));
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        announce(name)?;
        let started = Instant::now();
        let status = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("sharing a log")?)
            .stderr(file)
            .status();
        let seconds = started.elapsed().as_secs_f64();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let good = status.as_ref().is_ok_and(std::process::ExitStatus::success);
        let outcome = summary(&text).unwrap_or(if good {
            Outcome::PASSED
        } else {
            Outcome::FAILED
        });
        // A build that fails after a summary was printed has no test to blame.
        let outcome = if !good && outcome.failed == 0 {
            Outcome::FAILED
        } else {
            outcome
        };
        self.total.add(outcome);
        let verdict = if good { "ok" } else { "FAILED" };
        say(&format!(
            "{verdict:<7}{seconds:>7.1} s  {} passed, {} failed\n",
            outcome.passed, outcome.failed
        ))?;
        if let Err(error) = status {
            say(&format!("    {error}\n"))?;
        } else if !good {
            say(&tail(&text, &log))?;
        }
        Ok(())
    }

    /// Runs a check as a step that passes or fails as a whole.
    pub fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.prepare(name, work)? {
            self.total.add(Outcome::PASSED);
        }
        Ok(())
    }

    /// Runs set-up as a step. It is no test: it is counted only when it fails.
    pub fn prepare(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<bool> {
        announce(name)?;
        let started = Instant::now();
        let result = work();
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => say(&format!("{:<7}{seconds:>7.1} s\n", "ok"))?,
            Err(ref error) => {
                self.total.add(Outcome::FAILED);
                say(&format!("{:<7}{seconds:>7.1} s\n    {error:#}\n", "FAILED"))?;
            }
        }
        Ok(result.is_ok())
    }
}

fn announce(name: &str) -> Result<()> {
    say(&format!("{name:<44}"))
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("writing to standard output")
}

/// The last lines of a failed step, and where the rest is.
fn tail(text: &str, log: &Path) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines
        .get(lines.len().saturating_sub(TAIL)..)
        .unwrap_or_default();
    let mut out: String = shown.iter().map(|line| format!("    {line}\n")).collect();
    out.push_str(&format!("    (all of it: {})\n", log.display()));
    out
}

/// Reads nextest's last summary: `Summary [ 1.520s] 3 tests run: 2 passed (1 slow), 1 failed, 0 skipped`.
fn summary(text: &str) -> Option<Outcome> {
    let line = text
        .lines()
        .rfind(|line| line.trim_start().starts_with("Summary ["))?;
    let (_, counts) = line.split_once("run:")?;
    let mut outcome = Outcome::default();
    for part in counts.split(',') {
        let mut words = part.split_whitespace();
        let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<usize>), words.next())
        else {
            continue;
        };
        match what {
            "passed" => outcome.passed += count,
            "skipped" => {}
            // failed, timed out, exec failed
            _ => outcome.failed += count,
        }
    }
    Some(outcome)
}

const TAIL: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_every_kind_of_failure() {
        let text = "x\n     Summary [   1.5s] 5 tests run: 2 passed (1 slow), 1 failed, 2 timed out, 7 skipped\nerror";
        assert_eq!(
            summary(text),
            Some(Outcome {
                passed: 2,
                failed: 3
            })
        );
        assert_eq!(summary("error: could not compile"), None);
    }
}
