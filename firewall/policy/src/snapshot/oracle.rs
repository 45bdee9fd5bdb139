//! Compares the compiled index with an evaluation of the draft that has none.

use std::net::IpAddr;

use proptest::prelude::*;

use crate::preferences::{AddressMismatch, AddressRules, PlaintextHttp, Quic};
use crate::*;

/// Rules of a client as (gid, rule), in the order in which logs prefer them.
fn rules_of(draft: &Draft, addr: IpAddr) -> Vec<(&str, &Rule)> {
    let holding = draft
        .clients
        .iter()
        .filter(|client| client.net.contains(&addr));
    let longest = holding.clone().map(|client| client.net.prefix_len()).max();
    let groups: Vec<&String> = holding
        .filter(|client| Some(client.net.prefix_len()) == longest)
        .flat_map(|client| &client.groups)
        .collect();
    let mut rules: Vec<_> = draft
        .groups
        .iter()
        .filter(|group| groups.contains(&&group.gid))
        .flat_map(|group| group.rules.iter().map(|rule| (group.gid.as_str(), rule)))
        .collect();
    rules.sort_by_key(|(gid, rule)| (*gid, rule.rule.as_str()));
    rules
}

fn has_ports(transport: Transport) -> bool {
    matches!(transport, Transport::Tcp | Transport::Udp)
}

fn fits(rule: &Rule, ask: &Ask<'_>) -> bool {
    rule.transport.covers(ask.transport)
        && (rule.ports.is_all() || (has_ports(ask.transport) && rule.ports.contains(ask.port)))
}

/// Whether an entry covers the claimed name, and how literally.
fn covers(entry: &Entry, kind: Kind, name: &Name) -> Option<usize> {
    match entry {
        Entry::Name {
            kind: of,
            name: exact,
            ..
        } => (*of == kind && exact == name).then_some(usize::MAX),
        Entry::Pattern {
            kind: of, pattern, ..
        } => (*of == kind && pattern.matches(name)).then(|| pattern.literal_len()),
        Entry::Address { .. } | Entry::SeeThru { .. } => None,
    }
}

/// The kind of a flow's entries, or the reason that no entry can allow it.
fn kind_of(ask: &Ask<'_>, preferences: &Preferences) -> Result<Kind, Reason> {
    match (ask.transport, ask.proto) {
        (Transport::Icmp, _) => Err(Reason::Icmp),
        (Transport::Other(_), _) => Err(Reason::IpProtocol),
        (Transport::Udp, AppProto::Quic) if preferences.quic == Quic::Inspect => Ok(Kind::Tls),
        (Transport::Udp, AppProto::Quic) => Err(Reason::Quic),
        (Transport::Udp, _) => Err(Reason::Udp),
        (Transport::Tcp, AppProto::Tls) => Ok(Kind::Tls),
        (Transport::Tcp, AppProto::Ssh) => Ok(Kind::Ssh),
        (Transport::Tcp, AppProto::Http) => {
            if preferences.plaintext_http == PlaintextHttp::AllowListed {
                Ok(Kind::Http)
            } else {
                Err(Reason::PlaintextHttp)
            }
        }
        (Transport::Tcp, _) => Err(Reason::ProtocolUnknown),
    }
}

/// Who allows a flow by name, literal length first, then order.
fn by_name<'a>(
    rules: &[(&'a str, &'a Rule)],
    ask: &Ask<'_>,
    kind: Kind,
) -> Option<(&'a str, &'a str)> {
    let name = ask.name?;
    let mut best: Option<(usize, (&str, &str))> = None;
    for (gid, rule) in rules.iter().filter(|(_, rule)| fits(rule, ask)) {
        for length in rule
            .entries
            .iter()
            .filter_map(|entry| covers(entry, kind, name))
        {
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, (gid, rule.rule.as_str())));
            }
        }
    }
    best.map(|(_, by)| by)
}

