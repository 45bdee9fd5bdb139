//! The flows themselves, by protocol and ends.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use inspect::{FlowKey, FlowRecord, PackedKey};

use super::shared::{Known, Parts};
use crate::conntrack::Tuple;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// A flow by protocol and its ends as the client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) protocol: u8,
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ends().hash(state);
        state.write_u8(self.protocol);
    }
}

impl Key {
    /// The flow whose entry has this original tuple.
    pub(super) const fn of(original: &Tuple) -> Self {
        Self {
            protocol: original.protocol,
            client: original.source,
            server: original.destination,
        }
    }

    /// Its ends alone.
    pub(super) const fn ends(&self) -> FlowKey {
        FlowKey {
            client: self.client,
            server: self.server,
        }
    }

    /// In a quarter of the room, for those that are kept.
    pub(super) fn pack(&self) -> PackedKey {
        PackedKey::new(self.protocol, &self.ends())
    }

    /// What was packed.
    pub(super) fn unpack(packed: &PackedKey) -> Self {
        let FlowKey { client, server } = packed.key();
        Self {
            protocol: packed.tag(),
            client,
            server,
        }
    }

    /// The original tuple of its entry.
    pub(super) const fn tuple(&self) -> Tuple {
        Tuple {
            protocol: self.protocol,
            source: self.client,
            destination: self.server,
        }
    }

    /// The flow of a `client` record.
    pub(super) fn of_record(record: &FlowRecord) -> Self {
        debug_assert!(record.is_allowed());
        Self {
            protocol: record.transport.number(record.src.is_ipv6()),
            client: record.src,
            server: record.dst,
        }
    }
}

/// A flow: 32 bytes, and what it shares with others.
#[derive(Debug)]
pub(super) struct Flow {
    /// When it was allowed, in milliseconds since the Unix epoch, above [`FLAGS`] bits.
    stamp: u64,
    /// `None` when nobody knows what it was allowed for.
    known: Option<Known>,
}

impl Flow {
    /// Its record, if there is one.
    pub(super) fn record(&self, key: &Key) -> Option<FlowRecord> {
        let known = self.known.as_ref()?;
        Some(known.record(key, self.unix_ms()))
    }

    const fn unix_ms(&self) -> u64 {
        self.stamp >> FLAGS
    }

    /// When it was allowed, if it has a record.
    fn allowed_ms(&self) -> Option<u64> {
        self.known.is_some().then(|| self.unix_ms())
    }

    fn is_http(&self) -> bool {
        self.known.as_ref().is_some_and(Known::is_http)
    }

    /// It is being ended.
    pub(super) const fn is_ending(&self) -> bool {
        self.stamp & ENDING != 0
    }

    /// Notes that it is being ended.
    pub(super) const fn set_ending(&mut self) {
        self.stamp |= ENDING;
    }

    /// The ledger's file has a line of it.
    pub(super) const fn is_in_file(&self) -> bool {
        self.stamp & IN_FILE != 0
    }

    /// Notes whether the ledger's file has a line of it.
    pub(super) const fn set_in_file(&mut self, is_in_file: bool) {
        self.stamp = if is_in_file {
            self.stamp | IN_FILE
        } else {
            self.stamp & !IN_FILE
        };
    }
}

/// A flow in its slot of the table.
#[derive(Debug)]
struct Slot {
    ends: PackedKey,
    flow: Flow,
}

impl Slot {
    fn key(&self) -> Key {
        Key::unpack(&self.ends)
    }

    fn is(&self, key: &Key) -> bool {
        self.ends.is(key.protocol, &key.ends())
    }
}

/// What [`FlowTable::take`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The flow's record.
    pub(super) record: Option<Arc<FlowRecord>>,
    /// Flows that end without a line: earlier ones of these ends whose own end was never seen, or this one when nobody
    /// knows anything of it.
    pub(super) lost: u64,
    /// The ledger's file has a line of it, and no other flow of these ends goes on.
    pub(super) was_in_file: bool,
}

/// Every flow with an `allowed` line and without an `end` line.
#[derive(Debug)]
pub(super) struct FlowTable {
    slots: HashTable<Slot>,
    hasher: RandomState,
    parts: Parts,
    /// Flows whose ends are in use again before their end was heard of: events and
    /// records come by two ways, and either may be ahead.
    earlier: HashMap<Key, Vec<Flow>, RandomState>,
    /// How many flows that is.
    waiting: usize,
    /// Flows given up for want of room, whose connection has no other record.
    given_up: u64,
    /// Flows the kernel's table did not hold at the last look, by when they were allowed.
    suspects: HashSet<(Key, Option<u64>)>,
    max: usize,
    /// Most of `waiting`.
    earlier_max: usize,
}

