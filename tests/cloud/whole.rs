//! One path through every part: a description in a security group decides a packet, and CloudWatch tells.

mod client;
mod daemon;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use e2e::cloud::{Rule, Sidecar};
use e2e::packet::flags;
use e2e::peer::{Authority, Recorder, Script, TlsServer};
use e2e::topology::{API, Asker, CLIENT_IF, EVIL, Family, MIRROR, RECORDER, Topology};
use e2e::wait;
use serde_json::Value;

pub(crate) use client::rule_with;
use client::{Flow, fetch, fetch_from};
use daemon::CloudDaemon;

use crate::large_account::long;
use crate::stage::{LIMIT, Stage};

/// Seconds between two readings of the cloud.
const INTERVAL: Duration = Duration::from_secs(1);

/// The account, the wires, a daemon without an inventory and a sidecar beside it.
struct Whole<'t> {
    stage: Stage,
    lab: &'t Topology,
    authority: Authority,
    daemon: CloudDaemon<'t>,
    sidecar: Sidecar,
    _servers: Vec<TlsServer>,
}

impl<'t> Whole<'t> {
    /// Starts all of it and waits until the first policy with these descriptions is in force.
    fn start(lab: &'t Topology, descriptions: &[&str]) -> Self {
        Self::start_with(lab, descriptions, "")
    }

    /// As [`Whole::start`], with more preferences.
    fn start_with(lab: &'t Topology, descriptions: &[&str], preferences: &str) -> Self {
        let stage = Stage::new();
        for description in descriptions {
            stage.allow(description);
        }
        let authority = Authority::new(lab.files.path()).unwrap();
        let tls = |site: e2e::topology::Site| {
            TlsServer::start(
                &lab.internet,
                &authority,
                site.name,
                site.at(Family::V4, 443),
                &[],
            )
            .unwrap()
        };
        let servers = vec![tls(API), tls(EVIL)];
        let daemon = CloudDaemon::start(lab, stage.folder.path()).unwrap();
        let config = format!(
            "[aws]\nvpcs = [\"{}\"]\n[poll]\ninterval_s = {}\nmax_backoff_s = 1.0\ncalls_per_second = 1000.0\n\
             [logs]\nlinger_s = 0.2\n[preferences]\nallow_private_answers = [\"203.0.113.0/24\"]\n{preferences}\n",
            stage.vpc,
            INTERVAL.as_secs_f64(),
        );
        let mut sidecar =
            Sidecar::new(stage.folder.path(), &stage.cloud.double.url(), &config).unwrap();
        sidecar.start().unwrap();
        sidecar.wait_line("primed").unwrap();
        Self {
            stage,
            lab,
            authority,
            daemon,
            sidecar,
            _servers: servers,
        }
    }

    fn fetch(&self, name: &str) -> bool {
        fetch(self.lab, &self.authority, name, Asker::Workload).unwrap()
    }

    /// Everything CloudWatch has in one of this appliance's streams.
    fn told(&self, stream: &str) -> Vec<Value> {
        let events = self
            .stage
            .cloud
            .api
            .log_events("postern", &format!("{stream}/whole"))
            .unwrap();
        events
            .iter()
            .map(|event| serde_json::from_str(&event.message).unwrap())
            .collect()
    }

    /// Waits until CloudWatch has a line with these fields.
    fn expect(&self, stream: &str, fields: &[(&str, &str)]) -> Value {
        let is_wanted = |line: &Value| {
            fields
                .iter()
                .all(|(key, value)| line[*key].as_str() == Some(value))
        };
        let found = wait::until(LIMIT, || self.told(stream).into_iter().find(is_wanted));
        found.unwrap_or_else(|| panic!("no {fields:?} in {stream}: {:#?}", self.told(stream)))
    }

