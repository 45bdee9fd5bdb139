//! Flows the kernel carries: remembered from their verdict to their end.
//!
//! One thread. It writes the `end` line when conntrack says a flow is over, and ends the
//! flows that a new policy no longer allows. Flows judged before a restart are found in the
//! kernel's table and checked as far as their addresses go.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use inspect::{FlowRecord, Outcome};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use policy::preferences::{FlowLogVerbosity, OnPolicyChange};
use policy::{AppProto, Ask, Date, Name, Reason, Snapshot, SynGate, Transport};
use thiserror::Error;

use crate::clock::unix_ms;
use crate::conntrack::{Conntrack, DestroyListener, Entry, MarkFilter, TcpState, Tuple};
use crate::flowlog::{EndRecord, FlowLog};
use crate::marks;
use crate::netlink::NetlinkError;
use crate::raw::{RawError, RawSender, Segment, SegmentKind};
use crate::tally::Tally;
use crate::wake::{self, Mailbox, Sender};

/// What this thread is told.
#[derive(Debug)]
pub enum FlowEvent {
    /// A flow was allowed; its `client` record.
    Allowed(Box<FlowRecord>),
    /// A new policy is in force and no thread judges by the old one: end what it refuses, then
    /// say how many.
    Rejudge(Arc<Snapshot>, SyncSender<usize>),
    /// End.
    Stop,
}

/// The thread, to be stopped in order.
#[derive(Debug)]
pub struct FlowThread {
    events: Sender<FlowEvent>,
    live: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// Why flows could not be followed.
#[derive(Debug, Error)]
pub enum FlowsError {
    /// The connection table cannot be read.
    #[error("opening the connection table")]
    Conntrack(#[from] NetlinkError),
    /// Flows cannot be probed.
    #[error("opening raw sockets")]
    Raw(#[from] RawError),
    /// No thread or descriptor to be had.
    #[error("starting the flow thread")]
    Thread(#[source] io::Error),
}

/// What a flow thread starts from.
#[derive(Clone, Debug)]
pub struct FlowSettings {
    /// Where ends go.
    pub log: FlowLog,
    /// Where losses are counted.
    pub tally: Arc<Tally>,
}

/// Starts following flows. The mailbox exists before the thread, so that queue threads that
/// start first lose nothing.
///
/// # Errors
/// When the kernel's table cannot be opened or no thread be started.
pub fn start(settings: FlowSettings) -> Result<(Sender<FlowEvent>, FlowThread), FlowsError> {
    let (events, mailbox) =
        wake::mailbox(EVENTS_MAX).map_err(|error| FlowsError::Thread(error.into()))?;
    let live = Arc::new(AtomicU64::new(0));
    let mut follower = Follower {
        mailbox,
        listener: DestroyListener::open()?,
        conntrack: Conntrack::open()?,
        raw: RawSender::open()?,
        settings,
        flows: HashMap::new(),
        live: Arc::clone(&live),
    };
    follower.find_orphans()?;
    let thread = std::thread::Builder::new()
        .name("flows".to_owned())
        .spawn(move || follower.run())
        .map_err(FlowsError::Thread)?;
    Ok((
        events.clone(),
        FlowThread {
            events,
            live,
            thread,
        },
    ))
}

impl FlowThread {
    /// Flows the kernel carries now.
    pub fn live(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.live)
    }

    /// Ends the thread; flows go on.
    pub fn stop(self) {
        while !self.events.send(FlowEvent::Stop) && !self.thread.is_finished() {
            std::thread::yield_now();
        }
        // A panic has aborted the process; there is no result to look at.
        drop(self.thread.join());
    }
}

/// A flow by protocol and its ends as the client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    protocol: u8,
    client: SocketAddr,
    server: SocketAddr,
}

#[derive(Debug)]
struct Flow {
    /// `None` for a flow that was judged before this daemon started.
    record: Option<Box<FlowRecord>>,
    ending: bool,
}

struct Follower {
    mailbox: Mailbox<FlowEvent>,
    listener: DestroyListener,
    conntrack: Conntrack,
    raw: RawSender,
    settings: FlowSettings,
    flows: HashMap<Key, Flow>,
    live: Arc<AtomicU64>,
}

impl Follower {
    fn run(mut self) {
        loop {
            self.wait();
            if !self.take_events() {
                break;
            }
            self.take_ends();
            let live = u64::try_from(self.flows.len()).unwrap_or(u64::MAX);
            self.live.store(live, Ordering::Relaxed);
        }
    }

