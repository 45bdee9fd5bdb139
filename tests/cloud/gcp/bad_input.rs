//! Descriptions people should not have written, on rules that cannot carry them.

use e2e::cloud::Firewall;
use serde_json::json;

use super::stage::{LIMIT, Stage, names};

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
    let is_read = |found: &ipc::snapshot::SnapshotV1| !names(found).is_empty();
    let policy = daemon.wait_policy(LIMIT, is_read).unwrap().snapshot;
    assert_eq!(names(&policy), ["good.example.com"]);
    assert!(policy.faults.len() >= hostile.len(), "{:#?}", policy.faults);
    assert_eq!(policy.clients.len(), 1);
}