    /// What CloudWatch Logs charges for everything about one connection to this name that ended so.
    fn bytes_about(&self, name: &str, outcome: &str) -> usize {
        let lines = self.daemon.lines();
        let is_about = |line: &&String| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["dhost"] == name && line["outcome"] == outcome
        };
        let events = lines.iter().filter(is_about);
        events.map(|line| line.len() + 26).sum()
    }

    /// Waits until CloudWatch has exactly the lines the daemon wrote, byte for byte.
    fn expect_equal(&self) {
        let mut both = (BTreeSet::new(), BTreeSet::new());
        let equal = wait::holds(LIMIT, || {
            let arrived = ["flow", "end", "dns", "config"]
                .into_iter()
                .flat_map(|stream| {
                    self.stage
                        .cloud
                        .api
                        .log_events("postern", &format!("{stream}/whole"))
                        .unwrap()
                });
            both = (
                self.daemon.lines(),
                arrived.map(|event| event.message).collect(),
            );
            both.0 == both.1
        });
        let written: Vec<_> = both.0.difference(&both.1).collect();
        let arrived: Vec<_> = both.1.difference(&both.0).collect();
        assert!(
            equal,
            "only written: {written:#?}\nonly arrived: {arrived:#?}"
        );
    }
}

#[test]
fn a_description_decides_a_packet_and_cloudwatch_tells() {
    let lab = Topology::new().unwrap();
    let whole = Whole::start(&lab, &["postern:tls:api.allowed.example"]);
    assert!(whole.fetch(API.name), "an allowed connection");
    assert!(!whole.fetch(EVIL.name), "a refused connection");

    let allowed = whole.expect(
        "flow",
        &[
            ("cat", "client"),
            ("outcome", "allowed"),
            ("dhost", API.name),
        ],
    );
    assert_eq!(allowed["gid"].as_str(), Some(whole.stage.gid.as_str()));
    assert_eq!(allowed["reason"], allowed["gid"]);
    assert_eq!(
        allowed["instance"].as_str(),
        Some(whole.stage.interface.as_str())
    );
    assert_eq!(allowed["src"].as_str(), Some("10.77.1.10"));
    assert_eq!(
        allowed["dst"].as_str(),
        Some(API.address(Family::V4).to_string().as_str())
    );
    let refused = whole.expect("flow", &[("outcome", "disallowed")]);
    let by_address =
        refused["reason"] == "address_not_of_name" || refused["reason"] == "name_not_allowed";
    assert!(by_address, "{refused}");
    let added = whole.expect(
        "config",
        &[("cat", "addr"), ("outcome", "accepted"), ("addr", API.name)],
    );
    assert_eq!(added["policy_id"], allowed["policy_id"]);
    whole.expect("config", &[("cat", "client"), ("outcome", "accepted")]);
    whole.expect("end", &[("dhost", API.name)]);
    whole.expect_equal();
    let per_connection = whole.bytes_about(API.name, "allowed");
    // As the service counts: 26 bytes beside each event..
    assert!(
        per_connection <= 1_500,
        "{per_connection} bytes a connection"
    );
}

/// The figure is that of cloudsync's README.
#[test]
fn merged_lines_cost_no_more_than_is_stated() {
    let lab = Topology::new().unwrap();
    let preference = "flow_log_verbosity = \"sessions\"";
    let whole = Whole::start_with(&lab, &["postern:tls:api.allowed.example"], preference);
    assert!(whole.fetch(API.name));
    let is_over = || whole.daemon.status().unwrap()["flows_judged"] == 0;
    assert!(wait::holds(LIMIT, is_over));
    whole.expect_equal();
    let bytes = || whole.bytes_about(API.name, "allowed");
    assert!(wait::holds(LIMIT, || bytes() > 0));
    assert!(bytes() <= 1_000, "{} bytes a connection", bytes());
}

/// The figures are those of cloudsync's README: what was allowed costs nothing, what was refused one line.
#[test]
fn only_refusals_cost_anything_where_only_they_are_logged() {
    let lab = Topology::new().unwrap();
    let preference = "flow_log_verbosity = \"only_disallowed\"";
    let whole = Whole::start_with(&lab, &["postern:tls:api.allowed.example"], preference);
    assert!(whole.fetch(API.name));
    assert!(Flow::open(&lab, "evil.example", API.at(Family::V4, 443)).is_err());
    whole.expect("flow", &[("outcome", "disallowed")]);
    let is_over = || whole.daemon.status().unwrap()["flows_judged"] == 0;
    assert!(wait::holds(LIMIT, is_over));
    whole.expect_equal();
    let told = whole.told("flow");
    assert!(
        told.iter().all(|line| line["outcome"] == "disallowed"),
        "{told:#?}"
    );
    assert!(whole.told("end").is_empty());
    let bytes = whole.bytes_about("evil.example", "disallowed");
    eprintln!("a refused connection: {bytes} bytes");
    assert!(bytes <= 600, "{bytes} bytes a refused connection");
}