impl FlowTable {
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: HashTable::new(),
            hasher: RandomState::default(),
            parts: Parts::default(),
            earlier: HashMap::default(),
            waiting: 0,
            given_up: 0,
            suspects: HashSet::new(),
            max,
            earlier_max: (max / EARLIER_SHARE).max(EARLIER_MAX),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Flow> {
        let hash = self.hasher.hash_one(key);
        let slot = self.slots.find(hash, |slot| slot.is(key))?;
        Some(&slot.flow)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Flow> {
        let hash = self.hasher.hash_one(key);
        let slot = self.slots.find_mut(hash, |slot| slot.is(key))?;
        Some(&mut slot.flow)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Flow)> {
        self.slots.iter().map(|slot| (slot.key(), &slot.flow))
    }

    /// The ends of all flows.
    pub(super) fn keys(&self) -> impl Iterator<Item = &PackedKey> {
        self.slots.iter().map(|slot| &slot.ends)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Flow)> {
        self.slots
            .iter_mut()
            .map(|slot| (slot.key(), &mut slot.flow))
    }

    /// Takes in an allowed flow, or `None` when there is no room.
    ///
    /// A connection of plain HTTP is allowed once per request. Its record is that of the newest.
    pub(super) fn insert(&mut self, record: &FlowRecord) -> Option<&mut Flow> {
        let key = Key::of_record(record);
        if self.slots.len() >= self.max && !self.contains(&key) {
            return None;
        }
        let mut fresh = Flow {
            stamp: record.unix_ms << FLAGS,
            known: Some(self.parts.share(record)),
        };
        let Some(flow) = self.get_mut(&key) else {
            return Some(self.insert_fresh(&key, fresh));
        };
        // The line of the flow before it is in the file until this one's is.
        fresh.set_in_file(flow.is_in_file());
        let before = std::mem::replace(flow, fresh);
        if let Some(before_ms) = before.allowed_ms()
            && (key.protocol == TCP || record.unix_ms.saturating_sub(before_ms) > SAME_FLOW_MS)
        {
            self.keep_earlier(key, before);
        }
        self.get_mut(&key)
    }

    /// Takes in a flow whose ends have no slot yet.
    fn insert_fresh(&mut self, key: &Key, flow: Flow) -> &mut Flow {
        let hasher = &self.hasher;
        let slot = Slot {
            ends: key.pack(),
            flow,
        };
        let rehash = |slot: &Slot| hasher.hash_one(slot.key());
        let entry = self.slots.insert_unique(hasher.hash_one(key), slot, rehash);
        &mut entry.into_mut().flow
    }

    fn remove(&mut self, key: &Key) -> Option<Flow> {
        let hash = self.hasher.hash_one(key);
        let found = self.slots.find_entry(hash, |slot| slot.is(key)).ok()?;
        let (slot, _) = found.remove();
        self.give_back();
        Some(slot.flow)
    }

    /// Gives room back once nearly all of it is empty.
    fn give_back(&mut self) {
        let few = self.slots.capacity() / 16;
        if few >= ROOM_KEPT && self.slots.len() < few {
            let hasher = &self.hasher;
            self.slots
                .shrink_to(few.saturating_mul(2), |slot| hasher.hash_one(slot.key()));
        }
    }

    /// Keeps a flow whose ends are in use again, with as many others as there is room for.
    fn keep_earlier(&mut self, key: Key, before: Flow) {
        let earlier = self.earlier.entry(key).or_default();
        earlier.push(before);
        self.waiting = self.waiting.saturating_add(1);
        if earlier.len() <= EARLIER_MAX && self.waiting <= self.earlier_max {
            return;
        }
        let oldest = earlier.remove(0);
        self.waiting = self.waiting.saturating_sub(1);
        if earlier.is_empty() {
            self.earlier.remove(&key);
        }
        // Another request of a connection that has a record is no loss.
        self.given_up = self.given_up.saturating_add(u64::from(!oldest.is_http()));
    }

    /// How many flows were given up since this was last asked: their end will not be known.
    pub(super) fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// Takes in a flow nobody knows anything of; false when it is known, or there is no room.
    pub(super) fn insert_unknown(&mut self, key: Key) -> bool {
        if self.slots.len() >= self.max || self.contains(&key) {
            return false;
        }
        let flow = Flow {
            stamp: 0,
            known: None,
        };
        self.insert_fresh(&key, flow);
        true
    }

    /// Takes out the flow whose entry was removed at `stop_ms`.
    ///
    /// A flow that was allowed after that has the same ends and is another one; so is one allowed in
    /// that very millisecond, where an older one is there to have ended.
    pub(super) fn take(&mut self, key: &Key, stop_ms: u64) -> Taken {
        let has_older = self.earlier.get(key).is_some_and(|earlier| {
            earlier
                .iter()
                .any(|flow| !flow.is_http() && flow.unix_ms() < stop_ms)
        });
        let is_later = |flow: &Flow| {
            let allowed_ms = flow.allowed_ms();
            allowed_ms.is_some_and(|ms| ms > stop_ms || (has_older && ms == stop_ms))
        };
        let flow = if self.get(key).is_some_and(is_later) {
            None
        } else {
            self.remove(key)
        };
        let was_in_file = flow.as_ref().is_some_and(Flow::is_in_file);
        let found = |flow: Option<Flow>, lost| Taken {
            record: flow.and_then(|flow| flow.record(key)).map(Arc::new),
            lost,
            was_in_file,
        };
        let Some(mut earlier) = self.earlier.remove(key) else {
            // Judged by a process that was killed before it had written the flow down.
            let unknown = flow.as_ref().is_some_and(|flow| flow.known.is_none());
            return found(flow, unknown.into());
        };
        self.waiting = self.waiting.saturating_sub(earlier.len());
        let (later, mut ended): (Vec<_>, Vec<_>) = earlier.drain(..).partition(is_later);
        if !later.is_empty() {
            self.waiting = self.waiting.saturating_add(later.len());
            self.earlier.insert(*key, later);
        }
        // Requests of one connection, or a connection whose event is lost: the newest is the one.
        let known = flow.filter(|flow| flow.known.is_some());
        let flow = known.or_else(|| ended.pop());
        let lost = ended.iter().filter(|before| !before.is_http());
        let lost = u64::try_from(lost.count()).unwrap_or(u64::MAX);
        found(flow, lost)
    }

    /// Drops every flow allowed before `old_enough_ms` that is not among `present` and was not at the
    /// look before either; returns those that had a record, and whether the ledger's file has it.
    ///
    /// An entry leaves the kernel's table before its event is read. So the caller takes in every
    /// event there is between two looks; what is absent at both has none.
    pub(super) fn retain_present(
        &mut self,
        present: &HashSet<PackedKey>,
        old_enough_ms: u64,
    ) -> Vec<(Key, bool)> {
        let before = std::mem::take(&mut self.suspects);
        let (mut gone, suspects) = (Vec::new(), &mut self.suspects);
        self.slots.retain(|slot| {
            let allowed_ms = slot.flow.allowed_ms();
            let is_new = allowed_ms.is_some_and(|allowed_ms| allowed_ms > old_enough_ms);
            if is_new || present.contains(&slot.ends) {
                return true;
            }
            let suspect = (slot.key(), allowed_ms);
            if !before.contains(&suspect) {
                suspects.insert(suspect);
                return true;
            }
            if allowed_ms.is_some() {
                gone.push((slot.key(), slot.flow.is_in_file()));
            }
            false
        });
        self.give_back();
        let mut earlier = std::mem::take(&mut self.earlier);
        earlier.retain(|key, _| self.contains(key));
        self.waiting = earlier.values().map(Vec::len).sum();
        self.earlier = earlier;
        gone
    }

    /// Whether the last look found flows to look for once more.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }
}

/// Bits of a stamp that are no time.
const FLAGS: u32 = 2;
const ENDING: u64 = 1;
const IN_FILE: u64 = 2;
/// Slots that are never worth giving back.
const ROOM_KEPT: usize = 1_024;
/// Two datagrams sent together are both allowed before the kernel has an entry of either, and are one flow. No entry
/// of anything but TCP is gone so soon.
const SAME_FLOW_MS: u64 = 5_000;
/// Records kept of flows that had the same ends before.
const EARLIER_MAX: usize = 8;
/// Of all ends together, to as many flows.
const EARLIER_SHARE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_takes_48_bytes_of_the_table_and_room_comes_back() {
        assert_eq!(size_of::<Slot>(), 48);
        let key = |port: u32| Key {
            protocol: TCP,
            client: SocketAddr::from((port.to_be_bytes(), 1)),
            server: SocketAddr::from(([8, 8, 8, 8], 443)),
        };
        let mut flows = FlowTable::new(1 << 20);
        for number in 0..100_000 {
            assert!(flows.insert_unknown(key(number)));
        }
        let full = flows.slots.capacity();
        for number in 10..100_000 {
            flows.take(&key(number), 1);
        }
        assert!(flows.slots.capacity() < full / 4, "of {full}");
        assert!((0..10).all(|number| flows.contains(&key(number))));
    }
}
