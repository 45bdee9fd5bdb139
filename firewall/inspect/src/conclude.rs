//! How flows end: refused, handed to the kernel, or closed by their own ends.
//!
//! The one place that answers held packets, so that each gets exactly one verdict.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::preferences::FlowLogVerbosity;
use policy::{AppProto, Reason, Transport};

use crate::claim::Claim;
use crate::decided::Fate;
use crate::env::Env;
use crate::familiar::stays_open;
use crate::flow::{FlowKey, Side};
use crate::inspector::Inspector;
use crate::output::{Output, Reset, Verdict};
use crate::record::{Category, FlowRecord, HttpRecord};
use crate::ruling::Ruling;
use crate::seq::Seq;
use crate::stage::{Flow, Stage};

/// What a record says beyond the ruling.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) transport: Transport,
    pub(crate) proto: AppProto,
    pub(crate) proto_v: &'static str,
    pub(crate) dhost: Option<Arc<str>>,
    pub(crate) pqc: bool,
    pub(crate) rescued: bool,
    pub(crate) http: Option<HttpRecord>,
    pub(crate) also: Option<Arc<[Arc<str>]>>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            transport: Transport::Tcp,
            proto: AppProto::Unknown,
            proto_v: "",
            dhost: None,
            pqc: false,
            rescued: false,
            http: None,
            also: None,
        }
    }
}

impl Inspector {
    pub(crate) fn answer(&mut self, token: u32, verdict: Verdict) {
        if verdict == Verdict::Drop {
            self.counters.dropped = self.counters.dropped.wrapping_add(1);
        }
        self.outputs.push_back(Output::Verdict { token, verdict });
    }

    /// Logs one side of a flow. Refusals are subject to the client's allowance.
    pub(crate) fn log(
        &mut self,
        env: &Env<'_>,
        key: &FlowKey,
        category: Category,
        ruling: &Ruling,
        facts: &Facts,
    ) {
        if let Some(record) = self.record(env, key, category, ruling, facts) {
            self.outputs.push_back(Output::Record(record));
        }
    }

    /// Logs an allowed claim whose server has still to answer. Where one line is wanted for both,
    /// it is handed back, to be logged with the answer.
    pub(crate) fn log_claim(
        &mut self,
        env: &Env<'_>,
        key: &FlowKey,
        ruling: &Ruling,
        facts: &Facts,
    ) -> Option<Arc<FlowRecord>> {
        let record = self.record(env, key, Category::Client, ruling, facts)?;
        if env.policy.preferences().flow_log_verbosity != FlowLogVerbosity::Sessions {
            self.outputs.push_back(Output::Record(record));
            return None;
        }
        self.outputs.push_back(Output::Claimed(Arc::clone(&record)));
        Some(record)
    }

    /// Logs the line that a claim has been waiting with, with what the server chose.
    pub(crate) fn log_session(&mut self, session: Option<Arc<FlowRecord>>, server: &Facts) {
        let Some(mut shared) = session else { return };
        let record = Arc::make_mut(&mut shared);
        if !server.proto_v.is_empty() {
            record.proto_v = server.proto_v;
        }
        record.pqc = server.pqc;
        if server.dhost.is_some() {
            record.dhost.clone_from(&server.dhost);
        }
        if server.http.is_some() {
            record.http.clone_from(&server.http);
        }
        self.outputs.push_back(Output::Session(shared));
    }

    /// Logs a claim that no server has answered.
    fn log_unanswered(&mut self, flow: &mut Flow) {
        let session = match &mut flow.stage {
            Stage::Conversing(talk) => talk.session.take(),
            Stage::Http(http) => http.session.take(),
            Stage::HeldSyn { .. }
            | Stage::AwaitingSynAck
            | Stage::AwaitingClient
            | Stage::AwaitingBinding { .. }
            | Stage::Moving => None,
        };
        if let Some(record) = session {
            self.outputs.push_back(Output::Session(record));
        }
    }

