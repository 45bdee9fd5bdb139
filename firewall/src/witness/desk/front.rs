//! What becomes of a question to the DNS front: who may ask what, and what may leave as an answer.
//!
//! A name that its asker cannot reach is never passed on: that is what makes the front close the channel of crafted
//! questions. What is passed on is answered only with addresses that are bound by then.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use inspect::{Bindings, Query, Sought, Time, Why};
use ipc::record::{DnsCat, DnsLineV1, FlowOutcome, Text, Timestamp};
use ipc::witness::{
    AnswerOutcome, AnswerV1, AskedV1, FoundV1, FrontV1, FrontVerdict, PermitV1, ReleaseV1,
    SightingV1, SourceV1, ToWitness,
};
use policy::preferences::{DnsFront, FlowLogVerbosity};
use policy::{Asking, Name, Reason, Snapshot};

use super::{Action, Desk};
use crate::witness::FrontSettings;

mod limits;

/// The daemon's half of the front.
#[derive(Debug, Default)]
pub(super) struct FrontDesk {
    settings: FrontSettings,
    /// Whether the policy wants it and there are resolvers to ask.
    on: bool,
    waiting: HashMap<u64, Waiting>,
    /// Questions about new names under patterns, beyond what their source may learn at once, and since when.
    deferred: Vec<(u64, AskedV1)>,
    again_ms: u64,
    /// Lines about refusals in this second, per source.
    said: HashMap<IpAddr, (u64, u32)>,
    /// Names under patterns that cloud resolvers brought up in this second.
    learnt: (u64, u32),
    /// Unknown sources told of in this second.
    unknown: (u64, Vec<IpAddr>),
    counts: FrontCounts,
}

/// What was decided since somebody last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::witness) struct FrontCounts {
    /// Answers that left with what a resolver said.
    pub(in crate::witness) passed: u64,
    /// Questions answered by ourselves.
    pub(in crate::witness) refused: u64,
    /// Questions left without an answer: of unknown sources, and beyond what a source may learn.
    pub(in crate::witness) ignored: u64,
    /// Addresses taken out of answers, because they may never be bound.
    pub(in crate::witness) withheld: u64,
    /// Refusals without a line, because their source made too many.
    pub(in crate::witness) unlogged: u64,
}

/// A question that resolvers are asked.
#[derive(Debug)]
struct Waiting {
    since_ms: u64,
    line: Box<DnsLineV1>,
    logged: bool,
    /// The name whose addresses are bound first, and whether only such leave.
    bind: Option<(Name, bool)>,
}

/// What a question comes to.
struct Weighed {
    verdict: FrontVerdict,
    /// The gid, or why not.
    reason: Result<String, Reason>,
    /// What would be the reason if anything were enforced.
    would: Option<Reason>,
    /// The name, where a rule lists it.
    listed: Option<Name>,
    /// Whether its answer leaves with every address, bound or not.
    whole: bool,
}

impl Weighed {
    fn refused(verdict: FrontVerdict, reason: Reason) -> Self {
        Self {
            verdict,
            reason: Err(reason),
            would: None,
            listed: None,
            whole: false,
        }
    }

    /// A name that is not listed. A resolver may take all below one that does not exist not to exist either.
    fn unlisted(policy: &Snapshot, name: &str, resolver: bool, reason: Reason) -> Self {
        let is_above = resolver && policy.is_above_a_name(&name.to_ascii_lowercase());
        let verdict = if is_above {
            FrontVerdict::NoData
        } else {
            FrontVerdict::NoSuchName
        };
        Self::refused(verdict, reason)
    }

    fn passed(gid: &str, would: Option<Reason>, listed: Option<Name>) -> Self {
        Self {
            verdict: FrontVerdict::Forward,
            reason: Ok(gid.to_owned()),
            would,
            listed,
            whole: false,
        }
    }
}

impl Desk {
    /// Has a front, for policies that want one.
    pub(in crate::witness) fn with_front(mut self, settings: FrontSettings) -> Self {
        self.front.settings = settings;
        self
    }

    /// Whether the front is to be on, and the witness therefore to listen.
    pub(in crate::witness) const fn listens(&self) -> bool {
        self.front.on
    }

    /// What was decided since the last call.
    pub(in crate::witness) fn take_front_counts(&mut self) -> FrontCounts {
        std::mem::take(&mut self.front.counts)
    }

