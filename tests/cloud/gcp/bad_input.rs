//! Descriptions people should not have written, on rules that cannot carry them.

use e2e::cloud::{Firewall, GoogleBreak, GoogleFault, Machine};
use e2e::wait;
use ipc::snapshot::SnapshotV1;
use serde_json::json;

use super::stage::{LIMIT, Stage, groups_of, names};

/// What is wrong, with which rule.
fn faults(policy: &SnapshotV1) -> Vec<(&str, &str)> {
    policy
        .faults
        .iter()
        .map(|fault| (fault.object.as_str(), fault.kind.as_str()))
        .collect()
}

#[test]
fn a_warning_that_something_is_missing_is_no_answer_and_one_that_nothing_is_there_is() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    // Zones and pages without anything in them carry a warning in every answer.
    let (daemon, sidecar) = stage.run("");
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["a.example.com"])
        .unwrap();
    for method in ["firewalls.list", "instances.aggregatedList"] {
        stage.google.fail(GoogleFault {
            times: Some(2),
            ..GoogleFault::lasting(method, GoogleBreak::Warning)
        });
        assert!(wait::holds(LIMIT, || stage.google.is_well()), "{method}");
    }
    sidecar.wait_line("Some requests failed").unwrap();
    let changed = json!("postern:tls:b.example.com");
    stage.google.patch("web", "description", changed);
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["b.example.com"])
        .unwrap();
    assert_eq!(daemon.published().len(), 2, "{}", sidecar.output());
}

#[test]
fn an_instance_without_tags_is_in_the_groups_for_everybody_and_no_others() {
    let stage = Stage::new();
    stage.allow("tagged", "postern:tls:a.example.com");
    let all = Firewall::https("all", "postern:tls:b.example.com");
    stage.google.firewall(all);
    stage.google.machine(Machine::new("bare", "10.77.1.12"));
    let mut empty = Machine::new("empty", "10.77.1.13");
    empty.fields["tags"] = json!({"fingerprint": "42WmSpB8rSM="});
    stage.google.machine(empty);
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| found.clients.len() == 3)
        .unwrap()
        .snapshot;
    for address in ["10.77.1.12/32", "10.77.1.13/32"] {
        assert_eq!(groups_of(&policy, address).unwrap(), ["all"], "{address}");
    }
    assert!(policy.faults.is_empty(), "{:#?}", policy.faults);
}

#[test]
fn a_disabled_rule_is_a_fault_and_allows_nothing_until_it_is_enabled() {
    let stage = Stage::new();
    stage.allow("good", "postern:tls:good.example.com");
    let off = Firewall::https("off", "postern:tls:off.example.com").tags(&["web"]);
    stage.google.firewall(off.with("disabled", json!(true)));
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| !found.faults.is_empty())
        .unwrap()
        .snapshot;
    assert_eq!(faults(&policy), [("off", "disabled_rule")]);
    assert_eq!(names(&policy), ["good.example.com"]);
    assert_eq!(groups_of(&policy, "10.77.1.10/32").unwrap(), ["good"]);
    stage.google.patch("off", "disabled", json!(false));
    let policy = daemon
        .wait_policy(LIMIT, |found| found.faults.is_empty())
        .unwrap()
        .snapshot;
    assert_eq!(names(&policy), ["good.example.com", "off.example.com"]);
    assert_eq!(
        groups_of(&policy, "10.77.1.10/32").unwrap(),
        ["good", "off"]
    );
}

