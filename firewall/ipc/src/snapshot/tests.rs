//! Documents of this version, of others, and of none.

use super::*;

pub(super) fn document() -> SnapshotV1 {
    SnapshotV1 {
        version: VERSION,
        preferences: PreferencesV1::default(),
        groups: vec![GroupV1 {
            gid: "sg-1".into(),
            rules: vec![RuleV1 {
                rule: "sgr-1".into(),
                transport: TransportV1::Tcp,
                ports: (443, 443),
                cidr: None,
                entries: vec![EntryV1::Name {
                    kind: KindV1::Tls,
                    name: "api.example.com".into(),
                    host_key: None,
                    list: None,
                }],
            }],
        }],
        clients: vec![ClientV1 {
            net: "10.0.0.5/32".parse().unwrap(),
            instance: "i-1".into(),
            groups: vec!["sg-1".into()],
        }],
        served: vec!["10.0.0.0/8".parse().unwrap()],
        faults: Vec::new(),
    }
}

#[test]
fn a_document_of_this_version_is_read() {
    let json = document().to_json().unwrap();
    assert_eq!(read(json.as_bytes()).unwrap(), document());
}

#[test]
fn a_later_document_is_known_for_one_whatever_else_it_says() {
    for json in [
        r#"{"version":2}"#,
        r#"{"what":"ever","version":2,"groups":7}"#,
    ] {
        assert!(
            matches!(
                read(json.as_bytes()),
                Err(ReadSnapshotError::Newer { found: 2 })
            ),
            "{json}"
        );
    }
    let mut later = document();
    later.version = 2;
    let json = later.to_json().unwrap();
    assert!(matches!(
        read(json.as_bytes()),
        Err(ReadSnapshotError::Newer { found: 2 })
    ));
}