/// The most advanced check that fails for a flow that nothing allows.
fn refusal(rules: &[(&str, &Rule)], ask: &Ask<'_>, preferences: &Preferences) -> Reason {
    let kind = match kind_of(ask, preferences) {
        Ok(kind) => kind,
        Err(reason) => return reason,
    };
    if by_name(rules, ask, kind).is_some() {
        return Reason::AddressNotOfName;
    }
    let carried: Vec<&Entry> = rules
        .iter()
        .filter(|(_, rule)| rule.transport.covers(ask.transport))
        .flat_map(|(_, rule)| &rule.entries)
        .collect();
    let named = |entry: &&Entry| match entry {
        Entry::Name { kind: of, .. } | Entry::Pattern { kind: of, .. } => *of == kind,
        Entry::Address { .. } | Entry::SeeThru { .. } => false,
    };
    match ask.name {
        Some(name)
            if carried
                .iter()
                .any(|entry| covers(entry, kind, name).is_some()) =>
        {
            Reason::PortNotAllowed
        }
        _ if !carried.iter().any(named) => match ask.proto {
            AppProto::Http => Reason::PlaintextHttp,
            AppProto::Quic => Reason::Quic,
            AppProto::Tls | AppProto::Ssh | AppProto::Udp | AppProto::Icmp | AppProto::Unknown => {
                Reason::NoRule
            }
        },
        None if kind == Kind::Ssh => {
            let here = rules
                .iter()
                .any(|(_, r)| fits(r, ask) && r.entries.iter().any(|e| named(&e)));
            if here {
                Reason::AddressNotOfName
            } else {
                Reason::PortNotAllowed
            }
        }
        _ => Reason::NameNotAllowed,
    }
}

/// The see-thru in force: the smallest gid and rule, and the most days that its group has left.
fn see_thru<'a>(
    rules: &[(&'a str, &'a Rule)],
    ask: &Ask<'_>,
    preferences: &Preferences,
) -> Option<(&'a str, &'a str, u32)> {
    let in_force: Vec<(&str, &str, u32)> = rules
        .iter()
        .filter(|(_, rule)| fits(rule, ask))
        .flat_map(|(gid, rule)| {
            rule.entries
                .iter()
                .map(|entry| (*gid, rule.rule.as_str(), entry))
        })
        .filter_map(|(gid, rule, entry)| {
            let Entry::SeeThru { until } = entry else {
                return None;
            };
            Some((gid, rule, ask.date.days_until(*until)?))
        })
        .collect();
    if let Some((gid, rule, _)) = in_force.first() {
        let of_group = in_force.iter().filter(|(of, ..)| of == gid);
        let days = of_group.map(|(_, _, days)| *days).max().unwrap();
        return Some((gid, rule, days));
    }
    let days = ask.date.days_until(preferences.see_thru?)?;
    Some(("%default", "", days))
}

/// Decides one flow by walking every rule.
fn expected<'a>(draft: &'a Draft, source: IpAddr, ask: &Ask<'_>) -> Decision<'a> {
    let preferences = &draft.preferences;
    let rules = rules_of(draft, source);
    let named = kind_of(ask, preferences)
        .ok()
        .and_then(|kind| by_name(&rules, ask, kind));
    let address = rules.iter().find(|(_, rule)| {
        preferences.address_rules == AddressRules::Allow
            && fits(rule, ask)
            && rule.cidr.is_some_and(|cidr| cidr.contains(&ask.dst))
            && rule
                .entries
                .iter()
                .any(|entry| matches!(entry, Entry::Address { .. }))
    });
    let open = see_thru(&rules, ask, preferences);
    let reason = refusal(&rules, ask, preferences);
    let observe = preferences.address_mismatch == AddressMismatch::Observe;
    let (by, would_reason, exerted) = if named.is_some() && ask.bound {
        (named, None, false)
    } else if let Some((gid, rule)) = address {
        (Some((*gid, rule.rule.as_str())), None, false)
    } else if named.is_some() && observe {
        (named, Some(Reason::AddressNotOfName), false)
    } else if let Some((gid, rule, _)) = open {
        (Some((gid, rule)), Some(reason), true)
    } else {
        (None, None, false)
    };
    Decision {
        outcome: if by.is_some() {
            Outcome::Allow
        } else {
            Outcome::Refuse(reason)
        },
        by,
        see_thru: open.map(|(gid, _, days_remaining)| SeeThru {
            gid,
            days_remaining,
            exerted,
        }),
        would_reason,
        binding_would_help: named.is_some() && !ask.bound,
        pins: Default::default(),
    }
}

const NAMES: [&str; 5] = [
    "a.example.com",
    "b.example.com",
    "a.b.example.com",
    "x.example.org",
    "example.com",
];
const PATTERNS: [&str; 6] = [
    "*.example.com",
    "**.example.com",
    "?.example.*",
    "a*.example.com",
    "*.b.example.com",
    "a.*.*",
];
const SOURCES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1"];
const DESTINATIONS: [&str; 3] = ["192.0.2.1", "192.0.2.129", "2001:db8::1"];

fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = prop::sample::select(Kind::ALL);
    prop_oneof![
        4 => (kind.clone(), prop::sample::select(&NAMES[..])).prop_map(|(kind, name)| {
            Entry::Name { kind, name: name.parse().unwrap(), host_key: None, list: None }
        }),
        4 => (kind, prop::sample::select(&PATTERNS[..])).prop_map(|(kind, pattern)| {
            Entry::Pattern { kind, pattern: pattern.parse().unwrap(), list: None }
        }),
        1 => Just(Entry::Address { comment: None }),
        1 => (19..22_u64).prop_map(|day| {
            Entry::SeeThru { until: Date::from_unix_ms(day * 86_400_000) }
        }),
    ]
}

fn any_ports() -> impl Strategy<Value = PortRange> {
    prop::sample::select(vec![
        PortRange::ALL,
        PortRange::single(443),
        PortRange::single(22),
        PortRange { from: 80, to: 500 },
    ])
}

fn any_cidr() -> impl Strategy<Value = Option<ipnet::IpNet>> {
    let texts = [
        "192.0.2.0/24",
        "192.0.2.0/25",
        "192.0.2.1/32",
        "2001:db8::/48",
    ];
    prop::option::of(prop::sample::select(
        texts.map(|text| text.parse().unwrap()).to_vec(),
    ))
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let transport = prop::sample::select(RuleTransport::ALL);
    let entries = prop::collection::vec(any_entry(), 0..4);
    (0..3_u8, transport, any_ports(), any_cidr(), entries).prop_map(
        |(id, transport, ports, cidr, entries)| Rule {
            rule: format!("r{id}"),
            transport,
            ports,
            cidr,
            entries,
        },
    )
}

fn any_preferences() -> impl Strategy<Value = Preferences> {
    (
        0..2_usize,
        0..2_usize,
        0..2_usize,
        0..2_usize,
        prop::option::weighted(0.2, 19..22_u64),
    )
        .prop_map(|(http, address, quic, mismatch, see_thru)| Preferences {
            plaintext_http: PlaintextHttp::ALL[http],
            address_rules: AddressRules::ALL[address],
            quic: Quic::ALL[quic],
            address_mismatch: AddressMismatch::ALL[mismatch],
            see_thru: see_thru.map(|day| Date::from_unix_ms(day * 86_400_000)),
            ..Preferences::default()
        })
}

prop_compose! {
    fn any_draft()(
        preferences in any_preferences(),
        groups in prop::collection::vec((0..4_u8, prop::collection::vec(any_rule(), 0..4)), 0..5),
        clients in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "10.0.0.1/32", "10.0.0.0/30", "10.0.0.0/16", "0.0.0.0/0", "fd00::/64",
                ]),
                prop::collection::vec(0..5_u8, 0..4),
                0..2_u8,
            ),
            0..5,
        ),
    ) -> Draft {
        Draft {
            preferences,
            groups: groups
                .into_iter()
                .map(|(gid, rules)| Group { gid: format!("g{gid}"), rules })
                .collect(),
            clients: clients
                .into_iter()
                .map(|(net, groups, instance)| Client {
                    net: net.parse().unwrap(),
                    instance: format!("i{instance}"),
                    groups: groups.into_iter().map(|gid| format!("g{gid}")).collect(),
                })
                .collect(),
            served: vec!["10.0.0.0/8".parse().unwrap()],
            faults: Vec::new(),
        }
    }
}

/// Whether some rule of the client lists the name for this flow, whatever else allows it.
fn by_some_name(draft: &Draft, source: IpAddr, ask: &Ask<'_>) -> bool {
    let Ok(kind) = kind_of(ask, &draft.preferences) else {
        return false;
    };
    let rules = rules_of(draft, source);
    by_name(&rules, ask, kind).is_some()
}

/// What is asked about a source, as far as it does not depend on a snapshot.
#[derive(Clone, Debug)]
struct Question {
    source: IpAddr,
    dst: IpAddr,
    transport: Transport,
    proto: AppProto,
    name: Option<Name>,
    bound: bool,
    port: u16,
}