    fn record(
        &mut self,
        env: &Env<'_>,
        key: &FlowKey,
        category: Category,
        ruling: &Ruling,
        facts: &Facts,
    ) -> Option<Arc<FlowRecord>> {
        let mut suppressed = 0;
        if !ruling.is_allowed() {
            self.counters.refused = self.counters.refused.wrapping_add(1);
            let client = key.client.ip();
            match self.allowances.ask(client, env.now.mono_ms, &self.limits) {
                Some(count) => suppressed = count,
                None => {
                    self.counters.suppressed = self.counters.suppressed.wrapping_add(1);
                    return None;
                }
            }
        }
        let is_client = category == Category::Client;
        let (src, dst) = if is_client {
            (key.client, key.server)
        } else {
            (key.server, key.client)
        };
        Some(Arc::new(FlowRecord {
            unix_ms: env.now.unix_ms,
            category,
            outcome: ruling.outcome,
            dhost: facts.dhost.clone(),
            src,
            dst,
            transport: facts.transport,
            proto: facts.proto,
            proto_v: facts.proto_v,
            instance: ruling.instance.clone(),
            gid: ruling.gid.clone(),
            rule: ruling.rule.clone(),
            generation: env.policy.generation(),
            policy_id: self.policy_id(env),
            pqc: facts.pqc,
            rescued: facts.rescued,
            see_thru: ruling.see_thru.clone().filter(|_| is_client),
            would_reason: ruling.would_reason.filter(|_| is_client),
            http: facts.http.clone(),
            also: facts.also.clone(),
            suppressed,
            logged: match env.policy.preferences().flow_log_verbosity {
                FlowLogVerbosity::Full | FlowLogVerbosity::Sessions => true,
                FlowLogVerbosity::OnlyDisallowed => !ruling.is_allowed(),
                FlowLogVerbosity::None => false,
            },
        }))
    }

    fn policy_id(&mut self, env: &Env<'_>) -> Arc<str> {
        let generation = env.policy.generation();
        match &self.policy_id {
            Some((known, id)) if *known == generation => Arc::clone(id),
            _ => {
                let id: Arc<str> = env.policy.policy_id().into();
                self.policy_id = Some((generation, Arc::clone(&id)));
                id
            }
        }
    }

    /// Refuses a flow: drops what it holds, resets both ends, logs one line.
    pub(crate) fn refuse(
        &mut self,
        env: &Env<'_>,
        mut flow: Box<Flow>,
        category: Category,
        ruling: &Ruling,
        facts: &Facts,
    ) {
        self.drop_held(&mut flow);
        self.reset_ends(&flow);
        self.log(env, &flow.key, category, ruling, facts);
        self.end(env, flow, Fate::Refused);
    }

    /// Refuses a flow for what the packets of one side are, not for what they say.
    pub(crate) fn refuse_for(
        &mut self,
        env: &Env<'_>,
        flow: Box<Flow>,
        side: Side,
        reason: Reason,
    ) {
        let category = match side {
            Side::Client => Category::Client,
            Side::Server => Category::Server,
        };
        let facts = facts_so_far(&flow);
        let ruling = Ruling::refusal(env, flow.key.client.ip(), reason);
        self.refuse(env, flow, category, &ruling, &facts);
    }

    /// Hands a flow to the kernel. The last packet of `side` carries the mark; whatever else
    /// is held passes before it.
    pub(crate) fn hand_over(&mut self, env: &Env<'_>, mut flow: Box<Flow>, side: Side) {
        let judged = if stays_open(env, &flow.key) {
            Verdict::Familiar
        } else {
            Verdict::Judged
        };
        let others = std::mem::take(&mut flow.half_mut(side.other()).held);
        let own = std::mem::take(&mut flow.half_mut(side).held);
        let count = others.len().saturating_add(own.len());
        for (number, held) in (1..).zip(others.iter().chain(&own)) {
            let verdict = if number == count {
                judged
            } else {
                Verdict::Pass
            };
            self.answer(held.token, verdict);
        }
        self.counters.judged = self.counters.judged.wrapping_add(1);
        let generation = env.policy.generation();
        self.end(env, flow, Fate::Judged { generation });
    }

    /// Lets go of a flow that its own ends have closed, or that nobody completed.
    pub(crate) fn close(&mut self, env: &Env<'_>, mut flow: Box<Flow>) {
        self.drop_held(&mut flow);
        self.end(env, flow, Fate::Closed);
    }

