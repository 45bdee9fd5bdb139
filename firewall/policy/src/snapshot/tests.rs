use std::time::{Duration, Instant};

use super::*;
use crate::inventory::{Scope, read};
use crate::{
    AppProto, Ask, Client, Entry, FaultKind, Group, Outcome, PortRange, Rule, RuleTransport,
};

mod compile;
mod scale;

/// A client 10.0.1.5 in the groups of the given rules, one group for each distinct gid.
///
/// Each rule is `(gid, protocol, ports, cidr, description)`.
fn policy(preferences: &str, rules: &[(&str, &str, &str, &str, &str)]) -> Snapshot {
    let mut text = format!("[preferences]\n{preferences}\n");
    let mut gids: Vec<&str> = rules.iter().map(|rule| rule.0).collect();
    gids.sort_unstable();
    gids.dedup();
    for gid in &gids {
        text += &format!("[[group]]\nid = {gid:?}\n");
        for (_, protocol, ports, cidr, description) in rules.iter().filter(|rule| rule.0 == *gid) {
            text += &format!(
                "[[group.rule]]\ndescription = {description:?}\nprotocol = {protocol:?}\n\
                 ports = {ports:?}\n"
            );
            if !cidr.is_empty() {
                text += &format!("cidr = {cidr:?}\n");
            }
        }
    }
    text +=
        &format!("[[client]]\naddress = \"10.0.1.5\"\ninstance = \"web-1\"\ngroups = {gids:?}\n");
    let draft = read(&text, Scope::Whole, &mut |_| Err("no lists".to_owned())).unwrap();
    assert_eq!(draft.faults, [], "{text}");
    Snapshot::compile(draft, 7).unwrap()
}

/// A TLS rule for tcp/443.
fn tls<'a>(gid: &'a str, description: &'a str) -> (&'a str, &'a str, &'a str, &'a str, &'a str) {
    (gid, "tcp", "443", "", description)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

fn dst() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

/// Who asks: 10.0.1.5.
fn client(snapshot: &Snapshot) -> ClientRef {
    snapshot.client("10.0.1.5".parse().unwrap()).unwrap()
}

/// A bound TLS flow to port 443 on the last day of 2026, to be varied.
fn ask<'a>(snapshot: &Snapshot, name: &'a Name) -> Ask<'a> {
    Ask {
        client: client(snapshot),
        transport: Transport::Tcp,
        proto: AppProto::Tls,
        name: Some(name),
        bound: true,
        dst: dst(),
        port: 443,
        date: date("2026-12-31"),
    }
}

#[test]
fn an_exact_name_comes_before_any_pattern_and_the_longest_pattern_before_others() {
    let snapshot = policy(
        "",
        &[
            tls("a", "postern:tls:*.example.com"),
            tls("b", "postern:tls:api*.example.com"),
            tls("c", "postern:tls:api.example.com"),
        ],
    );
    let by = |text: &str| snapshot.decide(&ask(&snapshot, &name(text))).by;
    assert_eq!(by("api.example.com"), Some(("c", "1")));
    assert_eq!(by("api-2.example.com"), Some(("b", "1")));
    assert_eq!(by("www.example.com"), Some(("a", "1")));
    assert_eq!(by("www.example.org"), None);
}

#[test]
fn among_equals_the_smallest_gid_and_rule_in_byte_order_is_named() {
    let snapshot = policy(
        "",
        &[
            tls("sg-9", "postern:tls:a.example.com"),
            tls("sg-10", "HTTPS without an annotation"),
            tls("sg-10", "postern:tls:a.example.com"),
            tls("sg-10", "postern:tls:a.example.com # again"),
        ],
    );
    assert_eq!(
        snapshot.decide(&ask(&snapshot, &name("a.example.com"))).by,
        Some(("sg-10", "2"))
    );
}

