//! When the DNS front is on, for whom, and what each mode passes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use e2e::daemon::Daemon;
use e2e::dns::{Answer, RecordType, ResponseCode, Stub};
use e2e::peer::Dns;
use e2e::topology::{
    Asker, CLIENT_IF, DOUBLE, Family, INSIDE, INTERNET_IF, MIRROR, RECORDER, Topology,
};

use crate::dns_front::{ENFORCED, Fronted, inventory, near, syn_is_answered, workload};

#[test]
fn front_that_is_off_answers_nobody_and_opens_and_closes_with_the_policy() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    dns.set(
        "listed.good.example",
        Answer::of([RECORDER.address(Family::V4)]),
    );
    let daemon = Daemon::asking(&lab, &inventory(""), &[dns.address()], "").unwrap();
    let inside = lab.capture_inside().unwrap();
    let mut stub = workload(&lab, Family::V4);
    stub.patience = Duration::from_millis(500);
    let silent = || {
        assert!(
            stub.ask("listed.good.example", RecordType::A)
                .unwrap()
                .is_none()
        );
        assert!(
            stub.ask_tcp("listed.good.example", RecordType::A)
                .unwrap()
                .is_none()
        );
    };
    silent();
    // The port the witness would have is none to ask on, either.
    let behind = SocketAddr::new(near(Family::V4).ip(), 1_053);
    let mut behind = Stub::new(&lab.client, Asker::Workload.address(Family::V4), behind);
    behind.patience = stub.patience;
    assert!(
        behind
            .ask("listed.good.example", RecordType::A)
            .unwrap()
            .is_none()
    );
    assert_eq!(
        inside.matching(|seen| seen.from.ip() == near(Family::V4).ip()),
        [],
        "somebody answered"
    );
    let before = daemon.witness_pid();
    daemon.replace(&inventory(ENFORCED)).unwrap();
    stub.insist("listed.good.example", RecordType::A).unwrap();
    assert!(
        behind
            .ask("listed.good.example", RecordType::A)
            .unwrap()
            .is_none()
    );
    assert_ne!(
        daemon.witness_pid(),
        before,
        "a witness that may listen is another one"
    );
    daemon.replace(&inventory("")).unwrap();
    let closed = || {
        stub.ask("listed.good.example", RecordType::A)
            .unwrap()
            .is_none()
    };
    assert!(e2e::wait::holds(Duration::from_secs(10), closed));
    silent();
}

#[test]
fn resolver_that_leads_back_keeps_the_front_off_until_it_does_not() {
    let lab = Topology::new().unwrap();
    let there = DOUBLE.address(Family::V4);
    lab.internet
        .ip(&format!("addr add {there}/32 dev {INTERNET_IF}\n"))
        .unwrap();
    let name = "listed.good.example";
    // A resolver that sends everything back to where it came from.
    let back = "host-record=ns.allowed.example,203.0.113.53\nserver=203.0.113.1@203.0.113.54\nserver=/good.example/203.0.113.1@203.0.113.54\n";
    let resolver = Dns::with_zone(&lab.internet, &lab.file("back.conf"), there, back).unwrap();
    let sources = format!("resolver_sources = [\"{there}\"]");
    let upstreams = [SocketAddr::new(there, 53)];
    let daemon = Daemon::asking(&lab, &inventory(ENFORCED), &upstreams, &sources).unwrap();
    let fault = [("cat", "fault"), ("object", "dns_front")];
    let line = daemon.logs().expect_in("config", &fault).unwrap();
    assert!(line.text("message").starts_with("dns_loop: "), "{line:?}");
    let mut stub = workload(&lab, Family::V4);
    stub.patience = Duration::from_millis(500);
    assert!(
        stub.ask(name, RecordType::A).unwrap().is_none(),
        "answered while it loops"
    );
    let degraded = daemon.status().unwrap()["degraded"].to_string();
    assert!(degraded.contains("dns_loop"), "{degraded}");
    drop(resolver);
    let zone = "host-record=ns.allowed.example,203.0.113.53\nhost-record=listed.good.example,203.0.113.30\n";
    let _resolver = Dns::with_zone(&lab.internet, &lab.file("mended.conf"), there, zone).unwrap();
    assert_eq!(
        stub.insist(name, RecordType::A).unwrap().addresses(),
        [RECORDER.address(Family::V4)]
    );
    let mended = || {
        !daemon.status().unwrap()["degraded"]
            .to_string()
            .contains("dns_loop")
    };
    assert!(e2e::wait::holds(Duration::from_secs(10), mended));
}

