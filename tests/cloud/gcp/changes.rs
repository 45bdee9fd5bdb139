//! Machines that change: found through the operations of their zones, long before all machines are read again.

use e2e::cloud::{DaemonDouble, Google, GoogleBreak, GoogleFault, Machine, Policy, Sidecar};
use e2e::wait;
use serde_json::json;

use super::policy::permissions;
use super::stage::{LIMIT, Stage, groups_of, names};

/// Machines beside `web-1`. With one to a page, all of them are read every 80 s at [`PACE`].
const MACHINES: u32 = 40;

const PACE: &str = "interval_s = 0.3\nappliances = 3\ncalls_per_second = 6.0";

/// What is said of a project that does not list its operations.
const FOUND_LATE: &str = "changes of machines are found only by reading all of them";

/// A project with many pages of machines, read once.
fn scene() -> (Stage, DaemonDouble, Sidecar) {
    scene_with(None)
}

fn scene_with(policy: Option<Policy>) -> (Stage, DaemonDouble, Sidecar) {
    let stage = Stage::with_pace(e2e::cloud::Pace {
        page_items: 1,
        page_time: std::time::Duration::from_millis(5),
    });
    stage.allow("web", "postern:tls:a.example.com");
    for index in 0..MACHINES {
        let address = format!("10.77.1.{}", 100 + index);
        stage
            .google
            .machine(Machine::new(&format!("vm-{index:02}"), &address));
    }
    if let Some(policy) = policy {
        stage.google.grant(policy);
    }
    let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = stage.paced(PACE, "");
    sidecar.start().unwrap();
    daemon
        .wait_policy(LIMIT, |found| found.clients.len() == 41)
        .unwrap();
    (stage, daemon, sidecar)
}

fn all_pages(google: &Google) -> u32 {
    google.calls("instances.aggregatedList")
}

#[test]
fn a_machine_that_changes_is_published_without_reading_all_of_them() {
    let (stage, daemon, _sidecar) = scene();
    let google = &stage.google;
    let pages = all_pages(google);
    google.retag("vm-07", &["web"]);
    let is_web = |net: &'static str| {
        move |found: &ipc::snapshot::SnapshotV1| {
            groups_of(found, net).is_some_and(|groups| groups == ["web"])
        }
    };
    daemon.wait_policy(LIMIT, is_web("10.77.1.107/32")).unwrap();
    google.realias("vm-07", &["10.78.0.0/24"]);
    daemon.wait_policy(LIMIT, is_web("10.78.0.0/24")).unwrap();
    google.stop("vm-08");
    daemon
        .wait_policy(LIMIT, |found| groups_of(found, "10.77.1.108/32").is_none())
        .unwrap();
    let new = Machine::new("new", "10.77.1.90").tags(&["web"]);
    google.machine(new.nic("aliasIpRanges", json!([{"ipCidrRange": "10.79.0.0/24"}])));
    daemon.wait_policy(LIMIT, is_web("10.79.0.0/24")).unwrap();
    assert_eq!(all_pages(google), pages);
    assert!(google.refused().is_empty(), "{:?}", google.refused());
}

#[test]
fn what_changes_no_address_and_no_group_costs_no_reading() {
    let (stage, daemon, _sidecar) = scene();
    let google = &stage.google;
    // What was listed at first has been read by the time this is published.
    google.retag("vm-07", &["web"]);
    daemon
        .wait_policy(LIMIT, |found| {
            groups_of(found, "10.77.1.107/32").is_some_and(|groups| !groups.is_empty())
        })
        .unwrap();
    let machines = google.calls("instances.list");
    for kind in ["setMetadata", "attachDisk"] {
        google.operate(kind, "vm-09");
        let listed = google.calls("zoneOperations.list");
        let is_seen = || google.calls("zoneOperations.list") > listed + 3;
        assert!(wait::holds(LIMIT, is_seen));
    }
    assert_eq!(google.calls("instances.list"), machines);
    assert_eq!(daemon.published().len(), 2);
}

#[test]
fn more_changes_than_a_zone_lists_have_all_of_it_read() {
    let (stage, daemon, _sidecar) = scene();
    let google = &stage.google;
    let pages = all_pages(google);
    google.machine(Machine::new("new", "10.77.1.90").tags(&["web"]));
    for index in 0..150 {
        google.operate("start", &format!("vm-{:02}", index % MACHINES));
    }
    daemon
        .wait_policy(LIMIT, |found| groups_of(found, "10.77.1.90/32").is_some())
        .unwrap();
    assert_eq!(all_pages(google), pages);
}

