//! What one run of the tier found: a word per claim, and figures.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};

/// Whether a claim held, and why not.
pub type Outcome = Result<(), String>;

/// Everything a run found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// By the name of the test that reads it.
    pub outcomes: BTreeMap<String, Outcome>,
    /// Measured, for the README: name and value.
    pub figures: BTreeMap<String, String>,
}

impl Report {
    /// Tries a claim and notes what became of it; the run goes on either way.
    pub fn claim(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<()>) {
        let outcome = work(self).map_err(|error| format!("{error:#}"));
        self.outcomes.insert(name.to_owned(), outcome);
    }

    /// Notes a figure.
    pub fn figure(&mut self, name: &str, value: impl ToString) {
        self.figures.insert(name.to_owned(), value.to_string());
    }

    /// What became of a claim.
    ///
    /// # Errors
    /// When it did not hold, or the run never came to it.
    pub fn check(&self, name: &str) -> Result<()> {
        match self.outcomes.get(name) {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(anyhow!("{why}")),
            None => bail!("the run never came to {name}"),
        }
    }
}
