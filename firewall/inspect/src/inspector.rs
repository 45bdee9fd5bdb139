//! The surface of the engine.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use policy::Reason;

use crate::allowance::Allowances;
use crate::counters::Counters;
use crate::decided::Decided;
use crate::env::{Answer, Env, Sought};
use crate::flow::{FlowKey, Side};
use crate::limits::Limits;
use crate::misses::Misses;
use crate::output::{Class, Output, Verdict};
use crate::packet::{Body, Packet, Segment, options};
use crate::revisit::Backlog;
use crate::table::FlowTable;
use crate::unknown::UnknownClients;
use crate::waiting::Waiting;

/// Judges the packets of one queue.
///
/// Both directions of a flow must come to the same inspector. Call [`handle_packet`] for each
/// packet, [`handle_answer`] when a look-up has ended, [`handle_timeout`] when
/// [`poll_timeout`] says so, [`handle_policy`] right after the policy was swapped and
/// [`handle_backlog`] for as long as [`has_backlog`] says so, and after each of them take
/// [`poll_output`] until it is empty, and carry it out in that order.
///
/// [`handle_packet`]: Self::handle_packet
/// [`handle_answer`]: Self::handle_answer
/// [`handle_timeout`]: Self::handle_timeout
/// [`poll_timeout`]: Self::poll_timeout
/// [`handle_policy`]: Self::handle_policy
/// [`handle_backlog`]: Self::handle_backlog
/// [`has_backlog`]: Self::has_backlog
/// [`poll_output`]: Self::poll_output
#[derive(Debug)]
pub struct Inspector {
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) table: FlowTable,
    pub(crate) waiting: Waiting,
    pub(crate) decided: Decided,
    /// Flows of other protocols than TCP that are carried: one client's datagrams take no room from connections.
    pub(crate) carried: Decided,
    pub(crate) unknown: UnknownClients,
    pub(crate) allowances: Allowances,
    pub(crate) misses: Misses,
    /// Names asked for on behalf of held SYNs so far: whose turn it is.
    pub(crate) turn: usize,
    /// Flows that a new policy has still to judge, if there are any.
    pub(crate) backlog: Option<Backlog>,
    /// The `policy_id` of a generation, shared by its records.
    pub(crate) policy_id: Option<(u64, Arc<str>)>,
}

