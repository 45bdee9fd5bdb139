//! A reading made by hand, and the policy it must become.

use policy::preferences::AddressRules;

use super::*;

fn described(rule: &str, description: &str) -> DescribedRule {
    DescribedRule {
        gid: "sg-1".into(),
        rule: rule.into(),
        standing: Standing::Active,
        protocol: "tcp".into(),
        ports: (443, 443),
        cidr: Some("0.0.0.0/0".parse().unwrap()),
        description: description.into(),
    }
}

fn reading(rules: Vec<DescribedRule>) -> Reading {
    Reading {
        interfaces: vec![Interface {
            id: "eni-1".into(),
            instance: "i-1".into(),
            nets: vec![
                "10.0.0.5/32".parse().unwrap(),
                "10.0.1.0/28".parse().unwrap(),
            ],
            groups: vec!["sg-1".into()],
        }],
        rules,
        groups: ["sg-1".to_owned()].into(),
        served: vec!["10.0.0.0/16".parse().unwrap()],
        ..Reading::default()
    }
}

fn assembled(rules: Vec<DescribedRule>) -> Draft {
    assemble(&reading(rules), &Kept::default())
}

#[test]
fn an_interface_is_a_client_for_each_of_its_addresses_and_prefixes() {
    let draft = assembled(Vec::new());
    let nets: Vec<String> = draft
        .clients
        .iter()
        .map(|client| client.net.to_string())
        .collect();
    assert_eq!(nets, ["10.0.0.5/32", "10.0.1.0/28"]);
    assert!(draft.clients.iter().all(|client| client.instance == "i-1"));
}

#[test]
fn a_description_that_is_no_annotation_is_neither_rule_nor_fault() {
    let draft = assembled(vec![
        described("sgr-1", "let the team out"),
        described("sgr-2", ""),
    ]);
    assert!(draft.groups.is_empty(), "{draft:?}");
    assert!(draft.faults.is_empty(), "{draft:?}");
}

#[test]
fn one_bad_annotation_spares_the_rest() {
    let stars = "*".repeat(255);
    let draft = assembled(vec![
        described("sgr-1", "postern:tls:api.example.com,a..b"),
        described("sgr-2", &stars),
        described("sgr-3", "postern:tls:\"},{\"gid\":\"sg-2"),
        described("sgr-4", "postern:tls:ok.example.com"),
    ]);
    let rules: Vec<(&str, usize)> = draft.groups[0]
        .rules
        .iter()
        .map(|rule| (rule.rule.as_str(), rule.entries.len()))
        .collect();
    assert_eq!(rules, [("sgr-1", 1), ("sgr-3", 0), ("sgr-4", 1)]);
    assert!(
        draft
            .faults
            .iter()
            .any(|fault| fault.rule.as_deref() == Some("sgr-1"))
    );
    assert!(
        draft
            .faults
            .iter()
            .any(|fault| fault.rule.as_deref() == Some("sgr-3"))
    );
    assert_eq!(draft.clients.len(), 2);
}

#[test]
fn an_annotation_on_an_ingress_rule_is_a_fault_and_allows_nothing() {
    let mut ingress = described("sgr-1", "postern:tls:api.example.com");
    ingress.standing = Standing::Ingress;
    let draft = assembled(vec![ingress]);
    assert!(draft.groups.is_empty(), "{draft:?}");
    assert_eq!(draft.faults[0].kind, FaultKind::IngressRule);
}

#[test]
fn protocol_all_means_any_port() {
    let mut all = described("sgr-1", "postern:tls:api.example.com");
    all.protocol = "-1".into();
    all.ports = (-1, -1);
    let draft = assembled(vec![all]);
    assert_eq!(draft.groups[0].rules[0].ports, PortRange::ALL);
    assert_eq!(draft.groups[0].rules[0].transport, RuleTransport::All);
}

#[test]
fn a_rule_for_icmp_carries_no_name() {
    let mut icmp = described("sgr-1", "postern:tls:api.example.com");
    icmp.protocol = "icmp".into();
    let draft = assembled(vec![icmp]);
    assert!(draft.groups.is_empty(), "{draft:?}");
    assert_eq!(draft.faults[0].kind, FaultKind::Protocol);
}

#[test]
fn a_group_that_cannot_be_read_is_a_fault_naming_who_uses_it() {
    let mut reading = reading(Vec::new());
    reading.troubles.push(crate::cloud::Trouble {
        object: "sg-9".into(),
        detail: "the group is used by eni-1 and cannot be read".into(),
    });
    let draft = assemble(&reading, &Kept::default());
    assert_eq!(draft.faults[0].kind, FaultKind::Unreadable);
    assert!(
        draft.faults[0].to_string().contains("eni-1"),
        "{}",
        draft.faults[0]
    );
}

#[test]
fn preferences_decide_what_an_annotation_may_be() {
    let mut rule = described("sgr-1", "postern:address:ntp");
    rule.cidr = Some("203.0.113.0/24".parse().unwrap());
    let refused = assembled(vec![rule.clone()]);
    assert!(refused.groups[0].rules[0].entries.is_empty());
    let preferences = Preferences {
        address_rules: AddressRules::Allow,
        ..Preferences::default()
    };
    let allowed = assemble(
        &reading(vec![rule]),
        &Kept {
            preferences,
            ..Kept::default()
        },
    );
    assert_eq!(allowed.groups[0].rules[0].entries.len(), 1);
}

#[test]
fn the_order_of_an_answer_does_not_matter() {
    let rules = vec![
        described("sgr-1", "postern:tls:a.example"),
        described("sgr-2", "postern:tls:b.example"),
    ];
    let mut backwards = rules.clone();
    backwards.reverse();
    let one = Publication::new(assembled(rules)).unwrap();
    let other = Publication::new(assembled(backwards)).unwrap();
    assert_eq!(one.json, other.json);
    assert_eq!(one.policy_id, other.policy_id);
}