#[test]
fn a_refusal_names_the_most_advanced_check_that_failed() {
    let snapshot = policy("", &[tls("g", "postern:tls:a.example.com")]);
    let a = name("a.example.com");
    let reason = |ask: Ask<'_>| snapshot.decide(&ask).outcome;
    let flow = ask(&snapshot, &a);
    assert_eq!(reason(flow), Outcome::Allow);
    assert_eq!(
        reason(Ask {
            bound: false,
            ..flow
        }),
        Outcome::Refuse(Reason::AddressNotOfName)
    );
    let elsewhere = Ask {
        bound: false,
        port: 8443,
        ..flow
    };
    assert_eq!(reason(elsewhere), Outcome::Refuse(Reason::PortNotAllowed));
    let other = name("b.example.com");
    let unnamed = Ask {
        name: Some(&other),
        ..elsewhere
    };
    assert_eq!(reason(unnamed), Outcome::Refuse(Reason::NameNotAllowed));
    let ssh = Ask {
        proto: AppProto::Ssh,
        ..flow
    };
    assert_eq!(reason(ssh), Outcome::Refuse(Reason::NoRule));
    let noise = Ask {
        proto: AppProto::Unknown,
        ..flow
    };
    assert_eq!(reason(noise), Outcome::Refuse(Reason::ProtocolUnknown));
}

#[test]
fn only_a_bound_destination_is_allowed_and_a_look_up_is_said_to_help() {
    let snapshot = policy("", &[tls("g", "postern:tls:a.example.com")]);
    let a = name("a.example.com");
    let unbound = snapshot
        .decide(&Ask {
            bound: false,
            ..ask(&snapshot, &a)
        })
        .binding_would_help;
    assert!(unbound);
    assert!(!snapshot.decide(&ask(&snapshot, &a)).binding_would_help);
    let b = name("b.example.com");
    assert!(
        !snapshot
            .decide(&Ask {
                bound: false,
                ..ask(&snapshot, &b)
            })
            .binding_would_help
    );
}

#[test]
fn observing_a_mismatch_lets_it_pass_and_says_what_would_have_been() {
    let snapshot = policy(
        "address_mismatch = \"observe\"",
        &[tls("g", "postern:tls:a.example.com")],
    );
    let a = name("a.example.com");
    let decision = snapshot.decide(&Ask {
        bound: false,
        ..ask(&snapshot, &a)
    });
    assert_eq!(decision.outcome, Outcome::Allow);
    assert_eq!(decision.by, Some(("g", "1")));
    assert_eq!(decision.would_reason, Some(Reason::AddressNotOfName));
    assert!(decision.see_thru.is_none() && decision.binding_would_help);
}

#[test]
fn see_thru_holds_through_its_last_day() {
    let snapshot = policy(
        "",
        &[("g", "all", "all", "", "postern:see-thru:2026-12-31")],
    );
    let a = name("a.example.com");
    let on = |day: &str| {
        snapshot.decide(&Ask {
            date: date(day),
            ..ask(&snapshot, &a)
        })
    };
    let decision = on("2026-12-29");
    let see_thru = SeeThru {
        gid: "g",
        days_remaining: 2,
        exerted: true,
    };
    assert_eq!(
        (decision.outcome, decision.see_thru),
        (Outcome::Allow, Some(see_thru))
    );
    assert_eq!(decision.would_reason, Some(Reason::NoRule));
    assert_eq!(decision.by, Some(("g", "1")));
    assert_eq!(
        on("2026-12-31")
            .see_thru
            .map(|see_thru| see_thru.days_remaining),
        Some(0)
    );
    let after = on("2027-01-01");
    assert_eq!(
        (after.outcome, after.see_thru),
        (Outcome::Refuse(Reason::NoRule), None)
    );
}