impl Inspector {
    /// An inspector that knows no flow.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            decided: Decided::new(limits.decided, limits.decided_ms),
            carried: Decided::new(limits.decided, limits.decided_ms),
            limits,
            counters: Counters::default(),
            outputs: VecDeque::new(),
            table: FlowTable::default(),
            waiting: Waiting::default(),
            unknown: UnknownClients::default(),
            allowances: Allowances::default(),
            misses: Misses::default(),
            turn: 0,
            backlog: None,
            policy_id: None,
        }
    }

    /// Takes in one packet. `packet` starts at the IP header and is the whole of it, GSO
    /// super-packets of up to 64 KiB included. `token` must not be in use by a packet that is
    /// still unanswered.
    pub fn handle_packet(&mut self, env: &Env<'_>, token: u32, class: Class, packet: &[u8]) {
        self.counters.packets = self.counters.packets.wrapping_add(1);
        let Some(packet) = Packet::read(packet) else {
            self.counters.unreadable = self.counters.unreadable.wrapping_add(1);
            return self.answer(token, Verdict::Drop);
        };
        let (key, side) = match class {
            Class::NonTcp => return self.other(env, token, &packet),
            Class::Kill => return self.kill(env, token, &packet),
            Class::Syn | Class::StaleSyn | Class::Original => (
                FlowKey {
                    client: packet.src_socket(),
                    server: packet.dst_socket(),
                },
                Side::Client,
            ),
            Class::SynAck | Class::Reply | Class::Admitted => (
                FlowKey {
                    client: packet.dst_socket(),
                    server: packet.src_socket(),
                },
                Side::Server,
            ),
        };
        let Body::Tcp(segment) = &packet.body else {
            // No TCP header to be read: nobody can be told, and the kernel calls it invalid.
            return self.other(env, token, &packet);
        };
        let fault = self.header_fault(&packet, side);
        self.tcp(env, token, class, (key, side), segment, fault);
    }

    /// What the headers alone are refused for.
    ///
    /// A packet with few hops left is a decoy: it would be judged here and die before the
    /// server. There is no better code for it than `tcp_state`. Only the client's are looked
    /// at, for the server's have come a long way. An option that the ruleset should have taken
    /// out was sent twice, which no TCP does.
    fn header_fault(&self, packet: &Packet<'_>, side: Side) -> Option<Reason> {
        let decoy = side == Side::Client && packet.ttl < self.limits.ttl_min;
        let more_than_tcp = match &packet.body {
            Body::Tcp(segment) if self.limits.plain_options => {
                !options::are_plain(segment.options, side, segment.syn)
            }
            Body::Tcp(_) | Body::Udp { .. } | Body::Icmp { .. } | Body::Other { .. } => false,
        };
        packet
            .fault
            .or_else(|| (decoy || more_than_tcp).then_some(Reason::TcpState))
    }

    fn tcp(
        &mut self,
        env: &Env<'_>,
        token: u32,
        class: Class,
        (key, side): (FlowKey, Side),
        segment: &Segment<'_>,
        fault: Option<Reason>,
    ) {
        if class == Class::Admitted && !self.admit(env, token, key, segment) {
            return;
        }
        let class = match (class, segment.syn) {
            (Class::Admitted, true) => Class::SynAck,
            (Class::Admitted, false) => Class::Reply,
            _ => class,
        };
        let is_syn = segment.syn && !segment.has_ack && !segment.rst && !segment.fin;
        match (class, fault) {
            (Class::Syn | Class::StaleSyn, None) if !is_syn => self.answer(token, Verdict::Drop),
            (Class::StaleSyn, _) => self.stale_syn(token, key, segment),
            (Class::Syn, Some(reason)) => self.unfit(env, token, key, segment, reason),
            (Class::Syn, None) => self.syn(env, token, key, segment),
            (Class::SynAck, None) if segment.syn && segment.has_ack => {
                self.syn_ack(env, token, key, segment);
            }
            // A SYN among the payload is none of the orders a connection is made in.
            (Class::Original | Class::Reply | Class::SynAck, None) if segment.syn => {
                self.answer(token, Verdict::Drop);
            }
            (Class::Original | Class::Reply | Class::SynAck, fault) => {
                self.segment(env, token, (key, side), segment, fault);
            }
            // Answered by `handle_packet`.
            (Class::Admitted | Class::NonTcp | Class::Kill, _) => {
                self.answer(token, Verdict::Drop);
            }
        }
    }

    /// Learns that a look-up has ended; the bindings have been updated already.
    pub fn handle_answer(&mut self, env: &Env<'_>, sought: &Sought, answer: Answer) {
        self.answered(env, sought, answer);
    }

    /// Learns that no inventory knows the address of an
    /// [`Output::UnknownClient`]: it is refused from now on, for a while.
    pub fn handle_no_such_client(&mut self, env: &Env<'_>, client: IpAddr) {
        self.unknown
            .no_such_client(client, env.now.mono_ms, &self.limits);
    }

    /// Learns that the kernel carries nothing of an [`Output::Unanswered`]: no source port is left for translation.
    pub fn handle_no_port(&mut self, env: &Env<'_>, flow: &FlowKey) {
        self.no_port(env, flow);
    }

    /// Learns that a new policy has just come into force. From here on a flow that was judged by
    /// another is judged again before any packet of its is let through; those that are silent are
    /// the backlog. However many flows there are, this looks at none.
    pub fn handle_policy(&mut self, env: &Env<'_>) {
        self.policy_changed(env);
    }

    /// Judges some flows of the backlog again, at most [`REJUDGED_AT_ONCE`](crate::REJUDGED_AT_ONCE); how many
    /// were looked at.
    pub fn handle_backlog(&mut self, env: &Env<'_>) -> usize {
        self.rejudge_some(env)
    }

    /// Whether there may be flows that the policy in force has not judged yet.
    #[must_use]
    pub const fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Ends whatever has waited too long.
    pub fn handle_timeout(&mut self, env: &Env<'_>) {
        self.timed_out(env);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next wanted, on the clock of
    /// [`Time::mono_ms`](crate::Time::mono_ms), if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.table.next_deadline()
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Running totals.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Undecided flows, for the metrics.
    #[must_use]
    pub fn undecided(&self) -> usize {
        self.table.len()
    }

    /// Payload bytes and packets held for undecided flows, for the metrics.
    #[must_use]
    pub const fn held(&self) -> (usize, usize) {
        (self.table.bytes(), self.table.segments())
    }
}
