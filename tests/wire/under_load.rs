//! Reload, restart and end records while connections come and go, in exact counts (promises 7, 8, 15).

use std::time::{Duration, Instant};

use e2e::daemon::{Daemon, INVENTORY};
use e2e::load::{Fate, Load, LoadServer, Plan, publish_in_turn, wrong_lines, wrong_verdicts};
use e2e::peer::{Recorder, Script};
use e2e::publisher::{document, draft};
use e2e::topology::{CLIENT_IF, Family, MIRROR, RECORDER, Topology};
use e2e::wait;

use crate::scene::{allowed, assert_echo, finish};

/// Addresses the load comes from.
const CLIENTS: u8 = 16;

/// Gives the client's machine these addresses.
fn add_clients(lab: &Topology) {
    let commands: String = (1..=CLIENTS)
        .map(|n| format!("addr add 10.77.2.{}/32 dev {CLIENT_IF}\n", 100 + n))
        .collect();
    lab.client.ip(&commands).unwrap();
}

/// The usual policy, with the load's clients.
fn inventory() -> String {
    let client =
        "[[client]]\naddress = \"10.77.2.0/24\"\ninstance = \"load\"\ngroups = [\"web\"]\n";
    format!("{INVENTORY}\n{client}")
}

fn plan(site: e2e::topology::Site, per_second: u32, seconds: u64) -> Plan {
    Plan {
        to: site.at(Family::V4, 443),
        from: (1..=CLIENTS).map(|n| [10, 77, 2, 100 + n].into()).collect(),
        names: vec![site.name.to_owned()],
        per_second,
        lasting: Duration::from_secs(seconds),
        threads: 12,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one load, looked at from all sides")]
fn reloads_under_load_judge_each_connection_by_one_generation_and_log_every_end() {
    let lab = Topology::new().unwrap();
    add_clients(&lab);
    let daemon = Daemon::without_policy(&lab).unwrap();
    let mut publisher = daemon.publisher().unwrap();
    let with = document(&draft(&inventory()).unwrap()).unwrap();
    let without = inventory().replace(
        "old.allowed.example,recorder.allowed.example,",
        "old.allowed.example,",
    );
    let without = document(&draft(&without).unwrap()).unwrap();
    publisher.publish_document(ipc_clone(&without)).unwrap();
    let _servers = [RECORDER, MIRROR]
        .map(|site| LoadServer::start(&lab.internet, site.at(Family::V4, 443), 16).unwrap());
    let toggled = Load::start(&lab.client, &plan(RECORDER, 150, 6)).unwrap();
    let steady = Load::start(&lab.client, &plan(MIRROR, 150, 6)).unwrap();
    let turns = publish_in_turn(
        &mut publisher,
        [&with, &without],
        15,
        Duration::from_millis(400),
    )
    .unwrap();
    let (toggled, steady) = (toggled.finish(), steady.finish());
    assert_eq!(
        steady.count(Fate::Served),
        steady.attempts.len(),
        "{:?}",
        steady.by_name()
    );
    assert_eq!(toggled.count(Fate::Failed), 0, "{:?}", toggled.by_name());
    let (judged, wrong) = wrong_verdicts(&toggled, &turns);
    assert!(
        judged > 100,
        "only {judged} of {} lie under one policy",
        toggled.attempts.len()
    );
    assert!(
        wrong.is_empty(),
        "{} wrong verdicts, the first {:?}",
        wrong.len(),
        wrong.first()
    );
    let lines = daemon
        .logs()
        .matching(&[("cat", "client"), ("dhost", RECORDER.name)]);
    assert!(lines.iter().any(|line| line.text("outcome") == "allowed"));
    let wrong = wrong_lines(&lines, &turns);
    assert!(
        wrong.is_empty(),
        "{} lines contradict their generation: {:?}",
        wrong.len(),
        wrong.first()
    );
    // One end for each that was allowed, also for those a reload ended.
    let begun = daemon
        .logs()
        .matching(&[("cat", "client"), ("outcome", "allowed")])
        .len();
    assert!(begun >= steady.attempts.len() + toggled.count(Fate::Served));
    let ended = || daemon.logs().lines("end").len();
    assert!(
        wait::holds(Duration::from_secs(30), || ended() >= begun),
        "{} of {begun} ends",
        ended()
    );
    assert_eq!(ended(), begun);
    assert_eq!(daemon.metric("postern_flows_forgotten_total").unwrap(), 0.0);
}

#[test]
fn a_kill_under_load_loses_no_judged_flow_and_new_ones_wait_one_retransmission() {
    let lab = Topology::new().unwrap();
    add_clients(&lab);
    let mut daemon = Daemon::start(&lab, &inventory()).unwrap();
    let recorder =
        Recorder::start(&lab.internet, RECORDER.at(Family::V4, 443), Script::Tls).unwrap();
    let _server = LoadServer::start(&lab.internet, MIRROR.at(Family::V4, 443), 16).unwrap();
    let attacker = lab.attacker().unwrap();
    let mut flows: Vec<_> = (0..20)
        .map(|index| {
            let mut tcp = attacker
                .connect(41_000 + index, recorder.address, 77)
                .unwrap();
            finish(&mut tcp, &allowed());
            tcp
        })
        .collect();
    let load = Load::start(&lab.client, &plan(MIRROR, 150, 5)).unwrap();
    assert!(wait::holds(Duration::from_secs(10), || load.begun() > 150));
    let killed = Instant::now();
    daemon.kill().unwrap();
    daemon.restart().unwrap();
    let back = Instant::now();
    for tcp in &mut flows {
        assert_echo(tcp, b"through the restart");
    }
    let outcome = load.finish();
    assert_eq!(outcome.count(Fate::Failed), 0, "{:?}", outcome.by_name());
    for attempt in &outcome.attempts {
        // What had not been judged at the kill is reset, and nothing else.
        let in_handshake = attempt.at < killed && attempt.at + Duration::from_secs(2) > killed;
        assert!(attempt.fate == Fate::Served || in_handshake, "{attempt:?}");
        // Linux repeats a SYN after 1, 3 and 7 seconds.
        let mut patience = Duration::from_secs(1);
        while attempt.at + patience < back + Duration::from_millis(100) {
            patience = patience * 2 + Duration::from_secs(1);
        }
        let waited = attempt.at > killed && attempt.at < back;
        assert!(
            !waited || attempt.took < patience + Duration::from_secs(2),
            "{attempt:?}"
        );
    }
}

/// A document that is published more than once.
fn ipc_clone(document: &ipc::control::Document) -> ipc::control::Document {
    ipc::control::Document::from_json(document.as_json().to_owned()).unwrap()
}
