//! A short, bounded memory of flows that are decided.
//!
//! The kernel acts on a mark when the marked packet passes; packets of the same flow that
//! were queued before it still come here (tail loss probes of a post-quantum hello are the
//! common case). They must meet the same verdict, not be taken for a flow nobody knows.

use std::collections::{HashMap, VecDeque};

use foldhash::quality::RandomState;

use crate::flow::FlowKey;

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
    fates: HashMap<FlowKey, (Fate, u64), RandomState>,
    order: VecDeque<(u64, FlowKey)>,
    max: usize,
    keep_ms: u64,
}

impl Decided {
    pub(crate) fn new(max: usize, keep_ms: u64) -> Self {
        Self {
            fates: HashMap::default(),
            order: VecDeque::new(),
            max,
            keep_ms,
        }
    }

    /// Remembers how `flow` was decided.
    pub(crate) fn note(&mut self, flow: FlowKey, fate: Fate, now_ms: u64) {
        self.expire(now_ms);
        while self.order.len() >= self.max.max(1) {
            self.pop();
        }
        let until = now_ms.saturating_add(self.keep_ms);
        self.fates.insert(flow, (fate, until));
        self.order.push_back((until, flow));
    }

    /// How `flow` was decided, if that is remembered.
    pub(crate) fn fate(&self, flow: &FlowKey, now_ms: u64) -> Option<Fate> {
        self.fates
            .get(flow)
            .filter(|(_, until)| *until > now_ms)
            .map(|(fate, _)| *fate)
    }

    /// Forgets `flow`: its 5-tuple now names another connection.
    pub(crate) fn forget(&mut self, flow: &FlowKey) {
        self.fates.remove(flow);
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while self
            .order
            .front()
            .is_some_and(|(until, _)| *until <= now_ms)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((until, flow)) = self.order.pop_front() else {
            return;
        };
        // Noted again since: the later entry in the queue is the one that counts.
        if self
            .fates
            .get(&flow)
            .is_some_and(|(_, current)| *current == until)
        {
            self.fates.remove(&flow);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.fates.len().max(self.order.len())
    }
}
