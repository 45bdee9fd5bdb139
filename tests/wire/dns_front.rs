//! The DNS front: who is told what, what a resolver is never asked, and that no client can dial an address we have not
//! seen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use e2e::daemon::Daemon;
use e2e::dns::{Answer, DnsDouble, RecordType, ResponseCode, Stub, Told};
use e2e::peer::{Recorder, Script};
use e2e::raw::RawTcp;
use e2e::topology::{Asker, DOUBLE, FAMILIES, Family, INSIDE, MIRROR, RECORDER, Topology};

use crate::scene::isn;

/// What the workload may reach, what only another client may, and who is where.
pub(crate) fn inventory(preferences: &str) -> String {
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
    pub(crate) fn asks(&self, name: &str, record_type: RecordType) -> Told {
        let answer = workload(self.lab, Family::V4).insist(name, record_type);
        answer.unwrap_or_else(|error| panic!("{error}: {}", self.daemon.output()))
    }

    /// The line about a question of the workload.
    pub(crate) fn line(&self, name: &str, outcome: &str) -> e2e::flowlog::Line {
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
    // The name of the other group is watched by ourselves.
    let asked = front.dns.asked();
    let strange = |name: &str| name.contains("evil") || name.contains("2130");
    assert!(!asked.iter().any(|it| strange(&it.name)), "{asked:?}");
}

#[test]
fn what_was_asked_and_answered_is_logged_and_other_types_are_refused() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let secret = "secret-0123456789.evil.example";
    assert_eq!(
        front.asks(secret, RecordType::A).code(),
        ResponseCode::NXDomain
    );
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
    assert!(
        asked.iter().all(|it| it.record_type != RecordType::TXT),
        "{asked:?}"
    );

    let line = front.line("listed.good.example", "allowed");
    assert_eq!(
        (line.text("reason"), line.text("rcode"), line.text("qtype")),
        ("web".to_owned(), "NOERROR".to_owned(), "A".to_owned())
    );
    let line = front.line(secret, "disallowed");
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
    let unnamed = [("reason", "dns_record_type"), ("qtype", "TYPE65280")];
    front.daemon.logs().expect_in("dns", &unnamed).unwrap();
}

/// A SYN of the attacker to `to`: whether it is answered by a server, and whether a packet left.
pub(crate) fn syn_is_answered(lab: &Topology, to: SocketAddr, port: u16) -> bool {
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
