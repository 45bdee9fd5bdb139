//! What the daemon tells of its look-ups: when a policy's names are answered, and which addresses are bound, since when
//! and from which answer.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use e2e::daemon::Daemon;
use e2e::dns::{Answer, Fault};
use e2e::publisher::Listener;
use e2e::topology::{DOUBLE, Family, RECORDER, Topology};
use serde_json::Value;

use crate::dns_scale::{PORT, inventory};

/// An address of the internet's machine that nothing else uses.
const HERE: Ipv4Addr = Ipv4Addr::new(45, 62, 0, 1);

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|&name| name.to_owned()).collect()
}

/// Names of a policy that has just come into force are asked about, and a first connection waits for its name; the
/// policy is primed when each has an answer, or after two seconds whatever becomes of the rest.
#[test]
fn policy_is_primed_when_its_names_are_answered_and_first_connections_wait_meanwhile() {
    let lab = Topology::new().unwrap();
    lab.internet
        .ip(&format!("route add local {HERE}/32 dev lo\n"))
        .unwrap();
    let _server = lab
        .internet
        .enter(|| TcpListener::bind((HERE, PORT)))
        .unwrap()
        .unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    dns.set(
        "first.allowed.example",
        Answer::of([RECORDER.address(Family::V4)]),
    );
    let some = names(&["first.allowed.example"]);
    let daemon = Daemon::asking(&lab, &inventory(&some), &[dns.address()], "").unwrap();
    let mut listener = Listener::connect(&lab.file("control.sock")).unwrap();

    // Longer than a SYN is held: its retransmission has the answer.
    let late = Duration::from_millis(1_500);
    dns.set("late.allowed.example", Answer::of([HERE]).delayed(late));
    let more = names(&["first.allowed.example", "late.allowed.example"]);
    let begun = Instant::now();
    daemon.replace(&inventory(&more)).unwrap();
    let asked = || !dns.asked_for("late.allowed.example").is_empty();
    assert!(
        e2e::wait::holds(Duration::from_secs(10), asked),
        "{}",
        daemon.output()
    );
    let connected = lab
        .client
        .enter(|| TcpStream::connect_timeout(&(HERE, PORT).into(), Duration::from_secs(15)))
        .unwrap();
    assert!(connected.is_ok(), "{connected:?}: {}", daemon.output());
    listener.primed(daemon.generation().unwrap()).unwrap();
    assert!(
        begun.elapsed() >= late,
        "primed before its name was answered"
    );

    // A name that nobody answers about: two seconds are enough.
    dns.set(
        "never.allowed.example",
        Answer::of([HERE]).delayed(Duration::from_secs(60)),
    );
    let all = names(&["first.allowed.example", "never.allowed.example"]);
    let begun = Instant::now();
    daemon.reload(&inventory(&all)).unwrap();
    listener.primed(daemon.generation().unwrap()).unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "primed without an answer or two seconds"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    let refused = daemon.logs().matching(&[("outcome", "disallowed")]);
    assert!(refused.is_empty(), "{refused:?}");
}

/// The binding of an address in `postern status --json`.
fn binding(daemon: &Daemon<'_>, address: IpAddr) -> Option<Value> {
    let status = daemon.status().unwrap();
    let all = status["bindings"].as_array().unwrap();
    let wanted = Value::from(address.to_string());
    all.iter().find(|one| one["address"] == wanted).cloned()
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "three answers, looked at before and after a restart"
)]
fn status_lists_every_binding_with_when_from_which_answer_and_until_when_also_after_a_restart() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let plain = RECORDER.address(Family::V4);
    let aliased = IpAddr::from(HERE);
    let hinted = IpAddr::from(Ipv4Addr::new(45, 62, 0, 2));
    dns.set("plain.allowed.example", Answer::of([plain]).ttl(300));
    dns.set(
        "alias.allowed.example",
        Answer::of([aliased]).ttl(300).via("edge.example.net"),
    );
    let record = format!("hint.allowed.example. 300 HTTPS 1 . ipv4hint={hinted}");
    dns.set("hint.allowed.example", Answer::records_of(&[&record]));
    let listed = names(&[
        "plain.allowed.example",
        "alias.allowed.example",
        "hint.allowed.example",
    ]);
    let mut daemon = Daemon::asking(&lab, &inventory(&listed), &[dns.address()], "").unwrap();
    let there = |daemon: &Daemon<'_>| {
        let all = || {
            [plain, aliased, hinted]
                .iter()
                .all(|addr| binding(daemon, *addr).is_some())
        };
        assert!(
            e2e::wait::holds(Duration::from_secs(20), all),
            "{}",
            daemon.output()
        );
    };
    there(&daemon);
    let mut before = Vec::new();
    for (address, name, record, chain) in [
        (plain, "plain.allowed.example", "A", Value::Null),
        (
            aliased,
            "alias.allowed.example",
            "A",
            serde_json::json!(["edge.example.net"]),
        ),
        (hinted, "hint.allowed.example", "HTTPS", Value::Null),
    ] {
        let one = binding(&daemon, address).unwrap();
        assert_eq!(
            (&one["name"], &one["record"]),
            (&name.into(), &record.into()),
            "{one}"
        );
        assert_eq!(one["chain"], chain, "{one}");
        assert_eq!(
            one["resolver"],
            Value::from(dns.address().to_string()),
            "{one}"
        );
        let time = |key: &str| time(&one[key]);
        let since_ms = |early: &str, late: &str| time(late) - time(early);
        // The answer's time to live, and ten minutes for a single sighting.
        assert_eq!(since_ms("learnt", "fresh_until"), 300_000, "{one}");
        assert_eq!(since_ms("fresh_until", "expires"), 600_000, "{one}");
        assert_eq!(
            (&one["sightings"], &one["judged"]),
            (&1.into(), &false.into()),
            "{one}"
        );
        before.push(one);
    }
    let file = lab.file("state").join("bindings.jsonl");
    let written = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        [plain, aliased, hinted]
            .iter()
            .all(|addr| text.contains(&addr.to_string()))
    };
    assert!(
        e2e::wait::holds(Duration::from_secs(30), written),
        "nothing was written down"
    );
    daemon.kill().unwrap();
    dns.set_fault(Fault::Hang);
    daemon.restart().unwrap();
    there(&daemon);
    for one in before {
        let address: IpAddr = one["address"].as_str().unwrap().parse().unwrap();
        let after = binding(&daemon, address).unwrap();
        for same in ["name", "record", "chain", "resolver"] {
            assert_eq!(after[same], one[same], "{after}");
        }
        // To the millisecond or two in which two clocks are read.
        for key in ["learnt", "expires"] {
            assert!(
                time(&after[key]).abs_diff(time(&one[key])) < 1_000,
                "{key}: {after} {one}"
            );
        }
    }
}

/// Milliseconds since 1970.
fn time(value: &Value) -> u64 {
    let text = value.as_str().unwrap();
    ipc::record::Timestamp::parse(text).unwrap().unix_ms()
}
