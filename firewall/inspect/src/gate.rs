//! SYN and SYN/ACK: who may knock, and at which doors.
//!
//! Refuses when nothing can change the answer; holds the first SYN while a look-up may; drops
//! silently, for the client to retransmit, while the inventory may.

use std::net::IpAddr;

use policy::{AppProto, Name, Reason, SynGate, Transport};

use crate::env::{Env, Known};
use crate::flow::{FlowKey, Side};
use crate::inspector::Inspector;
use crate::output::{Output, Query, Verdict, Why};
use crate::packet::Segment;
use crate::record::Category;
use crate::ruling::{Question, Ruling, allows, is_off_limits};
use crate::seq::Seq;
use crate::stage::{Flow, Half, Stage};
use crate::unknown::Patience;
use crate::waiting::{Lookups, sought};

/// A deadline met this much too late was met by a thread that did not run.
const STALLED_MS: u64 = 20;

/// What [`ask_first`] says of a name whose answer is the one of this moment.
const FRESH: u8 = 4;

/// Names of one client and port that take turns in being asked for.
const NAMES_TAKING_TURNS: usize = 4_096;
/// Of these, names whose state is looked at for one SYN.
const NAMES_CONSIDERED: usize = 256;
/// How long after a SYN was let through the kernel must have an entry of it: not before a client sends it again by
/// itself, and not after the ruleset's ten seconds for an unanswered one.
const CARRIED_MS: std::ops::Range<u64> = 500..9_500;

/// What the gates say of a SYN.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Open,
    /// It stays shut unless some name of the client resolves to the destination.
    Miss,
    /// The client is not known yet.
    Wait,
    Shut(Reason),
}

impl Inspector {
    /// A bare SYN on a new conntrack entry.
    pub(crate) fn syn(&mut self, env: &Env<'_>, token: u32, key: FlowKey, segment: &Segment<'_>) {
        // A new entry is a new connection, whatever was decided about the 5-tuple before.
        self.decided.forget(&key);
        if let Some(flow) = self.table.take(&key) {
            return self.syn_again(env, token, flow, segment);
        }
        self.first_syn(env, token, key, segment.seq);
    }

    /// A SYN on an older entry: a verdict belongs to one connection, not to a 5-tuple.
    pub(crate) fn stale_syn(&mut self, token: u32, key: FlowKey, segment: &Segment<'_>) {
        self.answer(token, Verdict::Drop);
        if let Some(flow) = self.table.take(&key) {
            // The SYN of this very connection, sent again before its SYN/ACK came back: the
            // server has it, and ending the flow would leave the client connected to nothing.
            if flow.client.stream.at_start() == segment.seq.plus(1) {
                return self.table.put(flow);
            }
            self.abandon(flow);
        }
        self.decided.forget(&key);
        self.outputs.push_back(Output::Forget(key));
    }

    fn syn_again(&mut self, env: &Env<'_>, token: u32, mut flow: Box<Flow>, segment: &Segment<'_>) {
        let same = segment.seq.plus(1) == flow.client.stream.expected();
        match (&flow.stage, same) {
            // The first copy is held, or was let through and may have been lost.
            (Stage::HeldSyn { .. }, true) => {
                self.answer(token, Verdict::Drop);
                self.table.put(flow);
            }
            // Passed under another policy: this one judges it like a first.
            (Stage::AwaitingSynAck, true) if flow.generation != env.policy.generation() => {
                let key = flow.key;
                self.abandon(flow);
                self.first_syn(env, token, key, segment.seq);
            }
            (Stage::AwaitingSynAck, true) => {
                let passed_ms = flow.deadline.saturating_sub(self.limits.syn_ms);
                let age_ms = env.now.mono_ms.saturating_sub(passed_ms);
                flow.deadline = env.now.mono_ms.saturating_add(self.limits.syn_ms).max(1);
                self.answer(token, Verdict::Pass);
                if CARRIED_MS.contains(&age_ms) {
                    self.outputs.push_back(Output::Unanswered(flow.key));
                }
                self.table.put(flow);
            }
            // Another initial number while the first is in use: neither is believed. The
            // retransmission starts afresh.
            (Stage::HeldSyn { .. } | Stage::AwaitingSynAck, false) => {
                self.answer(token, Verdict::Drop);
                self.abandon(flow);
            }
            // The kernel has forgotten the connection we were following.
            _ => {
                let key = flow.key;
                self.abandon(flow);
                self.first_syn(env, token, key, segment.seq);
            }
        }
    }

