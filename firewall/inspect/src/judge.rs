//! From a complete first message to allowed or refused.

use std::collections::BTreeSet;

use policy::preferences::{Ech, PlaintextHttp};
use policy::{AppProto, Kind, Name, Reason, SynGate, Transport};

use crate::claim::{Candidate, Claim, Message};
use crate::conclude::Facts;
use crate::env::Env;
use crate::flow::{FlowKey, Side};
use crate::http_flow::HttpFlow;
use crate::inspector::Inspector;
use crate::machine::Machine;
use crate::output::Why;
use crate::record::Category;
use crate::ruling::{Question, Ruling, allows_client, rule};
use crate::stage::{Conversing, Flow, Stage};
use crate::waiting::Lookups;

/// Names bound to one address that an SSH flow is judged by; an address that bears more is a
/// shared edge, and SSH does not live there.
const CANDIDATES_MAX: usize = 64;
/// SSH names of one client and port, or names of one address, that are considered.
const SSH_NAMES_MAX: usize = 4_096;

/// What the policy says of a claim.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) ruling: Ruling,
    /// An `address` rule or see-thru would let any bytes pass.
    pub(crate) is_lenient: bool,
    /// SSH: the names it may be for.
    pub(crate) candidates: Vec<Candidate>,
    /// Names whose look-up may change the ruling.
    pub(crate) wanted: Vec<Name>,
}

/// Asks about bytes that claim nothing: what an `address` rule or see-thru says.
pub(crate) fn rule_blind(env: &Env<'_>, key: &FlowKey) -> Ruling {
    rule_claim(env, key, AppProto::Unknown, None, false)
}

/// Whether bytes that claim nothing may pass, which takes no more than yes or no of nearly every flow.
fn is_blind_allowed(env: &Env<'_>, key: &FlowKey) -> bool {
    let Some(client) = env.policy.client(key.client.ip()) else {
        // Nobody's client: only see-thru of the whole deployment lets it pass.
        return rule_blind(env, key).is_allowed();
    };
    allows_client(
        env,
        client,
        &Question {
            client: key.client.ip(),
            server: key.server,
            transport: Transport::Tcp,
            proto: AppProto::Unknown,
            name: None,
            bound: false,
        },
    )
}

/// Asks about one name, or none, in one protocol over TCP.
pub(crate) fn rule_claim(
    env: &Env<'_>,
    key: &FlowKey,
    proto: AppProto,
    name: Option<&Name>,
    bound: bool,
) -> Ruling {
    let question = Question {
        client: key.client.ip(),
        server: key.server,
        transport: Transport::Tcp,
        proto,
        name,
        bound,
    };
    rule(env, &question)
}

/// The names bound to the destination by which an SSH client may reach it, in byte order.
pub(crate) fn ssh_candidates(env: &Env<'_>, key: &FlowKey) -> (Vec<Candidate>, Option<Ruling>) {
    if !env.bindings.is_global(key.server.ip()) {
        return (Vec::new(), None);
    }
    let names = ssh_names(env, key);
    let mut first = None;
    let mut candidates = Vec::new();
    for name in names {
        let ruling = rule_claim(env, key, AppProto::Ssh, Some(&name), true);
        if ruling.is_allowed() && !ruling.is_exerted() {
            candidates.push(Candidate {
                name,
                pins: ruling.pins.clone(),
            });
            first.get_or_insert(ruling);
        }
    }
    (candidates, first)
}

/// Names by which the client may reach SSH servers, as far as the destination is one of them.
/// However many names the address bears, no more than some thousand are looked at, and 64 found.
///
/// Asked from the client's side, whose SSH names are few, not from the address's, which may bear
/// ten thousand names of others. Only where more than exact names open the port are the address's
/// names walked, for those that a pattern covers.
pub fn ssh_names(env: &Env<'_>, key: &FlowKey) -> BTreeSet<Name> {
    let (addr, port) = (key.server.ip(), key.server.port());
    let Some(client) = env.policy.client(key.client.ip()) else {
        return BTreeSet::new();
    };
    let exact = env
        .policy
        .reachable_names(client, Some(Kind::Ssh), port, SSH_NAMES_MAX);
    let bound = exact
        .into_iter()
        .filter(|name| env.bindings.is_bound(name, addr, env.now));
    let mut names: BTreeSet<Name> = bound.take(CANDIDATES_MAX).cloned().collect();
    let gate = env.policy.syn_gate(client, port, addr, env.now.date());
    // With the DNS front a pattern's gate is as strict as that of names, and its names are still the address's.
    if gate == SynGate::Open || env.policy.has_pattern(client, port) {
        let mut walked = 0_usize;
        env.bindings.names_of(addr, env.now, &mut |name| {
            walked = walked.saturating_add(1);
            let is_open = || {
                let ruling = rule_claim(env, key, AppProto::Ssh, Some(name), true);
                ruling.is_allowed() && !ruling.is_exerted()
            };
            let has_room = names.len() < CANDIDATES_MAX && walked <= SSH_NAMES_MAX;
            if has_room && !names.contains(name) && is_open() {
                names.insert(name.clone());
            }
        });
    }
    names
}