prop_compose! {
    fn any_question()(
        source in prop::sample::select(&SOURCES[..]),
        dst in prop::sample::select(&DESTINATIONS[..]),
        transport in prop::sample::select(vec![
            Transport::Tcp, Transport::Tcp, Transport::Udp, Transport::Icmp, Transport::Other(47),
        ]),
        proto in prop::sample::select(AppProto::ALL),
        name in prop::option::weighted(0.9, prop::sample::select(&NAMES[..])),
        bound: bool,
        port in prop::sample::select(vec![22, 80, 443, 8443]),
    ) -> Question {
        let port = if has_ports(transport) { port } else { 0 };
        Question {
            source: source.parse().unwrap(),
            dst: dst.parse().unwrap(),
            transport,
            proto,
            name: name.map(|name| name.parse().unwrap()),
            bound,
            port,
        }
    }
}

proptest! {
    #[test]
    fn the_index_decides_as_a_walk_over_every_rule_does(
        draft in any_draft(),
        questions in prop::collection::vec(any_question(), 8),
    ) {
        let snapshot = Snapshot::compile(draft.clone(), 1).unwrap();
        for question in questions {
            let known = draft.clients.iter().any(|client| client.net.contains(&question.source));
            let client = snapshot.client(question.source);
            prop_assert_eq!(client.is_some(), known);
            let Some(client) = client else { continue };
            let ask = Ask {
                client,
                transport: question.transport,
                proto: question.proto,
                name: question.name.as_ref(),
                bound: question.bound,
                dst: question.dst,
                port: question.port,
                date: Date::from_unix_ms(20 * 86_400_000),
            };
            let decision = snapshot.decide(&ask);
            prop_assert_eq!(&decision, &expected(&draft, question.source, &ask));
            if let Some(name) = ask.name.filter(|_| decision.is_allowed() && ask.bound) {
                let by_name = decision.would_reason.is_none() && decision.see_thru.is_none();
                let address = snapshot.preferences().address_rules == AddressRules::Allow;
                prop_assert!(!by_name || address || snapshot.mentions(name));
            }
            let kind = ask.name.filter(|_| ask.transport == Transport::Tcp);
            if let Some(name) = kind.filter(|_| ask.bound) {
                let openings = snapshot.openings(name);
                let opened = openings.iter().any(|opening| {
                    opening.ports.contains(ask.port)
                        && snapshot.groups_of(client).contains(&opening.group)
                });
                let named = |proto| {
                    let ask = Ask { proto, dst: "192.0.2.99".parse().unwrap(), ..ask };
                    by_some_name(&draft, question.source, &ask)
                };
                let reaches = [AppProto::Tls, AppProto::Ssh, AppProto::Http].into_iter().any(named);
                prop_assert_eq!(opened, reaches, "what a name opens, turned around");
            }
            if ask.transport == Transport::Tcp && decision.is_allowed() {
                let gate = snapshot.syn_gate(client, ask.port, ask.dst, ask.date);
                prop_assert!(!matches!(gate, SynGate::Closed(_)), "allowed behind a closed gate");
            }
        }
    }

    #[test]
    fn the_policy_id_does_not_depend_on_the_order_of_the_input(
        draft in any_draft(),
        seed in any::<u64>(),
    ) {
        let mut shuffled = draft.clone();
        let mut random = seed;
        let mut next = move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random >> 33
        };
        shuffled.groups.sort_by_cached_key(|_| next());
        shuffled.clients.sort_by_cached_key(|_| next());
        for group in &mut shuffled.groups {
            group.rules.sort_by_cached_key(|_| next());
            group.rules.iter_mut().for_each(|rule| rule.entries.sort_by_cached_key(|_| next()));
        }
        let (one, other) =
            (Snapshot::compile(draft, 1).unwrap(), Snapshot::compile(shuffled, 2).unwrap());
        prop_assert_eq!(one.policy_id(), other.policy_id());
        prop_assert_eq!(one.draft(), other.draft());
        let again = Snapshot::compile(one.draft().clone(), 3).unwrap();
        prop_assert_eq!(again.draft(), one.draft(), "compiling is idempotent");
        prop_assert_eq!(again.policy_id(), one.policy_id());
    }

    #[test]
    fn equal_policies_have_no_changes(draft in any_draft()) {
        let snapshot = Snapshot::compile(draft, 1).unwrap();
        prop_assert_eq!(change::diff(Some(snapshot.draft()), snapshot.draft()), []);
    }
}
