//! Questions whose answers have not left, and how many are of one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::ReplyTo;
use super::cache::Kept;
use super::message::Question;

/// Every question under way.
#[derive(Debug, Default)]
pub(super) struct Waits {
    all: HashMap<u64, Waiting>,
    of: HashMap<IpAddr, usize>,
}

/// A question whose answer has not left.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) source: IpAddr,
    pub(super) question: Box<Question>,
    pub(super) reply: ReplyTo,
    pub(super) since: Instant,
    pub(super) kept: Option<Kept>,
}

impl Waits {
    /// Whether another question of this source may wait, who may have so many.
    pub(super) fn has_room(&self, source: IpAddr, most: usize) -> bool {
        let held = self.of.get(&source).copied().unwrap_or(0);
        held < most && self.all.len() < WAITING_MAX
    }

    pub(super) fn add(&mut self, id: u64, waiting: Waiting) {
        let held = self.of.entry(waiting.source).or_default();
        *held = held.saturating_add(1);
        if let Some(replaced) = self.all.insert(id, waiting) {
            self.leave(replaced.source);
        }
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Waiting> {
        self.all.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Waiting> {
        let removed = self.all.remove(&id)?;
        self.leave(removed.source);
        Some(removed)
    }

    /// Forgets those that have waited too long.
    pub(super) fn sweep(&mut self, longest: Duration) {
        let late =
            |(id, waiting): (&u64, &Waiting)| (waiting.since.elapsed() >= longest).then_some(*id);
        let late: Vec<u64> = self.all.iter().filter_map(late).collect();
        for id in late {
            self.remove(id);
        }
    }

    /// Who asked.
    pub(super) fn source(&self, id: u64) -> Option<IpAddr> {
        self.all.get(&id).map(|waiting| waiting.source)
    }

    fn leave(&mut self, source: IpAddr) {
        if let Some(held) = self.of.get_mut(&source) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.of.remove(&source);
            }
        }
    }
}

/// Of everybody.
pub(super) const WAITING_MAX: usize = 4_096;
/// Of one source: more than it may ask before its questions are too old, unless resolvers are slow.
pub(super) const WAITING_PER_SOURCE: usize = 512;

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::message::{self, Read};
    use super::*;

    fn waiting(source: IpAddr, since: Instant) -> Waiting {
        // A for "a.", and nothing else.
        let bytes = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        let Read::Question(question) = message::read(bytes) else {
            panic!("no question")
        };
        Waiting {
            source,
            question,
            reply: ReplyTo::Stream(oneshot::channel().0),
            since,
            kept: None,
        }
    }

    #[test]
    fn a_source_has_its_share_and_gets_back_what_has_ended() {
        let [loud, quiet] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let mut waits = Waits::default();
        let now = Instant::now();
        for id in 0..4 {
            assert!(waits.has_room(loud, 4));
            waits.add(id, waiting(loud, now));
        }
        assert!(!waits.has_room(loud, 4) && waits.has_room(quiet, 4));
        assert_eq!(waits.source(3), Some(loud));
        assert!(waits.remove(3).is_some() && waits.remove(3).is_none());
        assert!(waits.has_room(loud, 4));
        waits.add(2, waiting(quiet, now));
        assert_eq!(
            (waits.of.get(&loud), waits.of.get(&quiet)),
            (Some(&2), Some(&1))
        );
        waits.sweep(Duration::ZERO);
        assert!(waits.all.is_empty() && waits.of.is_empty());
    }

    #[test]
    fn all_sources_together_have_an_end() {
        let mut waits = Waits::default();
        let now = Instant::now();
        for (id, host) in (0..WAITING_MAX as u64).zip(0_u32..) {
            waits.add(id, waiting(std::net::Ipv4Addr::from(host).into(), now));
        }
        assert!(!waits.has_room("10.0.0.1".parse().unwrap(), 4));
    }
}
