//! A short, bounded memory of flows that are decided.
//!
//! The kernel acts on a mark when the marked packet passes; packets of the same flow that
//! were queued before it still come here (tail loss probes of a post-quantum hello are the
//! common case). They must meet the same verdict, not be taken for a flow nobody knows, nor,
//! where a flow's first packet decides, for another flow.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use policy::Transport;

use crate::flow::FlowKey;
use crate::packed::PackedKey;

/// How the flow was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Handed to the kernel under this generation.
    Judged { generation: u64 },
    /// Refused; both ends have been reset.
    Refused,
    /// Closed by its own ends before it was judged.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Decided {
    /// By time. The place of an entry is its number less that of the first.
    order: VecDeque<Entry>,
    /// The number of the first entry.
    first: u32,
    /// The number of each flow's latest entry: a slot of four bytes, for the keys are in the entries.
    latest: HashTable<u32>,
    hasher: RandomState,
    max: usize,
    keep_ms: u64,
}

#[derive(Debug)]
struct Entry {
    until: u64,
    fate: Fate,
    flow: PackedKey,
}

impl Decided {
    pub(crate) fn new(max: usize, keep_ms: u64) -> Self {
        Self {
            order: VecDeque::new(),
            first: 0,
            latest: HashTable::new(),
            hasher: RandomState::default(),
            max,
            keep_ms,
        }
    }

    /// Remembers how `flow` of TCP was decided.
    pub(crate) fn note(&mut self, flow: FlowKey, fate: Fate, now_ms: u64) {
        self.note_of(TCP, flow, fate, now_ms);
    }

    /// Remembers how `flow` of a protocol was decided.
    pub(crate) fn note_of(&mut self, protocol: u8, flow: FlowKey, fate: Fate, now_ms: u64) {
        self.expire(now_ms);
        while self.order.len() >= self.max.max(1) {
            self.pop();
        }
        self.forget_of(protocol, &flow);
        let place = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        let number = self.first.wrapping_add(place);
        self.order.push_back(Entry {
            until: now_ms.saturating_add(self.keep_ms),
            fate,
            flow: PackedKey::new(protocol, &flow),
        });
        let (order, first, hasher) = (&self.order, self.first, &self.hasher);
        let hash = hasher.hash_one(flow);
        self.latest.insert_unique(hash, number, |number| {
            let entry = entry(order, first, *number);
            entry.map_or(0, |entry| hasher.hash_one(entry.flow.key()))
        });
    }

    /// How `flow` of TCP was decided, if that is remembered.
    pub(crate) fn fate(&self, flow: &FlowKey, now_ms: u64) -> Option<Fate> {
        self.fate_of(TCP, flow, now_ms)
    }

    /// How `flow` of a protocol was decided, if that is remembered.
    pub(crate) fn fate_of(&self, protocol: u8, flow: &FlowKey, now_ms: u64) -> Option<Fate> {
        let hash = self.hasher.hash_one(flow);
        let number = self.latest.find(hash, |number| {
            entry(&self.order, self.first, *number)
                .is_some_and(|entry| entry.flow.is(protocol, flow))
        })?;
        entry(&self.order, self.first, *number)
            .filter(|entry| entry.until > now_ms)
            .map(|entry| entry.fate)
    }

    /// Forgets `flow` of TCP: its 5-tuple now names another connection.
    pub(crate) fn forget(&mut self, flow: &FlowKey) {
        self.forget_of(TCP, flow);
    }

    fn forget_of(&mut self, protocol: u8, flow: &FlowKey) {
        let (order, first) = (&self.order, self.first);
        let hash = self.hasher.hash_one(flow);
        let found = self.latest.find_entry(hash, |number| {
            entry(order, first, *number).is_some_and(|entry| entry.flow.is(protocol, flow))
        });
        if let Ok(found) = found {
            found.remove();
        }
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while self
            .order
            .front()
            .is_some_and(|first| first.until <= now_ms)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        let number = self.first;
        self.first = number.wrapping_add(1);
        // Noted again since, or forgotten: then the number is in no slot.
        let hash = self.hasher.hash_one(oldest.flow.key());
        if let Ok(found) = self.latest.find_entry(hash, |other| *other == number) {
            found.remove();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.latest.len().max(self.order.len())
    }
}

const TCP: u8 = Transport::Tcp.number(false);

/// The entry of a number.
fn entry(order: &VecDeque<Entry>, first: u32, number: u32) -> Option<&Entry> {
    let place = usize::try_from(number.wrapping_sub(first)).ok()?;
    order.get(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> FlowKey {
        FlowKey {
            client: ([10, 0, 0, 1], port).into(),
            server: ([203, 0, 113, 9], 443).into(),
        }
    }

    #[test]
    fn entry_takes_forty_bytes() {
        assert_eq!(size_of::<Entry>(), 40);
    }

    #[test]
    fn latest_fate_counts_until_its_own_time_is_up() {
        let mut decided = Decided::new(10, 100);
        decided.note(flow(1), Fate::Refused, 0);
        decided.note(flow(2), Fate::Closed, 10);
        let judged = Fate::Judged { generation: 7 };
        decided.note(flow(1), judged, 50);
        assert_eq!(decided.fate(&flow(1), 60), Some(judged));
        // The earlier entry of the first goes, and takes nothing with it.
        decided.expire(105);
        assert_eq!(decided.fate(&flow(1), 105), Some(judged));
        assert_eq!(decided.fate(&flow(2), 105), Some(Fate::Closed));
        assert_eq!(decided.fate(&flow(2), 110), None);
        decided.forget(&flow(1));
        assert_eq!(decided.fate(&flow(1), 105), None);
        decided.expire(1_000);
        assert_eq!(decided.len(), 0);
    }

    #[test]
    fn as_many_as_there_is_room_for_are_found_however_often_the_numbers_wrap() {
        let mut decided = Decided::new(100, 1_000_000);
        decided.first = u32::MAX - 150;
        for port in 0..400 {
            decided.note(flow(port), Fate::Refused, 0);
            let oldest = port.saturating_sub(99);
            assert!((oldest..=port).all(|port| decided.fate(&flow(port), 1).is_some()));
            assert!(port < 100 || decided.fate(&flow(oldest - 1), 1).is_none());
        }
        assert_eq!(decided.len(), 100);
    }
}
