//! The project's budget of reads: tokens a minute, at a cost that differs between methods.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Tokens a minute and project (<https://cloud.google.com/compute/api-quota>: 1,500 a minute).
const PER_MINUTE: u32 = 1_500;

/// What a method costs (<https://cloud.google.com/compute/docs/api/compute-api-quota-metrics>).
fn cost(method: &str) -> u32 {
    if method.ends_with(".aggregatedList") {
        2
    } else {
        1
    }
}

/// What each project has spent in the present minute, and in all.
#[derive(Debug, Default)]
pub(super) struct Quota {
    minutes: HashMap<String, (Option<Instant>, u32)>,
    spent: HashMap<String, u32>,
}

impl Quota {
    /// Takes the cost of a call; says whether there was enough left.
    pub(super) fn take(&mut self, project: &str, method: &str) -> bool {
        let (since, used) = self.minutes.entry(project.to_owned()).or_default();
        if since.is_none_or(|since| since.elapsed() > Duration::from_secs(60)) {
            (*since, *used) = (Some(Instant::now()), 0);
        }
        *used += cost(method);
        *self.spent.entry(project.to_owned()).or_default() += cost(method);
        *used <= PER_MINUTE
    }

    /// Everything a project has spent.
    pub(super) fn spent(&self, project: &str) -> u32 {
        self.spent.get(project).copied().unwrap_or_default()
    }
}