#[test]
fn see_thru_is_exerted_only_if_nothing_else_allows() {
    let rules = [
        tls("a", "postern:tls:a.example.com"),
        ("z", "all", "all", "", "postern:see-thru:2026-12-31"),
    ];
    let snapshot = policy("see_thru = \"2027-06-30\"", &rules);
    let a = name("a.example.com");
    let decision = snapshot.decide(&ask(&snapshot, &a));
    assert_eq!(decision.by, Some(("a", "1")));
    assert_eq!(
        decision.see_thru.map(|s| (s.gid, s.exerted)),
        Some(("z", false))
    );
    assert_eq!(decision.would_reason, None);
    let unbound = snapshot.decide(&Ask {
        bound: false,
        ..ask(&snapshot, &a)
    });
    assert_eq!(unbound.by, Some(("z", "1")));
    assert_eq!(unbound.would_reason, Some(Reason::AddressNotOfName));
    let later = Ask {
        date: date("2027-01-01"),
        bound: false,
        ..ask(&snapshot, &a)
    };
    assert_eq!(snapshot.decide(&later).by, Some(("%default", "")));
    assert_eq!(
        snapshot.decide(&later).see_thru.map(|s| s.gid),
        Some("%default")
    );
}

#[test]
fn see_thru_passes_any_protocol_within_its_rules_ports() {
    let everything = policy(
        "",
        &[("g", "all", "all", "", "postern:see-thru:2026-12-31")],
    );
    let web = policy(
        "",
        &[("g", "tcp", "443", "", "postern:see-thru:2026-12-31")],
    );
    for (transport, proto, port, reason) in [
        (Transport::Udp, AppProto::Quic, 443, Reason::Quic),
        (Transport::Udp, AppProto::Udp, 123, Reason::Udp),
        (Transport::Icmp, AppProto::Icmp, 0, Reason::Icmp),
        (
            Transport::Other(47),
            AppProto::Unknown,
            0,
            Reason::IpProtocol,
        ),
        (
            Transport::Tcp,
            AppProto::Unknown,
            25,
            Reason::ProtocolUnknown,
        ),
    ] {
        let a = name("a.example.com");
        let flow = |snapshot: &Snapshot| Ask {
            transport,
            proto,
            port,
            name: None,
            ..ask(snapshot, &a)
        };
        let decision = everything.decide(&flow(&everything));
        assert_eq!(
            (decision.outcome, decision.would_reason),
            (Outcome::Allow, Some(reason))
        );
        assert_eq!(web.decide(&flow(&web)).outcome, Outcome::Refuse(reason));
    }
    let a = name("a.example.com");
    let noise = Ask {
        proto: AppProto::Unknown,
        ..ask(&web, &a)
    };
    assert_eq!(web.decide(&noise).outcome, Outcome::Allow);
}

#[test]
fn an_address_rule_allows_exactly_its_protocol_ports_and_cidr() {
    let rules = [("g", "udp", "123", "192.0.2.0/24", "postern:address:ntp")];
    let snapshot = policy("address_rules = \"allow\"", &rules);
    let a = name("a.example.com");
    let ntp = Ask {
        transport: Transport::Udp,
        proto: AppProto::Udp,
        name: None,
        port: 123,
        ..ask(&snapshot, &a)
    };
    let outcome = |ask: Ask<'_>| snapshot.decide(&ask).outcome;
    assert_eq!(outcome(ntp), Outcome::Allow);
    assert_eq!(
        outcome(Ask { port: 124, ..ntp }),
        Outcome::Refuse(Reason::Udp)
    );
    let far = "198.51.100.1".parse().unwrap();
    assert_eq!(
        outcome(Ask { dst: far, ..ntp }),
        Outcome::Refuse(Reason::Udp)
    );
    let tcp = Ask {
        transport: Transport::Tcp,
        proto: AppProto::Unknown,
        ..ntp
    };
    assert_eq!(outcome(tcp), Outcome::Refuse(Reason::ProtocolUnknown));
}

#[test]
fn an_address_rule_of_a_draft_is_dead_while_preferences_refuse_it() {
    let rules = [("g", "tcp", "443", "192.0.2.0/24", "postern:address")];
    let mut draft = policy("address_rules = \"allow\"", &rules).draft().clone();
    draft.preferences.address_rules = crate::preferences::AddressRules::Refuse;
    let snapshot = Snapshot::compile(draft, 1).unwrap();
    let a = name("a.example.com");
    let refused = Outcome::Refuse(Reason::NoRule);
    assert_eq!(snapshot.decide(&ask(&snapshot, &a)).outcome, refused);
    let gate = snapshot.syn_gate(client(&snapshot), 443, dst(), date("2026-12-31"));
    assert_eq!(gate, SynGate::Closed(Reason::NoRule));
}

