//! Firewall rules become groups, machines become clients.

#![expect(
    clippy::indexing_slicing,
    reason = "a test reads answers whose form it knows"
)]

use std::time::Duration;

use e2e::cloud::{Firewall, Google, GoogleBreak, GoogleFault, Machine, Policy};
use e2e::wait;
use serde_json::json;

use super::stage::{LIMIT, Stage, groups_of, names};

#[test]
fn rules_by_tag_by_account_and_for_the_whole_network_reach_whom_they_are_for() {
    let stage = Stage::new();
    let google = &stage.google;
    let id = stage.allow("by-tag", "postern:tls:tag.example.com");
    let account = Firewall::https("by-account", "postern:tls:account.example.com")
        .with("targetServiceAccounts", json!(["batch@net-1.iam"]));
    google.firewall(account);
    google.firewall(Firewall::https(
        "for-all",
        "discriminat:tls:all.example.com",
    ));
    google.firewall(Firewall::https("plain", "lets the web out"));
    google.machine(Machine::new("batch-1", "10.77.1.11").account("batch@net-1.iam"));
    google.machine(Machine::new("bare", "10.77.1.12"));
    google.machine_in(
        (Google::PROJECT, Google::ZONE),
        "net-1/global/networks/other",
        Machine::new("elsewhere", "10.99.0.1").tags(&["web"]),
    );
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| found.groups.len() == 3)
        .unwrap()
        .snapshot;
    assert_eq!(
        groups_of(&policy, "10.77.1.10/32").unwrap(),
        ["by-tag", "for-all"]
    );
    assert_eq!(
        groups_of(&policy, "10.77.1.11/32").unwrap(),
        ["by-account", "for-all"]
    );
    assert_eq!(groups_of(&policy, "10.77.1.12/32").unwrap(), ["for-all"]);
    assert_eq!(groups_of(&policy, "10.99.0.1/32"), None);
    let by_tag = policy
        .groups
        .iter()
        .find(|group| group.gid == "by-tag")
        .unwrap();
    assert_eq!(by_tag.rules[0].rule, id);
    let web = policy
        .clients
        .iter()
        .find(|client| client.instance == "web-1");
    assert!(web.is_some(), "{policy:#?}");
    assert!(policy.faults.is_empty(), "{:#?}", policy.faults);
    assert!(google.refused().is_empty(), "{:?}", google.refused());
}

#[test]
fn several_allowed_entries_are_each_their_own_protocol_and_ports() {
    let stage = Stage::new();
    let several = Firewall::https("several", "postern:tls:a.example.com").with(
        "allowed",
        json!([
            {"IPProtocol": "tcp", "ports": ["443", "8000-8100"]},
            {"IPProtocol": "udp", "ports": ["443"]},
            {"IPProtocol": "icmp"},
        ]),
    );
    stage.google.firewall(several);
    stage.google.firewall(
        Firewall::https("everything", "postern:tls:b.example.com")
            .with("allowed", json!([{"IPProtocol": "all"}])),
    );
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| found.groups.len() == 2)
        .unwrap()
        .snapshot;
    let rules = |gid: &str| {
        let group = policy.groups.iter().find(|group| group.gid == gid).unwrap();
        let mut rules: Vec<String> = group
            .rules
            .iter()
            .map(|rule| format!("{:?} {}-{}", rule.transport, rule.ports.0, rule.ports.1))
            .collect();
        rules.sort();
        rules
    };
    assert_eq!(
        rules("several"),
        ["Tcp 443-443", "Tcp 8000-8100", "Udp 443-443"]
    );
    assert_eq!(rules("everything"), ["All 0-65535"]);
}

