//! How many SYNs of one client may miss at the address gate in a second.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::limits::Limits;

/// What each client has had of the second.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    second: u64,
    clients: HashMap<IpAddr, u32>,
}

impl Misses {
    /// Counts one more miss of a client; false when it has had its share.
    pub(crate) fn take(&mut self, client: IpAddr, now_ms: u64, limits: &Limits) -> bool {
        let second = now_ms / 1_000;
        if self.second != second {
            self.second = second;
            self.clients.clear();
        }
        let full = self.clients.len() >= limits.refusal_clients;
        if full && !self.clients.contains_key(&client) {
            return false;
        }
        let had = self.clients.entry(client).or_default();
        let may = *had < limits.misses_per_client_s;
        *had = had.saturating_add(u32::from(may));
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_cut_and_another_client_has_its_own_share() {
        let limits = Limits::default();
        let mut misses = Misses::default();
        let client = |last| IpAddr::from([10, 0, 0, last]);
        let mut taken = |last, now_ms| {
            let of_scan = (0..100).filter(|_| misses.take(client(last), now_ms, &limits));
            of_scan.count()
        };
        assert_eq!((taken(1, 7_000), taken(2, 7_500)), (32, 32));
        assert_eq!((taken(1, 7_999), taken(1, 8_000)), (0, 32));
    }
}
