//! The DNS front: who is told what, what a resolver is never asked, and that no client can dial an address we have not
//! seen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use e2e::daemon::Daemon;
use e2e::dns::{Answer, DnsDouble, RecordType, ResponseCode, Stub, Told};
use e2e::peer::{Dns, Recorder, Script};
use e2e::raw::RawTcp;
use e2e::topology::{
    Asker, CLIENT_IF, DOUBLE, FAMILIES, Family, INSIDE, INTERNET_IF, MIRROR, RECORDER, Topology,
};

use crate::scene::isn;

/// What the workload may reach, what only another client may, and who is where.
fn inventory(preferences: &str) -> String {
    format!(
        r#"
served = ["10.77.0.0/16", "fd77::/16"]
[preferences]
allow_private_answers = ["203.0.113.0/24", "2001:db8:77::/64"]
{preferences}
[[client]]
address = "10.77.1.10"
instance = "workload"
groups = ["web"]
[[client]]
address = "fd77:1::10"
instance = "workload"
groups = ["web"]
[[client]]
address = "10.77.1.66"
instance = "attacker"
groups = ["web"]
[[client]]
address = "10.77.1.77"
instance = "other"
groups = ["other"]
[[group]]
id = "web"
[[group.rule]]
description = "postern:tls:listed.good.example"
protocol = "tcp"
ports = "443"
[[group.rule]]
description = "postern:tls:*.wild.example"
protocol = "tcp"
ports = "8443"
[[group]]
id = "other"
[[group.rule]]
description = "postern:tls:others.good.example"
protocol = "tcp"
ports = "443"
"#
    )
}

pub(crate) const ENFORCED: &str = "dns_front = \"enforce\"";

/// Our address on the clients' side.
pub(crate) fn near(family: Family) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(10, 77, 1, 1).into(),
        Family::V6 => "fd77:1::1".parse().unwrap(),
    };
    SocketAddr::new(address, 53)
}

pub(crate) fn workload(lab: &Topology, family: Family) -> Stub<'_> {
    Stub::new(&lab.client, Asker::Workload.address(family), near(family))
}

/// A Postern with the front on, and the resolver behind it.
pub(crate) struct Fronted<'t> {
    lab: &'t Topology,
    pub(crate) dns: DnsDouble,
    pub(crate) daemon: Daemon<'t>,
}

impl<'t> Fronted<'t> {
    pub(crate) fn new(lab: &'t Topology) -> Self {
        Self::with(lab, ENFORCED, "")
    }

    pub(crate) fn with(lab: &'t Topology, preferences: &str, config: &str) -> Self {
        let dns = lab.double(DOUBLE).unwrap();
        dns.set(
            "listed.good.example",
            Answer::of([RECORDER.address(Family::V4)]),
        );
        let upstreams = [dns.address()];
        let daemon = Daemon::asking(lab, &inventory(preferences), &upstreams, config).unwrap();
        let this = Self { lab, dns, daemon };
        // It answers nobody before it knows that its resolver does not lead back to it.
        this.asks("listed.good.example", RecordType::A);
        this
    }

    /// The workload asks until it is answered.
    fn asks(&self, name: &str, record_type: RecordType) -> Told {
        let answer = workload(self.lab, Family::V4).insist(name, record_type);
        answer.unwrap_or_else(|error| panic!("{error}: {}", self.daemon.output()))
    }

    /// The line about a question of the workload.
    fn line(&self, name: &str, outcome: &str) -> e2e::flowlog::Line {
        let fields = [("cat", "dns"), ("dhost", name), ("outcome", outcome)];
        self.daemon.logs().expect_in("dns", &fields).unwrap()
    }
}