#[test]
fn alias_ranges_and_ipv6_are_clients_and_overlaps_go_to_the_longest() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    stage.google.machine(
        Machine::new("node-1", "10.77.1.20")
            .tags(&["web"])
            .nic(
                "aliasIpRanges",
                json!([{"ipCidrRange": "10.78.0.0/24", "subnetworkRangeName": "pods"}]),
            )
            .nic("ipv6Address", json!("fd20:77::5"))
            .nic("internalIpv6PrefixLength", json!(96)),
    );
    // One range inside the other, and one that two machines claim.
    stage
        .google
        .machine(Machine::new("node-2", "10.77.1.21").nic(
            "aliasIpRanges",
            json!([{"ipCidrRange": "10.78.0.128/25"}, {"ipCidrRange": "10.78.0.0/24"}]),
        ));
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| !found.groups.is_empty())
        .unwrap()
        .snapshot;
    assert_eq!(groups_of(&policy, "fd20:77::/96").unwrap(), ["web"]);
    assert_eq!(
        groups_of(&policy, "10.78.0.128/25").unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(groups_of(&policy, "10.78.0.0/24").unwrap(), ["web"]);
    let twice = policy
        .faults
        .iter()
        .filter(|fault| fault.kind == "duplicate_client");
    assert_eq!(twice.count(), 1, "{:#?}", policy.faults);
}

#[test]
fn machines_of_service_projects_are_clients_of_the_shared_network() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    for project in ["svc-1", "svc-2", "svc-3"] {
        stage.google.attach("net-1", project);
    }
    stage.google.machine_in(
        ("svc-2", "europe-west1-c"),
        "net-1/global/networks/main",
        Machine::new("guest", "10.77.1.40").tags(&["web"]),
    );
    stage.google.machine_in(
        ("svc-2", "europe-west1-c"),
        "svc-2/global/networks/main",
        Machine::new("private", "10.77.1.41").tags(&["web"]),
    );
    let (daemon, _sidecar) = stage.run("");
    let policy = daemon
        .wait_policy(LIMIT, |found| found.clients.len() == 2)
        .unwrap()
        .snapshot;
    assert_eq!(groups_of(&policy, "10.77.1.40/32").unwrap(), ["web"]);
}

#[test]
fn rules_of_several_projects_are_told_apart_by_it() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    stage.google.firewall_in(
        "net-2",
        "lan",
        Firewall::https("web", "postern:tls:b.example.com"),
    );
    let (daemon, _sidecar) =
        stage.run("networks = [\"main\", \"net-2/lan\"]\nproject = \"net-1\"\n");
    let policy = daemon
        .wait_policy(LIMIT, |found| found.groups.len() == 2)
        .unwrap()
        .snapshot;
    let gids: Vec<&str> = policy
        .groups
        .iter()
        .map(|group| group.gid.as_str())
        .collect();
    assert_eq!(gids, ["net-1:web", "net-2:web"]);
}

#[test]
fn a_connectors_subnet_is_a_client() {
    let stage = Stage::new();
    stage.google.subnet("connectors", "10.77.9.0/28");
    stage.google.firewall(
        Firewall::https("serverless", "postern:tls:run.example.com").tags(&["vpc-connector"]),
    );
    let listed = "[[gcp.subnet]]\nname = \"europe-west1/connectors\"\ntags = [\"vpc-connector\"]\n";
    let (daemon, _sidecar) = stage.run(listed);
    let policy = daemon
        .wait_policy(LIMIT, |found| !found.groups.is_empty())
        .unwrap()
        .snapshot;
    assert_eq!(groups_of(&policy, "10.77.9.0/28").unwrap(), ["serverless"]);
    assert!(
        policy.served.contains(&"10.77.9.0/28".parse().unwrap()),
        "{:?}",
        policy.served
    );
}

#[test]
fn a_change_of_a_rule_or_a_tag_is_published() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    let (daemon, _sidecar) = stage.run("");
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["a.example.com"])
        .unwrap();
    stage
        .google
        .patch("web", "description", json!("postern:tls:b.example.com"));
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["b.example.com"])
        .unwrap();
    stage.google.retag("web-1", &[]);
    daemon
        .wait_policy(LIMIT, |found| {
            groups_of(found, "10.77.1.10/32").is_some_and(|groups| groups.is_empty())
        })
        .unwrap();
    stage.google.delete("web");
    daemon
        .wait_policy(LIMIT, |found| found.groups.is_empty())
        .unwrap();
}

