//! Conversations under a virtual clock, with a wire that keeps what was let through.
//!
//! A [`World`] plays kernel and daemon: it hands packets in, gives each its one verdict, and
//! counts whatever the engine says. A [`Conn`] makes the packets of one connection.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::inventory::{self, Scope};
use policy::{Name, Reason, Snapshot};

use crate::{
    Answer, Bindings, Category, Certificate, Class, Env, FlowKey, FlowRecord, Inspector, Known,
    Limits, Outcome, Output, Query, Reset, Sought, Time, Verdict, Why,
};

mod certificates;
mod evasion;
mod evasion_message;
mod familiar;
mod gates;
mod leniency;
mod lifetime;
mod lookups;
mod nat_ports;
mod promises;
mod property;
mod protocols;
mod rejudge;
pub(crate) mod samples;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// 2026-11-22T00:00:00Z.
const EPOCH_MS: u64 = 1_795_305_600_000;

/// What the lab's policy is made of; one group, one client.
pub(crate) fn snapshot(
    rules: &[(&str, &str, &str)],
    preferences: &str,
    generation: u64,
) -> Snapshot {
    let mut text =
        format!("served = [\"10.0.0.0/8\", \"fd00::/8\"]\n[preferences]\n{preferences}\n");
    text.push_str("[[group]]\nid = \"web\"\n");
    for (description, protocol, ports) in rules {
        text.push_str(&format!(
            "[[group.rule]]\ndescription = \"{description}\"\nprotocol = \"{protocol}\"\nports = \
             \"{ports}\"\ncidr = \"198.51.100.0/24\"\n"
        ));
    }
    text.push_str("[[client]]\naddress = \"10.0.0.1\"\ninstance = \"web-1\"\ngroups = [\"web\"]\n");
    text.push_str("[[client]]\naddress = \"fd00::1\"\ninstance = \"web-1\"\ngroups = [\"web\"]\n");
    text.push_str("[[client]]\naddress = \"10.0.0.2\"\ninstance = \"web-2\"\ngroups = [\"web\"]\n");
    let draft = inventory::read(
        &text,
        Scope::Whole,
        &mut |_| Err("no lists here".to_owned()),
    )
    .unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    assert!(draft.faults.is_empty(), "{:?}", draft.faults);
    Snapshot::compile(draft, generation).unwrap()
}

/// TLS and SSH to `*.example.com` names, exact.
pub(crate) fn ordinary() -> Snapshot {
    snapshot(
        &[
            ("postern:tls:api.example.com,www.example.com", "tcp", "443"),
            ("postern:ssh:git.example.com", "tcp", "22"),
        ],
        "",
        1,
    )
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) bound: Vec<(Name, IpAddr)>,
    pub(crate) known: HashMap<Name, Known>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) is_history: bool,
    /// Until when every address is open for everybody, where that is known.
    pub(crate) open_until_ms: Option<u64>,
}

impl Bindings for Directory {
    fn is_bound(&self, name: &Name, addr: IpAddr, _now: Time) -> bool {
        self.bound.iter().any(|(n, a)| n == name && *a == addr)
    }

    fn names_of(&self, addr: IpAddr, _now: Time, each: &mut dyn FnMut(&Name)) {
        self.bound
            .iter()
            .filter(|(_, a)| *a == addr)
            .for_each(|(n, _)| each(n));
    }

    fn is_global(&self, addr: IpAddr) -> bool {
        !matches!(addr, IpAddr::V4(v4) if v4.is_private())
    }

    fn is_known(&self, name: &Name) -> Known {
        self.known.get(name).copied().unwrap_or(Known::Unasked)
    }

    fn opens(
        &self,
        _policy: &Snapshot,
        _client: policy::ClientRef,
        _to: (IpAddr, u16),
        now: Time,
    ) -> Option<bool> {
        self.open_until_ms.map(|until_ms| now.mono_ms <= until_ms)
    }

    fn is_current(&self, _name: &Name, _addr: IpAddr, _now: Time) -> bool {
        !self.is_history
    }

    fn certificate(&self, _name: &Name, _server: SocketAddr, _now: Time) -> Certificate {
        self.certificate.unwrap_or(Certificate::Asked)
    }
}

/// A packet that was let through.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) dst: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

