//! An appliance without an external address takes a reserved one; two never take the same.

use std::collections::BTreeSet;

use e2e::cloud::{Google, Machine, Policy, Sidecar};
use e2e::wait;
use serde_json::json;

use super::policy::permissions;
use super::stage::{LIMIT, Stage};

/// The appliance itself is a machine, too: `fw-1`, of the metadata server.
fn appliance(stage: &Stage) -> Sidecar {
    stage.google.machine(Machine::new("fw-1", "10.77.1.2"));
    stage.sidecar("")
}

#[test]
fn a_reserved_address_with_the_label_is_taken_and_no_other() {
    let stage = Stage::new();
    stage.google.reserve("203.0.113.7", &json!({"team": "web"}));
    stage
        .google
        .reserve("203.0.113.8", &json!({"discriminat": "any"}));
    let mut granted = permissions("policy");
    granted.extend(permissions("address"));
    granted.extend(permissions("secrets"));
    stage.google.grant(Policy::Granted(granted.clone()));
    let mut sidecar = appliance(&stage);
    sidecar.start().unwrap();
    sidecar
        .wait_line("took a reserved external address address=\"203.0.113.8\"")
        .unwrap();
    assert_eq!(
        stage.google.external_address("fw-1").as_deref(),
        Some("203.0.113.8")
    );
    let used: BTreeSet<String> = stage
        .google
        .used()
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    assert!(
        wait::holds(LIMIT, || stage.google.used().len() >= granted.len()),
        "{used:?}"
    );
    let used: BTreeSet<String> = stage
        .google
        .used()
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(used, granted, "{}", sidecar.output());
    // Having one, it takes no second.
    assert_eq!(stage.google.calls("instances.addAccessConfig"), 1);
}

#[test]
fn an_address_somebody_else_was_quicker_to_take_is_not_fought_over() {
    let stage = Stage::new();
    stage
        .google
        .reserve("203.0.113.7", &json!({"postern": "x"}));
    stage
        .google
        .reserve("203.0.113.8", &json!({"postern": "x"}));
    stage.google.machine(Machine::new("fw-0", "10.77.1.1"));
    // Between the list and the wish, another appliance has one of the two.
    stage.google.contest("203.0.113.7", "fw-0");
    stage.google.contest("203.0.113.8", "fw-0");
    let mut sidecar = appliance(&stage);
    sidecar.start().unwrap();
    sidecar
        .wait_line("took a reserved external address")
        .unwrap();
    let (first, second) = (
        stage.google.external_address("fw-0"),
        stage.google.external_address("fw-1"),
    );
    assert!(
        first.is_some() && second.is_some() && first != second,
        "{first:?} {second:?}"
    );
    assert!(
        sidecar.output().contains("not this address"),
        "{}",
        sidecar.output()
    );
}

#[test]
fn an_instance_with_an_address_of_its_own_keeps_it() {
    let stage = Stage::new();
    stage
        .google
        .reserve("203.0.113.7", &json!({"postern": "x"}));
    let path = "instance/network-interfaces/0/access-configs/0/external-ip";
    stage.google.set_metadata(path, "198.51.100.1");
    let (daemon, _sidecar) = stage.run("");
    daemon
        .wait_policy(LIMIT, |found| !found.clients.is_empty())
        .unwrap();
    assert_eq!(stage.google.calls("addresses.list"), 0);
    assert_eq!(stage.google.calls("instances.addAccessConfig"), 0);
}

#[test]
fn addresses_that_load_balancers_forward_are_printed() {
    let google = Google::start(e2e::cloud::Pace::default()).unwrap();
    let print = || {
        let output = std::process::Command::new(e2e::cloud::binary().unwrap())
            .arg("forwarded")
            .env("GCE_METADATA_HOST", google.host())
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(print(), "");
    google.set_metadata(
        "instance/network-interfaces/0/forwarded-ips/0",
        "10.77.1.100",
    );
    google.set_metadata(
        "instance/network-interfaces/0/forwarded-ips/1",
        "10.77.1.101",
    );
    google.set_metadata(
        "instance/network-interfaces/0/forwarded-ipv6s/0",
        "fd20:77::9",
    );
    assert_eq!(print(), "10.77.1.100\n10.77.1.101\nfd20:77::9\n");
}
