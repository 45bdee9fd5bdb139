//! What names honestly resolve to in other ways than an address record, and resolvers and witnesses that come and go.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use e2e::daemon::Daemon;
use e2e::dns::{Answer, Fault};
use e2e::peer::{Dns, Recorder, Script};
use e2e::topology::{DOUBLE, Family, INTERNET_IF, MIRROR, RECORDER, Topology};

use crate::dns_bad_input::{HONEST, Stage, inventory, serve};
use crate::scene::isn;

#[test]
fn addresses_of_hints_aliases_and_targets_are_those_of_their_name() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let elsewhere = || Answer::of([MIRROR.address(Family::V4)]);
    let here = RECORDER.address(Family::V4);
    let hint = elsewhere().and("hint.good.example. 60 HTTPS 1 . alpn=h2 ipv4hint=203.0.113.30");
    let target = elsewhere()
        .and("target.good.example. 60 HTTPS 0 svc.example.")
        .and_additional("svc.example. 60 A 203.0.113.30");
    let chain = Answer::records_of(&[
        "chain.good.example. 60 CNAME one.example.",
        "one.example. 60 CNAME two.example.",
    ]);
    let cases = [
        ("hint.good.example", hint),
        ("target.good.example", target),
        ("alias.good.example", Answer::of([here]).via("edge.example")),
        (
            "chain.good.example",
            chain.and("two.example. 60 A 203.0.113.30"),
        ),
    ];
    let names: Vec<(&str, u16)> = cases.iter().map(|(name, _)| *name).zip(9_001..).collect();
    for (name, answer) in cases {
        dns.set(name, answer);
    }
    let stage = Stage::new(&lab, &dns, &names);
    for (name, port) in names {
        let server =
            Recorder::start(&lab.internet, RECORDER.at(Family::V4, port), Script::Tls).unwrap();
        stage.assert_reaches(&server, name, name);
    }
    for target in ["edge.example", "one.example", "two.example", "svc.example"] {
        assert_eq!(
            dns.asked_for(target),
            [],
            "a target is not a name of the policy"
        );
    }
}

#[test]
fn large_answer_of_a_real_server_is_read_over_tcp() {
    let lab = Topology::new().unwrap();
    let address = DOUBLE.address(Family::V4);
    lab.internet
        .ip(&format!("addr add {address}/32 dev {INTERNET_IF}\n"))
        .unwrap();
    let mut zone = String::from("host-record=ns.allowed.example,203.0.113.53\n");
    // More than the 1,232 bytes a datagram carries, the one that counts somewhere among them.
    let many = (0..120)
        .map(|n| Ipv4Addr::new(198, 41, 0, n))
        .chain([Ipv4Addr::new(203, 0, 113, 30)]);
    for address in many {
        zone.push_str(&format!("host-record=honest.allowed.example,{address}\n"));
    }
    let _dns = Dns::with_zone(&lab.internet, &lab.file("large.conf"), address, &zone).unwrap();
    let server = serve(&lab);
    let upstreams = [SocketAddr::new(address, 53)];
    let _daemon = Daemon::asking(&lab, &inventory(&[]), &upstreams, "").unwrap();
    let attacker = lab.attacker().unwrap();
    let mut tcp = attacker
        .connect(30_000, server.address, isn(30_000))
        .unwrap();
    let hello = e2e::hello::ClientHello::new(HONEST.0).record();
    tcp.write(&hello).unwrap();
    assert!(server.got(&hello));
}

#[test]
fn witness_that_is_killed_is_started_again_and_what_it_had_told_stays() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let server = serve(&lab);
    let late = ("late.good.example", 9_001);
    dns.set(late.0, Answer::of([MIRROR.address(Family::V4)]).ttl(300));
    let stage = Stage::new(&lab, &dns, &[late]);
    stage.assert_serves(&server, "before");
    let killed = stage.daemon.witness_pid().unwrap();
    // While it is away, and while its resolver is, what is bound stays bound.
    dns.set_fault(Fault::Hang);
    lab.firewall
        .run("kill", &["-KILL", &killed.to_string()])
        .unwrap();
    stage.assert_serves(&server, "meanwhile");
    dns.set_fault(Fault::None);
    let again = || stage.daemon.witness_pid().is_some_and(|pid| pid != killed);
    assert!(
        e2e::wait::holds(Duration::from_secs(10), again),
        "no new witness"
    );
    // An address that only the new one can have learnt.
    let moved = RECORDER.at(Family::V4, late.1);
    dns.set(late.0, Answer::of([moved.ip()]));
    let other = Recorder::start(&lab.internet, moved, Script::Tls).unwrap();
    stage.assert_reaches(&other, late.0, "afterwards");
    let unnamed = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 21)), late.1);
    assert_eq!(stage.refusal("still", unnamed), "address_not_of_name");
}
