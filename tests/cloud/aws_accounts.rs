//! Other accounts, read through a role they have for us.

use e2e::cloud::{DaemonDouble, Rule};

use crate::stage::{LIMIT, Stage, names};

const OTHER: &str = "222222222222";

#[test]
fn interfaces_and_groups_of_another_account_are_read_through_its_role() {
    let stage = Stage::new();
    stage.allow("postern:tls:ours.example.com");
    let theirs = stage.cloud.api.in_account(OTHER).unwrap();
    let vpc = theirs.vpc("10.88.0.0/16").unwrap();
    let subnet = theirs.subnet(&vpc, "10.88.1.0/24").unwrap();
    let gid = theirs.group(&vpc, "theirs").unwrap();
    theirs
        .allow(&gid, Rule::https("postern:tls:theirs.example.com"))
        .unwrap();
    theirs.interface(&subnet, "10.88.1.10", &[&gid]).unwrap();
    let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
    let more = format!(
        "[[aws.accounts]]\naccount = \"{OTHER}\"\nrole = \"postern-reader\"\nvpcs = [\"{vpc}\"]\nexternal_id = \"x-1\"\n"
    );
    let mut sidecar = stage.sidecar(&more);
    sidecar.start().unwrap();
    let both = ["ours.example.com", "theirs.example.com"];
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == both)
        .unwrap()
        .snapshot;
    assert!(policy.faults.is_empty(), "{:?}", policy.faults);
    assert!(policy.served.contains(&"10.88.0.0/16".parse().unwrap()));
    let client = policy
        .clients
        .iter()
        .find(|client| client.net == "10.88.1.10/32".parse().unwrap());
    assert_eq!(client.unwrap().groups, std::slice::from_ref(&gid));

    // The role is taken from us, and what it said is in nobody's memory: no smaller policy is published.
    stage.cloud.double.deny("sts:AssumeRole", true);
    sidecar.kill().unwrap();
    sidecar.start().unwrap();
    sidecar
        .wait_line(&format!("DescribeNetworkInterfaces in account {OTHER}"))
        .unwrap();
    let calls = |action| stage.cloud.double.wait_calls(action, 2, LIMIT);
    assert!(calls("AssumeRole"), "it gave up asking");
    assert_eq!(names(&daemon.published().pop().unwrap().snapshot), both);
    stage.cloud.double.deny("sts:AssumeRole", false);
    sidecar.wait_line("readable again").unwrap();
    let is_whole = daemon.published().into_iter().skip(1);
    assert!(
        is_whole
            .clone()
            .all(|published| names(&published.snapshot) == both)
    );
}