#[test]
fn http_entries_work_only_while_plaintext_http_is_allow_listed() {
    let rules = [("g", "tcp", "80", "", "postern:http:deb.example.com")];
    let snapshot = policy("plaintext_http = \"allow_listed\"", &rules);
    let deb = name("deb.example.com");
    let flow = |snapshot: &Snapshot, port| {
        let ask = Ask {
            proto: AppProto::Http,
            port,
            ..ask(snapshot, &deb)
        };
        snapshot.decide(&ask).outcome
    };
    assert_eq!(flow(&snapshot, 80), Outcome::Allow);
    assert_eq!(flow(&snapshot, 81), Outcome::Refuse(Reason::PortNotAllowed));
    assert!(snapshot.mentions(&deb));
    let mut draft = snapshot.draft().clone();
    draft.preferences.plaintext_http = crate::preferences::PlaintextHttp::Refuse;
    let refusing = Snapshot::compile(draft, 1).unwrap();
    assert_eq!(flow(&refusing, 80), Outcome::Refuse(Reason::PlaintextHttp));
    assert!(
        !refusing.mentions(&deb),
        "a name that nothing allows is never resolved"
    );
}

#[test]
fn quic_is_judged_by_tls_entries_of_rules_for_udp_or_all() {
    let rules = [
        ("u", "udp", "443", "", "postern:tls:udp.example.com"),
        ("w", "all", "443", "", "postern:tls:all.example.com"),
        ("t", "tcp", "443", "", "postern:tls:tcp.example.com"),
    ];
    let verdicts = |preferences: &str, transport, proto| {
        let snapshot = policy(preferences, &rules);
        ["udp.example.com", "all.example.com", "tcp.example.com"].map(|text| {
            snapshot
                .decide(&Ask {
                    transport,
                    proto,
                    ..ask(&snapshot, &name(text))
                })
                .outcome
        })
    };
    let quic = verdicts("quic = \"inspect\"", Transport::Udp, AppProto::Quic);
    assert_eq!(
        quic,
        [
            Outcome::Allow,
            Outcome::Allow,
            Outcome::Refuse(Reason::NameNotAllowed)
        ]
    );
    let refused = verdicts("", Transport::Udp, AppProto::Quic);
    assert_eq!(refused, [Outcome::Refuse(Reason::Quic); 3]);
    let tcp = verdicts("quic = \"inspect\"", Transport::Tcp, AppProto::Tls);
    assert_eq!(
        tcp,
        [
            Outcome::Refuse(Reason::NameNotAllowed),
            Outcome::Allow,
            Outcome::Allow
        ]
    );
}

#[test]
fn host_keys_add_up_and_a_rule_without_one_accepts_any() {
    let (one, two) = (
        format!("SHA256:{}", "A".repeat(43)),
        format!("SHA256:{}", "E".repeat(43)),
    );
    fn ssh<'a>(gid: &'a str, text: &'a str) -> (&'a str, &'a str, &'a str, &'a str, &'a str) {
        (gid, "tcp", "22", "", text)
    }
    let (first, second) = (
        format!("postern:ssh:git.example.com={one}"),
        format!("postern:ssh:git.example.com={two}"),
    );
    let git = name("git.example.com");
    let pins = |rules: &[_]| {
        let snapshot = policy("", rules);
        let ask = Ask {
            proto: AppProto::Ssh,
            port: 22,
            ..ask(&snapshot, &git)
        };
        let decision = snapshot.decide(&ask);
        assert_eq!(decision.outcome, Outcome::Allow);
        assert_eq!(decision.pins, snapshot.host_key_pin(ask.client, &git, 22));
        decision
            .pins
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(pins(&[ssh("a", &first)]), [&*one]);
    assert_eq!(
        pins(&[ssh("a", &first), ssh("b", &second)]),
        [one.clone(), two]
    );
    let open = ssh("z", "postern:ssh:git.example.com");
    assert_eq!(pins(&[ssh("a", &first), open]), Vec::<String>::new());
    let elsewhere = ("z", "tcp", "2222", "", "postern:ssh:git.example.com");
    assert_eq!(pins(&[ssh("a", &first), elsewhere]), [&*one]);
    let pattern = ssh("z", "postern:ssh:*.example.com");
    assert_eq!(
        pins(&[ssh("a", &first), pattern]),
        [one],
        "an exact name decides before a pattern"
    );
}

