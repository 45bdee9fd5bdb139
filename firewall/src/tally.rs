//! Totals since the start, for status, health and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use inspect::{Counters, Outcome};
use policy::Reason;

use crate::nfqueue::Drops;

/// Totals that every thread adds to.
#[derive(Debug)]
pub struct Tally {
    undecided: AtomicU64,
    allowed: AtomicU64,
    refused: Vec<AtomicU64>,
    queue_overruns: AtomicU64,
    queue_drops: AtomicU64,
    flows_forgotten: AtomicU64,
    conntrack_overruns: AtomicU64,
    engine: EngineTotals,
}

/// Sums of [`Counters`] over all queues.
#[derive(Debug, Default)]
struct EngineTotals {
    packets: AtomicU64,
    dns_budget: AtomicU64,
    dns_unsettled: AtomicU64,
    dns_negative: AtomicU64,
    dns_mismatch: AtomicU64,
    gate_hits: AtomicU64,
    familiar: AtomicU64,
    gate_misses: AtomicU64,
    client_pending: AtomicU64,
    rescued: AtomicU64,
    suppressed: AtomicU64,
    judged: AtomicU64,
    asymmetric: AtomicU64,
    dropped: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            undecided: AtomicU64::new(0),
            allowed: AtomicU64::new(0),
            refused: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            queue_overruns: AtomicU64::new(0),
            queue_drops: AtomicU64::new(0),
            flows_forgotten: AtomicU64::new(0),
            conntrack_overruns: AtomicU64::new(0),
            engine: EngineTotals::default(),
        }
    }
}

impl Tally {
    /// Counts one decision.
    pub fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Allowed => add(&self.allowed, 1),
            Outcome::Disallowed(reason) => {
                let position = Reason::ALL.iter().position(|known| known == reason);
                if let Some(counter) = position.and_then(|index| self.refused.get(index)) {
                    add(counter, 1);
                }
            }
        }
    }

    /// Notes how many packets found a queue or its socket full since the queues were bound, as the kernel counts them.
    pub fn note_queue_drops(&self, total: Drops) {
        self.queue_drops.fetch_max(total.queue, Ordering::Relaxed);
        self.queue_overruns
            .fetch_max(total.socket, Ordering::Relaxed);
    }

    /// Counts allowed flows whose end will not be logged.
    pub fn count_flows_forgotten(&self, flows: u64) {
        add(&self.flows_forgotten, flows);
    }

    /// How many that are.
    pub fn flows_forgotten(&self) -> u64 {
        self.flows_forgotten.load(Ordering::Relaxed)
    }

    /// Counts that conntrack events were lost.
    pub fn count_conntrack_overrun(&self) {
        add(&self.conntrack_overruns, 1);
    }

    /// Adds what one inspector counted between two looks at it.
    pub fn add(&self, before: &Counters, after: &Counters) {
        let engine = &self.engine;
        for (total, before, after) in [
            (&engine.packets, before.packets, after.packets),
            (&engine.dns_budget, before.dns_budget, after.dns_budget),
            (
                &engine.dns_unsettled,
                before.dns_unsettled,
                after.dns_unsettled,
            ),
            (
                &engine.dns_negative,
                before.dns_negative,
                after.dns_negative,
            ),
            (
                &engine.dns_mismatch,
                before.dns_mismatch,
                after.dns_mismatch,
            ),
            (&engine.gate_hits, before.gate_hits, after.gate_hits),
            (&engine.familiar, before.familiar, after.familiar),
            (&engine.gate_misses, before.gate_misses, after.gate_misses),
            (
                &engine.client_pending,
                before.client_pending,
                after.client_pending,
            ),
            (&engine.rescued, before.rescued, after.rescued),
            (&engine.suppressed, before.suppressed, after.suppressed),
            (&engine.judged, before.judged, after.judged),
            (&engine.asymmetric, before.asymmetric, after.asymmetric),
            (&engine.dropped, before.dropped, after.dropped),
        ] {
            add(total, after.wrapping_sub(before));
        }
    }

    /// Decisions to allow, client and server sides both.
    pub fn allowed(&self) -> u64 {
        self.allowed.load(Ordering::Relaxed)
    }

    /// Flows being judged now, all queues together.
    pub fn undecided(&self) -> u64 {
        self.undecided.load(Ordering::Relaxed)
    }

    /// Notes that a queue's inspector holds `after` undecided flows, and held `before`.
    pub fn note_undecided(&self, before: u64, after: u64) {
        self.undecided
            .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Decisions to refuse, by reason; reasons that never occurred are left out.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        let counts = self
            .refused
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed));
        let named = Reason::ALL
            .iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0);
        named
            .map(|(reason, count)| (reason.as_str().to_owned(), count))
            .collect()
    }

    /// Every plain total by its metric name.
    pub fn totals(&self) -> [(&'static str, u64); 19] {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let engine = &self.engine;
        [
            ("allowed", of(&self.allowed)),
            ("packets", of(&engine.packets)),
            ("dropped", of(&engine.dropped)),
            ("judged", of(&engine.judged)),
            ("asymmetric", of(&engine.asymmetric)),
            ("rescued", of(&engine.rescued)),
            ("suppressed", of(&engine.suppressed)),
            ("gate_hits", of(&engine.gate_hits)),
            ("familiar", of(&engine.familiar)),
            ("gate_misses", of(&engine.gate_misses)),
            ("dns_budget", of(&engine.dns_budget)),
            ("dns_unsettled", of(&engine.dns_unsettled)),
            ("dns_negative", of(&engine.dns_negative)),
            ("dns_mismatch", of(&engine.dns_mismatch)),
            ("client_pending", of(&engine.client_pending)),
            ("queue_overruns", of(&self.queue_overruns)),
            ("queue_drops", of(&self.queue_drops)),
            ("flows_forgotten", of(&self.flows_forgotten)),
            ("conntrack_overruns", of(&self.conntrack_overruns)),
        ]
    }
}

fn add(counter: &AtomicU64, number: u64) {
    if number > 0 {
        counter.fetch_add(number, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason() {
        let tally = Tally::default();
        tally.count(&Outcome::Disallowed(Reason::Ech));
        tally.count(&Outcome::Disallowed(Reason::Ech));
        tally.count(&Outcome::Allowed);
        assert_eq!(tally.refused(), BTreeMap::from([("ech".to_owned(), 2)]));
        assert_eq!(tally.allowed(), 1);
    }
}