/// Kernel, daemon and clock around one inspector.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) inspector: Inspector,
    pub(crate) policy: Arc<Snapshot>,
    pub(crate) directory: Directory,
    pub(crate) now: Time,
    pub(crate) in_flight: BTreeMap<u32, Vec<u8>>,
    pub(crate) verdicts: BTreeMap<u32, Verdict>,
    pub(crate) wire: Vec<Wire>,
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) resets: Vec<Reset>,
    pub(crate) queries: Vec<Query>,
    pub(crate) forgotten: Vec<FlowKey>,
    pub(crate) unknown: Vec<IpAddr>,
    pub(crate) unanswered: Vec<FlowKey>,
    pub(crate) certify: Vec<(Name, SocketAddr)>,
    /// Flows whose pairs became familiar.
    pub(crate) familiar: usize,
    next_token: u32,
}

impl World {
    pub(crate) fn new(policy: impl Into<Arc<Snapshot>>) -> Self {
        Self::with_limits(policy, Limits::default())
    }

    pub(crate) fn with_limits(policy: impl Into<Arc<Snapshot>>, limits: Limits) -> Self {
        let mut directory = Directory::default();
        for (n, addr) in [
            ("api.example.com", "203.0.113.5"),
            ("api.example.com", "2001:db8::5"),
            ("www.example.com", "203.0.113.5"),
            ("git.example.com", "203.0.113.22"),
            ("other.example.net", "203.0.113.5"),
        ] {
            directory.bound.push((name(n), addr.parse().unwrap()));
        }
        Self {
            inspector: Inspector::new(limits),
            policy: policy.into(),
            directory,
            now: Time {
                mono_ms: 1_000_000,
                unix_ms: EPOCH_MS,
            },
            in_flight: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            wire: Vec::new(),
            records: Vec::new(),
            resets: Vec::new(),
            queries: Vec::new(),
            forgotten: Vec::new(),
            unknown: Vec::new(),
            unanswered: Vec::new(),
            certify: Vec::new(),
            familiar: 0,
            next_token: 0,
        }
    }

    /// Calls into the inspector and takes out everything it wants done.
    pub(crate) fn call(&mut self, what: impl FnOnce(&mut Inspector, &Env<'_>)) {
        let env = Env {
            now: self.now,
            policy: &self.policy,
            bindings: &self.directory,
        };
        what(&mut self.inspector, &env);
        while let Some(output) = self.inspector.poll_output() {
            match output {
                Output::Verdict { token, verdict } => {
                    let packet = self.in_flight.remove(&token);
                    let packet = packet.unwrap_or_else(|| panic!("{token} answered twice"));
                    let is_familiar = verdict == Verdict::Familiar;
                    self.familiar += usize::from(is_familiar);
                    let verdict = if is_familiar {
                        Verdict::Judged
                    } else {
                        verdict
                    };
                    assert!(self.verdicts.insert(token, verdict).is_none());
                    if matches!(verdict, Verdict::Pass | Verdict::Judged) {
                        self.wire.push(read(&packet));
                    }
                }
                Output::Reset(reset) => self.resets.push(reset),
                Output::Forget(key) => self.forgotten.push(key),
                Output::Ending(_) => {}
                Output::Unanswered(key) => self.unanswered.push(key),
                Output::Query(query) => self.queries.push(query),
                Output::UnknownClient(addr) => self.unknown.push(addr),
                Output::Record(record) | Output::Session(record) => {
                    self.records.push(Arc::unwrap_or_clone(record));
                }
                Output::Claimed(_) => {}
                Output::Certify { name, server } => self.certify.push((name, server)),
            }
        }
    }

    pub(crate) fn packet(&mut self, class: Class, bytes: Vec<u8>) -> u32 {
        self.next_token += 1;
        let token = self.next_token;
        self.in_flight.insert(token, bytes.clone());
        self.call(|inspector, env| inspector.handle_packet(env, token, class, &bytes));
        token
    }

    pub(crate) fn verdict(&self, token: u32) -> Option<Verdict> {
        self.verdicts.get(&token).copied()
    }

    pub(crate) fn answer(&mut self, of: &str, answer: Answer) {
        let sought = Sought {
            name: name(of),
            ipv6: false,
        };
        self.call(|inspector, env| inspector.handle_answer(env, &sought, answer));
    }

    pub(crate) fn bind(&mut self, of: &str, addr: &str) {
        self.directory.bound.push((name(of), addr.parse().unwrap()));
    }

    pub(crate) fn adopt(&mut self, policy: Snapshot) {
        self.swap(policy);
        while self.inspector.has_backlog() {
            self.rejudge();
        }
    }

    /// Brings a policy into force and looks at no flow.
    pub(crate) fn swap(&mut self, policy: Snapshot) {
        self.policy = policy.into();
        self.call(Inspector::handle_policy);
    }

    /// Judges the next few flows of the backlog; how many were looked at.
    pub(crate) fn rejudge(&mut self) -> usize {
        let mut looked_at = 0;
        self.call(|inspector, env| looked_at = inspector.handle_backlog(env));
        looked_at
    }

    /// Lets time pass, with time-outs where they are due.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.now.mono_ms + ms;
        while let Some(due) = self.inspector.poll_timeout().filter(|due| *due <= until) {
            self.advance_to(due.max(self.now.mono_ms));
            self.call(Inspector::handle_timeout);
        }
        self.advance_to(until);
        self.call(Inspector::handle_timeout);
    }

