//! A workload that has just started: looked up at once, not at the next poll.

use std::time::{Duration, Instant};

use e2e::cloud::DaemonDouble;
use e2e::wait;

use crate::stage::{LIMIT, Stage, names};

/// A stage whose sidecar has read once and will not read again for a minute.
fn slow() -> (Stage, DaemonDouble, e2e::cloud::Sidecar) {
    let stage = Stage::new();
    stage.allow("postern:tls:api.example.com");
    let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
    let config = format!(
        "[aws]\nvpcs = [\"{}\"]\n[poll]\ninterval_s = 60.0\n",
        stage.vpc
    );
    let mut sidecar =
        e2e::cloud::Sidecar::new(stage.folder.path(), &stage.cloud.double.url(), &config).unwrap();
    sidecar.start().unwrap();
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == ["api.example.com"])
        .unwrap();
    (stage, daemon, sidecar)
}

#[test]
fn a_new_interface_is_in_the_policy_as_soon_as_it_is_seen() {
    let (stage, daemon, _sidecar) = slow();
    let api = &stage.cloud.api;
    let fresh = api.group(&stage.vpc, "fresh").unwrap();
    api.allow(
        &fresh,
        e2e::cloud::Rule::https("postern:tls:fresh.example.com"),
    )
    .unwrap();
    api.interface(&stage.subnet, "10.77.1.50", &[&fresh])
        .unwrap();
    let seen = Instant::now();
    daemon
        .unknown_client("10.77.1.50".parse().unwrap())
        .unwrap();
    let is_there = |snapshot: &ipc::snapshot::SnapshotV1| {
        snapshot.clients.iter().any(|client| {
            client.net == "10.77.1.50/32".parse().unwrap() && client.groups == [fresh.clone()]
        })
    };
    let published = daemon.wait_policy(LIMIT, is_there).unwrap();
    // With the rules of a group that nobody was in before.
    assert_eq!(
        names(&published.snapshot),
        ["api.example.com", "fresh.example.com"]
    );
    let took = published.at.duration_since(seen);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn an_address_nobody_has_is_answered_so() {
    let (stage, daemon, _sidecar) = slow();
    let calls = stage.cloud.double.calls("DescribeNetworkInterfaces");
    let stranger = "10.77.1.99".parse().unwrap();
    daemon.unknown_client(stranger).unwrap();
    assert!(
        wait::holds(LIMIT, || daemon.nobody() == [stranger]),
        "{:?}",
        daemon.nobody()
    );
    assert_eq!(
        stage.cloud.double.calls("DescribeNetworkInterfaces"),
        calls + 1
    );
    assert_eq!(daemon.published().len(), 1);
}

/// The old interface is gone, the new one has its address: at the next reading that is all there is of it.
#[test]
fn an_address_that_is_reused_has_its_new_interfaces_groups_alone() {
    let stage = Stage::new();
    stage.allow("postern:tls:old.example.com");
    let api = &stage.cloud.api;
    let fresh = api.group(&stage.vpc, "fresh").unwrap();
    let (daemon, _sidecar) = stage.run();
    daemon
        .wait_policy(LIMIT, |snapshot| snapshot.clients.len() == 1)
        .unwrap();
    api.release(&stage.interface).unwrap();
    let successor = api
        .interface(&stage.subnet, "10.77.1.10", &[&fresh])
        .unwrap();
    let published = daemon
        .wait_policy(LIMIT, |snapshot| {
            let mut clients = snapshot.clients.iter();
            clients.any(|client| client.instance == successor)
        })
        .unwrap();
    let clients = &published.snapshot.clients;
    assert_eq!(clients.len(), 1, "{clients:#?}");
    assert_eq!(clients[0].groups, [fresh]);
    assert!(names(&published.snapshot).is_empty());
}

/// A node's new interface sends from one address and has another that somebody else had: looking up
/// the one takes the other away from its former owner, long before the next reading.
#[test]
fn what_is_looked_up_takes_a_reused_address_from_its_former_owner() {
    let (stage, daemon, _sidecar) = slow();
    let api = &stage.cloud.api;
    let fresh = api.group(&stage.vpc, "fresh").unwrap();
    api.release(&stage.interface).unwrap();
    let successor = api
        .interface(&stage.subnet, "10.77.1.50", &[&fresh])
        .unwrap();
    api.assign(&successor, "10.77.1.10").unwrap();
    daemon
        .unknown_client("10.77.1.50".parse().unwrap())
        .unwrap();
    let published = daemon
        .wait_policy(LIMIT, |snapshot| {
            let mut clients = snapshot.clients.iter();
            clients.any(|client| client.net == "10.77.1.50/32".parse().unwrap())
        })
        .unwrap();
    let reused = "10.77.1.10/32".parse().unwrap();
    let clients = published.snapshot.clients.iter();
    let owners: Vec<_> = clients.filter(|client| client.net == reused).collect();
    assert_eq!(owners.len(), 1, "{owners:#?}");
    assert_eq!(owners[0].instance, successor);
    assert_eq!(owners[0].groups, [fresh]);
}
