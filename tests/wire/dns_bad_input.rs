//! An allowed name whose owner is hostile, and resolvers that fail: what the client is told, and that not one packet
//! reaches an address which no believed answer named. The witness process alone is in `dns_child`.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::capture::Capture;
use e2e::daemon::Daemon;
use e2e::dns::{Answer, DnsDouble, Fault, Lie, ResponseCode};
use e2e::packet::Seen;
use e2e::peer::{Recorder, Script};
use e2e::raw::{RawHost, RawTcp};
use e2e::topology::{DOUBLE, Family, RECORDER, Topology};

use crate::scene::isn;

/// An honest name on its own port, so that what is wrong with the others can be told from a Postern that is.
pub(crate) const HONEST: (&str, u16) = ("honest.allowed.example", 9_000);
/// Where lies lead; nobody but the liar names it.
pub(crate) const EVIL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 21);

/// Each name on a port of its own, so that a SYN to that port asks about that name and nothing else.
pub(crate) fn inventory(names: &[(&str, u16)]) -> String {
    let mut text = String::from(
        r#"
served = ["10.77.0.0/16", "fd77::/16"]
[preferences]
allow_private_answers = ["203.0.113.0/24", "2001:db8:77::/64"]
[[client]]
address = "10.77.1.66"
instance = "attacker"
groups = ["web"]
[[client]]
address = "fd77:1::66"
instance = "attacker"
groups = ["web"]
[[group]]
id = "web"
"#,
    );
    for (name, port) in names.iter().chain([&HONEST]) {
        text.push_str(&format!(
            "[[group.rule]]\ndescription = \"postern:tls:{name}\"\nprotocol = \"tcp\"\nports = \"{port}\"\n"
        ));
    }
    text
}

/// A Postern that asks a scripted server, and a client made by hand.
pub(crate) struct Stage<'t> {
    pub(crate) daemon: Daemon<'t>,
    attacker: RawHost,
    outside: Capture,
    port: Cell<u16>,
    refusals: Cell<(Instant, u32)>,
}

impl<'t> Stage<'t> {
    pub(crate) fn new(lab: &'t Topology, dns: &DnsDouble, names: &[(&str, u16)]) -> Self {
        Self::with(lab, dns, names, "")
    }

    /// The same with more lines in the table `[dns]` of the configuration.
    pub(crate) fn with(
        lab: &'t Topology,
        dns: &DnsDouble,
        names: &[(&str, u16)],
        extra: &str,
    ) -> Self {
        dns.set(HONEST.0, Answer::of([RECORDER.address(Family::V4)]));
        let daemon = Daemon::asking(lab, &inventory(names), &[dns.address()], extra).unwrap();
        Self {
            daemon,
            attacker: lab.attacker().unwrap(),
            outside: lab.capture_outside().unwrap(),
            port: Cell::new(30_000),
            refusals: Cell::new((Instant::now(), 0)),
        }
    }

    /// Dials as a kernel does, again and again until somebody answers, and asserts that no packet left towards the
    /// address; whether the answer was a refusal, and the reason the log gives.
    pub(crate) fn dial(&self, what: &str, to: SocketAddr, limit: Duration) -> Option<String> {
        self.port.set(self.port.get() + 1);
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let local = SocketAddr::new(self.attacker.address(family), self.port.get());
        let mut tcp = RawTcp::new(&self.attacker, local, to, isn(local.port()));
        let refused = e2e::wait::holds(limit, || {
            tcp.put(&tcp.syn()).unwrap();
            tcp.pump(Duration::from_millis(400), |tcp| tcp.reset)
                .unwrap()
        });
        assert_eq!(self.towards(to.ip()), [], "{what}: a packet left");
        if !refused {
            return None;
        }
        let spt = local.port().to_string();
        let wanted = [("outcome", "disallowed"), ("spt", spt.as_str())];
        let line = e2e::wait::until(Duration::from_secs(5), || {
            let lines = self.daemon.logs().lines("flow");
            lines.into_iter().find(|line| line.is(&wanted))
        });
        Some(
            line.unwrap_or_else(|| panic!("{what}: no line about the refusal"))
                .text("reason"),
        )
    }

