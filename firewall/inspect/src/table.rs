//! The flows that are not decided yet: a bounded map with an ordered queue of deadlines.
//!
//! A flow is taken out to be worked on and put back, or finished. No operation looks at more
//! than the flows it is about.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::ops::Bound;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::flow::FlowKey;
use crate::stage::Flow;

/// What one client takes up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) flows: usize,
    pub(crate) held_syns: usize,
    pub(crate) bytes: usize,
    pub(crate) segments: usize,
}

/// What one flow takes up, as last accounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(crate) bytes: usize,
    pub(crate) segments: usize,
    pub(crate) held_syns: usize,
}

/// A flow's place in the queue of deadlines. It may be earlier than the flow's deadline, never later: a deadline that
/// moves away, as those of a flow that goes on do with every packet, moves nothing.
pub(crate) type Place = (u64, u64);

#[derive(Debug, Default)]
pub(crate) struct FlowTable {
    /// Each by the key it has in itself: a slot is a pointer, so that the slots of a million flows are nine megabytes and
    /// not eighty.
    flows: HashTable<Box<Flow>>,
    hasher: RandomState,
    /// By time, then by number, so that no two are equal.
    deadlines: BTreeMap<Place, FlowKey>,
    /// The number of the next place.
    places: u64,
    loads: HashMap<IpAddr, Load, RandomState>,
    bytes: usize,
    segments: usize,
    out: usize,
}

impl FlowTable {
    /// Flows that are not decided.
    pub(crate) fn len(&self) -> usize {
        self.flows.len().saturating_add(self.out)
    }

    /// Payload bytes kept for all of them.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Packets held for all of them.
    pub(crate) const fn segments(&self) -> usize {
        self.segments
    }

    /// What `client` takes up.
    pub(crate) fn load(&self, client: IpAddr) -> Load {
        self.loads.get(&client).copied().unwrap_or_default()
    }

    /// Takes a flow out. It stays accounted for until it is put back or finished.
    pub(crate) fn take(&mut self, key: &FlowKey) -> Option<Box<Flow>> {
        let flow = self.remove(key)?;
        self.out = self.out.saturating_add(1);
        Some(flow)
    }

    fn remove(&mut self, key: &FlowKey) -> Option<Box<Flow>> {
        let hash = self.hasher.hash_one(key);
        let entry = self.flows.find_entry(hash, |flow| flow.key == *key);
        entry.ok().map(|entry| entry.remove().0)
    }

    fn insert(&mut self, flow: Box<Flow>) {
        let hasher = &self.hasher;
        let hash = hasher.hash_one(flow.key);
        debug_assert!(
            self.flows
                .find(hash, |other| other.key == flow.key)
                .is_none(),
            "a flow is put in once"
        );
        self.flows
            .insert_unique(hash, flow, |flow| hasher.hash_one(flow.key));
    }

    /// Puts back what was taken.
    pub(crate) fn put(&mut self, mut flow: Box<Flow>) {
        let footprint = flow.footprint();
        self.account(flow.key, flow.accounted, footprint);
        flow.accounted = footprint;
        if flow.place.is_none_or(|(at, _)| flow.deadline < at) {
            self.queue(&mut flow);
        }
        self.out = self.out.saturating_sub(1);
        self.insert(flow);
    }

    /// Puts in a flow that was not there before.
    pub(crate) fn add(&mut self, flow: Box<Flow>) {
        let load = self.loads.entry(flow.key.client.ip()).or_default();
        load.flows = load.flows.saturating_add(1);
        self.out = self.out.saturating_add(1);
        self.put(flow);
    }

    /// Lets go of a flow that was taken.
    pub(crate) fn finish(&mut self, flow: &Flow) {
        self.account(flow.key, flow.accounted, Footprint::default());
        if let Some(place) = flow.place {
            self.deadlines.remove(&place);
        }
        self.out = self.out.saturating_sub(1);
        let client = flow.key.client.ip();
        if let Some(load) = self.loads.get_mut(&client) {
            load.flows = load.flows.saturating_sub(1);
            if load.flows == 0 {
                self.loads.remove(&client);
            }
        }
    }

    /// No deadline is earlier.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out a flow whose deadline has come.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<Box<Flow>> {
        loop {
            let (place, key) = self.deadlines.first_key_value()?;
            if place.0 > now_ms {
                return None;
            }
            let key = *key;
            self.deadlines.pop_first();
            let Some(mut flow) = self.remove(&key) else {
                debug_assert!(false, "a place without its flow");
                continue;
            };
            if flow.deadline <= now_ms {
                flow.place = None;
                self.out = self.out.saturating_add(1);
                return Some(flow);
            }
            self.queue(&mut flow);
            self.insert(flow);
        }
    }

    /// Gives a flow the place of its deadline.
    fn queue(&mut self, flow: &mut Flow) {
        if let Some(place) = flow.place {
            self.deadlines.remove(&place);
        }
        let place = (flow.deadline, self.places);
        self.places = self.places.wrapping_add(1);
        self.deadlines.insert(place, flow.key);
        flow.place = Some(place);
    }

    /// The flow queued next behind a place, or first of all: for the rare pass over all flows, a few at a time. A flow
    /// that nobody touches meanwhile is never moved to before a place that has been passed.
    pub(crate) fn behind(&self, place: Option<Place>) -> Option<(Place, &Flow)> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        let (place, key) = self.deadlines.range((from, Bound::Unbounded)).next()?;
        let hash = self.hasher.hash_one(key);
        let flow = self.flows.find(hash, |flow| flow.key == *key)?;
        Some((*place, flow))
    }

    fn account(&mut self, key: FlowKey, old: Footprint, new: Footprint) {
        self.bytes = self
            .bytes
            .saturating_sub(old.bytes)
            .saturating_add(new.bytes);
        self.segments = self
            .segments
            .saturating_sub(old.segments)
            .saturating_add(new.segments);
        if old != new
            && let Some(load) = self.loads.get_mut(&key.client.ip())
        {
            let change =
                |now: usize, old: usize, new: usize| now.saturating_sub(old).saturating_add(new);
            load.held_syns = change(load.held_syns, old.held_syns, new.held_syns);
            load.bytes = change(load.bytes, old.bytes, new.bytes);
            load.segments = change(load.segments, old.segments, new.segments);
        }
    }
}
