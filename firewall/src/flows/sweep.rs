//! Entries whose time is up are removed when somebody meets them.
//!
//! The kernel's own collector passes by once a minute when there are few entries. A dump would remove them too, and keep
//! a processor from its packets for as long as it takes to pass over every place of the table, occupied or not. So each
//! flow is looked up by itself, a few at a time.

use std::time::{Duration, Instant};

use inspect::PackedKey;

use super::table::{FlowTable, Key};
use crate::conntrack::Tuple;

/// The round of all flows.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Those of this round that are still to be met.
    left: Vec<PackedKey>,
    /// When the next are.
    at: Instant,
    /// When the next round begins.
    round_at: Instant,
}

impl Sweep {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            left: Vec::new(),
            at: now,
            round_at: now,
        }
    }

    /// When there is something to do, with so many flows.
    pub(super) fn due(&self, flows: usize) -> Option<Instant> {
        if !self.left.is_empty() {
            return Some(self.at);
        }
        (1..=FLOWS_MAX).contains(&flows).then_some(self.round_at)
    }

    /// The flows to be met now, if it is time for some.
    pub(super) fn next(&mut self, flows: &FlowTable) -> Vec<Tuple> {
        let now = Instant::now();
        if self.due(flows.len()).is_none_or(|at| at > now) {
            return Vec::new();
        }
        if self.left.is_empty() {
            self.left = flows.keys().cloned().collect();
            self.round_at = now + ROUND_EVERY;
        }
        self.at = now + EVERY;
        let kept = self.left.len().saturating_sub(AT_ONCE);
        let some = self.left.split_off(kept);
        if self.left.is_empty() {
            self.left = Vec::new();
        }
        let some = some.iter().map(Key::unpack);
        let alive = some.filter(|key| flows.contains(key));
        alive.map(|key| key.tuple()).collect()
    }
}

/// Flows looked up together.
const AT_ONCE: usize = 64;
/// How often: 3,200 flows a second, which take a processor six milliseconds.
const EVERY: Duration = Duration::from_millis(20);
/// How often all of them, if there are few enough.
const ROUND_EVERY: Duration = Duration::from_secs(2);
/// With more the kernel's collector comes by often enough.
const FLOWS_MAX: usize = 50_000;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::table::TCP;
    use super::*;

    #[test]
    fn a_round_meets_every_flow_once_and_none_that_is_gone() {
        let key = |port: u16| Key {
            protocol: TCP,
            client: ([10, 0, 0, 1], port).into(),
            server: ([203, 0, 113, 1], 443).into(),
        };
        let mut flows = FlowTable::new(1_000);
        let mut sweep = Sweep::new();
        assert_eq!(sweep.next(&flows), []);
        assert_eq!(sweep.due(0), None);
        for port in 1..=200 {
            assert!(flows.insert_unknown(key(port)));
        }
        let mut met = sweep.next(&flows);
        assert_eq!(met.len(), AT_ONCE);
        assert_eq!(sweep.next(&flows), [], "not at once again");
        let gone = (1..=200)
            .map(key)
            .find(|key| !met.contains(&key.tuple()))
            .unwrap();
        flows.take(&gone, u64::MAX);
        for _ in 0..3 {
            sweep.at = Instant::now();
            met.extend(sweep.next(&flows));
        }
        let all: HashSet<Tuple> = met.iter().copied().collect();
        assert_eq!((met.len(), all.len()), (199, 199));
        assert!(!all.contains(&gone.tuple()));
        assert_eq!(sweep.next(&flows), [], "the round is over");
        assert!(sweep.due(199).is_some_and(|at| at > Instant::now()));
        assert_eq!(sweep.due(FLOWS_MAX + 1), None);
    }
}
