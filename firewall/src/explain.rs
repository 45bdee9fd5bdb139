//! Why a connection would be allowed or refused: the decision for one made-up flow, and the
//! near misses around it.

use std::net::{IpAddr, SocketAddr};

use inspect::{Bindings, Certificate, Time};
use ipc::control::{Explanation, Question};
use policy::preferences::CertificateCheck;
use policy::{
    AppProto, Ask, ClientRef, Date, Decision, Entry, Kind, Name, Outcome, Reason, Snapshot,
    Transport,
};

use crate::bindings::{Binding, BindingStore};

/// What a running daemon knows beside its policy.
#[derive(Clone, Copy, Debug)]
pub struct Live<'a> {
    /// Which addresses belong to which names.
    pub bindings: &'a BindingStore,
    /// Now, monotonic, in milliseconds.
    pub now_ms: u64,
}

/// Decides one connection under `policy` and says what was considered.
///
/// Without a destination an address bound to the name is assumed, and so it is for any destination
/// where there is no running daemon to say.
///
/// # Errors
/// When the question holds no kind or name.
pub fn explain(
    policy: &Snapshot,
    question: &Question,
    unix_ms: u64,
    live: Option<Live<'_>>,
) -> Result<Explanation, String> {
    let (kind, proto) = match question.kind.as_str() {
        "tls" => (Kind::Tls, AppProto::Tls),
        "ssh" => (Kind::Ssh, AppProto::Ssh),
        "http" => (Kind::Http, AppProto::Http),
        other => return Err(format!("\"{other}\" is not tls, ssh or http")),
    };
    let name = Name::parse(question.name.as_bytes())
        .map_err(|invalid| format!("\"{}\": {invalid}", question.name))?;
    let Some(client) = policy.client(question.source) else {
        return Ok(unknown(policy, question.source));
    };
    let date = Date::from_unix_ms(unix_ms);
    let (bound, binding) = match live {
        Some(live) => binding(live, &name, question.destination),
        None => (true, Vec::new()),
    };
    let ask = Ask {
        client,
        transport: Transport::Tcp,
        proto,
        name: Some(&name),
        bound,
        dst: question.destination.unwrap_or(UNSPECIFIED),
        port: question.port,
        date,
    };
    let decision = policy.decide(&ask);
    let mut steps = vec![format!(
        "{} is {} in {}",
        question.source,
        policy.instance(client),
        list(policy.groups(client))
    )];
    steps.extend(binding);
    steps.extend(near_misses(policy, client, kind, &name, question.port));
    if let Some(see_thru) = &decision.see_thru {
        steps.push(format!(
            "see-thru of {} is in force for {} more days",
            see_thru.gid, see_thru.days_remaining
        ));
    }
    if let Some(reason) = decision.would_reason {
        steps.push(format!("enforcement would refuse: {}", reason.as_str()));
    }
    let bad = (kind == Kind::Tls && decision.is_allowed() && decision.see_thru.is_none())
        .then(|| bad_certificate(live?, &name, question.destination?, question.port))
        .flatten();
    let reason = refusal(policy, &decision, bad.is_some());
    steps.extend(bad);
    let (gid, rule) = decision.by.unzip();
    Ok(Explanation {
        allowed: reason.is_none(),
        reason: reason.map(|reason| reason.as_str().to_owned()),
        gid: gid.map(str::to_owned),
        rule: rule.map(str::to_owned),
        steps,
    })
}

/// Why a connection would be refused, if it would.
fn refusal(policy: &Snapshot, decision: &Decision<'_>, is_bad: bool) -> Option<Reason> {
    let enforced = policy.preferences().certificate_check == CertificateCheck::Enforce;
    match decision.outcome {
        Outcome::Refuse(reason) => Some(reason),
        Outcome::Allow => (is_bad && enforced).then_some(Reason::CertificateInvalid),
    }
}

/// What speaks against a server's certificate, if one was seen.
fn bad_certificate(live: Live<'_>, name: &Name, dialled: IpAddr, port: u16) -> Option<String> {
    let now = Time {
        mono_ms: live.now_ms,
        unix_ms: 0,
    };
    let server = SocketAddr::new(dialled, port);
    let bad = live.bindings.certificate(name, server, now) == Certificate::Invalid;
    bad.then(|| format!("{server} has shown a certificate that is not one of {name}"))
}

