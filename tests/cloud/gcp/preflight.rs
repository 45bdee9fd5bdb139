//! What `preflight` finds before it has to hurt.

use std::process::{Command, Output};

use e2e::cloud::{Google, Machine, Policy, Route, binary};
use serde_json::{Value, json};

use super::policy::permissions;
use super::stage::Stage;

/// Writes the configuration, and looks.
fn preflight(stage: &Stage) -> Output {
    drop(stage.sidecar(""));
    Command::new(binary().unwrap())
        .args(["preflight", "--json", "--config"])
        .arg(stage.folder.path().join("cloudsync.toml"))
        .env("GCE_METADATA_HOST", stage.google.host())
        .output()
        .unwrap()
}

fn findings(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} {errors}")))
        .collect()
}

fn appliance(stage: &Stage) {
    let path = "instance/network-interfaces/0";
    stage
        .google
        .set_metadata(&format!("{path}/ip"), "10.77.1.2");
    stage.google.set_metadata(
        &format!("{path}/access-configs/0/external-ip"),
        "198.51.100.1",
    );
}

/// The network's own default route, and one to an address before it.
fn routes(google: &Google, priority: u32, hop: &str) {
    let gateway = "projects/net-1/global/gateways/default-internet-gateway";
    let own = Route::new("default", "nextHopGateway", gateway);
    google.route(own.with("priority", json!(1_000)));
    let here = Route::new("to-the-firewall", "nextHopIp", hop);
    google.route(here.with("priority", json!(priority)));
}

/// The permissions of every section that `preflight` goes through.
fn granted() -> std::collections::BTreeSet<String> {
    let sections = ["policy", "preflight", "logs", "secrets"];
    sections.into_iter().flat_map(permissions).collect()
}

#[test]
fn all_is_well_with_the_permissions_of_the_file() {
    let stage = Stage::new();
    appliance(&stage);
    let mut machine = Machine::new("fw-1", "10.77.1.2");
    machine.fields["canIpForward"] = json!(true);
    stage.google.machine(machine);
    stage.allow("web", "postern:tls:a.example.com");
    routes(&stage.google, 200, "10.77.1.2");
    stage.google.grant(Policy::Granted(granted()));
    let output = preflight(&stage);
    let found = findings(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#?}");
    assert!(
        found.iter().all(|finding| finding["outcome"] == "good"),
        "{found:#?}"
    );
    let used = stage.google.used();
    let needed = permissions("preflight");
    assert!(
        needed.iter().all(|needed| used.contains(needed.as_str())),
        "{used:?}"
    );
    // Nothing was written to find out.
    assert!(stage.google.entries("postern-config").is_empty());
}

#[test]
fn each_lack_is_one_line_with_one_fix() {
    let stage = Stage::new();
    appliance(&stage);
    stage.google.machine(Machine::new("fw-1", "10.77.1.2"));
    stage.allow("web", "postern:tls:a..b");
    let lacking = ["logging.logEntries.create", "compute.zoneOperations.list"];
    let mut granted = granted();
    granted.retain(|permission| !lacking.contains(&permission.as_str()));
    stage.google.grant(Policy::Granted(granted));
    let output = preflight(&stage);
    assert_eq!(output.status.code(), Some(1));
    let found = findings(&output);
    let bad: Vec<&Value> = found
        .iter()
        .filter(|finding| finding["outcome"] == "bad")
        .collect();
    let checks: Vec<&str> = bad
        .iter()
        .filter_map(|finding| finding["check"].as_str())
        .collect();
    assert_eq!(
        checks,
        [
            "zoneOperations.list in net-1",
            "entries.write in the own project",
            "forwarding",
            "routes of net-1/main",
            "policy"
        ],
        "{found:#?}"
    );
    assert!(
        bad.iter()
            .all(|finding| finding["fix"].as_str().is_some_and(|fix| !fix.is_empty()))
    );
}

#[test]
fn a_route_that_goes_past_the_appliance_is_found() {
    let found = |priority: u32, hop: &str| {
        let stage = Stage::new();
        appliance(&stage);
        routes(&stage.google, priority, hop);
        let found = findings(&preflight(&stage));
        let route = found
            .into_iter()
            .find(|finding| finding["check"] == "routes of net-1/main");
        let route = route.unwrap();
        let word = |name: &str| route[name].as_str().unwrap_or_default().to_owned();
        (word("outcome"), word("detail"), word("fix"))
    };
    let (outcome, detail, _) = found(200, "10.77.1.2");
    assert_eq!(outcome, "good", "{detail}");
    // The network's own default route has 1000.
    let (outcome, detail, fix) = found(1_000, "10.77.1.2");
    assert_eq!(outcome, "bad", "{detail}");
    assert!(
        fix.contains("to-the-firewall") && fix.contains("default"),
        "{fix}"
    );
    let (outcome, detail, _) = found(200, "10.77.1.3");
    assert_eq!(outcome, "bad", "{detail}");
}
