//! Preferences and external lists, kept beside the rules.

use std::time::Duration;

use e2e::cloud::{Break, DaemonDouble, Fault, Sidecar};

use crate::stage::{LIMIT, Stage, names};

/// Reads documents as often as rules.
const OFTEN: &str = "preferences_s = 0.3\nlists_s = 0.3\n";

fn run(stage: &Stage) -> (DaemonDouble, Sidecar) {
    let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = stage.sidecar(OFTEN);
    sidecar.start().unwrap();
    (daemon, sidecar)
}

#[test]
fn a_list_is_read_from_each_store_and_from_other_accounts() {
    let stage = Stage::new();
    let (api, double) = (&stage.cloud.api, &stage.cloud.double);
    api.parameter("postern-team1", "one.example.com # ours\n*.one.example.org")
        .unwrap();
    api.secret("postern-team2", "two.example.com").unwrap();
    let parameter = "arn:aws:ssm:us-east-1:222222222222:parameter/team3";
    double.foreign(parameter, "three.example.com");
    let secret = "arn:aws:secretsmanager:eu-west-1:222222222222:secret:team4-AbCdEf";
    double.foreign(secret, "four.example.com");
    stage.allow("postern:tls:@postern-team1,own.example.com");
    stage.allow("postern:tls:@secret:postern-team2");
    stage.allow(&format!("postern:tls:@{parameter}"));
    stage.allow(&format!("postern:tls:@{secret}"));
    let (daemon, _sidecar) = run(&stage);
    let wanted = [
        "*.one.example.org",
        "four.example.com",
        "one.example.com",
        "own.example.com",
        "three.example.com",
        "two.example.com",
    ];
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == wanted)
        .unwrap();
    assert!(policy.snapshot.faults.is_empty(), "{policy:#?}");
    // The first policy is whole: lists are read before it is published, not after.
    assert_eq!(daemon.published().len(), 1);
    api.parameter("postern-team1", "other.example.com").unwrap();
    daemon
        .wait_policy(LIMIT, |snapshot| {
            names(snapshot).contains(&"other.example.com".to_owned())
        })
        .unwrap();
}

#[test]
fn a_list_that_cannot_be_read_says_what_it_said_last_across_a_restart() {
    let stage = Stage::new();
    stage
        .cloud
        .api
        .parameter("postern-team1", "one.example.com")
        .unwrap();
    stage.allow("postern:tls:@postern-team1");
    let (daemon, mut sidecar) = run(&stage);
    let has_name = |snapshot: &ipc::snapshot::SnapshotV1| names(snapshot) == ["one.example.com"];
    daemon.wait_policy(LIMIT, has_name).unwrap();
    stage
        .cloud
        .double
        .fail(Fault::lasting("GetParameter", Break::ServerError));
    sidecar.kill().unwrap();
    sidecar.start().unwrap();
    let is_reported = |snapshot: &ipc::snapshot::SnapshotV1| {
        let mut faults = snapshot.faults.iter();
        has_name(snapshot) && faults.any(|fault| fault.kind == "list_unreadable")
    };
    daemon.wait_policy(LIMIT, is_reported).unwrap();
    assert!(
        daemon
            .published()
            .iter()
            .all(|published| has_name(&published.snapshot)),
        "the names were gone for a moment"
    );
    stage.cloud.double.recover();
    daemon
        .wait_policy(LIMIT, |snapshot| {
            has_name(snapshot) && snapshot.faults.is_empty()
        })
        .unwrap();
    stage.cloud.api.delete_parameter("postern-team1").unwrap();
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot).is_empty())
        .unwrap();
}

#[test]
fn the_preferences_document_is_found_adopted_and_kept() {
    let stage = Stage::new();
    let api = &stage.cloud.api;
    api.parameter("DiscrimiNAT", "{\"%default\":{\"ech\":\"allow_outer\"}}")
        .unwrap();
    stage.allow("postern:tls:api.example.com");
    let (daemon, sidecar) = run(&stage);
    let ech = |wanted: &'static str| {
        move |snapshot: &ipc::snapshot::SnapshotV1| snapshot.preferences.ech == wanted
    };
    daemon.wait_policy(LIMIT, ech("allow_outer")).unwrap();
    api.parameter(
        "postern",
        "{\"%default\":{\"quic\":\"inspect\",\"ech\":\"sometimes\",\"colour\":1}}",
    )
    .unwrap();
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| snapshot.preferences.quic == "inspect")
        .unwrap()
        .snapshot;
    // What it had before it became impossible, and a line for each key that is not as written.
    assert_eq!(policy.preferences.ech, "allow_outer");
    let mut kinds: Vec<&str> = policy
        .faults
        .iter()
        .map(|fault| fault.kind.as_str())
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["invalid_preference", "unknown_preference"]);
    stage.cloud.double.deny("ssm:GetParameter", true);
    sidecar.wait_line("the last good preferences stay").unwrap();
    let kept = daemon.published().pop().unwrap().snapshot.preferences;
    assert_eq!(kept, policy.preferences);
    assert!(
        stage
            .cloud
            .double
            .wait_calls("GetParameter", 4, Duration::from_secs(20))
    );
}