/// Breaks the service in one way after another; what was published stays through all of them.
fn survives_every_break_of(method: &'static str) {
    let stage = Stage::new();
    for (index, name) in ["r1", "r2", "r3"].iter().enumerate() {
        stage.allow(name, &format!("postern:tls:n{index}.example.com"));
        let address = format!("10.77.1.{}", 50 + index);
        stage
            .google
            .machine(Machine::new(&format!("vm-{index}"), &address).tags(&["web"]));
    }
    let (daemon, sidecar) = stage.run("");
    let is_whole =
        |found: &ipc::snapshot::SnapshotV1| names(found).len() == 3 && found.clients.len() == 4;
    daemon.wait_policy(LIMIT, is_whole).unwrap();
    let breaks = [
        GoogleBreak::ServerError,
        GoogleBreak::Unavailable,
        GoogleBreak::Throttled,
        GoogleBreak::Unauthenticated,
        GoogleBreak::Cut,
        GoogleBreak::Half,
        GoogleBreak::Empty,
        GoogleBreak::Warning,
        GoogleBreak::Unreachable("zones/europe-west1-b"),
    ];
    for how in breaks {
        stage.google.fail(GoogleFault {
            from_page: 2,
            times: Some(2),
            ..GoogleFault::lasting(method, how)
        });
        let has_struck = wait::holds(LIMIT, || stage.google.is_well());
        assert!(has_struck, "{how:?}: {}", sidecar.output());
    }
    // And it is read again as soon as it can be.
    let after = json!("postern:tls:after.example.com");
    stage.google.patch("r1", "description", after);
    let is_after = |found: &ipc::snapshot::SnapshotV1| names(found)[0] == "after.example.com";
    daemon.wait_policy(LIMIT, is_after).unwrap();
    assert_eq!(daemon.published().len(), 2, "{}", sidecar.output());
}

#[test]
fn no_broken_list_of_rules_ever_shrinks_the_policy() {
    survives_every_break_of("firewalls.list");
}

#[test]
fn no_broken_list_of_machines_ever_shrinks_the_policy() {
    survives_every_break_of("instances.aggregatedList");
}

#[test]
fn a_zone_that_cannot_say_keeps_what_it_had_and_the_others_go_on() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    stage.google.machine_in(
        ("net-1", "europe-west1-c"),
        "net-1/global/networks/main",
        Machine::new("other-zone", "10.77.1.60").tags(&["web"]),
    );
    let (daemon, sidecar) = stage.run("");
    daemon
        .wait_policy(LIMIT, |found| found.clients.len() == 2)
        .unwrap();
    let how = GoogleBreak::Unreachable("zones/europe-west1-b");
    stage
        .google
        .fail(GoogleFault::lasting("instances.aggregatedList", how));
    sidecar
        .wait_line("a zone cannot say what is in it")
        .unwrap();
    stage.google.retag("other-zone", &[]);
    let published = daemon
        .wait_policy(LIMIT, |found| {
            groups_of(found, "10.77.1.60/32").is_some_and(|groups| groups.is_empty())
        })
        .unwrap();
    assert_eq!(
        groups_of(&published.snapshot, "10.77.1.10/32").unwrap(),
        ["web"]
    );
}

#[test]
fn a_token_that_is_no_longer_good_is_replaced() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    // Tokens that are old the moment they arrive: the next call needs another.
    stage.google.rotate_tokens(1);
    let (daemon, _sidecar) = stage.run("");
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["a.example.com"])
        .unwrap();
    let tokens = stage.google.tokens();
    assert!(wait::holds(LIMIT, || stage.google.tokens() > tokens + 1));
    stage
        .google
        .patch("web", "description", json!("postern:tls:b.example.com"));
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["b.example.com"])
        .unwrap();
}

