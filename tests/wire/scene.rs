//! What most wire tests share: a topology, a Postern, a hand-made client, and a server that remembers.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::capture::Capture;
use e2e::daemon::{Daemon, INVENTORY};
use e2e::hello::{self, ClientHello};
use e2e::packet::{Seen, contains, icmp, udp};
use e2e::peer::{Recorder, Script};
use e2e::raw::{RawHost, RawTcp};
use e2e::topology::{Family, RECORDER, Topology};

/// Defines a test once for both families: `name::v4` and `name::v6`.
macro_rules! both_families {
    ($(#[doc = $doc:literal])* fn $name:ident($family:ident) $body:block) => {
        $(#[doc = $doc])*
        mod $name {
            #[allow(unused_imports, clippy::allow_attributes, reason = "one list of imports for every test of a file")]
            use super::*;

            #[test]
            fn v4() {
                run(e2e::topology::Family::V4);
            }

            #[test]
            fn v6() {
                run(e2e::topology::Family::V6);
            }

            fn run($family: e2e::topology::Family) $body
        }
    };
}

/// A hand-made client before Postern before a server that remembers, and a capture of the link between the last two.
pub(crate) struct Scene<'t> {
    pub(crate) lab: &'t Topology,
    pub(crate) daemon: Daemon<'t>,
    pub(crate) attacker: RawHost,
    pub(crate) recorder: Recorder,
    pub(crate) outside: Capture,
    pub(crate) family: Family,
    port: Cell<u16>,
    refusals: Cell<(Instant, u32)>,
}

impl<'t> Scene<'t> {
    /// Runs [`INVENTORY`] and a server that behaves like TLS.
    pub(crate) fn new(lab: &'t Topology, family: Family) -> Self {
        Self::with(lab, family, INVENTORY, Script::Tls)
    }

    pub(crate) fn with(lab: &'t Topology, family: Family, inventory: &str, script: Script) -> Self {
        Self::around(lab, family, Daemon::start(lab, inventory).unwrap(), script)
    }

    /// The same around a Postern that was started in another way.
    pub(crate) fn around(
        lab: &'t Topology,
        family: Family,
        daemon: Daemon<'t>,
        script: Script,
    ) -> Self {
        let recorder = Recorder::start(&lab.internet, RECORDER.at(family, 443), script).unwrap();
        let attacker = lab.attacker().unwrap();
        let outside = lab.capture_outside().unwrap();
        Self {
            lab,
            daemon,
            attacker,
            recorder,
            outside,
            family,
            port: Cell::new(20_000),
            refusals: Cell::new((Instant::now(), 0)),
        }
    }

    /// A port that this scene has not used.
    pub(crate) fn fresh_port(&self) -> u16 {
        self.port.set(self.port.get() + 1);
        self.port.get()
    }

    /// A connection to the recorder, its handshake done.
    pub(crate) fn connect(&self) -> RawTcp<'_> {
        let port = self.fresh_port();
        self.attacker
            .connect(port, self.recorder.address, isn(port))
            .unwrap()
    }

    /// A connection to the recorder for which nothing has been sent.
    pub(crate) fn unconnected(&self) -> RawTcp<'_> {
        let port = self.fresh_port();
        let local = std::net::SocketAddr::new(self.attacker.address(self.family), port);
        RawTcp::new(&self.attacker, local, self.recorder.address, isn(port))
    }

    /// A connection that the kernel carries: both sides have proved themselves and an echo came back.
    pub(crate) fn judged(&self) -> RawTcp<'_> {
        let mut tcp = self.connect();
        finish(&mut tcp, &allowed());
        tcp
    }

    /// Sends a first message and asserts that it is refused: both ends reset, nothing arrived, one of these reasons.
    pub(crate) fn assert_refused(&self, what: &str, bytes: &[u8], reasons: &[&str]) {
        let mut tcp = self.connect();
        tcp.write(bytes).unwrap();
        self.assert_ended(what, &mut tcp, reasons);
    }

    /// Asserts that a connection is refused before its server got a byte.
    pub(crate) fn assert_ended(&self, what: &str, tcp: &mut RawTcp<'_>, reasons: &[&str]) {
        let port = tcp.local.port();
        assert!(
            tcp.wait_reset().unwrap(),
            "{what}: the client was not reset"
        );
        assert!(
            self.recorder.reset_port(port),
            "{what}: the server was not reset"
        );
        let got = self.recorder.with_port(port).unwrap().bytes;
        assert_eq!(got, b"", "{what}: bytes reached the server");
        self.pace_refusals();
        let reason = self.reason(tcp);
        assert!(
            reasons.contains(&reason.as_str()),
            "{what}: refused as {reason}, not {reasons:?}"
        );
    }

    /// Keeps below the refusals of one client that are logged in a second, so that each finds its line.
    fn pace_refusals(&self) {
        let (since, count) = self.refusals.get();
        let next = since + Duration::from_millis(1100);
        if count < 8 {
            self.refusals.set((since, count + 1));
        } else {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            self.refusals.set((Instant::now(), 1));
        }
    }

    /// Sends a first message and asserts that the server gets exactly it.
    pub(crate) fn assert_allowed(&self, what: &str, bytes: &[u8]) {
        let mut tcp = self.connect();
        tcp.write(bytes).unwrap();
        assert!(
            self.recorder.got(bytes),
            "{what}: {:?}",
            self.recorder.conversations().last()
        );
        assert!(
            tcp.wait_bytes(hello::server_flight().len()).unwrap(),
            "{what}: no answer"
        );
    }

    /// The reason the flow log gives for refusing this connection.
    pub(crate) fn reason(&self, tcp: &RawTcp<'_>) -> String {
        self.refusal(tcp).text("reason")
    }

    /// The line the flow log has about refusing this connection.
    pub(crate) fn refusal(&self, tcp: &RawTcp<'_>) -> e2e::flowlog::Line {
        let port = tcp.local.port().to_string();
        let logs = self.daemon.logs();
        let of_client = [("outcome", "disallowed"), ("spt", port.as_str())];
        let of_server = [("outcome", "disallowed"), ("dpt", port.as_str())];
        let found = e2e::wait::until(Duration::from_secs(5), || {
            logs.lines("flow")
                .into_iter()
                .find(|line| line.is(&of_client) || line.is(&of_server))
        });
        found.unwrap_or_else(|| panic!("no refusal of port {port} in the flow log"))
    }

    /// Asserts that these bytes crossed the outer link in no packet and reached no application.
    pub(crate) fn assert_never_left(&self, bytes: &[u8]) {
        self.outside.settle(Duration::from_millis(50));
        let leaked = self.outside.matching(|seen| seen.carries(bytes));
        assert_eq!(leaked, [], "bytes crossed the outer link");
        assert!(
            !contains(&self.recorder.received(), bytes),
            "bytes reached the server"
        );
    }

    /// Sends what a new flow may begin with: a SYN, a hello without one, a datagram, an echo request.
    pub(crate) fn put_new_flows(&self) {
        let tcp = self.unconnected();
        tcp.put(&tcp.syn()).unwrap();
        tcp.push(0, &evil()).unwrap();
        let (from, to) = (tcp.local, self.recorder.address);
        let kind = if self.family == Family::V4 { 8 } else { 128 };
        let echo = icmp(from.ip(), to.ip(), kind, 0, [0, 9, 0, 1], EVIL_MARK);
        self.attacker.send(&udp(from, to, EVIL_MARK)).unwrap();
        self.attacker.send(&echo).unwrap();
    }

    /// Asserts that of [`Scene::put_new_flows`] not one packet crosses the outer link.
    pub(crate) fn assert_nothing_new_leaves(&self, what: &str) {
        let before = self.towards_recorder();
        self.put_new_flows();
        self.outside.settle(Duration::from_millis(150));
        assert_eq!(self.towards_recorder(), before, "{what}: packets left");
    }

    fn towards_recorder(&self) -> Vec<Seen> {
        let to = self.recorder.address.ip();
        self.outside.matching(|seen| seen.to.ip() == to)
    }

    /// Asserts that another client, with a kernel of its own, exchanges a hello with the recorder.
    pub(crate) fn assert_another_is_served(&self, what: &str) {
        let (to, limit) = (self.recorder.address, Duration::from_secs(20));
        let dial = || TcpStream::connect_timeout(&to, limit);
        let mut stream = self.lab.client.enter(dial).unwrap().expect(what);
        stream.set_read_timeout(Some(limit)).unwrap();
        stream.write_all(&allowed()).expect(what);
        let mut answer = vec![0; hello::server_flight().len()];
        stream.read_exact(&mut answer).expect(what);
        assert_eq!(answer, hello::server_flight(), "{what}");
    }

    /// Packets that left towards the recorder and carry payload.
    pub(crate) fn payload_out(&self) -> Vec<Seen> {
        let to = self.recorder.address;
        self.outside
            .matching(|seen| seen.to == to && !seen.payload.is_empty())
    }
}

