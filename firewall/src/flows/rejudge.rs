//! Live flows under a new policy: which go on, and how the others are ended at both ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use inspect::{Bindings, Env, FlowRecord, Outcome, ssh_names};
use policy::preferences::{FlowLogVerbosity, OnPolicyChange};
use policy::{AppProto, Ask, Date, Name, Reason, Snapshot, Transport};

use super::Follower;
use super::table::{ICMP, ICMPV6, Key, TCP, UDP};
use crate::bindings::Under;
use crate::clock::unix_ms;
use crate::conntrack::{MarkFilter, TcpState};
use crate::marks;
use crate::raw::{Segment, SegmentKind};

/// Entries of flows the kernel carries and nobody is ending.
pub(super) const JUDGED: MarkFilter = MarkFilter {
    value: marks::VERDICT_JUDGED,
    mask: marks::VERDICT_MASK | marks::CT_KILL,
};

/// A policy that live flows are to be judged by.
#[derive(Debug)]
pub(super) struct Rejudging {
    policy: Arc<Snapshot>,
    done: SyncSender<usize>,
    /// What it refuses, once that is known: the rest of it.
    refused: Option<Vec<Key>>,
    ended: usize,
}

/// A flow that was told to end.
#[derive(Debug)]
pub(super) struct Ending {
    key: Key,
    /// When to look whether it has.
    pub(super) at: Instant,
    /// Probes still to be sent.
    left: u8,
}

impl Rejudging {
    pub(super) fn new(policy: Arc<Snapshot>, done: SyncSender<usize>) -> Self {
        Self {
            policy,
            done,
            refused: None,
            ended: 0,
        }
    }

    /// How long the thread may sleep before it goes on with this.
    pub(super) const fn patience_ms(&self) -> u16 {
        if self.refused.is_some() { 0 } else { 1 }
    }
}

impl Follower {
    /// Does the next part of judging live flows again.
    ///
    /// A queue thread may be giving a verdict under the old policy right now. Were the table read
    /// before that is out, the flow it is about to hand to the kernel would be missed. So this
    /// waits, for as long as it takes, until every one of them is on the new policy.
    pub(super) fn go_on_rejudging(&mut self) {
        let Some(mut rejudging) = self.rejudging.take() else {
            return;
        };
        let generation = rejudging.policy.generation();
        let mut queues = self.settings.queues.iter();
        if !queues.all(|queue| queue.generation_in_use() >= generation) {
            self.rejudging = Some(rejudging);
            return;
        }
        let policy = Arc::clone(&rejudging.policy);
        let mut refused = match rejudging.refused.take() {
            Some(refused) => refused,
            None => self.refused_by(&policy),
        };
        let rest = refused.split_off(refused.len().min(ENDED_AT_ONCE));
        for key in &refused {
            if self.kill(key, &policy, Reason::PolicyChanged) {
                rejudging.ended = rejudging.ended.saturating_add(1);
            }
        }
        if rest.is_empty() {
            // Whoever asked may have given up waiting.
            match rejudging.done.try_send(rejudging.ended) {
                Ok(()) | Err(_) => {}
            }
        } else {
            rejudging.refused = Some(rest);
            self.rejudging = Some(rejudging);
        }
    }

    /// Every live flow that the policy refuses.
    fn refused_by(&mut self, policy: &Snapshot) -> Vec<Key> {
        // Another instance's flows are no matter of taste.
        let keep = policy.preferences().on_policy_change == OnPolicyChange::Keep;
        let date = Date::from_unix_ms(unix_ms());
        let current = low_bits(policy.generation());
        // A full mailbox or an event out of order must not make a flow immune.
        let orphans = match self.find_orphans() {
            Ok(orphans) => orphans,
            Err(error) => {
                tracing::error!(%error, "looking for forgotten flows");
                Vec::new()
            }
        };
        // What was judged by this very policy is known by name in a moment.
        let fresh: BTreeSet<_> = orphans
            .into_iter()
            .filter(|(_, generation)| *generation == Some(current))
            .map(|(key, _)| (key.client, key.server, key.protocol))
            .collect();
        let is_fresh = |key: &Key| fresh.contains(&(key.client, key.server, key.protocol));
        self.flows
            .iter()
            .filter(|(key, flow)| {
                let record = flow.record(key);
                let goes_on = if keep {
                    !is_of_another(policy, key, record.as_ref())
                } else {
                    self.is_allowed(policy, key, record.as_ref(), date)
                };
                !flow.is_ending() && !goes_on && !is_fresh(key)
            })
            .map(|(key, _)| key)
            .collect()
    }