    /// As [`Stage::dial`], when it must be a refusal. Of one client ten a second are logged.
    pub(crate) fn refusal(&self, what: &str, to: SocketAddr) -> String {
        let (since, count) = self.refusals.get();
        if count >= 4 {
            let next = since + Duration::from_millis(1_100);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            self.refusals.set((Instant::now(), 0));
        }
        let (since, count) = self.refusals.get();
        self.refusals.set((since, count + 1));
        let reason = self.dial(what, to, Duration::from_secs(12));
        reason.unwrap_or_else(|| panic!("{what}: {to} was not refused"))
    }

    fn towards(&self, address: IpAddr) -> Vec<Seen> {
        self.outside.settle(Duration::from_millis(20));
        self.outside.matching(|seen| seen.to.ip() == address)
    }

    /// A counter of the daemon's is above zero; the witness reports once a second.
    pub(crate) fn assert_counted(&self, metric: &str) {
        let counted = || self.daemon.metric(metric).unwrap() > 0.0;
        assert!(
            e2e::wait::holds(Duration::from_secs(10), counted),
            "{metric} is zero"
        );
    }

    /// The honest name is served as ever.
    pub(crate) fn assert_serves(&self, server: &Recorder, what: &str) {
        self.assert_reaches(server, HONEST.0, what);
    }

    /// A name is served at a server.
    pub(crate) fn assert_reaches(&self, server: &Recorder, name: &str, what: &str) {
        self.port.set(self.port.get() + 1);
        let port = self.port.get();
        let mut tcp = self
            .attacker
            .connect(port, server.address, isn(port))
            .expect(what);
        let hello = e2e::hello::ClientHello::new(name).record();
        tcp.write(&hello).expect(what);
        assert!(server.got(&hello), "{what}");
    }
}

pub(crate) fn serve(lab: &Topology) -> Recorder {
    Recorder::start(
        &lab.internet,
        RECORDER.at(Family::V4, HONEST.1),
        Script::Tls,
    )
    .unwrap()
}

#[test]
fn answers_outside_global_space_never_bind_in_any_form() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let name = ("rebound.allowed.example", 9_001);
    // Private, another client, served, shared, benchmark, reserved, Azure's and Google's services, unique local, 6to4
    // and Teredo of metadata and private space, NAT64 of both, documentation.
    let addresses = [
        "10.1.2.3",
        "192.168.1.1",
        "172.16.9.9",
        "10.77.1.10",
        "10.77.2.5",
        "100.64.0.1",
        "198.18.0.1",
        "192.0.0.9",
        "240.0.0.1",
        "168.63.129.16",
        "199.36.153.8",
        "fd00::1",
        "2002:a9fe:a9fe::1",
        "2002:a01:203::1",
        "2001:0:a9fe:a9fe::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::a01:203",
        "64:ff9b:1::808:808",
        "3fff::1",
        "fd77:1::10",
        "fd77:2::5",
    ];
    let nearest = ["169.254.169.254", "169.254.1.1", "fd00:ec2::254"];
    let all = addresses.iter().chain(&nearest);
    let all: Vec<IpAddr> = all.map(|text| text.parse().unwrap()).collect();
    let addresses = addresses.map(|text| text.parse::<IpAddr>().unwrap());
    dns.set(name.0, Answer::of(all).ttl(300));
    let server = serve(&lab);
    let stage = Stage::new(&lab, &dns, &[name]);
    stage.assert_serves(&server, "before");
    assert!(e2e::wait::holds(Duration::from_secs(5), || !dns
        .asked_for(name.0)
        .is_empty()));
    for address in addresses {
        let to = SocketAddr::new(address, name.1);
        assert_eq!(
            stage.refusal("not global", to),
            "address_not_global",
            "{address}"
        );
    }
    // What is nearer than that the kernel drops without a word, whoever names it.
    for text in nearest {
        let to = SocketAddr::new(text.parse().unwrap(), name.1);
        assert_eq!(
            stage.dial("nearest", to, Duration::from_secs(1)),
            None,
            "{text}"
        );
    }
    stage.assert_counted("postern_dns_addresses_not_global_total");
    stage.assert_serves(&server, "afterwards");
}

