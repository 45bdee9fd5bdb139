//! Judges a capture: what would have been allowed, and why not.
//!
//! A capture holds no packet marks, so the class of a packet is derived here from the order in
//! which packets come, and what names resolve to is learnt from the DNS answers in the capture
//! (or everything is taken as bound). Look-ups are answered at once with what has been learnt
//! so far. Packets to and from port 53 are evidence, not flows. The network the capture shows
//! did not wait for us: what follows a refusal is skipped.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::{Name, Snapshot};

use crate::env::{Answer, Bindings, Env, Known, Time};
use crate::flow::FlowKey;
use crate::inspector::Inspector;
use crate::limits::Limits;
use crate::output::{Class, Output, Verdict};
use crate::packet::{Body, Packet, Segment};
use crate::record::{FlowRecord, Outcome};

mod dns;
#[cfg(test)]
mod tests;

pub use dns::{Resolved, read_answer};

const DNS_PORT: u16 = 53;
/// Echo requests (RFC 792; RFC 4443, section 4.1): the only ICMP that begins anything.
const ECHO: [u8; 2] = [8, 128];

/// How a capture is judged.
#[derive(Clone, Copy, Debug)]
pub struct ReplayOptions {
    /// Take every destination as an address of whatever name is claimed for it.
    pub bound_everywhere: bool,
    /// Which addresses may be bound at all.
    pub is_global: fn(IpAddr) -> bool,
}

/// What the capture's own DNS answers bind.
#[derive(Debug)]
struct Learnt {
    options: ReplayOptions,
    addresses: HashMap<Name, HashSet<IpAddr>>,
    names: HashMap<IpAddr, BTreeSet<Name>>,
    /// Stands in for the names of an address when everything is bound.
    exact: Vec<Name>,
}

impl Bindings for Learnt {
    fn is_bound(&self, name: &Name, addr: IpAddr, _now: Time) -> bool {
        self.options.bound_everywhere
            || self
                .addresses
                .get(name)
                .is_some_and(|known| known.contains(&addr))
    }

    fn names_of(&self, addr: IpAddr, _now: Time, each: &mut dyn FnMut(&Name)) {
        if self.options.bound_everywhere {
            self.exact.iter().for_each(each);
        } else if let Some(names) = self.names.get(&addr) {
            names.iter().for_each(each);
        }
    }

    fn is_global(&self, addr: IpAddr) -> bool {
        self.options.bound_everywhere || (self.options.is_global)(addr)
    }

    fn is_known(&self, name: &Name) -> Known {
        let known = self.options.bound_everywhere || self.addresses.contains_key(name);
        if known {
            Known::Answered
        } else {
            Known::Unasked
        }
    }
}

/// One connection of the capture.
#[derive(Clone, Copy, Debug)]
struct Seen {
    isn: u32,
    answered: bool,
    /// Its verdict is out: the rest of it is skipped.
    over: bool,
}

/// Packets in, one after the other; flow records out.
#[derive(Debug)]
pub struct Replay {
    inspector: Inspector,
    policy: Arc<Snapshot>,
    learnt: Learnt,
    connections: HashMap<FlowKey, Seen>,
    others: HashSet<(u8, SocketAddr, SocketAddr)>,
    records: Vec<FlowRecord>,
    now: Time,
    skipped: u64,
}

impl Replay {
    /// A replay under `policy`.
    #[must_use]
    pub fn new(policy: Arc<Snapshot>, options: ReplayOptions) -> Self {
        // Where the capture was taken is unknown, so the hops left say nothing, and no ruleset
        // has cleaned the options.
        let limits = Limits {
            ttl_min: 0,
            plain_options: false,
            refusals_logged_per_s: u32::MAX,
            ..Limits::default()
        };
        let learnt = Learnt {
            options,
            addresses: HashMap::new(),
            names: HashMap::new(),
            exact: policy.exact_names().cloned().collect(),
        };
        Self {
            inspector: Inspector::new(limits),
            policy,
            learnt,
            connections: HashMap::new(),
            others: HashSet::new(),
            records: Vec::new(),
            now: Time::default(),
            skipped: 0,
        }
    }