    /// Marks a flow to be ended and asks its server for the numbers to reset it with; false when
    /// the kernel does not carry it, its ends have closed it, or it is another of the same ends.
    pub(super) fn kill(&mut self, key: &Key, policy: &Snapshot, reason: Reason) -> bool {
        let state = match self.conntrack.get(&key.tuple()) {
            // What is undecided is judged again by the thread that has it, and what the new policy
            // has judged already only shares its ends with what is meant here.
            Ok(Some(entry)) if self.is_meant(key, entry.mark, policy, reason) => entry.tcp_state,
            Ok(_) => return false,
            Err(error) => {
                tracing::error!(%error, ?key, "reading a flow that is to end");
                return false;
            }
        };
        let mark = marks::CT_KILL;
        match self.conntrack.set_mark(&key.tuple(), mark, mark) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                tracing::error!(%error, ?key, "ending a flow");
                return false;
            }
        }
        // Its ends have closed it: nobody is left to be told. A probe would begin a connection, and its server wait for
        // what nobody sends. The mark is for ends that go on all the same, which the kernel would let them.
        let is_over = matches!(state, Some(TcpState::Close | TcpState::TimeWait));
        if let Some(flow) = self.flows.get_mut(key) {
            flow.set_ending();
            if !is_over
                && policy.preferences().flow_log_verbosity != FlowLogVerbosity::None
                && let Some(record) = flow.record(key)
            {
                self.settings
                    .log
                    .flow(Arc::new(ended_by(policy, record, reason)));
            }
        }
        if is_over {
            return false;
        }
        if key.protocol == TCP {
            self.probe(key);
            self.endings.push_back(Ending {
                key: *key,
                at: Instant::now() + PROBE_AGAIN,
                left: PROBES_MORE,
            });
        }
        true
    }

    /// Whether an entry with this mark is the flow that is remembered under its ends.
    fn is_meant(&self, key: &Key, ct_mark: u32, policy: &Snapshot, reason: Reason) -> bool {
        let Some(judged) = marks::judged_generation(ct_mark) else {
            return false;
        };
        if reason != Reason::PolicyChanged || judged != low_bits(policy.generation()) {
            return true;
        }
        // Of a flow that is 65,536 changes old the mark looks the same.
        let record = self.flows.get(key).and_then(|flow| flow.record(key));
        record.is_some_and(|record| {
            record.generation != policy.generation() && low_bits(record.generation) == judged
        })
    }

    /// Probes those again that have not ended yet: a probe, its answer or a reset may be lost.
    pub(super) fn go_on_ending(&mut self) {
        let now = Instant::now();
        let mut turns = ENDED_AT_ONCE;
        while turns > 0 && self.endings.front().is_some_and(|ending| ending.at <= now) {
            turns = turns.saturating_sub(1);
            let Some(ending) = self.endings.pop_front() else {
                return;
            };
            let alive = match self.conntrack.get(&ending.key.tuple()) {
                Ok(Some(entry)) => {
                    entry.mark & marks::CT_KILL != 0 && entry.tcp_state != Some(TcpState::Close)
                }
                Ok(None) | Err(_) => false,
            };
            if !alive {
                continue;
            }
            self.probe(&ending.key);
            // Silent to the last, it ends at the next packet of either side.
            if ending.left > 1 {
                self.endings.push_back(Ending {
                    at: now + PROBE_AGAIN,
                    left: ending.left.saturating_sub(1),
                    ..ending
                });
            }
        }
    }

    fn probe(&self, key: &Key) {
        let probe = Segment {
            source: key.client,
            destination: key.server,
            sequence: PROBE_SEQUENCE,
            kind: SegmentKind::Probe,
        };
        if let Err(error) = self.raw.send(&probe) {
            // It is sent again, and the flow ends at its next packet in any case.
            tracing::debug!(%error, "probing a flow that is to end");
        }
    }

    fn is_allowed(
        &self,
        policy: &Snapshot,
        key: &Key,
        record: Option<&FlowRecord>,
        date: Date,
    ) -> bool {
        let now = self.settings.clock.now();
        let bindings = Under {
            store: &self.settings.bindings,
            policy,
        };
        let env = Env {
            now,
            policy,
            bindings: &bindings,
        };
        let ends = key.ends();
        let bound_now = |each: &mut dyn FnMut(&Name)| {
            ssh_names(&env, &ends).iter().for_each(each);
        };
        let may_be_bound = bindings.is_global(key.server.ip());
        is_allowed(policy, key, record, date, may_be_bound, &bound_now)
    }
}