    fn wait(&self) {
        let mut watched = [
            PollFd::new(self.mailbox.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        wake::wait(&mut watched, PollTimeout::from(IDLE_MS));
    }

    fn take_events(&mut self) -> bool {
        let events: Vec<FlowEvent> = self.mailbox.take().collect();
        for event in events {
            match event {
                FlowEvent::Allowed(record) => {
                    let flow = Flow {
                        record: Some(record),
                        ending: false,
                    };
                    let key = flow.record.as_deref().map(key_of);
                    let key = key.filter(|key| !is_unmatched(key.protocol));
                    if let Some(key) = key
                        && self.flows.len() < FLOWS_MAX
                    {
                        self.flows.insert(key, flow);
                    } else {
                        self.settings.tally.count_flow_forgotten();
                    }
                }
                FlowEvent::Rejudge(policy, done) => {
                    let ended = self.rejudge(&policy);
                    match done.try_send(ended) {
                        // Whoever asked may have given up waiting.
                        Ok(()) | Err(_) => {}
                    }
                    self.rejudge_unknown(&policy);
                }
                FlowEvent::Stop => return false,
            }
        }
        true
    }

    fn take_ends(&mut self) {
        let mut ended = Vec::new();
        match self.listener.receive(|entry| ended.push(entry)) {
            Ok(report) if report.overrun => {
                self.settings.tally.count_conntrack_overrun();
                self.compare_with_table();
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "receiving the ends of flows"),
        }
        for entry in ended {
            self.end(&entry);
        }
    }

    /// Writes the end line of a flow that had an allowed line.
    fn end(&mut self, entry: &Entry) {
        let key = Key {
            protocol: entry.original.protocol,
            client: entry.original.source,
            server: entry.original.destination,
        };
        let Some(Flow {
            record: Some(record),
            ..
        }) = self.flows.remove(&key)
        else {
            return;
        };
        let stop_ms = entry.timestamps.stop_ns / 1_000_000;
        let idle_ms = idle_at_end_ms(entry);
        let ended_ms = if stop_ms == 0 { unix_ms() } else { stop_ms }.saturating_sub(idle_ms);
        let started_ms = match entry.timestamps.start_ns / 1_000_000 {
            0 => record.unix_ms,
            start_ms => start_ms,
        };
        self.settings.log.end(Box::new(EndRecord {
            flow: *record,
            unix_ms: ended_ms,
            bytes_out: entry.out.bytes,
            bytes_in: entry.back.bytes,
            packets_out: entry.out.packets,
            packets_in: entry.back.packets,
            duration_ms: ended_ms.saturating_sub(started_ms),
        }));
    }

    /// Finds flows that ended while their event was lost. Their counters are lost with it.
    fn compare_with_table(&mut self) {
        let mut present = HashSet::new();
        let dumped = self.conntrack.dump(None, |entry| {
            present.insert(Key {
                protocol: entry.original.protocol,
                client: entry.original.source,
                server: entry.original.destination,
            });
        });
        if dumped.is_err() {
            // The next overrun, or the next policy, asks again.
            return;
        }
        let before = self.flows.len();
        self.flows.retain(|key, _| present.contains(key));
        for _ in self.flows.len()..before {
            self.settings.tally.count_flow_forgotten();
        }
    }

    /// Ends what the policy refuses among the flows that the kernel carries and nobody here
    /// remembers: a full mailbox or an event out of order must not make a flow immune.
    fn rejudge_unknown(&mut self, policy: &Snapshot) {
        if policy.preferences().on_policy_change == OnPolicyChange::Keep {
            return;
        }
        let known: HashSet<Key> = self.flows.keys().copied().collect();
        if let Err(error) = self.find_orphans() {
            tracing::error!(%error, "looking for forgotten flows");
            return;
        }
        let date = Date::from_unix_ms(unix_ms());
        let refused: Vec<Key> = self
            .flows
            .iter()
            .filter(|(key, flow)| !known.contains(key) && !is_allowed(policy, key, flow, date))
            .map(|(key, _)| *key)
            .collect();
        for key in &refused {
            self.kill(key, policy);
        }
    }

    /// Takes in the flows that the kernel carries and that are not known here: those from before
    /// our time.
    fn find_orphans(&mut self) -> Result<(), NetlinkError> {
        let judged = MarkFilter {
            value: marks::VERDICT_JUDGED,
            mask: marks::VERDICT_MASK | marks::CT_KILL,
        };
        let flows = &mut self.flows;
        let dumped = self.conntrack.dump(Some(judged), |entry| {
            let key = Key {
                protocol: entry.original.protocol,
                client: entry.original.source,
                server: entry.original.destination,
            };
            flows.entry(key).or_insert(Flow {
                record: None,
                ending: false,
            });
        });
        match dumped {
            // What the dump missed is not re-judged at a change, and ends by itself.
            Ok(()) | Err(NetlinkError::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends every flow the policy refuses; returns how many.
    fn rejudge(&mut self, policy: &Snapshot) -> usize {
        if policy.preferences().on_policy_change == OnPolicyChange::Keep {
            return 0;
        }
        let date = Date::from_unix_ms(unix_ms());
        let refused: Vec<Key> = self
            .flows
            .iter()
            .filter(|(key, flow)| !flow.ending && !is_allowed(policy, key, flow, date))
            .map(|(key, _)| *key)
            .collect();
        for key in &refused {
            self.kill(key, policy);
        }
        refused.len()
    }

    /// Marks a flow to be ended and asks its server for the numbers to reset it with.
    fn kill(&mut self, key: &Key, policy: &Snapshot) {
        let tuple = Tuple {
            protocol: key.protocol,
            source: key.client,
            destination: key.server,
        };
        match self
            .conntrack
            .set_mark(&tuple, marks::CT_KILL, marks::CT_KILL)
        {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::error!(%error, ?key, "ending a flow"),
        }
        if let Some(flow) = self.flows.get_mut(key) {
            flow.ending = true;
            if let Some(record) = &flow.record
                && policy.preferences().flow_log_verbosity != FlowLogVerbosity::None
            {
                self.settings.log.flow(Box::new(ended_by(policy, record)));
            }
        }
        if key.protocol != TCP {
            return;
        }
        let probe = Segment {
            source: key.client,
            destination: key.server,
            sequence: PROBE_SEQUENCE,
            kind: SegmentKind::Probe,
        };
        if let Err(error) = self.raw.send(&probe) {
            // It ends at the next packet of either side instead.
            tracing::debug!(%error, "probing a flow that is to end");
        }
    }
}

/// The line that says why a live flow was ended.
fn ended_by(policy: &Snapshot, record: &FlowRecord) -> FlowRecord {
    FlowRecord {
        unix_ms: unix_ms(),
        outcome: Outcome::Disallowed(Reason::PolicyChanged),
        gid: None,
        rule: None,
        generation: policy.generation(),
        policy_id: Arc::from(policy.policy_id()),
        rescued: false,
        see_thru: None,
        would_reason: None,
        ..record.clone()
    }
}

/// Whether a policy lets a live flow go on. Its address was bound to its name when it was
/// judged; that is not asked again.
fn is_allowed(policy: &Snapshot, key: &Key, flow: &Flow, date: Date) -> bool {
    if policy.deployment_see_thru(date).is_some() {
        return true;
    }
    let Some(client) = policy.client(key.client.ip()) else {
        return false;
    };
    let (dst, port) = (key.server.ip(), key.server.port());
    let transport = match key.protocol {
        TCP => Transport::Tcp,
        UDP => Transport::Udp,
        ICMP | ICMPV6 => Transport::Icmp,
        other => Transport::Other(other),
    };
    let record = flow.record.as_deref();
    if record.is_none() && transport == Transport::Tcp {
        // Its name is not known any more.
        let gate = policy.syn_gate(client, port, dst, date);
        return !matches!(gate, SynGate::Closed(_));
    }
    let name = record
        .and_then(|record| record.dhost.as_ref())
        .and_then(|name| Name::parse(name.as_bytes()).ok());
    // What is not TCP was judged by its ends alone, and can be again.
    let proto = match (record, transport) {
        (Some(record), _) => record.proto,
        (None, Transport::Udp) if port == QUIC_PORT => AppProto::Quic,
        (None, Transport::Udp) => AppProto::Udp,
        (None, Transport::Icmp) => AppProto::Icmp,
        (None, Transport::Tcp | Transport::Other(_)) => AppProto::Unknown,
    };
    let ask = Ask {
        client,
        transport,
        proto,
        name: name.as_ref(),
        bound: true,
        dst,
        port,
        date,
    };
    policy.decide(&ask).is_allowed()
}

/// How long the entry lay idle before it was removed: the whole time-out of its last state.
///
/// The table keeps a closed flow for a while (`nf_conntrack_tcp_timeout_*`, which the sysctl
/// plan shortens); a duration that included that would be wrong by minutes.
fn idle_at_end_ms(entry: &Entry) -> u64 {
    let closing = match entry.tcp_state {
        Some(TcpState::TimeWait | TcpState::Close | TcpState::LastAck) => CLOSING_MS,
        Some(
            TcpState::SynSent
            | TcpState::SynReceived
            | TcpState::Established
            | TcpState::FinWait
            | TcpState::CloseWait
            | TcpState::Other(_),
        )
        | None => return 0,
    };
    let left_ms = u64::try_from(entry.timeout.as_millis()).unwrap_or(u64::MAX);
    closing.saturating_sub(left_ms)
}

fn key_of(record: &FlowRecord) -> Key {
    let protocol = match record.transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
        Transport::Icmp if record.src.is_ipv6() => ICMPV6,
        Transport::Icmp => ICMP,
        Transport::Other(number) => number,
    };
    debug_assert!(record.outcome == Outcome::Allowed);
    Key {
        protocol,
        client: record.src,
        server: record.dst,
    }
}

/// Protocols whose ports conntrack reads and the engine does not: DCCP, SCTP, UDP-Lite. Their
/// records could not be matched with an entry; they are found in the kernel's table instead.
const fn is_unmatched(protocol: u8) -> bool {
    matches!(protocol, 33 | 132 | 136)
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// HTTP/3, which the engine tells from other UDP.
const QUIC_PORT: u16 = 443;
const ICMPV6: u8 = 58;
/// Any number will do: a live server answers a SYN in its window or out of it with a challenge
/// ACK (RFC 5961, section 4.2).
const PROBE_SEQUENCE: u32 = 1;
/// Time-out of the closing states as the sysctl plan sets it.
const CLOSING_MS: u64 = 10_000;
/// Allowed flows that may wait to be remembered.
const EVENTS_MAX: usize = 1 << 16;
/// Flows remembered; about 600 bytes each.
const FLOWS_MAX: usize = 1 << 20;
const IDLE_MS: u16 = 1_000;

#[cfg(test)]
mod tests;