#[test]
fn where_nothing_is_logged_no_connection_costs_anything() {
    let lab = Topology::new().unwrap();
    let preference = "flow_log_verbosity = \"none\"";
    let whole = Whole::start_with(&lab, &["postern:tls:api.allowed.example"], preference);
    assert!(whole.fetch(API.name));
    assert!(Flow::open(&lab, "evil.example", API.at(Family::V4, 443)).is_err());
    let is_over = || whole.daemon.status().unwrap()["flows_judged"] == 0;
    assert!(wait::holds(LIMIT, is_over));
    // What changed is told still.
    whole.expect("config", &[("cat", "addr"), ("addr", API.name)]);
    whole.expect_equal();
    assert!(whole.told("flow").is_empty() && whole.told("end").is_empty());
}

#[test]
fn an_edited_description_ends_the_flows_it_refuses_and_no_others() {
    let lab = Topology::new().unwrap();
    let edited = "postern:tls:mirror.allowed.example,api.allowed.example";
    let whole = Whole::start(&lab, &["postern:tls:recorder.allowed.example", edited]);
    let serve = |site: e2e::topology::Site| {
        Recorder::start(&lab.internet, site.at(Family::V4, 443), Script::Tls).unwrap()
    };
    let (kept_server, ended_server) = (serve(RECORDER), serve(MIRROR));
    let mut kept = Flow::open(&lab, RECORDER.name, kept_server.address).unwrap();
    let mut ended = Flow::open(&lab, MIRROR.name, ended_server.address).unwrap();
    kept.echo(b"before the edit").unwrap();
    ended.echo(b"before the edit").unwrap();

    let rules = whole
        .stage
        .cloud
        .api
        .ec2("DescribeSecurityGroupRules", &[])
        .unwrap();
    let (rule, cidr) = rule_with(&rules, "mirror.allowed.example").unwrap();
    let narrower = Rule {
        cidr: &cidr,
        ..Rule::https("postern:tls:api.allowed.example")
    };
    whole
        .stage
        .cloud
        .api
        .describe(&whole.stage.gid, &rule, narrower)
        .unwrap();
    let since = Instant::now();

    let limit = INTERVAL + Duration::from_secs(1);
    assert!(
        ended.ends_within(LIMIT).unwrap(),
        "the flow that is refused now goes on"
    );
    let took = since.elapsed();
    assert!(
        ended_server.was_reset() || wait::holds(limit, || ended_server.was_reset()),
        "its server was not told"
    );
    kept.echo(b"after the edit").unwrap();
    assert!(
        Flow::open(&lab, MIRROR.name, ended_server.address).is_err(),
        "a new flow under the old name"
    );
    assert!(whole.fetch(API.name), "the name that stayed");
    assert!(took < limit, "it took {took:?}");
    whole.expect(
        "config",
        &[
            ("cat", "addr"),
            ("outcome", "removed"),
            ("addr", MIRROR.name),
        ],
    );
    whole.expect(
        "flow",
        &[("outcome", "disallowed"), ("reason", "policy_changed")],
    );
}