    fn advance_to(&mut self, mono_ms: u64) {
        self.now.unix_ms += mono_ms - self.now.mono_ms;
        self.now.mono_ms = mono_ms;
    }

    /// The reason of the only refusal logged.
    pub(crate) fn refusal(&self) -> Option<Reason> {
        let mut reasons = self
            .records
            .iter()
            .filter_map(|record| match record.outcome {
                Outcome::Disallowed(reason) => Some(reason),
                Outcome::Allowed => None,
            });
        let reason = reasons.next();
        assert!(
            reasons.next().is_none(),
            "more than one refusal: {:?}",
            self.records
        );
        reason
    }

    pub(crate) fn line(&self, category: Category) -> Option<&FlowRecord> {
        self.records
            .iter()
            .find(|record| record.category == category)
    }

    /// What a receiver's TCP makes of the packets let through to `to`: in order, first copy
    /// wins.
    pub(crate) fn received(&self, to: SocketAddr, isn: u32) -> Vec<u8> {
        let at = |wire: &Wire| wire.seq.wrapping_sub(isn.wrapping_add(1)) as usize;
        let data = |wire: &&Wire| wire.dst == to && wire.flags & SYN == 0;
        let mut left: Vec<&Wire> = self.wire.iter().filter(data).collect();
        let mut bytes: Vec<u8> = Vec::new();
        // What has come in order is final, so the first copy of a byte is the one that counts.
        while let Some(next) = left.iter().position(|wire| at(wire) <= bytes.len()) {
            let wire = left.remove(next);
            let known = bytes.len() - at(wire);
            bytes.extend_from_slice(wire.payload.get(known..).unwrap_or_default());
        }
        bytes
    }

    /// Payload bytes let through to `to`, in whatever order.
    pub(crate) fn payload_to(&self, to: SocketAddr) -> usize {
        self.wire
            .iter()
            .filter(|wire| wire.dst == to)
            .map(|wire| wire.payload.len())
            .sum()
    }
}

/// One connection; offsets count from the first byte after the SYN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conn {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) isn: u32,
    pub(crate) server_isn: u32,
}

impl Conn {
    pub(crate) fn new(client: &str, server: &str) -> Self {
        Self {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            // Both wrap within their first packets.
            isn: u32::MAX - 100,
            server_isn: u32::MAX - 50,
        }
    }

    pub(crate) fn tls() -> Self {
        Self::new("10.0.0.1:40000", "203.0.113.5:443")
    }

    pub(crate) fn tls_v6() -> Self {
        Self::new("[fd00::1]:40000", "[2001:db8::5]:443")
    }

    pub(crate) fn ssh() -> Self {
        Self::new("10.0.0.1:40022", "203.0.113.22:22")
    }

    pub(crate) fn syn(&self, world: &mut World) -> u32 {
        world.packet(
            Class::Syn,
            tcp(self.client, self.server, self.isn, 0, SYN, b""),
        )
    }

    pub(crate) fn syn_ack(&self, world: &mut World) -> u32 {
        let ack = self.isn.wrapping_add(1);
        let bytes = tcp(
            self.server,
            self.client,
            self.server_isn,
            ack,
            SYN | ACK,
            b"",
        );
        world.packet(Class::SynAck, bytes)
    }

    /// The server's answer to a SYN that only the kernel has seen.
    pub(crate) fn admitted(&self, world: &mut World, flags: u8) -> u32 {
        let ack = self.isn.wrapping_add(1);
        let bytes = tcp(self.server, self.client, self.server_isn, ack, flags, b"");
        world.packet(Class::Admitted, bytes)
    }