/// Judges a claim by the policy and the bindings of this moment.
pub(crate) fn judge(env: &Env<'_>, key: &FlowKey, claim: &Claim) -> Judgement {
    let is_lenient = is_blind_allowed(env, key);
    let plain = |ruling: Ruling| Judgement {
        ruling,
        is_lenient,
        candidates: Vec::new(),
        wanted: Vec::new(),
    };
    let fault = claim.fault.or_else(|| fault_by_preference(env, claim));
    if let Some(reason) = fault {
        return plain(because(env, key, rule_blind(env, key), reason));
    }
    if claim.proto == AppProto::Ssh {
        return judge_ssh(env, key, rule_blind(env, key));
    }
    let name = claim.name();
    let addr = key.server.ip();
    // Whether an address may be bound at all is asked now, not when it was learnt: the policy
    // may have taken it back since.
    let may_be_bound = env.bindings.is_global(addr);
    let bound = may_be_bound && name.is_some_and(|name| env.bindings.is_bound(name, addr, env.now));
    let ruling = rule_claim(env, key, claim.proto, name, bound);
    let wanted = match name {
        Some(name) if ruling.wants_binding && !bound => vec![name.clone()],
        Some(_) | None => Vec::new(),
    };
    let refuses_ech = env.policy.preferences().ech == Ech::Refuse;
    if claim.hides_a_name() && refuses_ech && ruling.is_allowed() && wanted.is_empty() {
        // A claim that see-thru lets pass for another reason keeps that one.
        let reason = ruling.would_reason.unwrap_or(Reason::Ech);
        return plain(because(env, key, rule_blind(env, key), reason));
    }
    Judgement {
        wanted,
        ..plain(refine(env, key, ruling))
    }
}

fn fault_by_preference(env: &Env<'_>, claim: &Claim) -> Option<Reason> {
    let refuses = env.policy.preferences().plaintext_http == PlaintextHttp::Refuse;
    (claim.proto == AppProto::Http && refuses).then_some(Reason::PlaintextHttp)
}

/// The ruling on bytes that fail for `reason` unless nobody looks at them.
fn because(env: &Env<'_>, key: &FlowKey, blind: Ruling, reason: Reason) -> Ruling {
    if blind.is_allowed() {
        blind.because(reason)
    } else {
        Ruling::refusal(env, key.client.ip(), reason)
    }
}

fn judge_ssh(env: &Env<'_>, key: &FlowKey, blind: Ruling) -> Judgement {
    let is_lenient = blind.is_allowed();
    let (candidates, ruling) = ssh_candidates(env, key);
    if let Some(ruling) = ruling {
        return Judgement {
            ruling,
            is_lenient,
            candidates,
            wanted: Vec::new(),
        };
    }
    let port = key.server.port();
    let wanted: Vec<Name> = env
        .policy
        .client(key.client.ip())
        .map_or_else(Vec::new, |client| {
            let names = env
                .policy
                .reachable_names(client, Some(Kind::Ssh), port, 20);
            names.into_iter().cloned().collect()
        });
    // Under `address_mismatch = observe` a name is allowed although it is not bound.
    let observed = wanted
        .first()
        .map(|name| rule_claim(env, key, AppProto::Ssh, Some(name), false));
    if let Some(ruling) = observed.filter(|ruling| ruling.is_allowed() && !ruling.is_exerted()) {
        return Judgement {
            ruling: refine(env, key, ruling),
            is_lenient,
            candidates,
            wanted,
        };
    }
    let nameless = rule_claim(env, key, AppProto::Ssh, None, false);
    let reason = if wanted.is_empty() {
        nameless.reason()
    } else {
        Some(Reason::AddressNotOfName)
    };
    let ruling = because(env, key, blind, reason.unwrap_or(Reason::NameNotAllowed));
    Judgement {
        ruling: refine(env, key, ruling),
        is_lenient,
        candidates,
        wanted,
    }
}

/// Says why an address does not belong to a name, where more is known than that.
fn refine(env: &Env<'_>, key: &FlowKey, ruling: Ruling) -> Ruling {
    let mismatch = ruling.reason() == Some(Reason::AddressNotOfName);
    if mismatch && !env.bindings.is_global(key.server.ip()) {
        return ruling.because(Reason::AddressNotGlobal);
    }
    ruling
}

impl Inspector {
    /// A client's first message is complete.
    pub(crate) fn claimed(&mut self, env: &Env<'_>, mut flow: Box<Flow>, claim: Claim) {
        let mut judgement = judge(env, &flow.key, &claim);
        let wanted = std::mem::take(&mut judgement.wanted);
        if wanted.is_empty() || !env.bindings.is_global(flow.key.server.ip()) {
            return self.settle(env, flow, claim, judgement, false);
        }
        let lookups = self.look_up(env, flow.key, wanted, Why::Claim);
        flow.stage = Stage::AwaitingBinding {
            claim: Box::new(claim),
            lookups,
        };
        flow.deadline = env.now.mono_ms.saturating_add(self.limits.lookup_ms).max(1);
        self.table.put(flow);
    }