    /// Turns the front on or off as a policy wants it.
    pub(super) fn adopt_front(&mut self, policy: &Snapshot, actions: &mut Vec<Action>) {
        let wanted = policy.preferences().dns_front != DnsFront::Off;
        let was = std::mem::replace(
            &mut self.front.on,
            wanted && !self.settings.upstreams.is_empty(),
        );
        if !self.front.on {
            self.front.waiting.clear();
            self.front.deferred.clear();
        }
        if self.front.on || was {
            actions.push(self.tell_front());
        }
    }

    /// Gives up what a process before asked: an answer would be one to another question.
    pub(super) fn forget_questions(&mut self) {
        self.front.waiting.clear();
        self.front.deferred.clear();
    }

    pub(super) fn tell_front(&self) -> Action {
        let settings = &self.front.settings;
        let front = self.front.on.then(|| FrontV1 {
            port: settings.port,
            resolvers: settings.resolvers.iter().map(ToString::to_string).collect(),
        });
        Action::Tell(ToWitness::Front(front))
    }

    /// Decides what becomes of a question.
    pub(in crate::witness) fn asked(
        &mut self,
        asked: &AskedV1,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        self.decide(asked, now.mono_ms, now, actions);
    }

    /// Decides on a question that came at `since_ms`.
    fn decide(&mut self, asked: &AskedV1, since_ms: u64, now: Time, actions: &mut Vec<Action>) {
        let Some(policy) = self.policy.clone() else {
            return;
        };
        let weighed = self.weigh(&policy, asked, now, actions);
        let mut verdict = weighed.verdict;
        if let (FrontVerdict::Forward, Some(name)) = (verdict, &weighed.listed)
            && !self.learn_asked(name, asked.from.ip(), now.mono_ms)
        {
            // Stubs ask again after five seconds only: a moment later there is room for more names.
            let waited_ms = now.mono_ms.saturating_sub(since_ms);
            if waited_ms < DEFER_MS && self.front.may_defer(asked.from.ip()) {
                self.front.deferred.push((since_ms, asked.clone()));
                return;
            }
            verdict = FrontVerdict::Ignore;
        }
        let permit = PermitV1 {
            id: asked.id,
            verdict,
        };
        actions.push(Action::Tell(ToWitness::Permit(permit)));
        let mut line = self.line(&policy, asked, &weighed, now);
        let verbosity = policy.preferences().flow_log_verbosity;
        let counts = &mut self.front.counts;
        match verdict {
            FrontVerdict::Ignore => counts.ignored = counts.ignored.saturating_add(1),
            FrontVerdict::Forward => {
                let bind = weighed.listed.map(|name| (name, !weighed.whole));
                let waiting = Waiting {
                    since_ms: now.mono_ms,
                    line,
                    logged: matches!(
                        verbosity,
                        FlowLogVerbosity::Full | FlowLogVerbosity::Sessions
                    ),
                    bind,
                };
                if self.front.waiting.len() < WAITING_MAX {
                    self.front.waiting.insert(asked.id, waiting);
                }
            }
            FrontVerdict::NoSuchName | FrontVerdict::NoData | FrontVerdict::Refuse => {
                counts.refused = counts.refused.saturating_add(1);
                line.rcode = Text::from(match verdict {
                    FrontVerdict::Refuse => "REFUSED",
                    FrontVerdict::NoData => "NOERROR",
                    FrontVerdict::NoSuchName | FrontVerdict::Forward | FrontVerdict::Ignore => {
                        "NXDOMAIN"
                    }
                });
                if verbosity == FlowLogVerbosity::None {
                    return;
                }
                if self.front.may_say(asked.from.ip(), now.mono_ms) {
                    actions.push(Action::Log(line));
                } else {
                    let unlogged = &mut self.front.counts.unlogged;
                    *unlogged = unlogged.saturating_add(1);
                }
            }
        }
    }

    /// Decides on questions that had to wait.
    pub(in crate::witness) fn tick_front(&mut self, now: Time, actions: &mut Vec<Action>) {
        if now.mono_ms < self.front.again_ms {
            return;
        }
        self.front.again_ms = now.mono_ms.saturating_add(AGAIN_MS);
        for (since_ms, asked) in std::mem::take(&mut self.front.deferred) {
            self.decide(&asked, since_ms, now, actions);
        }
    }

    /// When [`Desk::tick_front`] is next wanted.
    pub(super) fn next_front_ms(&self) -> Option<u64> {
        (!self.front.deferred.is_empty()).then_some(self.front.again_ms)
    }