/// Scripts each name, dials [`EVIL`] on its port, and asserts the reason of each refusal.
fn assert_each_refused<const N: usize>(cases: [(&str, Answer); N], reason: &str, counted: &[&str]) {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let names: Vec<(&str, u16)> = cases.iter().map(|(name, _)| *name).zip(9_001..).collect();
    for (name, answer) in cases.clone() {
        dns.set(name, answer);
    }
    dns.set("far.bad.example", Answer::of([EVIL]));
    let server = serve(&lab);
    let stage = Stage::new(&lab, &dns, &names);
    for (name, port) in names {
        let refused = stage.refusal(name, SocketAddr::new(EVIL.into(), port));
        assert_eq!(refused, reason, "{name}");
    }
    let unnamed = SocketAddr::new(EVIL.into(), HONEST.1);
    assert_eq!(
        stage.refusal("of another name", unnamed),
        "address_not_of_name"
    );
    let far = dns.asked_for("far.bad.example");
    assert_eq!(
        far,
        [],
        "the target of an alias is not a name of the policy"
    );
    counted
        .iter()
        .for_each(|metric| stage.assert_counted(metric));
    stage.assert_serves(&server, "afterwards");
}

#[test]
fn answers_that_lead_nowhere_or_cannot_be_read_leave_a_name_unresolvable() {
    let looped = [
        "loop.bad.example. 60 CNAME pool.example.",
        "pool.example. 60 CNAME loop.bad.example.",
    ];
    let split = ["split.bad.example. 60 CNAME far.bad.example."];
    let lying = |lie| Answer::of([EVIL]).lying(lie);
    let cases = [
        ("loop.bad.example", Answer::records_of(&looped)),
        ("split.bad.example", Answer::records_of(&split)),
        ("pointer.bad.example", lying(Lie::PointerLoop)),
        ("short.bad.example", lying(Lie::CutShort)),
        ("length.bad.example", lying(Lie::LengthLie)),
        ("count.bad.example", lying(Lie::CountLie)),
        ("none.bad.example", Answer::code(ResponseCode::NXDomain)),
        ("failing.bad.example", Answer::code(ResponseCode::ServFail)),
        ("refusing.bad.example", Answer::code(ResponseCode::Refused)),
    ];
    assert_each_refused(
        cases,
        "name_unresolvable",
        &[
            "postern_dns_questions_failed_total",
            "postern_dns_negative_total",
        ],
    );
}

#[test]
fn spoofed_and_poisoned_answers_bind_their_address_to_nothing() {
    let (evil, truth) = (IpAddr::V4(EVIL), Ipv4Addr::new(203, 0, 113, 13));
    let lying = |lie| Answer::of([truth]).lying(lie);
    let poisoned = Answer::of([truth]).and_additional("poison.bad.example. 60 A 203.0.113.21");
    let stranger = Answer::of([truth]).and("honest.allowed.example. 60 A 203.0.113.21");
    let cases = [
        ("id.bad.example", lying(Lie::WrongId(evil))),
        ("port.bad.example", lying(Lie::WrongPort(evil))),
        ("question.bad.example", lying(Lie::WrongQuestion(evil))),
        ("case.bad.example", lying(Lie::LostCase(evil))),
        ("poison.bad.example", poisoned),
        ("stranger.bad.example", stranger),
    ];
    assert_each_refused(cases, "address_not_of_name", &[]);
}