#[test]
fn front_without_resolvers_of_its_own_stays_off_and_says_so() {
    let lab = Topology::new().unwrap();
    let daemon = Daemon::asking(&lab, &inventory(ENFORCED), &[], "").unwrap();
    let line = daemon
        .logs()
        .expect_in("config", &[("cat", "fault"), ("object", "dns_front")])
        .unwrap();
    assert!(line.text("message").contains("`upstreams`"), "{line:?}");
    let mut stub = workload(&lab, Family::V4);
    stub.patience = Duration::from_millis(500);
    assert!(
        stub.ask("listed.good.example", RecordType::A)
            .unwrap()
            .is_none()
    );
}

#[test]
fn cloud_resolver_may_ask_for_what_any_client_may_reach() {
    let lab = Topology::new().unwrap();
    let endpoint = Ipv4Addr::new(198, 51, 100, 53);
    lab.client
        .ip(&format!("addr add {endpoint}/32 dev {CLIENT_IF}\n"))
        .unwrap();
    lab.firewall
        .ip(&format!("route add {endpoint}/32 dev {INSIDE}\n"))
        .unwrap();
    let zone = "host-record=ns.allowed.example,203.0.113.53\nserver=10.77.1.1@198.51.100.53\nserver=/good.example/10.77.1.1@198.51.100.53\n\
                server=/evil.example/10.77.1.1@198.51.100.53\n";
    let sources = format!("resolver_sources = [\"{endpoint}\"]");
    let front = Fronted::with(&lab, ENFORCED, &sources);
    front.dns.set(
        "others.good.example",
        Answer::of([MIRROR.address(Family::V4)]),
    );
    front
        .dns
        .set("evil.example", Answer::of([MIRROR.address(Family::V4)]));
    let _resolver = Dns::with_zone(
        &lab.client,
        &lab.file("endpoint.conf"),
        endpoint.into(),
        zone,
    )
    .unwrap();
    // Who is behind it nobody can tell.
    let stub = Stub::new(
        &lab.client,
        Asker::Unlisted.address(Family::V4),
        SocketAddr::new(endpoint.into(), 53),
    );
    let told = stub.insist("others.good.example", RecordType::A).unwrap();
    assert_eq!(told.addresses(), [MIRROR.address(Family::V4)]);
    let told = stub.insist("evil.example", RecordType::A).unwrap();
    assert_eq!(told.code(), ResponseCode::NXDomain);
    assert_eq!(front.dns.asked_for("evil.example"), []);
    // That this did not exist a resolver could take for all below it (RFC 8020).
    let told = stub.insist("good.example", RecordType::A).unwrap();
    assert_eq!(
        (told.code(), told.addresses()),
        (ResponseCode::NoError, vec![])
    );
    assert_eq!(front.dns.asked_for("good.example"), []);
    // From elsewhere outside the served prefixes nothing gets in.
    let mut foreign = Stub::new(
        &lab.client,
        Asker::Foreign.address(Family::V4),
        near(Family::V4),
    );
    foreign.patience = Duration::from_millis(500);
    assert!(
        foreign
            .ask("listed.good.example", RecordType::A)
            .unwrap()
            .is_none()
    );
}