/// Whether the address is one of the name's, and how that is known.
fn binding(live: Live<'_>, name: &Name, dialled: Option<IpAddr>) -> (bool, Vec<String>) {
    let known = |only, max| live.bindings.bindings_of(name, only, live.now_ms, max);
    let found = known(dialled, ADDRESSES_MAX);
    if !found.is_empty() {
        let steps = found.iter().map(|one| sighting(one, name, live.now_ms));
        return (true, steps.collect());
    }
    let others: Vec<String> = known(None, ADDRESSES_MAX)
        .iter()
        .map(|one| one.addr.to_string())
        .collect();
    let step = match (dialled, others.is_empty()) {
        (_, true) => format!("{name} has no address yet: the first connection has it looked up"),
        (Some(dialled), false) => {
            format!(
                "{dialled} is no address of {name}, which has {}",
                others.join(", ")
            )
        }
        (None, false) => return (true, Vec::new()),
    };
    // Without a destination the question is about the policy.
    (dialled.is_none(), vec![step])
}

fn sighting(binding: &Binding, name: &Name, now_ms: u64) -> String {
    let ago = now_ms.saturating_sub(binding.learnt_ms) / 1_000;
    let left = binding.until_ms.saturating_sub(now_ms) / 1_000;
    let fresh = if now_ms <= binding.fresh_until_ms {
        "of its current answer"
    } else {
        "of an earlier answer"
    };
    let aliases = binding
        .chain
        .as_ref()
        .map(|chain| format!(" through {chain}"));
    let resolver = binding
        .resolver
        .as_ref()
        .map(|resolver| format!(" from {resolver}"));
    let judged = if binding.judged {
        ", and a flow to it was judged"
    } else {
        ""
    };
    format!(
        "{} is an address of {name}, {fresh} ({:?} record{}{}, learnt {ago} s ago, seen in {} answers{judged}); it counts for {left} s more",
        binding.addr,
        binding.source,
        resolver.unwrap_or_default(),
        aliases.unwrap_or_default(),
        binding.sightings
    )
}

fn unknown(policy: &Snapshot, source: IpAddr) -> Explanation {
    let place = if policy.is_served(source) {
        "is inside the served networks, and no client has it"
    } else {
        "is outside the served networks"
    };
    Explanation {
        allowed: false,
        reason: Some(Reason::ClientUnknown.as_str().to_owned()),
        gid: None,
        rule: None,
        steps: vec![format!("{source} {place}")],
    }
}

/// Entries of the client's groups that cover the name, and why each does or does not count.
fn near_misses(
    policy: &Snapshot,
    client: ClientRef,
    kind: Kind,
    name: &Name,
    port: u16,
) -> Vec<String> {
    let mut steps = Vec::new();
    for group in &policy.draft().groups {
        let member = policy.groups(client).contains(&group.gid);
        for rule in &group.rules {
            for entry in &rule.entries {
                let Some((entry_kind, text)) = covering(entry, name) else {
                    continue;
                };
                let what = format!("{} rule {} lists {text}", group.gid, rule.rule);
                let but = if !member {
                    ", and this client is not in that group"
                } else if entry_kind != kind {
                    ", for another protocol"
                } else if !(rule.ports.from..=rule.ports.to).contains(&port) {
                    ", on other ports"
                } else {
                    ""
                };
                steps.push(format!("{what}{but}"));
            }
        }
    }
    if steps.is_empty() {
        steps.push(format!(
            "no rule of any group lists {name} or a pattern that covers it"
        ));
    }
    steps.truncate(STEPS_MAX);
    steps
}

fn covering(entry: &Entry, name: &Name) -> Option<(Kind, String)> {
    match entry {
        Entry::Name {
            kind, name: listed, ..
        } if listed == name => Some((*kind, listed.to_string())),
        Entry::Pattern { kind, pattern, .. } if pattern.matches(name) => {
            Some((*kind, pattern.as_str().to_owned()))
        }
        Entry::Name { .. }
        | Entry::Pattern { .. }
        | Entry::Address { .. }
        | Entry::SeeThru { .. } => None,
    }
}

fn list(groups: &[String]) -> String {
    if groups.is_empty() {
        "no group".to_owned()
    } else {
        groups.join(", ")
    }
}

const UNSPECIFIED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
/// Addresses of a name that are shown.
const ADDRESSES_MAX: usize = 8;
/// Sentences of one explanation.
const STEPS_MAX: usize = 32;