#[test]
fn trouble_with_operations_or_their_machines_holds_no_rule_back() {
    let troubles = [
        ("zoneOperations.list", GoogleBreak::Throttled),
        ("zoneOperations.list", GoogleBreak::Empty),
        ("instances.list", GoogleBreak::Half),
        ("instances.list", GoogleBreak::Warning),
    ];
    for (method, how) in troubles {
        let (stage, daemon, sidecar) = scene();
        stage.google.fail(GoogleFault::lasting(method, how));
        stage.google.retag("vm-07", &["web"]);
        sidecar.wait_line(FOUND_LATE).unwrap();
        let changed = json!("postern:tls:b.example.com");
        stage.google.patch("web", "description", changed);
        let published = daemon
            .wait_policy(LIMIT, |found| names(found) == ["b.example.com"])
            .unwrap();
        assert_eq!(published.snapshot.clients.len(), 41, "{method} {how:?}");
    }
}

#[test]
fn without_the_permission_to_list_operations_all_machines_are_read_in_their_turn() {
    let mut granted = permissions("policy");
    granted.extend(permissions("secrets"));
    granted.remove("compute.zoneOperations.list");
    let (stage, daemon, sidecar) = scene_with(Some(Policy::Granted(granted)));
    sidecar.wait_line(FOUND_LATE).unwrap();
    let changed = json!("postern:tls:b.example.com");
    stage.google.patch("web", "description", changed);
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["b.example.com"])
        .unwrap();
    // Once, and not at every poll.
    assert_eq!(sidecar.count(FOUND_LATE), 1, "{}", sidecar.output());
}

#[test]
fn a_new_machine_does_not_wait_for_the_reading_under_way() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    let (daemon, _sidecar) = stage.run("");
    daemon
        .wait_policy(LIMIT, |found| found.clients.len() == 1)
        .unwrap();
    let google = &stage.google;
    google.hold(true);
    assert!(wait::holds(LIMIT, || google.held() == 1));
    let readings = google.calls("firewalls.list");
    google.machine(Machine::new("fresh", "10.77.1.70").tags(&["web"]));
    daemon
        .unknown_client("10.77.1.70".parse().unwrap())
        .unwrap();
    let is_there = |found: &ipc::snapshot::SnapshotV1| groups_of(found, "10.77.1.70/32").is_some();
    daemon.wait_policy(LIMIT, is_there).unwrap();
    assert_eq!(
        (google.held(), google.calls("firewalls.list")),
        (1, readings)
    );
    // The reading that was under way takes nothing away again.
    google.hold(false);
    assert!(wait::holds(LIMIT, || google.calls("firewalls.list") > readings + 1));
    let last = daemon.published().pop().unwrap();
    assert!(is_there(&last.snapshot), "{last:#?}");
    assert_eq!(daemon.published().len(), 2);
}

#[test]
fn strangers_do_not_use_up_what_policy_is_read_with() {
    let (stage, daemon, _sidecar) = scene();
    let (before, since) = (stage.google.spent("net-1"), std::time::Instant::now());
    for host in 1..=80 {
        daemon
            .unknown_client(format!("10.77.2.{host}").parse().unwrap())
            .unwrap();
        // As fast as the daemon reports them.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let spent = f64::from(stage.google.spent("net-1") - before);
    // Two tokens a second are this appliance's: 15 s of one half saved up for look-ups, and what came since.
    let fair = 15.0 + 2.0 * since.elapsed().as_secs_f64() + 2.0;
    assert!(spent <= fair, "{spent} tokens, {fair} would be fair");
    let changed = json!("postern:tls:b.example.com");
    stage.google.patch("web", "description", changed);
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["b.example.com"])
        .unwrap();
    assert_eq!(stage.google.throttled(), 0);
}

#[test]
fn how_often_rules_are_read_is_told_with_what_it_follows_from() {
    let (_stage, daemon, _sidecar) = scene();
    assert!(wait::holds(LIMIT, || !daemon.polls().is_empty()));
    let poll = daemon.polls().pop().unwrap();
    // A page of rules, which may take half of six a second, for three.
    assert_eq!((poll.calls, poll.appliances), (2, 3));
    assert!((poll.interval_s - 1.0).abs() < 1e-6, "{}", poll.interval_s);
}