/// A hello that is allowed at the recorder.
pub(crate) fn allowed() -> Vec<u8> {
    ClientHello::new(RECORDER.name).record()
}

/// A hello that no rule allows anywhere; [`EVIL_MARK`] is in it.
pub(crate) fn evil() -> Vec<u8> {
    ClientHello::new("evil.example").record()
}

/// Only [`evil`] hellos have it.
pub(crate) const EVIL_MARK: &[u8] = b"evil.example";

/// Takes a fresh connection from a first message to judged, and asserts an echo.
pub(crate) fn finish(tcp: &mut RawTcp<'_>, hello: &[u8]) {
    tcp.write(hello).unwrap();
    let flight = hello::server_flight().len();
    assert!(
        tcp.wait_bytes(flight).unwrap(),
        "no answer to an allowed hello"
    );
    tcp.write(&hello::client_finish()).unwrap();
    let all = flight + hello::client_finish().len();
    assert!(
        tcp.wait_bytes(all).unwrap(),
        "no echo on an allowed connection"
    );
}

/// Asserts that bytes come back on a judged connection.
pub(crate) fn assert_echo(tcp: &mut RawTcp<'_>, content: &[u8]) {
    let before = tcp.received.len();
    let record = hello::protected(content);
    tcp.write(&record).unwrap();
    assert!(
        tcp.wait_bytes(before + record.len()).unwrap(),
        "a judged connection does not continue"
    );
    assert_eq!(tcp.received[before..], record);
}

/// Far apart, and for some ports about to wrap.
pub(crate) fn isn(port: u16) -> u32 {
    u32::from(port).wrapping_mul(0x9e37_79b9) | 0x8000_0000
}