#[test]
fn listed_names_are_answered_and_others_are_never_resolved() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    front
        .dns
        .set("evil.example", Answer::of([MIRROR.address(Family::V4)]));
    front.dns.set(
        "others.good.example",
        Answer::of([MIRROR.address(Family::V4)]),
    );
    let listed = RECORDER.address(Family::V4);
    for family in FAMILIES {
        let stub = workload(&lab, family);
        let reply = stub.insist("listed.good.example", RecordType::A).unwrap();
        assert_eq!(
            (reply.code(), reply.addresses()),
            (ResponseCode::NoError, vec![listed])
        );
        assert_eq!(reply.from, near(family));
        // Written as resolvers write that fear spoofing: the question comes back as it was.
        let reply = stub.insist("LisTed.gOOd.example", RecordType::A).unwrap();
        let written = reply
            .message
            .queries
            .first()
            .map(|query| query.name().to_ascii());
        assert_eq!(written.as_deref(), Some("LisTed.gOOd.example."));
        let reply = stub
            .ask_tcp("listed.good.example", RecordType::A)
            .unwrap()
            .unwrap();
        assert_eq!(reply.addresses(), [listed]);
        for unlisted in [
            "secret-0123456789.evil.example",
            "others.good.example",
            "2130706433",
        ] {
            let reply = stub.insist(unlisted, RecordType::A).unwrap();
            assert_eq!(
                (reply.code(), reply.addresses()),
                (ResponseCode::NXDomain, vec![]),
                "{unlisted}"
            );
            let reply = stub.ask_tcp(unlisted, RecordType::TXT).unwrap().unwrap();
            assert_eq!(reply.code(), ResponseCode::Refused, "{unlisted}");
        }
    }
    for record_type in [
        RecordType::TXT,
        RecordType::NULL,
        RecordType::ANY,
        RecordType::Unknown(65_280),
    ] {
        let reply = front.asks("listed.good.example", record_type);
        assert_eq!(reply.code(), ResponseCode::Refused, "{record_type}");
    }
    let asked = front.dns.asked();
    // The name of the other group is watched by ourselves.
    let strange = |name: &str| name.contains("evil") || name.contains("2130");
    assert!(!asked.iter().any(|it| strange(&it.name)), "{asked:?}");
    assert!(
        asked.iter().all(|it| it.record_type != RecordType::TXT),
        "{asked:?}"
    );

    let line = front.line("listed.good.example", "allowed");
    assert_eq!(
        (line.text("reason"), line.text("rcode"), line.text("qtype")),
        ("web".to_owned(), "NOERROR".to_owned(), "A".to_owned())
    );
    let line = front.line("secret-0123456789.evil.example", "disallowed");
    assert_eq!(
        (
            line.text("reason"),
            line.text("rcode"),
            line.text("instance")
        ),
        (
            "name_not_allowed".to_owned(),
            "NXDOMAIN".to_owned(),
            "workload".to_owned()
        )
    );
    front
        .daemon
        .logs()
        .expect_in("dns", &[("reason", "dns_record_type"), ("qtype", "TXT")])
        .unwrap();
}

/// A SYN of the attacker to `to`: whether it is answered by a server, and whether a packet left.
fn syn_is_answered(lab: &Topology, to: SocketAddr, port: u16) -> bool {
    let attacker = lab.attacker().unwrap();
    let outside = lab.capture_outside().unwrap();
    let local = SocketAddr::new(attacker.address(Family::V4), port);
    let mut tcp = RawTcp::new(&attacker, local, to, isn(port));
    let refused = e2e::wait::holds(Duration::from_secs(12), || {
        tcp.put(&tcp.syn()).unwrap();
        tcp.pump(Duration::from_millis(400), |tcp| {
            tcp.reset || tcp.peer_next != 0
        })
        .unwrap()
    });
    assert!(refused, "neither answered nor refused");
    outside.settle(Duration::from_millis(50));
    let left = outside.matching(|seen| seen.to.ip() == to.ip()).len();
    assert_eq!(left > 0, !tcp.reset, "{left} packets left");
    !tcp.reset
}