    fn end(&mut self, env: &Env<'_>, mut flow: Box<Flow>, fate: Fate) {
        if fate != Fate::Refused {
            self.log_unanswered(&mut flow);
        }
        if let Some(lookups) = flow.lookups() {
            self.waiting.remove(lookups, &flow.key);
        }
        self.table.finish(&flow);
        self.decided.note(flow.key, fate, env.now.mono_ms);
    }

    /// Forgets a flow without a trace, because its 5-tuple begins anew.
    pub(crate) fn abandon(&mut self, mut flow: Box<Flow>) {
        self.log_unanswered(&mut flow);
        self.drop_held(&mut flow);
        if let Some(lookups) = flow.lookups() {
            self.waiting.remove(lookups, &flow.key);
        }
        self.table.finish(&flow);
    }

    pub(crate) fn drop_held(&mut self, flow: &mut Flow) {
        if let Stage::HeldSyn { token, .. } = &flow.stage {
            self.answer(*token, Verdict::Drop);
        }
        for side in [Side::Client, Side::Server] {
            for held in std::mem::take(&mut flow.half_mut(side).held) {
                self.answer(held.token, Verdict::Drop);
            }
        }
    }

    /// One reset to each end that knows of the connection (RFC 9293, section 3.5.2): to the
    /// server with the first byte it has not been given, to the client with the first it has
    /// not.
    fn reset_ends(&mut self, flow: &Flow) {
        let key = &flow.key;
        let client_sent = flow.client.sent_to();
        if !flow.is_connected() {
            let seq = Seq(0);
            self.reset(key.server, key.client, seq, client_sent);
            if matches!(flow.stage, Stage::AwaitingSynAck) {
                self.reset(
                    key.client,
                    key.server,
                    flow.client.stream.released_to(),
                    seq,
                );
            }
            return;
        }
        let client_next = flow.client.stream.released_to();
        let server_next = flow.server.stream.released_to();
        self.reset(key.client, key.server, client_next, server_next);
        self.reset(key.server, key.client, server_next, client_sent);
    }

    pub(crate) fn reset(&mut self, src: SocketAddr, dst: SocketAddr, seq: Seq, ack: Seq) {
        self.outputs.push_back(Output::Reset(Reset {
            src,
            dst,
            seq: seq.0,
            ack: ack.0,
        }));
    }

    /// Closes what both ends have closed, keeps the rest.
    pub(crate) fn keep(&mut self, env: &Env<'_>, flow: Box<Flow>) {
        debug_assert!(!matches!(flow.stage, Stage::Moving), "a stage went missing");
        if flow.client.closed && flow.server.closed {
            self.close(env, flow);
        } else {
            self.table.put(flow);
        }
    }

    /// Passes what has been let through, in order. `None` when a reset among it has ended the
    /// flow.
    pub(crate) fn flush(
        &mut self,
        env: &Env<'_>,
        mut flow: Box<Flow>,
        side: Side,
    ) -> Option<Box<Flow>> {
        let half = flow.half_mut(side);
        let mut passed = 0_usize;
        let mut is_reset = false;
        for held in &half.held {
            if !half.stream.is_released(held.end) {
                break;
            }
            passed = passed.saturating_add(1);
            half.closed |= held.fin;
            is_reset |= held.rst;
            self.answer(held.token, Verdict::Pass);
            if is_reset {
                break;
            }
        }
        half.held.drain(..passed);
        if is_reset {
            self.close(env, flow);
            return None;
        }
        Some(flow)
    }
}

/// What can be said of a flow at whatever stage it is.
fn facts_so_far(flow: &Flow) -> Facts {
    match &flow.stage {
        Stage::AwaitingBinding { claim, .. } => claim.facts(),
        Stage::Conversing(talk) => talk.facts(),
        Stage::Http(http) => http.facts(),
        Stage::AwaitingClient => Claim::read_partial(flow.client.stream.contiguous()),
        Stage::HeldSyn { .. } | Stage::AwaitingSynAck | Stage::Moving => Facts::default(),
    }
}