    /// Judges a waiting claim again: something was learnt, or its time is up.
    pub(crate) fn retry_claim(&mut self, env: &Env<'_>, mut flow: Box<Flow>, is_due: bool) {
        let Stage::AwaitingBinding { claim, lookups } = flow.take_stage() else {
            debug_assert!(false, "only a claim is retried");
            return self.refuse_for(env, flow, Side::Client, Reason::Internal);
        };
        let mut judgement = judge(env, &flow.key, &claim);
        if judgement.wanted.is_empty() {
            self.waiting.remove(&lookups, &flow.key);
            let rescued = judgement.ruling.is_allowed();
            return self.settle(env, flow, *claim, judgement, rescued);
        }
        if !is_due && !lookups.are_over() {
            flow.stage = Stage::AwaitingBinding { claim, lookups };
            return self.table.put(flow);
        }
        if !judgement.ruling.is_allowed() && self.may_come_back(env, &lookups) {
            flow.stage = Stage::AwaitingBinding { claim, lookups };
            return self.postpone_claim(env, flow);
        }
        self.waiting.remove(&lookups, &flow.key);
        if judgement.ruling.reason() == Some(Reason::AddressNotOfName) {
            let reason = self.mismatch(env, &lookups);
            judgement.ruling = judgement.ruling.because(reason);
        }
        self.settle(env, flow, *claim, judgement, false);
    }

    /// Drops what a claim holds so that its client sends it again: nobody could be asked.
    pub(crate) fn postpone_claim(&mut self, env: &Env<'_>, mut flow: Box<Flow>) {
        if let Some(lookups) = flow.lookups() {
            let lookups: &Lookups = lookups;
            self.waiting.remove(lookups, &flow.key);
        }
        self.drop_held(&mut flow);
        if flow.client.stream.released() == 0 {
            flow.client.stream.restart();
        }
        flow.stage = Stage::AwaitingClient;
        flow.deadline = env.now.mono_ms.saturating_add(self.limits.hello_ms).max(1);
        self.table.put(flow);
    }

    fn settle(
        &mut self,
        env: &Env<'_>,
        mut flow: Box<Flow>,
        claim: Claim,
        mut judgement: Judgement,
        rescued: bool,
    ) {
        self.weigh_certificate(env, &flow.key, &claim, &mut judgement);
        // Its SYN was, or this very claim.
        let facts = facts_of(&claim, &judgement, rescued || flow.rescued);
        let Judgement {
            ruling,
            is_lenient,
            candidates,
            ..
        } = judgement;
        flow.generation = env.policy.generation();
        if !ruling.is_allowed() {
            // The stage was taken out; what is left of the flow is past its SYN/ACK.
            flow.stage = Stage::AwaitingClient;
            return self.refuse(env, flow, Category::Client, &ruling, &facts);
        }
        if rescued && !flow.rescued {
            self.counters.rescued = self.counters.rescued.wrapping_add(1);
        }
        let is_sound = claim.fault.is_none();
        let machine = match claim.message {
            Message::Tls(hello) => Some(Machine::tls(hello)),
            Message::Ssh if is_sound => Some(Machine::ssh(candidates)),
            Message::Http(_) if is_sound && !is_lenient => {
                let session = self.log_claim(env, &flow.key, &ruling, &facts);
                flow.stage = Stage::Http(Box::new(HttpFlow::new(ruling, facts, session)));
                return self.advance_http(env, flow, Side::Client);
            }
            Message::Ssh | Message::Http(_) | Message::Opaque => None,
        };
        let Some(machine) = machine else {
            self.log(env, &flow.key, Category::Client, &ruling, &facts);
            flow.stage = Stage::AwaitingClient;
            return self.hand_over(env, flow, Side::Client);
        };
        let session = self.log_claim(env, &flow.key, &ruling, &facts);
        let read_client = machine.starts_at();
        flow.client.stream.release_to(read_client);
        flow.stage = Stage::Conversing(Box::new(Conversing {
            machine,
            ruling,
            is_lenient,
            rescued: facts.rescued,
            answered: false,
            read_client,
            read_server: 0,
            protected_client: false,
            protected_server: false,
            session,
        }));
        flow.deadline = env.now.mono_ms.saturating_add(self.limits.answer_ms).max(1);
        self.converse(env, flow, Side::Client);
    }
}

/// What the record of a judged claim says beyond the ruling.
fn facts_of(claim: &Claim, judgement: &Judgement, rescued: bool) -> Facts {
    let mut names = judgement.candidates.iter().map(|one| one.name.as_str());
    let mut facts = claim.facts();
    facts.rescued = rescued;
    if let Some(first) = names.next() {
        facts.dhost = Some(first.into());
        let others: Vec<_> = names.map(Into::into).collect();
        facts.also = (!others.is_empty()).then(|| others.into());
    }
    facts
}
