//! What `preflight` finds before it has to hurt.

use std::process::{Command, Output};

use e2e::cloud::{Machine, Policy, binary};
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

#[test]
fn all_is_well_with_the_permissions_of_the_file() {
    let stage = Stage::new();
    appliance(&stage);
    let mut machine = Machine::new("fw-1", "10.77.1.2");
    machine.fields["canIpForward"] = json!(true);
    stage.google.machine(machine);
    stage.allow("web", "postern:tls:a.example.com");
    let mut granted = permissions("policy");
    granted.extend(permissions("logs"));
    granted.extend(permissions("secrets"));
    stage.google.grant(Policy::Granted(granted));
    let output = preflight(&stage);
    let found = findings(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#?}");
    assert!(
        found.iter().all(|finding| finding["outcome"] == "good"),
        "{found:#?}"
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
    let mut granted = permissions("policy");
    granted.extend(permissions("secrets"));
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
        ["entries.write in the own project", "forwarding", "policy"],
        "{found:#?}"
    );
    assert!(
        bad.iter()
            .all(|finding| finding["fix"].as_str().is_some_and(|fix| !fix.is_empty()))
    );
}