#[test]
fn ssh_to_an_address_bound_to_no_name_is_a_binding_miss() {
    let snapshot = policy("", &[("g", "tcp", "22", "", "postern:ssh:git.example.com")]);
    let git = name("git.example.com");
    let nameless = Ask {
        proto: AppProto::Ssh,
        port: 22,
        name: None,
        ..ask(&snapshot, &git)
    };
    let outcome = |ask: Ask<'_>| snapshot.decide(&ask).outcome;
    assert_eq!(outcome(nameless), Outcome::Refuse(Reason::AddressNotOfName));
    let elsewhere = Ask {
        port: 2222,
        ..nameless
    };
    assert_eq!(outcome(elsewhere), Outcome::Refuse(Reason::PortNotAllowed));
}

#[test]
fn the_syn_gate_opens_no_wider_than_the_rules_on_that_port() {
    let rules = [
        tls("g", "postern:tls:a.example.com"),
        ("g", "tcp", "8443", "", "postern:tls:*.example.com"),
        ("g", "tcp", "25", "192.0.2.0/24", "postern:address:smtp"),
        ("g", "tcp", "9000-9100", "", "postern:see-thru:2026-12-31"),
        ("g", "udp", "7000", "", "postern:see-thru:2026-12-31"),
    ];
    let snapshot = policy("address_rules = \"allow\"", &rules);
    let gate_on = |snapshot: &Snapshot, port, day: &str| {
        snapshot.syn_gate(client(snapshot), port, dst(), date(day))
    };
    let gate = |port| gate_on(&snapshot, port, "2026-12-31");
    assert_eq!(gate(443), SynGate::Exact);
    assert_eq!(gate(8443), SynGate::Open);
    assert_eq!(gate(25), SynGate::Open);
    assert_eq!(gate(9050), SynGate::Open);
    assert_eq!(gate(9101), SynGate::Closed(Reason::PortNotAllowed));
    assert_eq!(gate(7000), SynGate::Closed(Reason::PortNotAllowed));
    let after = gate_on(&snapshot, 9050, "2027-01-01");
    assert_eq!(after, SynGate::Closed(Reason::PortNotAllowed));
    let far = "198.51.100.1".parse().unwrap();
    let smtp = snapshot.syn_gate(client(&snapshot), 25, far, date("2026-12-31"));
    assert_eq!(smtp, SynGate::Closed(Reason::PortNotAllowed));

    let empty = policy("", &[tls("g", "no annotation")]);
    assert_eq!(
        gate_on(&empty, 443, "2026-12-31"),
        SynGate::Closed(Reason::NoRule)
    );
    let observing = policy("address_mismatch = \"observe\"", &rules[..1]);
    assert_eq!(gate_on(&observing, 443, "2026-12-31"), SynGate::Open);
    let fronted = policy("dns_front = \"enforce\"", &rules[1..2]);
    assert_eq!(gate_on(&fronted, 8443, "2026-12-31"), SynGate::Exact);
    let watched = policy("dns_front = \"observe\"", &rules[1..2]);
    assert_eq!(gate_on(&watched, 8443, "2026-12-31"), SynGate::Open);
    let deployment = policy("see_thru = \"2026-12-31\"", &[]);
    assert_eq!(gate_on(&deployment, 1, "2026-12-31"), SynGate::Open);
}