    fn weigh(
        &mut self,
        policy: &Snapshot,
        asked: &AskedV1,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> Weighed {
        let source = asked.from.ip();
        let resolver = self.front.settings.is_resolver(source);
        let (client, date) = (policy.client(source), now.date());
        let deployment = policy.deployment_see_thru(date);
        if !resolver && client.is_none() && deployment.is_none() {
            // A workload that has just started, as a rule: it is looked up, and asks again.
            if policy.is_served(source) && self.front.may_report(source, now.mono_ms) {
                actions.push(Action::Unknown(source));
            }
            return Weighed::refused(FrontVerdict::Ignore, Reason::ClientUnknown);
        }
        let observed = policy.preferences().dns_front == DnsFront::Observe;
        if !self.front.settings.passes(&asked.record_type) {
            let forwarded = !NEVER_FORWARDED.contains(&asked.record_type.as_str());
            if forwarded && (observed || deployment.is_some()) {
                let gid = deployment.map_or("", |see_thru| see_thru.gid);
                return Weighed::passed(gid, Some(Reason::DnsRecordType), None);
            }
            return Weighed::refused(FrontVerdict::Refuse, Reason::DnsRecordType);
        }
        let name = Name::parse(asked.name.as_bytes());
        let zones = &policy.preferences().internal_zones;
        let zone = name
            .as_ref()
            .ok()
            .and_then(|name| zones.iter().find(|zone| is_below(name, zone)));
        let asking = match (&name, client) {
            (Err(_), _) => Asking::Refused(Reason::NameNotAllowed),
            // Behind a resolver is whoever: names that any client may reach.
            (Ok(name), _) if resolver => {
                if policy.mentions(name) {
                    Asking::Named("")
                } else {
                    Asking::Refused(Reason::NameNotAllowed)
                }
            }
            (Ok(name), Some(client)) => policy.asks(client, name, date),
            (Ok(_), None) => Asking::Refused(Reason::ClientUnknown),
        };
        let asking = match (asking, deployment) {
            (Asking::Refused(_), Some(see_thru)) => Asking::SeeThru(see_thru.gid),
            (asking, _) => asking,
        };
        if let Some(zone) = zone {
            // A name that a rule lists is bound all the same; that some of its addresses may not be is no matter here.
            let listed = name.ok().filter(|_| matches!(asking, Asking::Named(_)));
            return Weighed {
                whole: true,
                ..Weighed::passed(zone.as_str(), None, listed)
            };
        }
        match asking {
            Asking::Named(gid) => Weighed {
                whole: observed,
                ..Weighed::passed(gid, None, name.ok())
            },
            Asking::SeeThru(gid) => Weighed::passed(gid, Some(Reason::NameNotAllowed), None),
            Asking::Refused(reason) if observed => Weighed::passed("", Some(reason), None),
            Asking::Refused(reason) => Weighed::unlisted(policy, &asked.name, resolver, reason),
        }
    }

    /// Whether a name that some rule lists is known from here on, within the limits of patterns.
    fn learn_asked(&mut self, name: &Name, source: IpAddr, now_ms: u64) -> bool {
        if self.exact.contains(name) || self.learnt.touch(name, now_ms) {
            return true;
        }
        let query = Query {
            sought: Sought {
                name: name.clone(),
                ipv6: false,
            },
            client: source,
            why: Why::Claim,
        };
        if self.front.settings.is_resolver(source) {
            // It speaks for all the clients behind it, and new names reach the owners of the zones.
            return self.front.may_learn(now_ms)
                && self.learn_uncharged(&query, PER_RESOLVER_AND_PATTERN, now_ms);
        }
        self.learn_name(&query, now_ms)
    }

    /// Binds what a resolver said, and lets it go.
    pub(in crate::witness) fn found(
        &mut self,
        found: &FoundV1,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut waiting) = self.front.waiting.remove(&found.id) else {
            return;
        };
        let mut without = Vec::new();
        if let Some((name, enforced)) = &waiting.bind {
            self.bind_found(name, found, now.mono_ms, actions);
            if *enforced {
                let bound = |addr: IpAddr| self.store.is_bound(name, addr, now);
                let addresses = found.addresses.iter().map(|seen| seen.address);
                without.extend(addresses.filter(|addr| !bound(*addr)));
            }
        }
        let counts = &mut self.front.counts;
        counts.passed = counts.passed.saturating_add(1);
        let withheld = u64::try_from(without.len()).unwrap_or(u64::MAX);
        counts.withheld = counts.withheld.saturating_add(withheld);
        if waiting.logged {
            let line = &mut waiting.line;
            line.rcode = Text::from(if found.rcode.is_empty() {
                "SERVFAIL"
            } else {
                found.rcode.as_str()
            });
            let kept = found.addresses.iter().map(|seen| seen.address);
            let kept = kept
                .filter(|addr| !without.contains(addr))
                .map(|addr| addr.to_string());
            let said = found
                .chain
                .iter()
                .cloned()
                .chain(kept)
                .chain(found.others.iter().cloned());
            line.answers = said
                .take(ANSWERS_MAX)
                .map(|it| Text::from(it.as_str()))
                .collect();
            actions.push(Action::Log(waiting.line));
        }
        let release = ReleaseV1 {
            id: found.id,
            without,
        };
        actions.push(Action::Tell(ToWitness::Release(release)));
    }