    /// Takes the next packet, from its IP header on; link-layer padding after it is cut off.
    /// `unix_ms` is its time stamp; one earlier than the packet before counts as that.
    pub fn packet(&mut self, unix_ms: u64, bytes: &[u8]) {
        let unix_ms = unix_ms.max(self.now.unix_ms);
        self.now = Time {
            mono_ms: unix_ms.max(1),
            unix_ms,
        };
        self.call(Inspector::handle_timeout);
        let Some(bytes) = trimmed(bytes) else {
            self.skipped = self.skipped.saturating_add(1);
            return;
        };
        let Some(packet) = Packet::read(bytes) else {
            self.skipped = self.skipped.saturating_add(1);
            return;
        };
        let ports = [packet.src_socket().port(), packet.dst_socket().port()];
        if ports.contains(&DNS_PORT) {
            self.learn(bytes, &packet);
            return;
        }
        match &packet.body {
            Body::Tcp(segment) => self.tcp(&packet, segment, bytes),
            Body::Udp { .. } | Body::Icmp { .. } | Body::Other { .. } => self.other(&packet, bytes),
        }
    }

    /// Takes out the records so far.
    pub fn take_records(&mut self) -> Vec<FlowRecord> {
        std::mem::take(&mut self.records)
    }

    /// Connections of which no verdict is out, because the capture ends first.
    pub fn undecided(&self) -> impl Iterator<Item = &FlowKey> {
        self.connections
            .iter()
            .filter(|(_, seen)| !seen.over)
            .map(|(key, _)| key)
    }

    /// Packets cut short by the capture, or no IP at all.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Binds what a DNS answer says, as far as its name is one the policy mentions.
    fn learn(&mut self, bytes: &[u8], packet: &Packet<'_>) {
        let Body::Udp {
            src_port: DNS_PORT, ..
        } = packet.body
        else {
            return;
        };
        let header = match packet.src {
            IpAddr::V4(_) => 20_usize,
            IpAddr::V6(_) => 40,
        };
        let Some(message) = bytes.get(header.saturating_add(8)..) else {
            return;
        };
        let Some(resolved) = read_answer(message) else {
            return;
        };
        for addr in resolved.addresses {
            self.learnt
                .addresses
                .entry(resolved.name.clone())
                .or_default()
                .insert(addr);
            self.learnt
                .names
                .entry(addr)
                .or_default()
                .insert(resolved.name.clone());
        }
    }

    fn tcp(&mut self, packet: &Packet<'_>, segment: &Segment<'_>, bytes: &[u8]) {
        let there = FlowKey {
            client: packet.src_socket(),
            server: packet.dst_socket(),
        };
        let back = FlowKey {
            client: there.server,
            server: there.client,
        };
        if segment.syn && !segment.has_ack {
            return self.syn(there, segment.seq.0, bytes);
        }
        let is_reply = !self.connections.contains_key(&there)
            && (self.connections.contains_key(&back) || there.client.port() < there.server.port());
        let key = if is_reply { back } else { there };
        let seen = self.connections.entry(key).or_insert(Seen {
            isn: 0,
            answered: false,
            over: false,
        });
        if seen.over {
            return;
        }
        let is_syn_ack = segment.syn && segment.has_ack;
        seen.answered |= is_syn_ack;
        let class = match (is_syn_ack, is_reply) {
            (true, _) => Class::SynAck,
            (false, true) => Class::Reply,
            (false, false) => Class::Original,
        };
        self.hand_in(key, class, bytes);
    }

    fn syn(&mut self, key: FlowKey, isn: u32, bytes: &[u8]) {
        let known = self.connections.get(&key).copied();
        let is_repeat = known.is_some_and(|seen| seen.isn == isn && !seen.answered);
        if known.is_some_and(|seen| is_repeat && seen.over) {
            return;
        }
        if known.is_some() && !is_repeat {
            // The kernel would have the entry deleted and wait for the retransmission.
            self.hand_in(key, Class::StaleSyn, bytes);
        }
        self.connections.insert(
            key,
            Seen {
                isn,
                answered: false,
                over: false,
            },
        );
        self.hand_in(key, Class::Syn, bytes);
    }