    /// See [`Inspector::handle_no_port`].
    pub(crate) fn no_port(&mut self, env: &Env<'_>, key: &FlowKey) {
        let Some(flow) = self.table.take(key) else {
            return;
        };
        if matches!(flow.stage, Stage::AwaitingSynAck) {
            self.refuse_for(env, flow, Side::Client, Reason::NatPorts);
        } else {
            self.table.put(flow);
        }
    }

    fn first_syn(&mut self, env: &Env<'_>, token: u32, key: FlowKey, isn: Seq) {
        if let Some(reason) = self.no_room_for(key.client.ip()) {
            return self.refuse_syn(env, token, &key, isn, reason);
        }
        let load = self.table.load(key.client.ip());
        match self.door(env, &key) {
            Door::Shut(reason) => self.refuse_syn(env, token, &key, isn, reason),
            Door::Wait => self.answer(token, Verdict::Drop),
            Door::Open => {
                self.counters.gate_hits = self.counters.gate_hits.wrapping_add(1);
                self.answer(token, Verdict::Pass);
                let deadline = env.now.mono_ms.saturating_add(self.limits.syn_ms).max(1);
                self.open(env, key, isn, Stage::AwaitingSynAck, deadline);
            }
            // Before anything is looked at for it: a scan costs no more than this.
            Door::Miss if !self.may_miss(env, &key, load.held_syns) => {
                self.counters.dns_budget = self.counters.dns_budget.wrapping_add(1);
                self.answer(token, Verdict::Drop);
            }
            Door::Miss => self.hold_syn(env, token, key, isn),
        }
    }

    /// Why another flow of a client cannot be followed, if it cannot.
    pub(crate) fn no_room_for(&self, client: IpAddr) -> Option<Reason> {
        if self.table.len() >= self.limits.flows {
            return Some(Reason::TableFull);
        }
        let is_full = self.table.load(client).flows >= self.limits.flows_per_client;
        is_full.then_some(Reason::ClientLimit)
    }

    /// Whether a client may have another SYN held.
    fn may_miss(&mut self, env: &Env<'_>, key: &FlowKey, held_syns: usize) -> bool {
        held_syns < self.limits.held_syns_per_client
            && self.misses.take(
                (key.client.ip(), key.server.ip()),
                env.now.mono_ms,
                &self.limits,
            )
    }

    /// Holds a SYN while names that may belong to its address are looked up: the likeliest at
    /// once, the others when its client turns out not to scan. That is known a moment later, for a
    /// scan is many destinations: it costs a few questions, and a client one of whose names has
    /// moved gets every answer it needs.
    fn hold_syn(&mut self, env: &Env<'_>, token: u32, key: FlowKey, isn: Seq) {
        let (mut names, partial) = self.names_to_ask(env, &key);
        if names.is_empty() {
            return self.refuse_syn(env, token, &key, isn, Reason::AddressNotOfName);
        }
        self.counters.gate_misses = self.counters.gate_misses.wrapping_add(1);
        let mut later = names.split_off(names.len().min(self.limits.names_at_once));
        let varying = names.iter().filter(|name| env.bindings.varies(name));
        later.extend(varying.cloned());
        self.turn = self.turn.wrapping_add(names.len());
        let mut lookups = self.look_up(env, key, names, Why::Gate);
        lookups.leave(later, partial);
        let wait_ms = if lookups.has_later() {
            self.limits.search_after_ms
        } else {
            self.limits.lookup_ms
        };
        let deadline = env.now.mono_ms.saturating_add(wait_ms).max(1);
        self.open(env, key, isn, Stage::HeldSyn { token, lookups }, deadline);
    }

