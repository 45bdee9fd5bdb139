//! How many refusals of one client are logged.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::limits::Limits;

/// Seconds without a refusal after which a client starts over.
const FORGET_S: u64 = 60;

#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    second: u64,
    logged: u32,
    suppressed: u64,
}

/// A per-client allowance of log lines for refusals.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    clients: HashMap<IpAddr, Allowance>,
    /// Shared by all clients that find no place.
    rest: Allowance,
    swept_s: u64,
}

impl Allowances {
    /// Whether a refusal of `client` is to be logged, and how many were not since the last.
    pub(crate) fn ask(&mut self, client: IpAddr, now_ms: u64, limits: &Limits) -> Option<u64> {
        let second = now_ms / 1_000;
        let full = self.clients.len() >= limits.refusal_clients;
        if full && self.swept_s != second {
            self.swept_s = second;
            self.clients
                .retain(|_, a| second.saturating_sub(a.second) < FORGET_S);
        }
        let full = self.clients.len() >= limits.refusal_clients;
        let allowance = if full && !self.clients.contains_key(&client) {
            &mut self.rest
        } else {
            self.clients.entry(client).or_default()
        };
        if allowance.second != second {
            allowance.second = second;
            allowance.logged = 0;
        }
        if allowance.logged >= limits.refusals_logged_per_s {
            allowance.suppressed = allowance.suppressed.saturating_add(1);
            return None;
        }
        allowance.logged = allowance.logged.saturating_add(1);
        Some(std::mem::take(&mut allowance.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_beyond_the_bound_share_one_allowance_until_others_are_silent() {
        let limits = Limits {
            refusal_clients: 2,
            ..Limits::default()
        };
        let mut allowances = Allowances::default();
        let client = |last| IpAddr::from([10, 0, 0, last]);
        let mut logged = |last, now_ms| {
            let refusals =
                (0..20).filter(|_| allowances.ask(client(last), now_ms, &limits).is_some());
            (refusals.count(), allowances.clients.len())
        };
        assert_eq!((logged(1, 1_000), logged(2, 1_000)), ((10, 1), (10, 2)));
        assert_eq!((logged(3, 1_000), logged(4, 1_000)), ((10, 2), (0, 2)));
        assert_eq!(logged(4, 90_000), (10, 1));
    }

    #[test]
    fn a_burst_is_cut_and_the_next_line_says_by_how_much() {
        let limits = Limits::default();
        let mut allowances = Allowances::default();
        let client = IpAddr::from([10, 0, 0, 1]);
        let logged = (0..100)
            .filter(|_| allowances.ask(client, 7_000, &limits).is_some())
            .count();
        assert_eq!(logged, 10);
        assert_eq!(allowances.ask(client, 8_000, &limits), Some(90));
        assert_eq!(
            allowances.ask(IpAddr::from([10, 0, 0, 2]), 7_500, &limits),
            Some(0)
        );
    }
}