    /// A connection whose handshake has passed.
    pub(crate) fn open(self, world: &mut World) -> Self {
        let syn = self.syn(world);
        assert_eq!(
            world.verdict(syn),
            Some(Verdict::Pass),
            "{:?}",
            world.records
        );
        let syn_ack = self.syn_ack(world);
        assert_eq!(world.verdict(syn_ack), Some(Verdict::Pass));
        self
    }

    pub(crate) fn client_bytes(&self, at: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let seq = self.isn.wrapping_add(1).wrapping_add(at);
        tcp(
            self.client,
            self.server,
            seq,
            self.server_isn.wrapping_add(1),
            flags,
            payload,
        )
    }

    pub(crate) fn server_bytes(&self, at: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let seq = self.server_isn.wrapping_add(1).wrapping_add(at);
        tcp(
            self.server,
            self.client,
            seq,
            self.isn.wrapping_add(1),
            flags,
            payload,
        )
    }

    pub(crate) fn send(&self, world: &mut World, at: u32, payload: &[u8]) -> u32 {
        world.packet(Class::Original, self.client_bytes(at, PSH | ACK, payload))
    }

    pub(crate) fn send_flags(&self, world: &mut World, at: u32, flags: u8, payload: &[u8]) -> u32 {
        world.packet(Class::Original, self.client_bytes(at, flags, payload))
    }

    pub(crate) fn reply(&self, world: &mut World, at: u32, payload: &[u8]) -> u32 {
        world.packet(Class::Reply, self.server_bytes(at, PSH | ACK, payload))
    }

    pub(crate) fn reply_flags(&self, world: &mut World, at: u32, flags: u8, payload: &[u8]) -> u32 {
        world.packet(Class::Reply, self.server_bytes(at, flags, payload))
    }

    /// What the server's application has been given.
    pub(crate) fn at_server(&self, world: &World) -> Vec<u8> {
        world.received(self.server, self.isn)
    }

    pub(crate) fn at_client(&self, world: &World) -> Vec<u8> {
        world.received(self.client, self.server_isn)
    }
}

/// One TCP packet, IPv4 or IPv6 by its addresses; checksums are the kernel's business.
pub(crate) fn tcp(
    src: SocketAddr,
    dst: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + payload.len());
    segment.extend_from_slice(&src.port().to_be_bytes());
    segment.extend_from_slice(&dst.port().to_be_bytes());
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    ip(src.ip(), dst.ip(), 6, 64, &segment)
}

pub(crate) fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram = Vec::new();
    datagram.extend_from_slice(&src.port().to_be_bytes());
    datagram.extend_from_slice(&dst.port().to_be_bytes());
    datagram.extend_from_slice(&len.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    ip(src.ip(), dst.ip(), 17, 64, &datagram)
}

pub(crate) fn ip(src: IpAddr, dst: IpAddr, protocol: u8, ttl: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
            let mut header = vec![
                0x45, 0, total[0], total[1], 0, 0, 0x40, 0, ttl, protocol, 0, 0,
            ];
            header.extend_from_slice(&src.octets());
            header.extend_from_slice(&dst.octets());
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let len = u16::try_from(body.len()).unwrap().to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, len[0], len[1], protocol, ttl];
            header.extend_from_slice(&src.octets());
            header.extend_from_slice(&dst.octets());
            header
        }
        _ => panic!("mixed families"),
    };
    packet.extend_from_slice(body);
    packet
}

fn read(bytes: &[u8]) -> Wire {
    let v4 = bytes[0] >> 4 == 4;
    let (header, dst): (usize, IpAddr) = if v4 {
        (
            20,
            IpAddr::from(<[u8; 4]>::try_from(&bytes[16..20]).unwrap()),
        )
    } else {
        (
            40,
            IpAddr::from(<[u8; 16]>::try_from(&bytes[24..40]).unwrap()),
        )
    };
    let protocol = if v4 { bytes[9] } else { bytes[6] };
    if protocol != 6 {
        let dst = SocketAddr::new(dst, 0);
        return Wire {
            dst,
            seq: 0,
            flags: 0,
            payload: Vec::new(),
        };
    }
    let tcp = &bytes[header..];
    Wire {
        dst: SocketAddr::new(dst, u16::from_be_bytes([tcp[2], tcp[3]])),
        seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        flags: tcp[13],
        payload: tcp[20..].to_vec(),
    }
}