    /// Asks for the names that were left for later, or gives them up for a client that scans;
    /// until when that may take.
    fn search(&mut self, env: &Env<'_>, key: FlowKey, lookups: &mut Lookups) -> u64 {
        let client = key.client.ip();
        if self.misses.is_scan(client, env.now.mono_ms, &self.limits) {
            lookups.give_up_later();
        } else {
            let later = lookups.begin_later();
            self.turn = self.turn.wrapping_add(later.len());
            self.ask(env, key, &later, Why::Search);
        }
        let left_ms = self
            .limits
            .lookup_ms
            .saturating_sub(self.limits.search_after_ms);
        env.now.mono_ms.saturating_add(left_ms).max(1)
    }

    pub(crate) fn open(
        &mut self,
        env: &Env<'_>,
        key: FlowKey,
        isn: Seq,
        stage: Stage,
        deadline: u64,
    ) {
        let generation = env.policy.generation();
        self.table
            .add(Box::new(Flow::new(key, isn, generation, stage, deadline)));
    }

    /// Refuses before any flow exists; the server has not heard of it and never will.
    fn refuse_syn(&mut self, env: &Env<'_>, token: u32, key: &FlowKey, isn: Seq, reason: Reason) {
        self.answer(token, Verdict::Drop);
        self.reset(key.server, key.client, Seq(0), isn.plus(1));
        let ruling = Ruling::refusal(env, key.client.ip(), reason);
        self.log(
            env,
            key,
            Category::Client,
            &ruling,
            &crate::conclude::Facts::default(),
        );
    }

    /// Asks for names on behalf of a flow.
    pub(crate) fn look_up(
        &mut self,
        env: &Env<'_>,
        key: FlowKey,
        names: Vec<Name>,
        why: Why,
    ) -> Lookups {
        self.ask(env, key, &names, why);
        Lookups::new(env.policy.generation(), names)
    }

    fn ask(&mut self, env: &Env<'_>, key: FlowKey, names: &[Name], why: Why) {
        for name in names {
            let sought = sought(name, &key);
            if self
                .waiting
                .add(&sought, key, env.now.mono_ms, self.limits.lookup_ms)
            {
                let query = Query {
                    sought,
                    client: key.client.ip(),
                    why,
                };
                self.outputs.push_back(Output::Query(query));
            }
        }
    }

    /// Both gates.
    pub(crate) fn door(&mut self, env: &Env<'_>, key: &FlowKey) -> Door {
        let (client, server) = (key.client.ip(), key.server.ip());
        if is_off_limits(server) {
            return Door::Shut(Reason::AddressNotGlobal);
        }
        let Some(known) = env.policy.client(client) else {
            return self.unknown_door(env, client);
        };
        let gate = env
            .policy
            .syn_gate(known, key.server.port(), server, env.now.date());
        match gate {
            SynGate::Closed(reason) => Door::Shut(reason),
            SynGate::Open => Door::Open,
            SynGate::Exact if !env.bindings.is_global(server) => {
                Door::Shut(Reason::AddressNotGlobal)
            }
            SynGate::Exact if is_bound_for(env, known, key) => Door::Open,
            SynGate::Exact => Door::Miss,
        }
    }

    /// The gate of a client that is in no group: it may get into one yet.
    pub(crate) fn unknown_door(&mut self, env: &Env<'_>, client: IpAddr) -> Door {
        if !env.policy.is_served(client) {
            return Door::Shut(Reason::ClientUnknown);
        }
        if self.is_see_thru(env) {
            return Door::Open;
        }
        match self.unknown.attempt(client, env.now.mono_ms, &self.limits) {
            Patience::Refuse => Door::Shut(Reason::ClientUnknown),
            Patience::Wait { report } => {
                self.counters.client_pending = self.counters.client_pending.wrapping_add(1);
                if report {
                    self.outputs.push_back(Output::UnknownClient(client));
                }
                Door::Wait
            }
        }
    }