    fn other(&mut self, packet: &Packet<'_>, bytes: &[u8]) {
        let (src, dst) = (packet.src_socket(), packet.dst_socket());
        let forwarded = match dst.ip() {
            IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unicast_link_local(),
        };
        let header = if src.is_ipv4() { 20 } else { 40 };
        let begins = match &packet.body {
            Body::Icmp { .. } => bytes.get(header).is_some_and(|kind| ECHO.contains(kind)),
            Body::Tcp(_) | Body::Udp { .. } | Body::Other { .. } => true,
        };
        let protocol = match &packet.body {
            Body::Tcp(_) => 6,
            Body::Udp { .. } => 17,
            Body::Icmp { .. } => 1,
            Body::Other { protocol, .. } => *protocol,
        };
        let is_reply = self.others.contains(&(protocol, dst, src));
        if forwarded && begins && !is_reply && self.others.insert((protocol, src, dst)) {
            self.hand_in(
                FlowKey {
                    client: src,
                    server: dst,
                },
                Class::NonTcp,
                bytes,
            );
        }
    }

    /// Gives one packet to the inspector and settles whatever it asks for.
    fn hand_in(&mut self, key: FlowKey, class: Class, bytes: &[u8]) {
        let first = self.call(|inspector, env| inspector.handle_packet(env, 0, class, bytes));
        let mut over = first.over;
        if first.unknown {
            // There is no inventory to ask: the client is nobody, and its SYN is tried again.
            let client = key.client.ip();
            self.call(|inspector, env| inspector.handle_no_such_client(env, client));
            let again = self.call(|inspector, env| inspector.handle_packet(env, 0, class, bytes));
            over |= again.over;
        }
        if let Some(seen) = self.connections.get_mut(&key) {
            seen.over |= over;
        }
    }

    fn call(&mut self, what: impl FnOnce(&mut Inspector, &Env<'_>)) -> Came {
        let env = Env {
            now: self.now,
            policy: &self.policy,
            bindings: &self.learnt,
        };
        let mut came = Came::default();
        what(&mut self.inspector, &env);
        while let Some(output) = self.inspector.poll_output() {
            match output {
                Output::Verdict {
                    verdict: Verdict::Judged | Verdict::Familiar,
                    ..
                } => came.over = true,
                Output::Verdict { .. }
                | Output::Reset(_)
                | Output::Forget(_)
                | Output::Unanswered(_)
                | Output::Ending(_)
                | Output::Certify { .. } => {}
                Output::UnknownClient(_) => came.unknown = true,
                Output::Query(query) => {
                    let known = self.learnt.is_known(&query.sought.name) == Known::Answered;
                    let answer = if known {
                        Answer::Resolved
                    } else {
                        Answer::Failed
                    };
                    self.inspector.handle_answer(&env, &query.sought, answer);
                }
                // A capture is shown in full.
                Output::Session(_) => {}
                Output::Record(record) | Output::Claimed(record) => {
                    let refused = matches!(record.outcome, Outcome::Disallowed(_));
                    came.over |= refused;
                    let (src, dst) = (record.src, record.dst);
                    for key in [
                        FlowKey {
                            client: src,
                            server: dst,
                        },
                        FlowKey {
                            client: dst,
                            server: src,
                        },
                    ] {
                        if let Some(seen) = self.connections.get_mut(&key).filter(|_| refused) {
                            seen.over = true;
                        }
                    }
                    self.records.push(Arc::unwrap_or_clone(record));
                }
            }
        }
        came
    }
}

/// What a call has brought.
#[derive(Clone, Copy, Debug, Default)]
struct Came {
    over: bool,
    unknown: bool,
}

/// The packet without what the link layer put after it; `None` when the capture cut it short.
fn trimmed(bytes: &[u8]) -> Option<&[u8]> {
    let field = |at: usize| {
        let high = bytes.get(at)?;
        let low = bytes.get(at.checked_add(1)?)?;
        Some(usize::from(u16::from_be_bytes([*high, *low])))
    };
    let total = match bytes.first()? >> 4 {
        4 => field(2)?,
        6 => field(4)?.checked_add(40)?,
        _ => return None,
    };
    bytes.get(..total)
}