#[test]
fn ten_thousand_addresses_of_one_name_are_bounded_alarmed_and_slow_nobody() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let name = ("huge.bad.example", 9_001);
    let server = serve(&lab);
    let stage = Stage::new(&lab, &dns, &[name]);
    stage.assert_serves(&server, "before");
    let before = stage.daemon.resident_bytes().unwrap();
    let many = (0..10_000).map(|n| Ipv4Addr::from(0x0808_0000 + n));
    dns.set(name.0, Answer::of(many).at_a_time(4_000).ttl(1));
    let unnamed = SocketAddr::new(IpAddr::V4(EVIL), name.1);
    let alarmed = || {
        let lines = stage.daemon.logs().lines("config");
        lines
            .iter()
            .any(|line| line.0.to_string().contains("new addresses in 10 minutes"))
    };
    // Each refusal is a look-up with several samples.
    for _ in 0..4 {
        // Refused, or left waiting for as long as look-ups go on bringing others; no packet leaves either way.
        let what = "an address that is not among them";
        let reason = stage.dial(what, unnamed, Duration::from_secs(2));
        let expected = [None, Some("address_not_of_name"), Some("name_unresolvable")];
        assert!(expected.contains(&reason.as_deref()), "{reason:?}");
        stage.assert_serves(&server, "beside it");
    }
    assert!(
        e2e::wait::holds(Duration::from_secs(10), alarmed),
        "no alarm"
    );
    let after = stage.daemon.resident_bytes().unwrap();
    let grown = after.saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for one name");
}

#[test]
fn resolver_that_hangs_holds_nobody_beyond_the_budget_and_history_goes_on() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let server = serve(&lab);
    let late = ("late.bad.example", 9_001);
    dns.set(late.0, Answer::of([EVIL]).delayed(Duration::from_secs(6)));
    let stage = Stage::new(&lab, &dns, &[late]);
    stage.assert_serves(&server, "before");
    let started = Instant::now();
    let reason = stage.refusal(
        "an answer after the budget",
        SocketAddr::new(EVIL.into(), late.1),
    );
    assert_eq!(reason, "name_unresolvable");
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    dns.set_fault(Fault::Hang);
    for what in ["the bound address is", "and stays"] {
        stage.assert_serves(&server, what);
        let reason = stage.refusal("a hanging resolver", SocketAddr::new(EVIL.into(), late.1));
        assert_eq!(reason, "name_unresolvable");
    }
    stage.assert_counted("postern_dns_questions_timed_out_total");
    let unnamed = SocketAddr::new(IpAddr::V4(EVIL), HONEST.1);
    assert_eq!(
        stage.refusal("another address of a bound name", unnamed),
        "address_not_of_name"
    );
}

/// The appliance's own addresses and those of its clients' side, though a preference lists the network they are in.
#[test]
fn own_addresses_in_an_answer_are_bound_to_nothing() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let name = ("mirror.bad.example", 9_001);
    let own = ["203.0.113.1", "10.77.1.1", "2001:db8:77::1", "fd77:1::1"];
    let own = own.map(|text| text.parse::<IpAddr>().unwrap());
    let theirs = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 40));
    dns.set(name.0, Answer::of(own.into_iter().chain([theirs])).ttl(300));
    let server = serve(&lab);
    let stage = Stage::new(&lab, &dns, &[name]);
    let bound = || {
        let status = stage.daemon.status().unwrap();
        let all = status["bindings"].as_array().unwrap();
        let of_name = all.iter().filter(|one| one["name"] == name.0);
        of_name
            .map(|one| one["address"].to_string())
            .collect::<Vec<_>>()
    };
    assert!(e2e::wait::holds(Duration::from_secs(20), || !bound().is_empty()));
    assert_eq!(bound(), [format!("\"{theirs}\"")]);
    for address in own {
        let to = SocketAddr::new(address, name.1);
        let what = "one of our own";
        assert_eq!(
            stage.dial(what, to, Duration::from_secs(1)),
            None,
            "{address}"
        );
    }
    stage.assert_counted("postern_dns_addresses_not_global_total");
    stage.assert_serves(&server, "afterwards");
}