    /// Names this client may reach on this port, those nothing is known of first. Where there
    /// are more than may be asked for at once they take turns: the retransmission of a SYN whose
    /// address belongs to none of these asks for others. The second value says whether there are
    /// others whose answers are not those of this moment.
    fn names_to_ask(&self, env: &Env<'_>, key: &FlowKey) -> (Vec<Name>, bool) {
        let Some(client) = env.policy.client(key.client.ip()) else {
            return (Vec::new(), false);
        };
        let port = key.server.port();
        let mut names = env
            .policy
            .reachable_names(client, None, port, NAMES_TAKING_TURNS);
        if names.len() > self.limits.names_per_syn {
            let first = self.turn.checked_rem(names.len()).unwrap_or(0);
            names.rotate_left(first);
            names.truncate(NAMES_CONSIDERED);
        }
        // Once for each: the witness goes on learning, and a sort whose keys change under it panics.
        names.sort_by_cached_key(|name| ask_first(env, name));
        let rest = names.get(self.limits.names_per_syn);
        let partial = rest.is_some_and(|name| ask_first(env, name) < FRESH);
        names.truncate(self.limits.names_per_syn);
        (names.into_iter().cloned().collect(), partial)
    }

    /// Whether nothing can open the door any more.
    pub(crate) fn is_shut(&mut self, env: &Env<'_>, key: &FlowKey) -> bool {
        match self.door(env, key) {
            Door::Shut(_) => true,
            // Some name may turn out to have this address.
            Door::Miss | Door::Open | Door::Wait => false,
        }
    }

    /// Judges a held SYN again: something was learnt, or its time is up.
    pub(crate) fn retry_syn(&mut self, env: &Env<'_>, mut flow: Box<Flow>, is_due: bool) {
        let door = self.door(env, &flow.key);
        let Stage::HeldSyn { token, mut lookups } = flow.take_stage() else {
            debug_assert!(false, "only a held SYN is retried");
            return self.refuse_for(env, flow, Side::Client, Reason::Internal);
        };
        let is_due = if is_due && matches!(door, Door::Miss) && lookups.has_later() {
            let late_ms = env.now.mono_ms.saturating_sub(flow.deadline);
            flow.deadline = if late_ms > STALLED_MS {
                // What came meanwhile is still in the queue: whether it was a scan is not known.
                env.now.mono_ms.saturating_add(self.limits.search_after_ms)
            } else {
                self.search(env, flow.key, &mut lookups)
            };
            false
        } else {
            is_due
        };
        match door {
            Door::Open => {
                self.waiting.remove(&lookups, &flow.key);
                self.answer(token, Verdict::Pass);
                self.counters.rescued = self.counters.rescued.wrapping_add(1);
                flow.rescued = true;
                flow.stage = Stage::AwaitingSynAck;
                flow.deadline = env.now.mono_ms.saturating_add(self.limits.syn_ms).max(1);
                self.table.put(flow);
            }
            Door::Miss if !is_due && !lookups.are_over() => {
                flow.stage = Stage::HeldSyn { token, lookups };
                self.table.put(flow);
            }
            // The retransmission asks again, and for the names of a policy that has come meanwhile.
            Door::Miss
                if lookups.generation() != env.policy.generation()
                    || self.may_come_back(env, &lookups) =>
            {
                flow.stage = Stage::HeldSyn { token, lookups };
                self.abandon(flow);
            }
            Door::Miss | Door::Wait => {
                let reason = self.mismatch(env, &lookups);
                flow.stage = Stage::HeldSyn { token, lookups };
                self.refuse_for(env, flow, Side::Client, reason);
            }
            Door::Shut(reason) => {
                flow.stage = Stage::HeldSyn { token, lookups };
                self.refuse_for(env, flow, Side::Client, reason);
            }
        }
    }

