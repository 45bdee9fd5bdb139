//! Descriptions people should not have written, and readings in which something moved.

use e2e::cloud::Rule;

use crate::stage::{LIMIT, Stage, names};

/// Written straight into moto: the service itself would refuse some of these today.
#[test]
fn bad_descriptions_are_faults_and_spare_the_rest() {
    let stage = Stage::new();
    let hostile = [
        "postern:tls:\"},\"gid\":\"sg-evil",
        "postern:tls:\u{202e}moc.elpmaxe",
        "postern:tls:a..b.example.com",
        "postern:tls:203.0.113.9",
        "postern:tsl:api.example.com",
        "postern:see-thru:2026-13-41",
        "postern:tls:*.com",
        "postern:",
    ];
    for description in hostile {
        stage.allow(description);
    }
    stage.allow(&"*".repeat(255));
    stage.allow("postern:tls:good.example.com,a..b");
    let ingress = Rule::https("postern:tls:ingress.example.com");
    stage.cloud.api.allow_in(&stage.gid, ingress).unwrap();
    let (daemon, _sidecar) = stage.run();
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| !snapshot.groups.is_empty())
        .unwrap()
        .snapshot;
    assert_eq!(names(&policy), ["good.example.com"]);
    // One fault each, and one for the bad half of the last; the stars alone are no annotation.
    assert!(
        policy.faults.len() >= hostile.len() + 2,
        "{:#?}",
        policy.faults
    );
    assert!(
        policy
            .faults
            .iter()
            .all(|fault| fault.object == stage.gid && fault.rule.is_some())
    );
    assert!(
        policy
            .faults
            .iter()
            .any(|fault| fault.kind == "ingress_rule")
    );
    assert_eq!(policy.clients.len(), 1);
}

#[test]
fn the_double_takes_no_description_that_ec2_refuses() {
    let stage = Stage::new();
    let polite = stage.cloud.polite_api();
    for description in ["a \"quoted\" name", &"*".repeat(256), "ü"] {
        let refused = polite
            .allow(&stage.gid, Rule::https(description))
            .unwrap_err();
        assert!(
            format!("{refused:?}").contains("InvalidParameterValue"),
            "{refused:?}"
        );
    }
    polite
        .allow(&stage.gid, Rule::https(&"*".repeat(255)))
        .unwrap();
}

#[test]
fn a_group_that_moves_between_pages_is_read_again_and_never_half() {
    let stage = Stage::new();
    stage.allow("postern:tls:old.example.com");
    let fresh = stage.cloud.api.group(&stage.vpc, "fresh").unwrap();
    stage
        .cloud
        .api
        .allow(&fresh, Rule::https("postern:tls:new.example.com"))
        .unwrap();
    // After the interfaces were read, the interface changes groups and its former group is deleted.
    let (api, interface, gid) = (stage.cloud.api, stage.interface.clone(), stage.gid.clone());
    stage
        .cloud
        .double
        .after_page("DescribeNetworkInterfaces", 1, move || {
            api.regroup(&interface, &[&fresh]).unwrap();
            api.delete_group(&gid).unwrap();
        });
    let (daemon, sidecar) = stage.run();
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == ["new.example.com"])
        .unwrap();
    sidecar.wait_line("reading again").unwrap();
    for published in daemon.published() {
        let snapshot = published.snapshot;
        let known: Vec<&str> = snapshot
            .groups
            .iter()
            .map(|group| group.gid.as_str())
            .collect();
        let in_use = snapshot.clients.iter().flat_map(|client| &client.groups);
        assert!(
            in_use.clone().all(|gid| known.contains(&gid.as_str())),
            "{snapshot:#?}"
        );
    }
}

/// As with a group of another account in a shared subnet: moto lets an interface keep a group that is gone.
#[test]
fn a_group_that_cannot_be_read_is_a_fault_and_costs_no_extra_readings() {
    let stage = Stage::new();
    stage.allow("postern:tls:api.example.com");
    let foreign = stage.cloud.api.group(&stage.vpc, "foreign").unwrap();
    let interface = stage
        .cloud
        .api
        .interface(&stage.subnet, "10.77.1.30", &[&foreign])
        .unwrap();
    stage.cloud.api.delete_group(&foreign).unwrap();
    let (daemon, sidecar) = stage.run();
    let has_fault = |snapshot: &ipc::snapshot::SnapshotV1| {
        snapshot.faults.iter().any(|fault| {
            fault.kind == "unreadable"
                && fault.object == foreign
                && fault.detail.contains(&interface)
        })
    };
    let policy = daemon.wait_policy(LIMIT, has_fault).unwrap().snapshot;
    assert_eq!(names(&policy), ["api.example.com"]);
    let fault = policy.faults.iter().find(|fault| fault.object == foreign);
    let detail = &fault.unwrap().detail;
    // Whose it is, as far as the interface tells, and what to add.
    assert!(
        detail.contains("123456789012") && detail.contains("[[aws.accounts]]"),
        "{detail}"
    );
    assert!(
        stage
            .cloud
            .double
            .wait_calls("DescribeNetworkInterfaces", 4, LIMIT)
    );
    assert_eq!(sidecar.count("reading again"), 2, "{}", sidecar.output());
}
