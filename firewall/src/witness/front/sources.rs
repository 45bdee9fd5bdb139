//! How often one source may ask. Pure: takes the time.

use std::collections::HashMap;
use std::net::IpAddr;

/// Every source's questions of the last moment.
#[derive(Debug)]
pub(super) struct Sources {
    per_second: u64,
    /// What a source may ask at once, in thousandths.
    full: u64,
    buckets: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Questions left, in thousandths.
    level: u64,
    filled_ms: u64,
}

impl Sources {
    /// Lets each ask so many times a second, and so many at once.
    pub(super) fn new(per_second: u64, at_once: u64) -> Self {
        Self {
            per_second,
            full: at_once.saturating_mul(1_000),
            buckets: HashMap::new(),
        }
    }

    /// Whether a source may ask now.
    pub(super) fn take(&mut self, source: IpAddr, now_ms: u64) -> bool {
        if self.buckets.len() >= SOURCES_MAX && !self.buckets.contains_key(&source) {
            self.sweep(now_ms);
            if self.buckets.len() >= SOURCES_MAX {
                return false;
            }
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket {
            level: self.full,
            filled_ms: now_ms,
        });
        bucket.fill(self.per_second, self.full, now_ms);
        let left = bucket.level.checked_sub(1_000);
        bucket.level = left.unwrap_or(bucket.level);
        left.is_some()
    }

    /// Forgets sources that have everything again.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.buckets.retain(|_, bucket| {
            bucket.fill(self.per_second, self.full, now_ms);
            bucket.level < self.full
        });
    }
}

impl Bucket {
    fn fill(&mut self, per_second: u64, full: u64, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = now_ms;
        let gained = elapsed_ms.saturating_mul(per_second);
        self.level = self.level.saturating_add(gained).min(full);
    }
}

const SOURCES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_asks_too_often_waits_and_others_do_not() {
        let mut sources = Sources::new(200, 400);
        let [loud, quiet] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let asked = (0..1_000).filter(|_| sources.take(loud, 0)).count();
        assert_eq!(asked, 400);
        assert!(sources.take(quiet, 0));
        let asked = (0..1_000).filter(|_| sources.take(loud, 1_000)).count();
        assert_eq!(asked, 200);
        sources.sweep(10_000);
        assert!(sources.buckets.is_empty());
    }
}