/// Half of all questions are lost: a connection to a name that has moved takes longer, or a second try, and no more.
#[test]
fn resolver_that_flaps_delays_connections_and_loses_none() {
    const MOVERS: u16 = 6;
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    e2e::moving::settle(&dns, MOVERS);
    let policy = crate::dns_scale::inventory(&["honest.allowed.example".to_owned()]).replace(
        "[[group]]\nid = \"few\"\n",
        &format!("[[group]]\nid = \"few\"\n{}", e2e::moving::rules(MOVERS)),
    );
    let daemon = Daemon::asking(&lab, &policy, &[dns.address()], "").unwrap();
    let bound = || daemon.metric("postern_names_bound").unwrap() >= f64::from(MOVERS);
    assert!(
        e2e::wait::holds(Duration::from_secs(20), bound),
        "{}",
        daemon.output()
    );
    dns.set_fault(Fault::Flap(2));
    for index in 0..MOVERS {
        let server = e2e::moving::move_on(&lab, &dns, index, Duration::ZERO).unwrap();
        let to = server.local_addr().unwrap();
        let connected = || e2e::moving::connect(&lab, to).is_ok();
        assert!(
            e2e::wait::holds(Duration::from_secs(15), connected),
            "{}",
            daemon.output()
        );
    }
    let asked: usize = (0..MOVERS)
        .map(|index| dns.asked_for(&e2e::moving::mover(index).0).len())
        .sum();
    // Three each at first; a few more since, however many of them were lost.
    assert!(asked < usize::from(MOVERS) * 60, "{asked} questions");
}

#[test]
fn dead_first_resolver_costs_no_connection_its_time_out() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let nobody = SocketAddr::new(e2e::topology::SECOND_DOUBLE.address(Family::V4), 53);
    let server = serve(&lab);
    dns.set(HONEST.0, Answer::of([RECORDER.address(Family::V4)]));
    let daemon = Daemon::asking(&lab, &inventory(&[]), &[nobody, dns.address()], "").unwrap();
    let attacker = lab.attacker().unwrap();
    let mut tcp = attacker
        .connect(30_000, server.address, isn(30_000))
        .unwrap();
    let hello = e2e::hello::ClientHello::new(HONEST.0).record();
    tcp.write(&hello).unwrap();
    assert!(server.got(&hello), "{}", daemon.output());
    for metric in [
        "postern_dns_questions_failed_over_total",
        "postern_dns_resolvers_suspended",
    ] {
        let counted = || daemon.metric(metric).unwrap() > 0.0;
        assert!(
            e2e::wait::holds(Duration::from_secs(10), counted),
            "{metric} is zero"
        );
    }
    assert!(!dns.asked_for(HONEST.0).is_empty());
}

#[test]
fn system_resolvers_are_read_again_when_their_file_changes() {
    let lab = Topology::new().unwrap();
    let (first, second) = (
        lab.double(DOUBLE).unwrap(),
        lab.double(e2e::topology::SECOND_DOUBLE).unwrap(),
    );
    let here = [RECORDER.address(Family::V4)];
    let file = lab.file("changing.resolv");
    let write = |dns: &DnsDouble| {
        std::fs::write(&file, format!("nameserver {}\n", dns.address().ip())).unwrap()
    };
    write(&first);
    lab.firewall.bind_mount(&file, "/etc/resolv.conf").unwrap();
    for dns in [&first, &second] {
        dns.set(HONEST.0, Answer::of(here).ttl(1));
    }
    let _daemon = Daemon::asking(&lab, &inventory(&[]), &[], "").unwrap();
    let attacker = lab.attacker().unwrap();
    let local = SocketAddr::new(attacker.address(Family::V4), 30_000);
    // Nobody has used the name, so it is asked about when a packet needs it.
    let tcp = RawTcp::new(&attacker, local, (EVIL, HONEST.1).into(), isn(30_000));
    let asked = |dns: &DnsDouble| {
        e2e::wait::holds(Duration::from_secs(10), || {
            tcp.put(&tcp.syn()).unwrap();
            !dns.asked_for(HONEST.0).is_empty()
        })
    };
    assert!(asked(&first));
    assert_eq!(second.count(), 0);
    write(&second);
    assert!(asked(&second), "the old resolver is still asked");
}
