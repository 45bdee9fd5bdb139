//! How many SYNs of one client may miss at the address gate in a second, and whether these look like
//! a scan.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::limits::Limits;

/// What each client has missed lately.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    clients: HashMap<IpAddr, Client>,
    swept_ms: u64,
}

#[derive(Debug, Default)]
struct Client {
    second: u64,
    /// SYNs held in that second.
    held: u32,
    /// The destinations it missed last, each with the time, oldest first; one more than it may
    /// miss without being taken for a scan.
    destinations: VecDeque<(u64, IpAddr)>,
}

impl Misses {
    /// Counts one more miss of a client; false when it has had its share of the second.
    pub(crate) fn take(
        &mut self,
        (client, server): (IpAddr, IpAddr),
        now_ms: u64,
        limits: &Limits,
    ) -> bool {
        if now_ms.saturating_sub(self.swept_ms) >= REMEMBERED_MS {
            self.swept_ms = now_ms;
            self.clients
                .retain(|_, client| client.is_remembered(now_ms));
        }
        let full = self.clients.len() >= limits.refusal_clients;
        if full && !self.clients.contains_key(&client) {
            return false;
        }
        let client = self.clients.entry(client).or_default();
        client.note(server, now_ms, limits.destinations_missed);
        let second = now_ms / 1_000;
        if client.second != second {
            client.second = second;
            client.held = 0;
        }
        let may = client.held < limits.misses_per_client_s;
        client.held = client.held.saturating_add(u32::from(may));
        may
    }

    /// Whether a client has missed more destinations lately than honest ones do.
    pub(crate) fn is_scan(&self, client: IpAddr, now_ms: u64, limits: &Limits) -> bool {
        let Some(client) = self.clients.get(&client) else {
            return false;
        };
        let recent = client
            .destinations
            .iter()
            .filter(|(at_ms, _)| now_ms.saturating_sub(*at_ms) < REMEMBERED_MS);
        recent.count() > limits.destinations_missed
    }
}

impl Client {
    fn note(&mut self, server: IpAddr, now_ms: u64, honest: usize) {
        self.destinations.retain(|(_, known)| *known != server);
        if self.destinations.len() > honest {
            self.destinations.pop_front();
        }
        self.destinations.push_back((now_ms, server));
    }

    fn is_remembered(&self, now_ms: u64) -> bool {
        let newest = self.destinations.back().map_or(0, |(at_ms, _)| *at_ms);
        now_ms.saturating_sub(newest) < REMEMBERED_MS
    }
}

/// How long a missed destination counts.
const REMEMBERED_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn server(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    #[test]
    fn clients_beyond_the_bound_have_none_until_others_are_forgotten() {
        let limits = Limits {
            refusal_clients: 2,
            ..Limits::default()
        };
        let mut misses = Misses::default();
        let mut take = |last, now_ms| misses.take((client(last), server(1)), now_ms, &limits);
        assert_eq!(
            [take(1, 0), take(2, 0), take(3, 0), take(1, 0)],
            [true, true, false, true]
        );
        assert!(!take(3, 9_999) && take(3, 10_000));
        assert_eq!(misses.clients.len(), 1);
    }

    #[test]
    fn a_scan_is_cut_and_another_client_has_its_own_share() {
        let limits = Limits::default();
        let mut misses = Misses::default();
        let mut taken = |last, now_ms| {
            let of_scan =
                (0..100).filter(|to| misses.take((client(last), server(*to)), now_ms, &limits));
            of_scan.count()
        };
        assert_eq!((taken(1, 7_000), taken(2, 7_500)), (32, 32));
        assert_eq!((taken(1, 7_999), taken(1, 8_000)), (0, 32));
    }

    #[test]
    fn a_scan_is_many_destinations_and_one_destination_many_times_is_none() {
        let limits = Limits::default();
        let mut misses = Misses::default();
        for _ in 0..100 {
            misses.take((client(1), server(1)), 50_000, &limits);
        }
        for to in 0..4 {
            misses.take((client(2), server(to)), 50_000, &limits);
        }
        assert!(!misses.is_scan(client(1), 50_000, &limits));
        assert!(!misses.is_scan(client(2), 50_000, &limits));
        misses.take((client(2), server(4)), 50_001, &limits);
        assert!(misses.is_scan(client(2), 59_999, &limits));
        assert!(
            !misses.is_scan(client(2), 60_000, &limits),
            "it was long ago"
        );
        misses.take((client(1), server(1)), 60_001, &limits);
        assert_eq!(misses.clients.len(), 1, "and is forgotten");
    }
}