    /// A SYN/ACK: gives the server's initial number and starts the hello's deadline.
    pub(crate) fn syn_ack(
        &mut self,
        env: &Env<'_>,
        token: u32,
        key: FlowKey,
        segment: &Segment<'_>,
    ) {
        let Some(flow) = self.table.take(&key) else {
            // We have not seen its SYN: it passed before we started. The client's next SYN
            // makes a fresh entry.
            self.answer(token, Verdict::Drop);
            if self.decided.fate(&key, env.now.mono_ms).is_none() {
                self.outputs.push_back(Output::Forget(key));
            }
            return;
        };
        let Some(mut flow) = self.recheck(env, flow) else {
            return self.answer(token, Verdict::Drop);
        };
        let answers = segment.ack == flow.client.stream.at_start();
        if matches!(flow.stage, Stage::AwaitingSynAck) && answers {
            flow.server = Half::new(segment.seq);
            flow.server.ack = segment.ack;
            flow.client.ack = segment.seq.plus(1);
            flow.stage = Stage::AwaitingClient;
            flow.deadline = env.now.mono_ms.saturating_add(self.limits.hello_ms).max(1);
            self.answer(token, Verdict::Pass);
            return self.table.put(flow);
        }
        let repeat = flow.is_connected()
            && answers
            && segment.seq.plus(1) == flow.half(Side::Server).stream.at_start();
        self.answer(token, if repeat { Verdict::Pass } else { Verdict::Drop });
        if flow.is_connected() && answers && !repeat {
            // The same SYN answered twice with different numbers.
            return self.refuse_for(env, flow, Side::Client, Reason::TcpState);
        }
        self.table.put(flow);
    }
}

/// Whether the destination is bound to any name this client may reach there.
fn is_bound_for(env: &Env<'_>, client: policy::ClientRef, key: &FlowKey) -> bool {
    opens(env, client, key).unwrap_or_else(|| bound_name_allowed(env, client, key))
}

/// Whether that can be said without asking for name after name, and is so.
pub(crate) fn is_bound_for_certain(
    env: &Env<'_>,
    client: policy::ClientRef,
    key: &FlowKey,
) -> bool {
    opens(env, client, key) == Some(true)
}

fn opens(env: &Env<'_>, client: policy::ClientRef, key: &FlowKey) -> Option<bool> {
    let to = (key.server.ip(), key.server.port());
    env.bindings.opens(env.policy, client, to, env.now)
}

/// The same by asking for name after name, as it is done for the moments in which the bindings are made ready for a
/// new policy: for those of the client where they are few, for those of the address otherwise. An address of a shared
/// edge may bear ten thousand.
fn bound_name_allowed(env: &Env<'_>, client: policy::ClientRef, key: &FlowKey) -> bool {
    let (addr, port) = (key.server.ip(), key.server.port());
    let max = NAMES_CONSIDERED.saturating_add(1);
    let names = env.policy.reachable_names(client, None, port, max);
    if names.len() < max {
        let mut names = names.into_iter();
        if names.any(|name| env.bindings.is_bound(name, addr, env.now)) {
            return true;
        }
        // Names under patterns are among those of the address only.
        if !env.policy.has_pattern(client, port) {
            return false;
        }
    }
    let mut allowed = false;
    env.bindings
        .names_of(key.server.ip(), env.now, &mut |name| {
            let reaches = |proto| {
                let question = Question {
                    client: key.client.ip(),
                    server: key.server,
                    transport: Transport::Tcp,
                    proto,
                    name: Some(name),
                    bound: true,
                };
                allows(env, &question)
            };
            allowed = allowed
                || [AppProto::Tls, AppProto::Ssh, AppProto::Http]
                    .into_iter()
                    .any(reaches);
        });
    allowed
}

/// Whether the first look-up of some name has not ended: what it may still allow is not refused,
/// it waits, however the look-ups on its own behalf have ended.
pub(crate) fn is_priming(env: &Env<'_>, lookups: &Lookups) -> bool {
    lookups
        .names()
        .any(|name| env.bindings.is_known(name) == Known::Priming)
}

/// A name nothing is known of is worth more than one whose answers differ from each other, that
/// more than one whose answer is stale, and that more than one whose addresses are fresh.
fn ask_first(env: &Env<'_>, name: &Name) -> u8 {
    match env.bindings.is_known(name) {
        Known::Unasked | Known::Priming => 0,
        Known::Answered if env.bindings.varies(name) => 1,
        Known::Answered if env.bindings.is_stale(name, env.now) => 2,
        Known::Failed => 3,
        Known::Answered => FRESH,
    }
}