#[test]
fn unknown_client_is_left_waiting_and_answered_once_it_is_known() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let unlisted = Asker::Unlisted.address(Family::V4);
    let mut stub = Stub::new(&lab.client, unlisted, near(Family::V4));
    stub.patience = Duration::from_millis(500);
    assert!(
        stub.ask("listed.good.example", RecordType::A)
            .unwrap()
            .is_none()
    );
    let raised = || {
        front
            .daemon
            .metric("postern_dns_front_ignored_total")
            .unwrap()
            > 0.0
    };
    assert!(e2e::wait::holds(Duration::from_secs(10), raised));
    let more = inventory(ENFORCED)
        + &format!(
            "[[client]]\naddress = \"{unlisted}\"\ninstance = \"new\"\ngroups = [\"web\"]\n"
        );
    front.daemon.replace(&more).unwrap();
    assert_eq!(
        stub.insist("listed.good.example", RecordType::A)
            .unwrap()
            .addresses()
            .len(),
        1
    );
}

#[test]
fn observing_front_passes_everything_and_says_what_it_would_refuse() {
    let lab = Topology::new().unwrap();
    let preferences = "dns_front = \"observe\"\ninternal_zones = [\"corp.example\"]";
    let front = Fronted::with(&lab, preferences, "");
    front
        .dns
        .set("unlisted.example", Answer::of([MIRROR.address(Family::V4)]));
    assert_eq!(
        front.asks("unlisted.example", RecordType::A).addresses(),
        [MIRROR.address(Family::V4)]
    );
    assert_eq!(
        front
            .line("unlisted.example", "allowed")
            .text("would_reason"),
        "name_not_allowed"
    );
    front.dns.set(
        "listed.good.example",
        Answer::records_of(&["listed.good.example. 60 TXT hello"]),
    );
    let told = front.asks("listed.good.example", RecordType::TXT);
    assert_eq!(told.records().len(), 1, "{told:?}");
    let of_it = [("dhost", "listed.good.example"), ("qtype", "TXT")];
    let line = front.daemon.logs().expect_in("dns", &of_it).unwrap();
    let said = [line.text("outcome"), line.text("would_reason")];
    assert_eq!(said, ["allowed", "dns_record_type"]);
    // What stands for many is no type that could be passed on.
    let told = front.asks("listed.good.example", RecordType::ANY);
    assert_eq!(told.code(), ResponseCode::Refused);
}

#[test]
fn internal_zones_are_passed_through_with_their_private_addresses() {
    let lab = Topology::new().unwrap();
    let preferences = "dns_front = \"enforce\"\ninternal_zones = [\"corp.example\"]";
    let front = Fronted::with(&lab, preferences, "");
    let inside: IpAddr = "10.200.0.7".parse().unwrap();
    front.dns.set("db.corp.example", Answer::of([inside]));
    assert_eq!(
        front.asks("db.corp.example", RecordType::A).addresses(),
        [inside]
    );
    assert_eq!(
        front.line("db.corp.example", "allowed").text("reason"),
        "corp.example"
    );
    // That it was told changes nothing about what may be dialled.
    assert!(!syn_is_answered(&lab, SocketAddr::new(inside, 443), 30_003));
    assert_eq!(
        front.asks("db.notcorp.example", RecordType::A).code(),
        ResponseCode::NXDomain
    );
}

#[test]
fn client_under_see_thru_may_ask_for_any_name() {
    let lab = Topology::new().unwrap();
    let front = Fronted::with(
        &lab,
        "dns_front = \"enforce\"\nsee_thru = \"2999-12-31\"",
        "",
    );
    front
        .dns
        .set("unlisted.example", Answer::of([MIRROR.address(Family::V4)]));
    assert_eq!(
        front.asks("unlisted.example", RecordType::A).addresses(),
        [MIRROR.address(Family::V4)]
    );
    let line = front.line("unlisted.example", "allowed");
    assert_eq!(
        (line.text("reason"), line.text("would_reason")),
        ("%default".to_owned(), "name_not_allowed".to_owned())
    );
}
