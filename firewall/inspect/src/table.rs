//! The flows that are not decided yet: a bounded map with an ordered queue of deadlines.
//!
//! A flow is taken out to be worked on and put back, or finished. No operation looks at more
//! than the flows it is about.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

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
    pub(crate) deadline: u64,
}

#[derive(Debug, Default)]
pub(crate) struct FlowTable {
    flows: HashMap<FlowKey, Box<Flow>>,
    deadlines: BTreeSet<(u64, FlowKey)>,
    loads: HashMap<IpAddr, Load>,
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
        let flow = self.flows.remove(key)?;
        self.out = self.out.saturating_add(1);
        Some(flow)
    }

    /// Puts back what was taken.
    pub(crate) fn put(&mut self, mut flow: Box<Flow>) {
        let footprint = flow.footprint();
        self.account(flow.key, flow.accounted, footprint);
        flow.accounted = footprint;
        self.out = self.out.saturating_sub(1);
        self.flows.insert(flow.key, flow);
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
        self.out = self.out.saturating_sub(1);
        let client = flow.key.client.ip();
        if let Some(load) = self.loads.get_mut(&client) {
            load.flows = load.flows.saturating_sub(1);
            if load.flows == 0 {
                self.loads.remove(&client);
            }
        }
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes out a flow whose deadline has come.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<Box<Flow>> {
        let (at, key) = *self.deadlines.first()?;
        if at > now_ms {
            return None;
        }
        self.take(&key)
    }

    /// Every key, for the rare pass over all flows.
    pub(crate) fn keys(&self) -> Vec<FlowKey> {
        self.flows.keys().copied().collect()
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
        let is_same = |a: Footprint, b: Footprint| {
            (a.bytes, a.segments, a.held_syns) == (b.bytes, b.segments, b.held_syns)
        };
        if !is_same(old, new)
            && let Some(load) = self.loads.get_mut(&key.client.ip())
        {
            let change =
                |now: usize, old: usize, new: usize| now.saturating_sub(old).saturating_add(new);
            load.held_syns = change(load.held_syns, old.held_syns, new.held_syns);
            load.bytes = change(load.bytes, old.bytes, new.bytes);
            load.segments = change(load.segments, old.segments, new.segments);
        }
        if old.deadline != new.deadline {
            self.deadlines.remove(&(old.deadline, key));
            if new.deadline != 0 {
                self.deadlines.insert((new.deadline, key));
            }
        }
    }
}
