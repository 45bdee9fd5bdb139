//! The flow log of a running Postern, read from its spool, and assertions by field.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::wait;

/// One line of a log.
#[derive(Debug, Clone)]
pub struct Line(pub Value);

impl Line {
    /// A field as text; numbers in decimal, absent ones empty.
    pub fn text(&self, field: &str) -> String {
        match self.0.get(field) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// Whether every given field has that text.
    pub fn is(&self, fields: &[(&str, &str)]) -> bool {
        fields
            .iter()
            .all(|(field, value)| self.text(field) == *value)
    }
}

/// The log folders of one Postern: `flow`, `end`, `dns`, `config` under one spool.
#[derive(Debug, Clone)]
pub struct Logs {
    spool: PathBuf,
}

impl Logs {
    /// Reads under this spool folder.
    pub fn new(spool: &Path) -> Self {
        Self {
            spool: spool.to_owned(),
        }
    }

    /// Every complete line of one log so far, oldest first.
    pub fn lines(&self, log: &str) -> Vec<Line> {
        let Ok(entries) = std::fs::read_dir(self.spool.join(log)) else {
            return Vec::new();
        };
        let mut segments: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        segments.sort();
        let text: String = segments
            .iter()
            .filter_map(|segment| std::fs::read_to_string(segment).ok())
            .collect();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok().map(Line))
            .collect()
    }

    /// The flow lines whose fields have these texts.
    pub fn matching(&self, fields: &[(&str, &str)]) -> Vec<Line> {
        self.lines("flow")
            .into_iter()
            .filter(|line| line.is(fields))
            .collect()
    }

    /// Waits for a flow line with these fields; an error shows every line there is.
    pub fn expect(&self, fields: &[(&str, &str)]) -> Result<Line> {
        self.expect_in("flow", fields)
    }

    /// Waits for a line of one log with these fields.
    pub fn expect_in(&self, log: &str, fields: &[(&str, &str)]) -> Result<Line> {
        let found = || self.lines(log).into_iter().find(|line| line.is(fields));
        if let Some(line) = wait::until(Duration::from_secs(5), found) {
            return Ok(line);
        }
        let lines: Vec<String> = self
            .lines(log)
            .iter()
            .map(|line| format!("  {}", line.0))
            .collect();
        bail!(
            "no {log} line with {fields:?} among {}:\n{}",
            lines.len(),
            lines.join("\n")
        )
    }

    /// Waits for the refusal of this destination; its reason.
    pub fn reason(&self, dst: &str, src: &str) -> Result<String> {
        let line = self
            .expect(&[("outcome", "disallowed"), ("dst", dst), ("src", src)])
            .context("waiting for a refusal in the log")?;
        Ok(line.text("reason"))
    }
}