#[test]
fn outage_keeps_last_good_policy_across_reboot() {
    let lab = Topology::new().unwrap();
    let mut whole = Whole::start(&lab, &["postern:tls:api.allowed.example"]);
    assert!(whole.fetch(API.name));
    let before = whole.daemon.status().unwrap();
    let poll = wait::until(LIMIT, || {
        let status = whole.daemon.status().unwrap();
        status["poll"].is_object().then_some(status)
    });
    let poll = poll.expect("status says how often the cloud is read");
    assert_eq!(poll["poll"]["interval_s"], INTERVAL.as_secs_f64());
    assert_eq!(poll["poll"]["appliances"], 1);
    assert!(poll["poll"]["calls"].as_u64().unwrap() >= 1 && poll["source_age_s"].is_u64());
    whole.stage.cloud.double.fail(e2e::cloud::Fault::lasting(
        "*",
        e2e::cloud::Break::Unavailable,
    ));
    whole.sidecar.kill().unwrap();
    whole.daemon.kill().unwrap();
    whole.daemon.restart().unwrap();
    whole.sidecar.start().unwrap();
    whole
        .sidecar
        .wait_line("the source of policy cannot be read")
        .unwrap();
    assert!(whole.fetch(API.name), "the last good policy allows it");
    assert!(!whole.fetch(EVIL.name), "and refuses this");
    let after = whole.daemon.status().unwrap();
    assert_eq!(after["policy_id"], before["policy_id"]);
    assert_eq!(after["generation"], before["generation"]);
    whole.stage.cloud.double.recover();
    whole.expect_equal();
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_opens() {
    let lab = Topology::new().unwrap();
    let mut whole = Whole::start(&lab, &["postern:tls:api.allowed.example"]);
    let recorder =
        Recorder::start(&lab.internet, RECORDER.at(Family::V4, 443), Script::Tls).unwrap();
    let api = whole.stage.cloud.api;
    let rules = api.ec2("DescribeSecurityGroupRules", &[]).unwrap();
    let (rule, cidr) = rule_with(&rules, "api.allowed.example").unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..8_u64 {
        // A change under way, and flows to be logged, whenever the blow falls.
        let description = format!("postern:tls:api.allowed.example,r{round}.allowed.example");
        api.describe(
            &whole.stage.gid,
            &rule,
            Rule {
                cidr: &cidr,
                ..Rule::https(&description)
            },
        )
        .unwrap();
        assert!(
            Flow::open(&lab, RECORDER.name, recorder.address).is_err(),
            "it opened in round {round}"
        );
        std::thread::sleep(Duration::from_millis(round * 211 % 1_100));
        whole.sidecar.kill().unwrap();
        if round % 2 == 0 {
            whole.daemon.kill().unwrap();
            acknowledged.extend(whole.daemon.spooled());
            whole.daemon.restart().unwrap();
        }
        whole.sidecar.start().unwrap();
    }
    whole.expect(
        "config",
        &[
            ("cat", "addr"),
            ("outcome", "accepted"),
            ("addr", "r7.allowed.example"),
        ],
    );
    assert!(whole.fetch(API.name), "and what is allowed still is");
    let arrived = |line: &String| whole.stage.cloud.double.has_acknowledged(line);
    let all = wait::holds(LIMIT, || acknowledged.iter().all(arrived));
    let lost: Vec<_> = acknowledged.iter().filter(|line| !arrived(line)).collect();
    assert!(all, "lost: {lost:#?}");
}

/// With `E2E_LONG` fifty times, and the 99th percentile is asserted.
#[test]
fn new_client_waits_and_is_not_reset() {
    let newcomers: u8 = if long() { 50 } else { 4 };
    let lab = Topology::new().unwrap();
    let whole = Whole::start(&lab, &["postern:tls:api.allowed.example"]);
    let api = &whole.stage.cloud.api;
    let subnet = api.subnet(&whole.stage.vpc, "10.77.2.0/24").unwrap();
    let inside = lab.capture_inside().unwrap();
    let mut times = Vec::new();
    for host in 100..100 + newcomers {
        let address = IpAddr::from([10, 77, 2, host]);
        lab.client
            .ip(&format!("addr add {address}/32 dev {CLIENT_IF}\n"))
            .unwrap();
        let groups = [whole.stage.gid.as_str()];
        api.interface(&subnet, &address.to_string(), &groups)
            .unwrap();
        let dialled = Instant::now();
        let served = fetch_from(&lab, &whole.authority, API.name, address).unwrap();
        times.push(dialled.elapsed());
        assert!(
            served,
            "a workload that has just started gets through: {address}"
        );
    }
    let resets = inside.matching(|seen| {
        seen.to.is_ipv4() && seen.from.ip() == API.address(Family::V4) && seen.is_tcp(flags::RST)
    });
    assert!(resets.is_empty(), "{resets:?}");
    times.sort_unstable();
    let worst = times[(times.len() * 99 / 100).min(times.len() - 1)];
    eprintln!(
        "first connection of {newcomers} newcomers: median {:?}, p99 {worst:?}",
        times[times.len() / 2]
    );
    assert!(!long() || worst <= Duration::from_secs(3), "{worst:?}");
}
