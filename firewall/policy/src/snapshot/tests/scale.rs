//! Limits, and that cost does not grow with what a policy holds.

use super::*;

/// `count` names in one rule of one group.
fn names(count: usize) -> Vec<Entry> {
    (0..count)
        .map(|n| Entry::Name {
            kind: Kind::Tls,
            name: name(&format!("h{n}.example")),
            host_key: None,
            list: None,
        })
        .collect()
}

fn rule(id: usize, entries: Vec<Entry>) -> Rule {
    Rule {
        rule: id.to_string(),
        transport: RuleTransport::Tcp,
        ports: PortRange::single(443),
        cidr: None,
        entries,
    }
}

/// The `n`-th of many clients, from 10.0.1.5 on.
fn nth_client(n: usize, groups: &[String]) -> Client {
    let base = u32::from_be_bytes([10, 0, 1, 5]) + u32::try_from(n).unwrap();
    let net = ipnet::IpNet::from(IpAddr::from(std::net::Ipv4Addr::from(base)));
    Client {
        net,
        instance: String::new(),
        groups: groups.to_vec(),
    }
}

fn compile(rules: Vec<Rule>, clients: usize) -> Snapshot {
    let groups = vec!["g".to_owned()];
    let draft = Draft {
        groups: vec![Group {
            gid: "g".to_owned(),
            rules,
        }],
        clients: (0..clients).map(|n| nth_client(n, &groups)).collect(),
        ..Draft::default()
    };
    Snapshot::compile(draft, 1).unwrap()
}

/// The least time that looking the client up and deciding takes, of many rounds.
fn cost(snapshot: &Snapshot, claimed: &[Name]) -> Duration {
    let date = date("2026-12-31");
    let source = "10.0.1.5".parse().unwrap();
    let round = || {
        let start = Instant::now();
        for _ in 0..10 {
            for name in claimed {
                let client = snapshot.client(source).unwrap();
                let decision = snapshot.decide(&Ask {
                    client,
                    date,
                    ..ask(snapshot, name)
                });
                std::hint::black_box(decision);
            }
        }
        start.elapsed()
    };
    (0..50).map(|_| round()).min().unwrap()
}

/// Asserts that `large` costs less than three times what `small` does, noise left out.
fn assert_flat(small: &Snapshot, large: &Snapshot, claimed: &[Name]) {
    let best = (0..5)
        .map(|_| cost(large, claimed).as_secs_f64() / cost(small, claimed).as_secs_f64())
        .fold(f64::INFINITY, f64::min);
    assert!(
        best < 3.0,
        "the larger policy costs {best:.1} times as much"
    );
}

fn claimed() -> Vec<Name> {
    let known = (0..9).map(|n| name(&format!("h{n}.example")));
    known.chain([name("absent.example")]).collect()
}

#[test]
fn deciding_costs_the_same_for_ten_names_and_for_a_hundred_thousand() {
    let small = compile(vec![rule(1, names(10))], 1);
    let large = compile(vec![rule(1, names(100_000))], 1);
    assert_flat(&small, &large, &claimed());
}

#[test]
fn deciding_costs_the_same_for_one_client_and_for_fifty_thousand() {
    let small = compile(vec![rule(1, names(10))], 1);
    let large = compile(vec![rule(1, names(10))], 50_000);
    assert_flat(&small, &large, &claimed());
}

#[test]
fn deciding_costs_the_same_for_ten_patterns_and_for_fifty_thousand() {
    let patterns = |count: usize| {
        let forms = [
            "*.zone-{}.example.com",
            "edge-{}-*.example.com",
            "b-{}.s3.*.example.com",
        ];
        let texts = (0..count).map(|n| forms[n % 3].replace("{}", &n.to_string()));
        texts
            .map(|text| Entry::Pattern {
                kind: Kind::Tls,
                pattern: text.parse().unwrap(),
                list: None,
            })
            .collect()
    };
    let (small, large) = (
        compile(vec![rule(1, patterns(10))], 1),
        compile(vec![rule(1, patterns(50_000))], 1),
    );
    let claimed = [
        "www.zone-3.example.com",
        "edge-4-eu.example.com",
        "b-5.s3.eu.example.com",
        "edge-999999-eu.example.com",
    ];
    assert_flat(&small, &large, &claimed.map(name));
}

#[test]
fn a_name_in_five_thousand_groups_costs_a_client_of_three_what_one_does() {
    let many = |count: usize| {
        let groups: Vec<Group> = (0..count)
            .map(|n| Group {
                gid: format!("g{n:05}"),
                rules: vec![rule(1, names(10))],
            })
            .collect();
        let held = [count / 2, count / 2 + 1, count - 1].map(|n| format!("g{n:05}"));
        let clients = vec![nth_client(0, &held)];
        Snapshot::compile(
            Draft {
                groups,
                clients,
                ..Draft::default()
            },
            1,
        )
        .unwrap()
    };
    assert_flat(&many(3), &many(5_000), &claimed());
}

#[test]
fn a_client_in_five_thousand_groups_costs_what_one_in_three_does() {
    let many = |count: usize| {
        let gids: Vec<String> = (0..count).map(|n| format!("g{n:05}")).collect();
        let group = |(n, gid): (usize, &String)| Group {
            gid: gid.clone(),
            rules: if n < 3 {
                vec![rule(1, names(10))]
            } else {
                Vec::new()
            },
        };
        let groups = gids.iter().enumerate().map(group).collect();
        let clients = vec![nth_client(0, &gids)];
        Snapshot::compile(
            Draft {
                groups,
                clients,
                ..Draft::default()
            },
            1,
        )
        .unwrap()
    };
    let (few, crowd) = (many(3), many(5_000));
    // Names that no rule of the client lists end in a look at see-thru of its groups.
    assert_flat(&few, &crowd, &claimed()[..9]);
}

#[test]
fn a_policy_past_a_limit_is_refused_whole_with_its_count() {
    let rejected = |draft: Draft| Snapshot::compile(draft, 1).unwrap_err();
    let clients = (0..=CLIENTS_MAX).map(|n| nth_client(n, &[])).collect();
    let draft = Draft {
        clients,
        ..Draft::default()
    };
    assert_eq!(rejected(draft), RejectedDraft::Clients(100_001));

    let group = |rules| Group {
        gid: "g".to_owned(),
        rules,
    };
    let rules = (0..=RULES_MAX).map(|id| rule(id, Vec::new())).collect();
    let draft = Draft {
        groups: vec![group(rules)],
        ..Draft::default()
    };
    assert_eq!(rejected(draft), RejectedDraft::Rules(50_001));

    let draft = Draft {
        groups: vec![group(vec![rule(1, names(200_001))])],
        ..Draft::default()
    };
    assert_eq!(rejected(draft), RejectedDraft::Names(200_001));

    let long = "x".repeat(CONTENT_BYTES_MAX);
    let draft = Draft {
        groups: vec![Group {
            gid: long,
            rules: Vec::new(),
        }],
        ..Draft::default()
    };
    assert!(matches!(rejected(draft), RejectedDraft::Bytes(bytes) if bytes > CONTENT_BYTES_MAX));
}

#[test]
fn one_list_shared_by_many_groups_counts_its_names_once() {
    let groups = (0..50)
        .map(|n| Group {
            gid: format!("g{n}"),
            rules: vec![rule(1, names(5_000))],
        })
        .collect();
    let draft = Draft {
        groups,
        ..Draft::default()
    };
    assert!(
        Snapshot::compile(draft, 1).is_ok(),
        "250,000 entries, 5,000 names"
    );
}