#[test]
fn overlapping_alias_ranges_go_to_the_longest_and_equal_ones_are_a_fault() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    let with = |name: &str, address: &str, tags: &[&str], ranges: &[&str]| {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|range| json!({"ipCidrRange": range}))
            .collect();
        let machine = Machine::new(name, address).tags(tags);
        stage
            .google
            .machine(machine.nic("aliasIpRanges", json!(ranges)));
    };
    with("wide", "10.77.1.20", &["web"], &["10.78.0.0/24"]);
    with("narrow", "10.77.1.21", &[], &["10.78.0.128/25"]);
    with("one", "10.77.1.22", &["web"], &["10.79.0.0/24"]);
    with("other", "10.77.1.23", &[], &["10.79.0.0/24"]);
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| !found.clients.is_empty())
        .unwrap()
        .snapshot;
    // The daemon gives an address to the longest prefix that has it.
    assert_eq!(groups_of(&policy, "10.78.0.0/24").unwrap(), ["web"]);
    assert!(groups_of(&policy, "10.78.0.128/25").unwrap().is_empty());
    // Equal ones add up, and somebody is told.
    assert_eq!(groups_of(&policy, "10.79.0.0/24").unwrap(), ["web"]);
    let kinds: Vec<&str> = faults(&policy).iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, ["duplicate_client"], "{:#?}", policy.faults);
}

#[test]
fn an_annotated_deny_rule_is_a_fault_and_spares_the_rest() {
    let stage = Stage::new();
    stage.allow("good", "postern:tls:good.example.com");
    let denies = Firewall::https("denies", "postern:tls:deny.example.com").denying();
    stage.google.firewall(denies.tags(&["web"]));
    // One without an annotation is nobody's business here.
    let plain = Firewall::https("plain", "nothing else gets out").denying();
    stage.google.firewall(plain);
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| !found.faults.is_empty())
        .unwrap()
        .snapshot;
    assert_eq!(faults(&policy), [("denies", "deny_rule")]);
    assert_eq!(names(&policy), ["good.example.com"]);
    assert_eq!(groups_of(&policy, "10.77.1.10/32").unwrap(), ["good"]);
}

#[test]
fn annotations_on_rules_that_allow_nothing_are_faults_and_spare_the_rest() {
    let stage = Stage::new();
    let google = &stage.google;
    stage.allow("good", "postern:tls:good.example.com,a..b");
    google.firewall(Firewall::https("denies", "postern:tls:deny.example.com").denying());
    google.firewall(
        Firewall::https("off", "postern:tls:off.example.com").with("disabled", json!(true)),
    );
    google.firewall(
        Firewall::https("inward", "postern:tls:in.example.com")
            .with("direction", json!("INGRESS"))
            .with("sourceRanges", json!(["0.0.0.0/0"])),
    );
    google.firewall(
        Firewall::https("pings", "postern:tls:icmp.example.com")
            .with("allowed", json!([{"IPProtocol": "icmp"}])),
    );
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| !found.groups.is_empty())
        .unwrap()
        .snapshot;
    assert_eq!(names(&policy), ["good.example.com"]);
    let kinds: Vec<(&str, &str)> = policy
        .faults
        .iter()
        .map(|fault| (fault.object.as_str(), fault.kind.as_str()))
        .collect();
    let wanted = [
        ("denies", "deny_rule"),
        ("good", "invalid_name"),
        ("inward", "ingress_rule"),
        ("off", "disabled_rule"),
        ("pings", "protocol"),
    ];
    assert_eq!(kinds, wanted, "{:#?}", policy.faults);
}

#[test]
fn hostile_descriptions_are_faults() {
    let stage = Stage::new();
    let hostile = [
        "postern:tls:\"},\"gid\":\"evil",
        "postern:tls:\u{202e}moc.elpmaxe",
        "postern:tls:203.0.113.9",
        "postern:tsl:api.example.com",
        "postern:see-thru:2026-13-41",
        "postern:tls:*.com",
        "postern:",
    ];
    for (index, description) in hostile.iter().enumerate() {
        stage.allow(&format!("r{index}"), description);
    }
    stage.allow("long", &"*".repeat(2_048));
    stage.allow("good", "postern:tls:good.example.com");
    let (daemon, _sidecar) = stage.run("");
    let is_read = |found: &SnapshotV1| !names(found).is_empty();
    let policy = daemon.wait_policy(LIMIT, is_read).unwrap().snapshot;
    assert_eq!(names(&policy), ["good.example.com"]);
    assert!(policy.faults.len() >= hostile.len(), "{:#?}", policy.faults);
    assert_eq!(policy.clients.len(), 1);
}
