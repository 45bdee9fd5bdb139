//! Addresses inside the served ranges that no inventory lists: workloads that have just
//! started, most of the time. They wait, they are reported, and in the end they are refused.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::limits::Limits;

/// What to do with a packet of an unknown client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Drop it silently; the client retransmits.
    Wait {
        /// Tell cloudsync about the address.
        report: bool,
    },
    /// It has tried for long enough, or is known to be nobody.
    Refuse,
}

#[derive(Debug)]
struct Stranger {
    first_ms: u64,
    last_ms: u64,
    reported_ms: Option<u64>,
    refused_until_ms: Option<u64>,
}

/// An address is reported again after this long, should the first report have been lost.
const REPORT_AGAIN_MS: u64 = 5_000;
/// An address silent for this long starts over.
const FORGET_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct UnknownClients {
    strangers: HashMap<IpAddr, Stranger>,
    swept_ms: u64,
    second: u64,
    reports: u32,
}

impl UnknownClients {
    /// Judges one more attempt of `addr`.
    pub(crate) fn attempt(&mut self, addr: IpAddr, now_ms: u64, limits: &Limits) -> Patience {
        self.sweep(now_ms, limits);
        let full = self.strangers.len() >= limits.unknown_clients;
        if full && !self.strangers.contains_key(&addr) {
            return Patience::Wait { report: false };
        }
        let fresh = Stranger {
            first_ms: now_ms,
            last_ms: now_ms,
            reported_ms: None,
            refused_until_ms: None,
        };
        let stranger = self.strangers.entry(addr).or_insert(fresh);
        let silent = now_ms.saturating_sub(stranger.last_ms) >= FORGET_MS;
        let served_time = stranger
            .refused_until_ms
            .is_some_and(|until| until <= now_ms);
        if silent || served_time {
            stranger.first_ms = now_ms;
            stranger.reported_ms = None;
            stranger.refused_until_ms = None;
        }
        stranger.last_ms = now_ms;
        if stranger.refused_until_ms.is_some() {
            return Patience::Refuse;
        }
        if now_ms.saturating_sub(stranger.first_ms) >= limits.unknown_client_ms {
            stranger.refused_until_ms =
                Some(now_ms.saturating_add(limits.unknown_client_refused_ms));
            return Patience::Refuse;
        }
        let due = stranger
            .reported_ms
            .is_none_or(|at| now_ms.saturating_sub(at) >= REPORT_AGAIN_MS);
        let second = now_ms / 1_000;
        if second != self.second {
            self.second = second;
            self.reports = 0;
        }
        let report = due && self.reports < limits.unknown_reports_per_s;
        if report {
            self.reports = self.reports.saturating_add(1);
            stranger.reported_ms = Some(now_ms);
        }
        Patience::Wait { report }
    }

    /// Refuses `addr` from now on: the inventory does not know it.
    pub(crate) fn no_such_client(&mut self, addr: IpAddr, now_ms: u64, limits: &Limits) {
        if let Some(stranger) = self.strangers.get_mut(&addr) {
            stranger.refused_until_ms =
                Some(now_ms.saturating_add(limits.unknown_client_refused_ms));
        }
    }

    /// Drops what has been silent for long, at most once a second and only when it is full.
    fn sweep(&mut self, now_ms: u64, limits: &Limits) {
        let full = self.strangers.len() >= limits.unknown_clients;
        if full && now_ms.saturating_sub(self.swept_ms) >= 1_000 {
            self.swept_ms = now_ms;
            self.strangers
                .retain(|_, s| now_ms.saturating_sub(s.last_ms) < FORGET_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn a_new_client_waits_is_reported_once_and_refused_after_fifteen_seconds() {
        let limits = Limits::default();
        let mut unknown = UnknownClients::default();
        assert_eq!(
            unknown.attempt(addr(1), 100, &limits),
            Patience::Wait { report: true }
        );
        assert_eq!(
            unknown.attempt(addr(1), 1_100, &limits),
            Patience::Wait { report: false }
        );
        assert_eq!(
            unknown.attempt(addr(1), 15_099, &limits),
            Patience::Wait { report: true }
        );
        assert_eq!(unknown.attempt(addr(1), 15_100, &limits), Patience::Refuse);
        assert_eq!(unknown.attempt(addr(1), 45_099, &limits), Patience::Refuse);
        assert_eq!(
            unknown.attempt(addr(1), 45_100, &limits),
            Patience::Wait { report: true }
        );
    }

    #[test]
    fn a_negative_answer_refuses_at_once() {
        let limits = Limits::default();
        let mut unknown = UnknownClients::default();
        unknown.attempt(addr(1), 100, &limits);
        unknown.no_such_client(addr(1), 300, &limits);
        assert_eq!(unknown.attempt(addr(1), 400, &limits), Patience::Refuse);
    }

    #[test]
    fn reports_are_at_most_ten_a_second_and_memory_is_bounded() {
        let limits = Limits {
            unknown_clients: 64,
            ..Limits::default()
        };
        let mut unknown = UnknownClients::default();
        let reports = (0..=255)
            .filter(|n| {
                unknown.attempt(addr(*n), 5_000, &limits) == Patience::Wait { report: true }
            })
            .count();
        assert_eq!(reports, 10);
        assert_eq!(unknown.strangers.len(), 64);
    }
}