#[test]
fn patterns_are_as_strict_as_names_while_the_front_is_on() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let server = RECORDER.at(Family::V4, 8_443);
    let recorder = Recorder::start(&lab.internet, server, Script::Tls).unwrap();
    front.dns.set("app.wild.example", Answer::of([server.ip()]));
    // Nobody was told this address: not even a SYN leaves.
    assert!(!syn_is_answered(&lab, server, 30_001));
    let src = Asker::Attacker.address(Family::V4).to_string();
    let refusal = [
        ("outcome", "disallowed"),
        ("src", src.as_str()),
        ("reason", "address_not_of_name"),
    ];
    front.daemon.logs().expect(&refusal).unwrap();
    // The first SYN after the answer is let through: the address was bound before the answer left.
    assert_eq!(
        front.asks("app.wild.example", RecordType::A).addresses(),
        [server.ip()]
    );
    let attacker = lab.attacker().unwrap();
    let mut tcp = attacker.connect(30_002, server, isn(30_002)).unwrap();
    let hello = e2e::hello::ClientHello::new("app.wild.example").record();
    tcp.write(&hello).unwrap();
    assert!(recorder.got(&hello));
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    // As a load balancer's address is made local: not the interface's first, nor one of its network.
    lab.firewall
        .ip(&format!(
            "addr add 10.99.9.9/32 dev {INSIDE}\naddr add fd99::9/128 dev {INSIDE} nodad\n"
        ))
        .unwrap();
    let asked = [
        "10.99.9.9:53",
        "203.0.113.1:53",
        "[fd99::9]:53",
        "[fd77:1::1]:53",
    ];
    for server in asked.map(|text| text.parse::<SocketAddr>().unwrap()) {
        let family = if server.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let stub = Stub::new(&lab.client, Asker::Workload.address(family), server);
        let told = stub.insist("listed.good.example", RecordType::A).unwrap();
        assert_eq!(told.from, server);
        assert_eq!(told.addresses(), [RECORDER.address(Family::V4)]);
        let told = stub.ask_tcp("listed.good.example", RecordType::A).unwrap();
        assert!(
            told.is_some(),
            "{server} over TCP: {}",
            front.daemon.output()
        );
    }
}

#[test]
fn what_would_hide_a_name_and_addresses_that_may_not_be_bound_are_taken_out() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let service = "listed.good.example. 60 HTTPS 1 . mandatory=alpn,ech alpn=h2 ipv4hint=203.0.113.30,10.1.2.3 \
                   ech=AEX+DQBBpQAgACC/7zUoKGlKzBrYXHCaRAmIpwSHDaDLt/fOGHGg5VgYIwAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA= \
                   ipv6hint=fd00::1";
    front
        .dns
        .set("listed.good.example", Answer::records_of(&[service]));
    let told = e2e::wait::until(Duration::from_secs(20), || {
        let told = front.asks("listed.good.example", RecordType::HTTPS);
        (!told.records().is_empty()).then(|| told.records())
    });
    let records = told.unwrap();
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert!(
        record.contains("alpn=\"h2") || record.contains("alpn=h2"),
        "{record}"
    );
    assert!(record.contains("203.0.113.30"), "{record}");
    for gone in ["ech", "10.1.2.3", "fd00::1", "ipv6hint"] {
        assert!(!record.contains(gone), "{gone} in {record}");
    }
    // An answer whose every address may never be dialled is one without addresses.
    front.dns.set(
        "app.wild.example",
        Answer::of([Ipv4Addr::new(169, 254, 169, 254)]),
    );
    let told = front.asks("app.wild.example", RecordType::A);
    assert_eq!(
        (told.code(), told.addresses()),
        (ResponseCode::NoError, vec![])
    );
    let raised = || {
        front
            .daemon
            .metric("postern_dns_front_withheld_total")
            .unwrap()
            > 0.0
    };
    assert!(e2e::wait::holds(Duration::from_secs(10), raised));
}

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
fn answer_that_fits_no_datagram_is_asked_for_over_tcp() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let many: Vec<IpAddr> = (1..=200)
        .map(|n| Ipv4Addr::new(198, 41, 0, n).into())
        .collect();
    front.dns.set("many.wild.example", Answer::of(many.clone()));
    let told = front.asks("many.wild.example", RecordType::A);
    assert!(
        told.message.truncation && told.addresses().is_empty(),
        "{told:?}"
    );
    let told = workload(&lab, Family::V4)
        .ask_tcp("many.wild.example", RecordType::A)
        .unwrap()
        .unwrap();
    assert_eq!(told.addresses(), many);
    // One that speaks no EDNS takes 512 bytes.
    let some: Vec<IpAddr> = (1..=40)
        .map(|n| Ipv4Addr::new(198, 41, 1, n).into())
        .collect();
    front.dns.set("some.wild.example", Answer::of(some));
    let question = Stub::question("some.wild.example", RecordType::A, None).unwrap();
    let told = e2e::wait::until(Duration::from_secs(20), || {
        workload(&lab, Family::V4).exchange(&question).unwrap()
    });
    assert!(told.unwrap().message.truncation);
    // The C library does both by itself.
    let resolv = lab.file("front.resolv");
    std::fs::write(&resolv, "nameserver 10.77.1.1\n").unwrap();
    lab.client.bind_mount(&resolv, "/etc/resolv.conf").unwrap();
    let text = lab
        .client
        .run("getent", &["ahostsv4", "many.wild.example"])
        .unwrap();
    assert!(text.contains("198.41.0.200"), "{text}");
}

