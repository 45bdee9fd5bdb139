//! What compiling keeps, merges and identifies, and what can be asked besides decisions.

use super::*;

#[test]
fn the_longest_prefix_decides_who_a_client_is() {
    let clients = [
        ("10.0.0.0/8", "all"),
        ("10.0.1.0/24", "subnet"),
        ("10.0.1.5", "host"),
        ("fd00::/8", "v6"),
    ];
    let draft = Draft {
        clients: clients
            .iter()
            .map(|(net, instance)| Client {
                net: crate::parse_prefix(net).unwrap(),
                instance: (*instance).to_owned(),
                groups: vec![],
            })
            .collect(),
        served: vec![
            "10.0.0.0/9".parse().unwrap(),
            "fd00::1/128".parse().unwrap(),
        ],
        ..Draft::default()
    };
    let snapshot = Snapshot::compile(draft, 1).unwrap();
    let instance = |addr: &str| {
        snapshot
            .client(addr.parse().unwrap())
            .map(|client| snapshot.instance(client))
    };
    assert_eq!(instance("10.0.1.5"), Some("host"));
    assert_eq!(instance("10.0.1.6"), Some("subnet"));
    assert_eq!(instance("10.0.2.6"), Some("all"));
    assert_eq!(instance("fd00::7"), Some("v6"));
    assert_eq!(instance("11.0.0.1"), None);
    let served = |addr: &str| snapshot.is_served(addr.parse().unwrap());
    assert!(
        served("10.127.0.1") && !served("10.128.0.1") && served("fd00::1") && !served("fd00::2")
    );
}

#[test]
fn equal_prefixes_add_up_with_a_fault() {
    let client = |instance: &str, gid: &str| Client {
        net: "10.0.1.5/32".parse().unwrap(),
        instance: instance.to_owned(),
        groups: vec![gid.to_owned()],
    };
    let clients = vec![client("i-2", "b"), client("i-1", "a"), client("i-1", "a")];
    let draft = Draft {
        clients,
        ..Draft::default()
    };
    let snapshot = Snapshot::compile(draft, 1).unwrap();
    assert_eq!(snapshot.draft().clients.len(), 1);
    assert_eq!(snapshot.draft().clients[0].groups, ["a", "b"]);
    assert_eq!(snapshot.draft().clients[0].instance, "i-1");
    let faults = &snapshot.draft().faults;
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].kind, FaultKind::DuplicateClient);
    assert_eq!(faults[0].object, "10.0.1.5");
}

#[test]
fn names_are_found_for_the_witness_and_for_a_client() {
    let snapshot = policy(
        "",
        &[
            tls("a", "postern:tls:a.example.com,b.example.com,*.example.org"),
            (
                "a",
                "tcp",
                "22",
                "",
                "postern:ssh:git.example.com,a.example.com",
            ),
            ("b", "udp", "443", "", "postern:tls:quic.example.com"),
        ],
    );
    let mut exact: Vec<_> = snapshot.exact_names().map(Name::as_str).collect();
    exact.sort_unstable();
    assert_eq!(
        exact,
        ["a.example.com", "b.example.com", "git.example.com"],
        "quic is refused"
    );
    assert!(
        snapshot.mentions(&name("x.example.org")) && !snapshot.mentions(&name("x.example.net"))
    );
    for (name, expected) in [
        ("com", true),
        ("example.com", true),
        ("example.org", true),
        ("a.example.com", false),
        ("x.example.org", false),
        ("example.net", false),
    ] {
        assert_eq!(snapshot.is_above_a_name(name), expected, "{name}");
    }
    let reachable = |kind, port, max| {
        let names = snapshot.reachable_names(client(&snapshot), kind, port, max);
        names.into_iter().map(Name::as_str).collect::<Vec<_>>()
    };
    assert_eq!(reachable(None, 443, 20), ["a.example.com", "b.example.com"]);
    assert_eq!(
        reachable(None, 22, 20),
        ["a.example.com", "git.example.com"]
    );
    assert_eq!(reachable(Some(Kind::Tls), 22, 20), Vec::<&str>::new());
    assert_eq!(reachable(None, 443, 1), ["a.example.com"]);
}

#[test]
fn the_policy_id_is_of_the_content_and_not_of_the_generation() {
    let snapshot = policy("", &[tls("g", "postern:tls:a.example.com")]);
    assert_eq!(snapshot.policy_id().len(), 16);
    assert!(
        snapshot
            .policy_id()
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
    );
    assert_eq!(snapshot.generation(), 7);
    let again = Snapshot::compile(snapshot.draft().clone(), 8).unwrap();
    assert_eq!(again.policy_id(), snapshot.policy_id());
    let other = policy("", &[tls("g", "postern:tls:b.example.com")]);
    assert_ne!(other.policy_id(), snapshot.policy_id());
    let preferred = policy(
        "ech = \"allow_outer\"",
        &[tls("g", "postern:tls:a.example.com")],
    );
    assert_ne!(preferred.policy_id(), snapshot.policy_id());
}

#[test]
fn the_policy_id_is_the_same_on_every_machine_and_version() {
    let snapshot = policy("", &[tls("g", "postern:tls:a.example.com,*.example.org")]);
    assert_eq!(snapshot.policy_id(), "a0062d085da5cd25");
}

#[test]
fn a_handle_of_another_snapshot_reaches_nothing() {
    let snapshot = policy("", &[tls("g", "postern:tls:a.example.com")]);
    let empty = Snapshot::compile(Draft::default(), 1).unwrap();
    let a = name("a.example.com");
    assert_eq!(
        empty.decide(&ask(&snapshot, &a)).outcome,
        Outcome::Refuse(Reason::NoRule)
    );
    assert_eq!(empty.instance(client(&snapshot)), "");
}