#[test]
fn a_document_before_the_first_version_is_too_old() {
    assert!(matches!(
        read(br#"{"version":0}"#),
        Err(ReadSnapshotError::Older { found: 0 })
    ));
}

#[test]
fn an_unknown_field_within_a_version_is_an_error() {
    let json = document()
        .to_json()
        .unwrap()
        .replacen("\"gid\"", "\"deny\":true,\"gid\"", 1);
    let error = read(json.as_bytes()).unwrap_err();
    assert!(!error.is_version(), "{error:?}");
    assert!(format!("{error:?}").contains("deny"), "{error:?}");
}

#[test]
fn no_prefix_of_a_document_is_a_document() {
    let json = document().to_json().unwrap();
    for cut in 0..json.len() {
        assert!(read(&json.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_stored_document_keeps_its_number_and_knows_its_version() {
    let stored = StoredV1 {
        version: VERSION,
        generation: 41,
        policy_id: "0123456789abcdef".into(),
        adopted: crate::record::Timestamp::from_unix_ms(1_795_345_705_042),
        snapshot: document(),
        overlay: None,
    };
    let json = stored.to_json().unwrap();
    assert_eq!(read_stored(&json).unwrap(), stored);
    let later = String::from_utf8(json)
        .unwrap()
        .replacen("\"version\":1", "\"version\":2", 1);
    assert!(matches!(
        read_stored(later.as_bytes()),
        Err(ReadSnapshotError::Newer { found: 2 })
    ));
}

#[test]
fn an_impossible_word_is_refused_with_its_place() {
    let invalid = |change: fn(&mut SnapshotV1)| {
        let mut document = document();
        change(&mut document);
        policy::Draft::try_from(document).unwrap_err().to_string()
    };
    let message = invalid(|document| {
        document.groups[0].rules[0].entries.push(EntryV1::SeeThru {
            until: "2026-13-01".into(),
        });
    });
    assert!(
        message.starts_with("groups[0].rules[0].entries[1].until: "),
        "{message}"
    );
    let message = invalid(|document| document.groups[0].rules[0].ports = (8100, 8000));
    assert!(
        message.starts_with("groups[0].rules[0].ports: "),
        "{message}"
    );
    let message = invalid(|document| document.preferences.ech = "maybe".into());
    assert!(message.starts_with("preferences.ech: "), "{message}");
}

mod round_trip {
    use policy::{
        Client, Date, Draft, Entry, Fault, FaultKind, Group, HostKeyPin, Kind, Name, Pattern,
        PortRange, Preferences, Rule, RuleTransport, preferences,
    };
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::*;

    fn name() -> impl Strategy<Value = Name> {
        "[a-z_][a-z0-9]{0,8}(\\.[a-z]{2,6}){1,3}"
            .prop_map(|text| Name::parse(text.as_bytes()).unwrap())
    }

    fn kind() -> impl Strategy<Value = Kind> {
        select(Kind::ALL)
    }

    fn list() -> impl Strategy<Value = Option<String>> {
        prop::option::of("[A-Za-z0-9_./-]{1,20}")
    }

    fn date() -> impl Strategy<Value = Date> {
        (0..4_000_000_000_000u64).prop_map(Date::from_unix_ms)
    }

    fn net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<u32>(), 0..=32u8)
                .prop_map(|(bits, len)| IpNet::new(std::net::Ipv4Addr::from(bits).into(), len)),
            (any::<u128>(), 0..=128u8)
                .prop_map(|(bits, len)| IpNet::new(std::net::Ipv6Addr::from(bits).into(), len)),
        ]
        .prop_map(|net| net.unwrap().trunc())
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let pin = prop::option::of(any::<[u8; 32]>().prop_map(HostKeyPin::new));
        prop_oneof![
            (kind(), name(), pin, list()).prop_map(|(kind, name, host_key, list)| Entry::Name {
                kind,
                name,
                host_key,
                list
            }),
            (kind(), name(), list()).prop_map(|(kind, name, list)| Entry::Pattern {
                kind,
                pattern: Pattern::parse(&format!("*.{name}")).unwrap(),
                list
            }),
            prop::option::of("\\PC{0,40}").prop_map(|comment| Entry::Address { comment }),
            date().prop_map(|until| Entry::SeeThru { until }),
        ]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let transport = select(vec![
            RuleTransport::Tcp,
            RuleTransport::Udp,
            RuleTransport::All,
        ]);
        (
            "\\PC{0,20}",
            transport,
            (any::<u16>(), any::<u16>()),
            prop::option::of(net()),
            prop::collection::vec(entry(), 0..4),
        )
            .prop_map(|(rule, transport, (a, b), cidr, entries)| Rule {
                rule,
                transport,
                ports: PortRange {
                    from: a.min(b),
                    to: a.max(b),
                },
                cidr,
                entries,
            })
    }

    fn fault() -> impl Strategy<Value = Fault> {
        let column = prop::option::of(1..=2_048usize);
        (
            "\\PC{0,20}",
            prop::option::of("sgr-[0-9]"),
            list(),
            column,
            select(FaultKind::ALL),
        )
            .prop_map(|(object, rule, list, column, kind)| Fault {
                rule,
                list,
                column,
                ..Fault::new(&object, kind, "\u{1b}\"\\", "why")
            })
    }

    fn all_preferences() -> impl Strategy<Value = Preferences> {
        (
            select(preferences::WildcardExposure::ALL),
            select(preferences::FlowLogVerbosity::ALL),
            prop::option::of(date()),
            select(preferences::Ech::ALL),
            select(preferences::OnPolicyChange::ALL),
            prop::collection::vec(net(), 0..3),
            prop::collection::vec(name(), 0..3),
        )
            .prop_map(
                |(exposure, verbosity, see_thru, ech, on_change, nets, zones)| Preferences {
                    wildcard_exposure: exposure,
                    flow_log_verbosity: verbosity,
                    see_thru,
                    ech,
                    on_policy_change: on_change,
                    allow_private_answers: nets,
                    internal_zones: zones,
                    ..Preferences::default()
                },
            )
    }

    fn draft() -> impl Strategy<Value = Draft> {
        let group = ("\\PC{0,20}", prop::collection::vec(rule(), 0..4))
            .prop_map(|(gid, rules)| Group { gid, rules });
        let client = (
            net(),
            "\\PC{0,20}",
            prop::collection::vec("sg-[0-9]{1,3}", 0..4),
        )
            .prop_map(|(net, instance, groups)| Client {
                net,
                instance,
                groups,
            });
        (
            all_preferences(),
            prop::collection::vec(group, 0..4),
            prop::collection::vec(client, 0..4),
            prop::collection::vec(net(), 0..3),
            prop::collection::vec(fault(), 0..3),
        )
            .prop_map(|(preferences, groups, clients, served, faults)| Draft {
                preferences,
                groups,
                clients,
                served,
                faults,
            })
    }

    proptest! {
        #[test]
        fn a_draft_survives_the_document(draft in draft()) {
            let json = SnapshotV1::from(&draft).to_json().unwrap();
            let back = Draft::try_from(read(json.as_bytes()).unwrap()).unwrap();
            prop_assert_eq!(back, draft);
        }
    }
}
