//! Preferences and external lists out of Secret Manager.

use std::collections::BTreeSet;

use e2e::cloud::{GoogleBreak, GoogleFault, Policy};
use e2e::wait;

use super::policy::permissions;
use super::stage::{LIMIT, Stage, names};

const POLL: &str = "interval_s = 0.3\nmax_backoff_s = 1.0\ncalls_per_second = 1000.0\npreferences_s = 0.3\nlists_s = 0.3";

#[test]
fn preferences_and_lists_are_secrets_of_their_names_and_change_with_them() {
    let stage = Stage::new();
    let google = &stage.google;
    google.secret(
        "projects/net-1/secrets/DiscrimiNAT",
        r#"{"%default":{"ech":"allow_outer"}}"#,
    );
    google.secret(
        "projects/net-1/secrets/postern-web",
        "a.example.com\nb.example.com # two\n",
    );
    google.secret("projects/other/secrets/shared", "c.example.com");
    stage.allow(
        "web",
        "postern:tls:@postern-web,@projects/other/secrets/shared",
    );
    let mut granted: BTreeSet<String> = permissions("policy");
    granted.extend(permissions("secrets"));
    google.grant(Policy::Granted(granted));
    let daemon = e2e::cloud::DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = stage.paced(POLL, "");
    sidecar.start().unwrap();
    let wanted = ["a.example.com", "b.example.com", "c.example.com"];
    let policy = daemon
        .wait_policy(LIMIT, |found| names(found) == wanted)
        .unwrap()
        .snapshot;
    let preferences = serde_json::to_value(&policy.preferences).unwrap();
    assert_eq!(preferences["ech"], "allow_outer");
    // The product's own name wins over the older one.
    google.secret(
        "projects/net-1/secrets/postern",
        r#"{"%default":{"quic":"inspect"}}"#,
    );
    google.secret("projects/net-1/secrets/postern-web", "d.example.com");
    let is_new = |found: &ipc::snapshot::SnapshotV1| {
        let preferences = serde_json::to_value(&found.preferences).unwrap();
        names(found) == ["c.example.com", "d.example.com"] && preferences["quic"] == "inspect"
    };
    daemon.wait_policy(LIMIT, is_new).unwrap();
    assert!(google.refused().is_empty(), "{:?}", google.refused());
}

#[test]
fn a_secret_that_cannot_be_read_keeps_what_it_said_last() {
    let stage = Stage::new();
    stage
        .google
        .secret("projects/net-1/secrets/postern-web", "a.example.com");
    stage.allow("web", "postern:tls:@postern-web");
    let daemon = e2e::cloud::DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = stage.paced(POLL, "");
    sidecar.start().unwrap();
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["a.example.com"])
        .unwrap();
    for how in [
        GoogleBreak::Unavailable,
        GoogleBreak::Throttled,
        GoogleBreak::Half,
        GoogleBreak::Empty,
    ] {
        stage.google.fail(GoogleFault {
            times: Some(4),
            ..GoogleFault::lasting("secrets.access", how)
        });
        assert!(wait::holds(LIMIT, || stage.google.is_well()), "{how:?}");
    }
    for published in daemon
        .published()
        .iter()
        .filter(|found| !names(&found.snapshot).is_empty())
    {
        assert_eq!(names(&published.snapshot), ["a.example.com"]);
    }
    let newest = daemon.published().pop().unwrap().snapshot;
    assert_eq!(names(&newest), ["a.example.com"]);
}
