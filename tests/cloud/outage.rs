//! The cloud in trouble: the last good policy stays, one line says what and where, recovery needs no restart.

use std::time::Duration;

use e2e::cloud::{Break, DaemonDouble, Fault, Sidecar};
use e2e::wait;
use ipc::control::SourceState;

use crate::stage::{LIMIT, Stage, names};

/// Breaks the cloud, looks on for a while, mends it, and expects the next change to arrive.
fn survives(fault: Fault, said: &str) {
    let stage = Stage::new();
    stage.allow("postern:tls:before.example.com");
    let (daemon, sidecar) = stage.run();
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == ["before.example.com"])
        .unwrap();
    let published = daemon.published().len();

    stage.cloud.double.fail(fault);
    sidecar
        .wait_line("the source of policy cannot be read")
        .unwrap();
    let action = if fault_action(&sidecar).is_empty() {
        "DescribeNetworkInterfaces"
    } else {
        "DescribeSecurityGroups"
    };
    assert!(
        stage.cloud.double.wait_calls(action, 3, LIMIT),
        "it gave up asking"
    );
    assert_eq!(
        daemon.published().len(),
        published,
        "something was published without a source"
    );
    assert_eq!(
        sidecar.count("the source of policy cannot be read"),
        1,
        "{}",
        sidecar.output()
    );
    assert!(
        sidecar.output().contains(said),
        "no {said:?} in {}",
        sidecar.output()
    );
    let told =
        |state: &SourceState| matches!(state, SourceState::Failing { why } if why.contains(said));
    assert!(
        wait::holds(LIMIT, || daemon.sources().iter().any(told)),
        "{:?}",
        daemon.sources()
    );

    stage.cloud.double.recover();
    stage.allow("postern:tls:after.example.com");
    daemon
        .wait_policy(LIMIT, |snapshot| {
            names(snapshot).contains(&"after.example.com".to_owned())
        })
        .unwrap();
    sidecar.wait_line("readable again").unwrap();
}

/// Which action the sidecar complained about, when it is the one of rules.
fn fault_action(sidecar: &Sidecar) -> &'static str {
    if sidecar.output().contains("DescribeSecurityGroups") {
        "DescribeSecurityGroups"
    } else {
        ""
    }
}

#[test]
fn a_server_error_keeps_the_last_good_policy() {
    survives(
        Fault::lasting("DescribeSecurityGroups", Break::ServerError),
        "InternalError",
    );
}

#[test]
fn a_gateway_error_without_a_word_keeps_the_last_good_policy() {
    survives(
        Fault::lasting("DescribeSecurityGroups", Break::Unavailable),
        "unavailable",
    );
}

#[test]
fn throttling_keeps_the_last_good_policy() {
    survives(
        Fault::lasting("DescribeSecurityGroups", Break::Throttled),
        "throttled",
    );
}

#[test]
fn expired_credentials_keep_the_last_good_policy() {
    survives(
        Fault::lasting("*", Break::Expired),
        "credentials: RequestExpired",
    );
}

#[test]
fn an_answer_cut_off_keeps_the_last_good_policy() {
    survives(
        Fault::lasting("DescribeSecurityGroups", Break::Cut),
        "DescribeSecurityGroups",
    );
}

#[test]
fn half_an_answer_keeps_the_last_good_policy() {
    survives(
        Fault::lasting("DescribeSecurityGroups", Break::Half),
        "incomplete answer",
    );
}

#[test]
fn an_answer_without_its_list_is_no_empty_answer() {
    survives(
        Fault::lasting("DescribeNetworkInterfaces", Break::NoList),
        "no networkInterfaceSet in it",
    );
}

#[test]
fn an_error_on_a_later_page_makes_the_whole_reading_worthless() {
    let stage = Stage::new();
    for name in ["a", "b", "c", "d", "e"] {
        stage.allow(&format!("postern:tls:{name}.example.com"));
    }
    let (daemon, sidecar) = stage.run();
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot).len() == 5)
        .unwrap();
    let fault = Fault {
        from_page: 2,
        ..Fault::lasting("DescribeSecurityGroupRules", Break::ServerError)
    };
    stage.cloud.double.fail(fault);
    stage.allow("postern:tls:f.example.com");
    sidecar
        .wait_line("DescribeSecurityGroupRules, page 2")
        .unwrap();
    assert_eq!(daemon.published().len(), 1);
}

#[test]
fn a_daemon_that_restarts_gets_the_policy_again() {
    let stage = Stage::new();
    stage.allow("postern:tls:api.example.com");
    let (daemon, _sidecar) = stage.run();
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == ["api.example.com"])
        .unwrap();
    let before = daemon.published().len();
    daemon.stop().unwrap();
    // Down for longer than it takes to try once or twice.
    std::thread::sleep(Duration::from_millis(700));
    daemon.restart().unwrap();
    assert!(wait::holds(LIMIT, || daemon.published().len() > before));
    assert_eq!(
        daemon.published()[before].snapshot,
        daemon.published()[before - 1].snapshot
    );
}

#[test]
fn a_sidecar_that_is_killed_publishes_the_same_policy_when_it_is_back() {
    let stage = Stage::new();
    stage.allow("postern:tls:api.example.com");
    let (daemon, mut sidecar) = stage.run();
    for _ in 0..4 {
        let before = daemon.published().len();
        assert!(wait::holds(LIMIT, || daemon.published().len() > before || before > 0));
        sidecar.kill().unwrap();
        sidecar.start().unwrap();
    }
    let first = daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == ["api.example.com"])
        .unwrap();
    let same = daemon
        .published()
        .into_iter()
        .all(|published| published.snapshot == first.snapshot);
    assert!(same, "{:#?}", daemon.published());
}

#[test]
fn without_a_daemon_the_sidecar_waits_for_one() {
    let stage = Stage::new();
    stage.allow("postern:tls:api.example.com");
    let mut sidecar = stage.sidecar("");
    sidecar.start().unwrap();
    sidecar
        .wait_line("no conversation with the daemon")
        .unwrap();
    let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == ["api.example.com"])
        .unwrap();
}
