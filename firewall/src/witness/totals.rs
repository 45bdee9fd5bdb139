//! What the witness thread counts for status and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use ipc::witness::HealthV1;

use super::desk::{CertificateCounts, FrontCounts};

/// Totals since the daemon started, over every process it had as witness, and how many there are
/// now of what is counted now.
#[derive(Debug, Default)]
pub struct DnsTotals {
    asked: AtomicU64,
    answered: AtomicU64,
    over_budget: AtomicU64,
    timed_out: AtomicU64,
    failed: AtomicU64,
    failed_over: AtomicU64,
    dropped: AtomicU64,
    not_global: AtomicU64,
    watched: AtomicU64,
    suspended: AtomicU64,
    learnt: AtomicU64,
    rotating: AtomicU64,
    front: FrontTotals,
    certificates: [AtomicU64; 4],
}

/// What the DNS front did.
#[derive(Debug, Default)]
struct FrontTotals {
    questions: AtomicU64,
    passed: AtomicU64,
    cached: AtomicU64,
    refused: AtomicU64,
    ignored: AtomicU64,
    malformed: AtomicU64,
    limited: AtomicU64,
    over_budget: AtomicU64,
    withheld: AtomicU64,
    unlogged: AtomicU64,
}

impl DnsTotals {
    /// Adds what a process has counted since its last report.
    pub(super) fn add(&self, before: &HealthV1, now: &HealthV1) {
        let count = |total: &AtomicU64, of: fn(&HealthV1) -> u64| {
            total.fetch_add(of(now).saturating_sub(of(before)), Ordering::Relaxed);
        };
        count(&self.asked, |health| health.asked);
        count(&self.answered, |health| health.answered);
        count(&self.over_budget, |health| health.over_budget);
        count(&self.timed_out, |health| health.timed_out);
        count(&self.failed, |health| health.failed);
        count(&self.failed_over, |health| health.failed_over);
        count(&self.dropped, |health| health.addresses_dropped);
        let front = &self.front;
        count(&front.questions, |health| health.front.questions);
        count(&front.cached, |health| health.front.cached);
        count(&front.malformed, |health| health.front.malformed);
        count(&front.limited, |health| health.front.limited);
        count(&front.over_budget, |health| health.front.over_budget);
        self.watched.store(now.watched, Ordering::Relaxed);
        self.suspended.store(now.suspended, Ordering::Relaxed);
    }

    /// Adds what was decided of questions to the front.
    pub(super) fn add_front(&self, counts: &FrontCounts) {
        let front = &self.front;
        for (total, count) in [
            (&front.passed, counts.passed),
            (&front.refused, counts.refused),
            (&front.ignored, counts.ignored),
            (&front.withheld, counts.withheld),
            (&front.unlogged, counts.unlogged),
        ] {
            total.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Adds what came of handshakes.
    pub(super) fn add_certificates(&self, counts: &CertificateCounts) {
        let counts = [
            counts.valid,
            counts.invalid,
            counts.unseen,
            counts.not_asked,
        ];
        for (total, count) in self.certificates.iter().zip(counts) {
            total.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What came of handshakes with servers, to see their certificates: each outcome and how often.
    pub fn certificates(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let outcomes = ["valid", "invalid", "unseen", "not_asked"];
        let totals = self.certificates.iter();
        outcomes
            .into_iter()
            .zip(totals.map(|total| total.load(Ordering::Relaxed)))
    }

    /// Notes how many names are known because of a pattern, and how many rotate.
    pub(super) fn set_names(&self, learnt: usize, rotating: usize) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.learnt.store(number(learnt), Ordering::Relaxed);
        self.rotating.store(number(rotating), Ordering::Relaxed);
    }

    /// Counts addresses of answers that may never be bound.
    pub(super) fn note_not_global(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.not_global.fetch_add(count, Ordering::Relaxed);
    }

    /// What only grows: the metric's name, its meaning in a few words, the number.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.lookups().into_iter().chain(self.front.counters())
    }

    fn lookups(&self) -> [(&'static str, &'static str, u64); 8] {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        [
            ("dns_lookups", "Look-ups and samples begun", of(&self.asked)),
            (
                "dns_lookups_answered",
                "Look-ups answered, that there is no such name included",
                of(&self.answered),
            ),
            (
                "dns_lookups_over_budget",
                "Look-ups not made, the budget was spent",
                of(&self.over_budget),
            ),
            (
                "dns_questions_timed_out",
                "Questions nobody answered in time",
                of(&self.timed_out),
            ),
            (
                "dns_questions_failed",
                "Questions refused, failed or answered unreadably",
                of(&self.failed),
            ),
            (
                "dns_questions_failed_over",
                "Questions another resolver had to answer",
                of(&self.failed_over),
            ),
            (
                "dns_addresses_dropped",
                "Addresses beyond what one answer may bring",
                of(&self.dropped),
            ),
            (
                "dns_addresses_not_global",
                "Addresses in answers that may never be bound",
                of(&self.not_global),
            ),
        ]
    }

    /// What comes and goes, likewise.
    pub fn gauges(&self) -> [(&'static str, &'static str, u64); 4] {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        [
            (
                "dns_names_watched",
                "Names asked about at their time to live",
                of(&self.watched),
            ),
            (
                "dns_names_learnt",
                "Names learnt under patterns",
                of(&self.learnt),
            ),
            (
                "dns_names_rotating",
                "Names whose answers differ from each other",
                of(&self.rotating),
            ),
            (
                "dns_resolvers_suspended",
                "Resolvers asked last, silent lately",
                of(&self.suspended),
            ),
        ]
    }
}

impl FrontTotals {
    /// As [`DnsTotals::counters`].
    fn counters(&self) -> [(&'static str, &'static str, u64); 10] {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        [
            (
                "dns_front_questions",
                "Messages received by the DNS front",
                of(&self.questions),
            ),
            (
                "dns_front_passed",
                "Answers of resolvers that the DNS front passed on",
                of(&self.passed),
            ),
            (
                "dns_front_cached",
                "Of these, given out of memory",
                of(&self.cached),
            ),
            (
                "dns_front_refused",
                "Questions answered by the DNS front itself, nobody was asked",
                of(&self.refused),
            ),
            (
                "dns_front_ignored",
                "Questions of unknown sources, or beyond the names one may learn",
                of(&self.ignored),
            ),
            (
                "dns_front_malformed",
                "Messages to the DNS front that were no question it answers",
                of(&self.malformed),
            ),
            (
                "dns_front_limited",
                "Questions beyond what one source may ask, or that may wait",
                of(&self.limited),
            ),
            (
                "dns_front_over_budget",
                "Questions not passed on, the budget was spent",
                of(&self.over_budget),
            ),
            (
                "dns_front_withheld",
                "Addresses taken out of answers, they may never be bound",
                of(&self.withheld),
            ),
            (
                "dns_front_unlogged",
                "Refused questions without a line, their source made too many",
                of(&self.unlogged),
            ),
        ]
    }
}