#[test]
fn messages_that_are_no_questions_do_no_harm() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let mut stub = workload(&lab, Family::V4);
    let good = Stub::question("listed.good.example", RecordType::A, Some(1_232)).unwrap();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let code =
        |stub: &Stub<'_>, bytes: &[u8]| stub.exchange(bytes).unwrap().map(|told| told.code());
    assert_eq!(
        code(&stub, &changed(2, 0x28)),
        Some(ResponseCode::NotImp),
        "an update"
    );
    assert_eq!(
        code(&stub, &changed(5, 2)),
        Some(ResponseCode::FormErr),
        "two questions announced"
    );
    assert_eq!(
        code(&stub, &good[..20]),
        Some(ResponseCode::FormErr),
        "cut off"
    );
    let name = good.len() - 11 - 4;
    assert_eq!(
        code(&stub, &changed(name + 3, 3)),
        Some(ResponseCode::Refused),
        "another class"
    );
    stub.patience = Duration::from_millis(300);
    assert_eq!(code(&stub, &changed(2, 0x81)), None, "an answer");
    assert_eq!(code(&stub, &good[..7]), None, "less than a header");
    assert_eq!(code(&stub, b""), None);
    for seed in 0..200_u8 {
        let noise: Vec<u8> = (0..64)
            .map(|n: u8| n.wrapping_mul(seed).wrapping_add(seed ^ n))
            .collect();
        let socket = lab
            .client
            .enter(|| std::net::UdpSocket::bind((Asker::Workload.address(Family::V4), 0)));
        socket
            .unwrap()
            .unwrap()
            .send_to(&noise, near(Family::V4))
            .unwrap();
    }
    let raised = || {
        front
            .daemon
            .metric("postern_dns_front_malformed_total")
            .unwrap()
            > 100.0
    };
    assert!(e2e::wait::holds(Duration::from_secs(10), raised));
    assert_eq!(
        front
            .asks("listed.good.example", RecordType::A)
            .addresses()
            .len(),
        1
    );
}

#[test]
fn observing_front_passes_everything_and_says_what_it_would_refuse() {
    let lab = Topology::new().unwrap();
    let preferences = "dns_front = \"observe\"\ninternal_zones = [\"corp.example\"]";
    let front = Fronted::with(&lab, preferences, "front_record_types = [\"TXT\"]");
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