    fn bind_found(&mut self, name: &Name, found: &FoundV1, now_ms: u64, actions: &mut Vec<Action>) {
        let Some(ttl_s) = found.addresses.iter().map(|seen| seen.ttl_s).min() else {
            return;
        };
        let answer = AnswerV1 {
            name: name.to_string(),
            outcome: AnswerOutcome::Resolved,
            addresses: found.addresses.clone(),
            ttl_s,
            asked: false,
            ipv6: false,
            chain: found.chain.clone(),
            sources: vec![SourceV1 {
                upstream: found.upstream.clone(),
                record_type: "front".to_owned(),
            }],
            // Says nothing of the name beyond these.
            more: true,
        };
        let now = Time {
            mono_ms: now_ms,
            unix_ms: 0,
        };
        let is_bound = |seen: &SightingV1| self.store.is_bound(name, seen.address, now);
        // Said again out of memory it is no second sighting.
        if !found.repeated || !found.addresses.iter().all(is_bound) {
            self.answered(&answer, now_ms, actions);
        }
        // Kept as long as its asker keeps the answer: until then it may dial.
        let longest_s = found
            .addresses
            .iter()
            .map(|seen| seen.ttl_s)
            .max()
            .unwrap_or(ttl_s);
        let until_ms = now_ms.saturating_add(u64::from(longest_s).saturating_mul(1_000));
        self.learnt.touch(name, until_ms);
    }

    fn line(
        &self,
        policy: &Snapshot,
        asked: &AskedV1,
        weighed: &Weighed,
        now: Time,
    ) -> Box<DnsLineV1> {
        let (from, client): (SocketAddr, _) = (asked.from, policy.client(asked.from.ip()));
        let instance = client
            .map(|client| policy.instance(client))
            .filter(|it| !it.is_empty());
        Box::new(DnsLineV1 {
            time: Timestamp::from_unix_ms(now.unix_ms),
            cat: DnsCat::Dns,
            outcome: if weighed.reason.is_ok() {
                FlowOutcome::Allowed
            } else {
                FlowOutcome::Disallowed
            },
            reason: match &weighed.reason {
                Ok(gid) => Text::from(gid.as_str()),
                Err(reason) => Text::from(reason.as_str()),
            },
            dhost: Text::from(asked.name.as_str()),
            src: from.ip(),
            spt: from.port(),
            instance: instance.map(Text::from),
            qtype: Text::from(asked.record_type.as_str()),
            rcode: Text::from(""),
            answers: Vec::new(),
            would_reason: weighed.would.map(|reason| Text::from(reason.as_str())),
            generation: policy.generation(),
            policy_id: Text::from(policy.policy_id()),
            appliance: Text::from(&self.front.settings.appliance),
        })
    }

    /// Forgets questions that resolvers never answered, and sources that asked nothing of late.
    pub(super) fn sweep_front(&mut self, now_ms: u64) {
        let second = now_ms / 1_000;
        let front = &mut self.front;
        front
            .waiting
            .retain(|_, waiting| now_ms.saturating_sub(waiting.since_ms) < WAITING_FOR_MS);
        front.said.retain(|_, (at, _)| *at == second);
    }
}

/// Whether a name is a zone or lies in it.
fn is_below(name: &Name, zone: &Name) -> bool {
    let rest = name.as_str().strip_suffix(zone.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// No types of records: questions that stand for many, transfers of zones, and what is about the question itself.
const NEVER_FORWARDED: [&str; 8] = ["ANY", "*", "AXFR", "IXFR", "MAILA", "MAILB", "OPT", "TSIG"];
const WAITING_MAX: usize = 8_192;
/// Longer than the witness keeps a question.
const WAITING_FOR_MS: u64 = 10_000;
/// How long a question waits for room among the names its source may learn, and how often that is looked at.
const DEFER_MS: u64 = 3_000;
const AGAIN_MS: u64 = 200;
/// Names learnt under one pattern on behalf of one cloud resolver: a 64th of a table that all share is for one client.
const PER_RESOLVER_AND_PATTERN: usize = 4_096;
const ANSWERS_MAX: usize = 32;

#[cfg(test)]
mod tests;