/// The part of a generation that a ct mark holds.
fn low_bits(generation: u64) -> u16 {
    marks::judged_generation(marks::judged(generation)).unwrap_or_default()
}

/// The line that says why a live flow was ended.
fn ended_by(policy: &Snapshot, record: FlowRecord, reason: Reason) -> FlowRecord {
    FlowRecord {
        unix_ms: unix_ms(),
        outcome: Outcome::Disallowed(reason),
        gid: None,
        rule: None,
        generation: policy.generation(),
        policy_id: Arc::from(policy.policy_id()),
        rescued: false,
        see_thru: None,
        would_reason: None,
        ..record
    }
}

/// Calls its argument with names by which an SSH flow may reach its destination now.
pub(super) type BoundNow<'a> = &'a dyn Fn(&mut dyn FnMut(&Name));

/// Whether a policy lets a live flow go on; `record` is what it was allowed for, as far as that is known.
///
/// Its address was bound to its name when it was judged; that is not asked again, but whether the
/// address may be bound at all is. An SSH flow claims no name: it goes on while any of those it
/// was judged by, or that its address has now, is allowed.
pub(super) fn is_allowed(
    policy: &Snapshot,
    key: &Key,
    record: Option<&FlowRecord>,
    date: Date,
    may_be_bound: bool,
    bound_now: BoundNow<'_>,
) -> bool {
    if is_of_another(policy, key, record) {
        return false;
    }
    if policy.deployment_see_thru(date).is_some() {
        return true;
    }
    let Some(client) = policy.client(key.client.ip()) else {
        return false;
    };
    let transport = match key.protocol {
        TCP => Transport::Tcp,
        UDP => Transport::Udp,
        ICMP | ICMPV6 => Transport::Icmp,
        other => Transport::Other(other),
    };
    // What is not TCP was judged by its ends alone, and can be again. A TCP flow that nobody
    // knows the name of has nothing to show to a new policy but what allows any bytes.
    let proto = match (record, transport) {
        (Some(record), _) => record.proto,
        (None, Transport::Udp) if key.server.port() == QUIC_PORT => AppProto::Quic,
        (None, Transport::Udp) => AppProto::Udp,
        (None, Transport::Icmp) => AppProto::Icmp,
        (None, Transport::Tcp | Transport::Other(_)) => AppProto::Unknown,
    };
    let allows = |name: Option<&Name>| {
        let ask = Ask {
            client,
            transport,
            proto,
            name,
            bound: may_be_bound,
            dst: key.server.ip(),
            port: key.server.port(),
            date,
        };
        policy.decide(&ask).is_allowed()
    };
    let names = record.map(names_of).unwrap_or_default();
    if names.iter().any(|name| allows(Some(name))) || allows(None) {
        return true;
    }
    if proto != AppProto::Ssh {
        return false;
    }
    let mut any = false;
    bound_now(&mut |name| any = any || allows(Some(name)));
    any
}

/// Whether the address a flow came from is another instance's now, whatever that one may do.
fn is_of_another(policy: &Snapshot, key: &Key, record: Option<&FlowRecord>) -> bool {
    let opened_by = record.and_then(|record| record.instance.as_deref());
    let now = policy.client(key.client.ip());
    let now = now.map(|client| policy.instance(client));
    matches!((opened_by, now), (Some(then), Some(now)) if then != now)
}

/// Every name a flow was judged by.
fn names_of(record: &FlowRecord) -> Vec<Name> {
    let also = record.also.iter().flat_map(|names| names.iter());
    let names = record.dhost.iter().chain(also);
    names
        .filter_map(|name| Name::parse(name.as_bytes()).ok())
        .collect()
}

/// HTTP/3, which the engine tells from other UDP.
const QUIC_PORT: u16 = 443;
/// Any number will do: a live server answers a SYN in its window or out of it with a challenge
/// ACK (RFC 5961, section 4.2).
const PROBE_SEQUENCE: u32 = 1;
/// A probe that brought nothing is repeated; a Linux peer answers one per half second and socket
/// (`tcp_invalid_ratelimit`).
const PROBE_AGAIN: Duration = Duration::from_millis(250);
const PROBES_MORE: u8 = 3;
/// Flows ended before the thread looks at something else.
const ENDED_AT_ONCE: usize = 512;