#[test]
fn what_is_read_takes_no_permission_that_is_not_in_the_file() {
    let stage = Stage::new();
    let mut granted = permissions("policy");
    granted.extend(permissions("secrets"));
    granted.extend(permissions("address"));
    stage.google.grant(Policy::Granted(granted.clone()));
    stage.allow("web", "postern:tls:a.example.com");
    let daemon = e2e::cloud::DaemonDouble::start(stage.folder.path()).unwrap();
    // Rules more often than machines, so that operations tell of those in between.
    let pace = "interval_s = 0.3\nappliances = 3\ncalls_per_second = 6.0";
    let mut sidecar = stage.paced(pace, "");
    sidecar.start().unwrap();
    daemon
        .wait_policy(LIMIT, |found| names(found) == ["a.example.com"])
        .unwrap();
    daemon
        .unknown_client("10.77.1.99".parse().unwrap())
        .unwrap();
    assert!(wait::holds(LIMIT, || !daemon.nobody().is_empty()));
    let listed = || stage.google.calls("zoneOperations.list") > 0;
    assert!(wait::holds(LIMIT, listed));
    let used = stage.google.used();
    // Every permission of the policy's section is needed, and none beside the file.
    let policy = permissions("policy");
    assert!(
        policy.iter().all(|needed| used.contains(needed.as_str())),
        "{used:?}"
    );
    assert!(
        used.iter().all(|needed| granted.contains(*needed)),
        "{used:?}"
    );
}

/// One section of the file that Terraform gives the account.
pub(crate) fn permissions(section: &str) -> std::collections::BTreeSet<String> {
    let text = include_str!("../../../cloudsync/packaging/gcp/permissions.json");
    let file: serde_json::Value = serde_json::from_str(text).unwrap();
    let listed = file[section]["permissions"].as_array().unwrap();
    listed
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_new_machine_is_in_the_policy_as_soon_as_it_is_seen() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    let daemon = e2e::cloud::DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = stage.paced("interval_s = 60.0", "");
    sidecar.start().unwrap();
    daemon
        .wait_policy(LIMIT, |found| found.clients.len() == 1)
        .unwrap();
    let lists = stage.google.calls("firewalls.list");
    stage
        .google
        .machine(Machine::new("fresh", "10.77.1.70").tags(&["web"]));
    daemon
        .unknown_client("10.77.1.70".parse().unwrap())
        .unwrap();
    let published = daemon
        .wait_policy(LIMIT, |found| groups_of(found, "10.77.1.70/32").is_some())
        .unwrap();
    assert_eq!(
        groups_of(&published.snapshot, "10.77.1.70/32").unwrap(),
        ["web"]
    );
    // Two calls at most, and no reading of everything.
    assert_eq!(stage.google.calls("firewalls.list"), lists);
    let stranger = "10.77.1.99".parse().unwrap();
    daemon.unknown_client(stranger).unwrap();
    assert!(
        wait::holds(LIMIT, || daemon.nobody() == [stranger]),
        "{:?}",
        daemon.nobody()
    );
}

#[test]
fn three_appliances_together_stay_within_a_tenth_of_the_quota() {
    let stage = Stage::new();
    stage.allow("web", "postern:tls:a.example.com");
    for index in 0..20 {
        stage.google.machine(Machine::new(
            &format!("vm-{index:02}"),
            &format!("10.77.1.{}", 100 + index),
        ));
    }
    let daemon = e2e::cloud::DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = stage.paced("interval_s = 1.0\nappliances = 3", "");
    sidecar.start().unwrap();
    daemon
        .wait_policy(LIMIT, |found| found.clients.len() == 21)
        .unwrap();
    let (before, since) = (stage.google.spent("net-1"), std::time::Instant::now());
    assert!(wait::holds(LIMIT, || since.elapsed() > Duration::from_secs(8)));
    let spent = f64::from(stage.google.spent("net-1") - before);
    // A tenth of 1,500 a minute, for three; one reading of 11 pages may fall in at the wrong moment.
    let fair = since.elapsed().as_secs_f64() * 150.0 / 60.0 / 3.0;
    assert!(
        spent <= fair + 22.0 + 2.0,
        "{spent} tokens, {fair} would be fair"
    );
    assert_eq!(stage.google.throttled(), 0);
}
