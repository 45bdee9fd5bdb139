//! The flows themselves, by protocol and ends.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::quality::RandomState;
use inspect::{FlowKey, FlowRecord};
use policy::Transport;

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
        let (client, server) = (self.client, self.server);
        FlowKey { client, server }.hash(state);
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
        let protocol = match record.transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
            Transport::Icmp if record.src.is_ipv6() => ICMPV6,
            Transport::Icmp => ICMP,
            Transport::Other(number) => number,
        };
        debug_assert!(record.is_allowed());
        Self {
            protocol,
            client: record.src,
            server: record.dst,
        }
    }
}

#[derive(Debug)]
pub(super) struct Flow {
    /// `None` when nobody knows what it was allowed for.
    pub(super) record: Option<Arc<FlowRecord>>,
    /// It is being ended.
    pub(super) ending: bool,
}

/// What [`FlowTable::take`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The flow's record.
    pub(super) record: Option<Arc<FlowRecord>>,
    /// Earlier flows of these ends whose own end was never seen.
    pub(super) lost: u64,
}

/// Every flow with an `allowed` line and without an `end` line.
#[derive(Debug)]
pub(super) struct FlowTable {
    flows: HashMap<Key, Flow, RandomState>,
    /// Records of flows whose ends are in use again before their end was heard of: events and
    /// records come by two ways, and either may be ahead.
    earlier: HashMap<Key, Vec<Arc<FlowRecord>>, RandomState>,
    /// How many records that is.
    waiting: usize,
    /// Records given up for want of room, whose connection has no other.
    given_up: u64,
    /// Flows the kernel's table did not hold at the last look, by when they were allowed.
    suspects: HashSet<(Key, Option<u64>)>,
    max: usize,
    /// Most of `waiting`: about 600 bytes each, as flows have.
    earlier_max: usize,
}

impl FlowTable {
    pub(super) fn new(max: usize) -> Self {
        Self {
            flows: HashMap::default(),
            earlier: HashMap::default(),
            waiting: 0,
            given_up: 0,
            suspects: HashSet::new(),
            max,
            earlier_max: (max / EARLIER_SHARE).max(EARLIER_MAX),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Flow> {
        self.flows.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Flow> {
        self.flows.get_mut(key)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.flows.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Flow)> {
        self.flows.iter()
    }

    /// Takes in an allowed flow; its record, or `None` when there is no room.
    ///
    /// A connection of plain HTTP is allowed once per request. Its record is that of the newest.
    pub(super) fn insert(&mut self, record: Arc<FlowRecord>) -> Option<&FlowRecord> {
        let key = Key::of_record(&record);
        if self.flows.len() >= self.max && !self.flows.contains_key(&key) {
            return None;
        }
        let fresh = Flow {
            record: Some(record),
            ending: false,
        };
        let allowed_ms = fresh.record.as_ref().map_or(0, |record| record.unix_ms);
        if let Some(Flow {
            record: Some(before),
            ..
        }) = self.flows.insert(key, fresh)
            && (key.protocol == TCP || allowed_ms.saturating_sub(before.unix_ms) > SAME_FLOW_MS)
        {
            self.keep_earlier(key, before);
        }
        self.flows.get(&key)?.record.as_deref()
    }

    /// Keeps the record of a flow whose ends are in use again, with as many others as there is room for.
    fn keep_earlier(&mut self, key: Key, before: Arc<FlowRecord>) {
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
        self.given_up = self
            .given_up
            .saturating_add(u64::from(oldest.http.is_none()));
    }

    /// How many flows were given up since this was last asked: their end will not be known.
    pub(super) fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// Takes in a flow nobody knows anything of; false when it is known, or there is no room.
    pub(super) fn insert_unknown(&mut self, key: Key) -> bool {
        if self.flows.len() >= self.max || self.flows.contains_key(&key) {
            return false;
        }
        let flow = Flow {
            record: None,
            ending: false,
        };
        self.flows.insert(key, flow);
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
                .any(|record| record.http.is_none() && record.unix_ms < stop_ms)
        });
        let is_later = |record: &FlowRecord| {
            record.unix_ms > stop_ms || (has_older && record.unix_ms == stop_ms)
        };
        let current = self.flows.get(key);
        let stays = current.is_some_and(|flow| flow.record.as_deref().is_some_and(is_later));
        let record = if stays {
            None
        } else {
            self.flows.remove(key).and_then(|flow| flow.record)
        };
        if self.earlier.is_empty() {
            return Taken { record, lost: 0 };
        }
        let Some(mut earlier) = self.earlier.remove(key) else {
            return Taken { record, lost: 0 };
        };
        self.waiting = self.waiting.saturating_sub(earlier.len());
        let (later, mut ended): (Vec<_>, Vec<_>) =
            earlier.drain(..).partition(|record| is_later(record));
        if !later.is_empty() {
            self.waiting = self.waiting.saturating_add(later.len());
            self.earlier.insert(*key, later);
        }
        // Requests of one connection, or a connection whose event is lost: the newest is the one.
        let record = record.or_else(|| ended.pop());
        let same_connection = |before: &FlowRecord| before.http.is_some();
        let lost = ended.iter().filter(|before| !same_connection(before));
        Taken {
            lost: u64::try_from(lost.count()).unwrap_or(u64::MAX),
            record,
        }
    }

    /// Drops every flow allowed before `old_enough_ms` that is not among `present` and was not at the
    /// look before either; returns those that had a record.
    ///
    /// An entry leaves the kernel's table before its event is read. So the caller takes in every
    /// event there is between two looks; what is absent at both has none.
    pub(super) fn retain_present(
        &mut self,
        present: &HashSet<Key>,
        old_enough_ms: u64,
    ) -> Vec<Key> {
        let before = std::mem::take(&mut self.suspects);
        let (mut gone, suspects) = (Vec::new(), &mut self.suspects);
        self.flows.retain(|key, flow| {
            let allowed_ms = flow.record.as_deref().map(|record| record.unix_ms);
            let is_new = allowed_ms.is_some_and(|allowed_ms| allowed_ms > old_enough_ms);
            if is_new || present.contains(key) {
                return true;
            }
            let suspect = (*key, allowed_ms);
            if !before.contains(&suspect) {
                suspects.insert(suspect);
                return true;
            }
            if allowed_ms.is_some() {
                gone.push(*key);
            }
            false
        });
        let flows = &self.flows;
        self.earlier.retain(|key, _| flows.contains_key(key));
        self.waiting = self.earlier.values().map(Vec::len).sum();
        gone
    }

    /// Whether the last look found flows to look for once more.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }
}

/// Two datagrams sent together are both allowed before the kernel has an entry of either, and are one flow. No entry
/// of anything but TCP is gone so soon.
const SAME_FLOW_MS: u64 = 5_000;
/// Records kept of flows that had the same ends before.
const EARLIER_MAX: usize = 8;
/// Of all ends together, to as many flows.
const EARLIER_SHARE: usize = 16;
