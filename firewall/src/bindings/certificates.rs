//! What servers' certificates are worth: written by the witness thread, read with every hello.

use std::net::SocketAddr;

use foldhash::quality::RandomState;
use inspect::Certificate;
use policy::Name;

/// What is known of each server under each name, for as long as it counts.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    known: papaya::HashMap<(Name, SocketAddr), Entry, RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    certificate: Certificate,
    until_ms: u64,
}

impl Certificates {
    /// What is known now.
    pub(super) fn get(&self, name: &Name, server: SocketAddr, now_ms: u64) -> Certificate {
        let known = self.known.pin();
        known
            .get(&(name.clone(), server))
            .filter(|entry| now_ms < entry.until_ms)
            .map_or(Certificate::Unasked, |entry| entry.certificate)
    }

    /// Takes in what is known until a moment of the monotonic clock; false when there is no room.
    pub(super) fn set(
        &self,
        name: &Name,
        server: SocketAddr,
        certificate: Certificate,
        until_ms: u64,
    ) -> bool {
        let (key, known) = ((name.clone(), server), self.known.pin());
        if known.len() >= CERTIFICATES_MAX && !known.contains_key(&key) {
            return false;
        }
        let entry = Entry {
            certificate,
            until_ms,
        };
        known.insert(key, entry);
        true
    }

    /// Forgets what does not count any more.
    pub(super) fn sweep(&self, now_ms: u64) {
        self.known.pin().retain(|_, entry| now_ms < entry.until_ms);
    }

    /// Servers whose certificate is known to be bad.
    pub(super) fn invalid(&self, now_ms: u64) -> Vec<(Name, SocketAddr)> {
        let known = self.known.pin();
        let bad =
            |entry: &Entry| entry.certificate == Certificate::Invalid && now_ms < entry.until_ms;
        known
            .iter()
            .filter(|(_, entry)| bad(entry))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// Servers under names that are known at a time. At twenty handshakes a second it takes an hour to fill.
const CERTIFICATES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_known_counts_for_its_time_its_name_and_its_server() {
        let certificates = Certificates::default();
        let (server, other) = (
            "203.0.113.5:443".parse().unwrap(),
            "203.0.113.5:8443".parse().unwrap(),
        );
        let (api, www) = (name("api.example.com"), name("www.example.com"));
        assert!(certificates.set(&api, server, Certificate::Invalid, 2_000));
        assert_eq!(certificates.get(&api, server, 1_999), Certificate::Invalid);
        for (name, server, now_ms) in [(&api, server, 2_000), (&api, other, 0), (&www, server, 0)] {
            assert_eq!(certificates.get(name, server, now_ms), Certificate::Unasked);
        }
        certificates.sweep(2_000);
        assert_eq!(certificates.known.len(), 0);
    }

    #[test]
    fn full_table_keeps_what_it_has() {
        let certificates = Certificates::default();
        let server = |number: usize| {
            let octets = u32::try_from(number).unwrap().to_be_bytes();
            SocketAddr::from((octets, 443))
        };
        let api = name("api.example.com");
        for number in 0..CERTIFICATES_MAX {
            assert!(certificates.set(&api, server(number), Certificate::Invalid, 9));
        }
        assert!(!certificates.set(&api, server(CERTIFICATES_MAX), Certificate::Valid, 9));
        assert!(certificates.set(&api, server(0), Certificate::Valid, 9));
        assert_eq!(certificates.get(&api, server(0), 0), Certificate::Valid);
        assert_eq!(certificates.get(&api, server(1), 0), Certificate::Invalid);
    }
}
