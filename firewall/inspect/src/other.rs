//! What is not an ordinary TCP segment: other protocols, and packets of flows to be ended.

use policy::{AppProto, Reason};

use crate::conclude::Facts;
use crate::decided::Fate;
use crate::env::Env;
use crate::flow::FlowKey;
use crate::gate::Door;
use crate::inspector::Inspector;
use crate::output::Verdict;
use crate::packet::{Body, Packet, Segment};
use crate::record::Category;
use crate::ruling::{Question, Ruling, is_off_limits, rule};

/// HTTP/3; refused under its own name because clients fall back from it at once.
const QUIC_PORT: u16 = 443;

/// What a packet without a TCP header speaks, what it is refused for, and how.
const fn speaks(packet: &Packet<'_>) -> (AppProto, Reason, Verdict) {
    match &packet.body {
        Body::Udp {
            dst_port: QUIC_PORT,
            ..
        } => (AppProto::Quic, Reason::Quic, Verdict::Reject),
        Body::Udp { .. } => (AppProto::Udp, Reason::Udp, Verdict::Reject),
        Body::Icmp { .. } => (AppProto::Icmp, Reason::Icmp, Verdict::Reject),
        Body::Tcp(_) => (AppProto::Unknown, Reason::Internal, Verdict::Drop),
        Body::Other { .. } => (AppProto::Unknown, Reason::IpProtocol, Verdict::Drop),
    }
}

impl Inspector {
    /// The first packet of a flow that is not TCP. There is nothing to read in it: an
    /// `address` rule or see-thru passes the flow, everything else is refused.
    pub(crate) fn other(&mut self, env: &Env<'_>, token: u32, packet: &Packet<'_>) {
        let key = FlowKey {
            client: packet.src_socket(),
            server: packet.dst_socket(),
        };
        let client = packet.src;
        let (proto, reason, verdict) = speaks(packet);
        let facts = Facts {
            transport: packet.transport(),
            proto,
            ..Facts::default()
        };
        let own = if is_off_limits(packet.dst) {
            Some(Reason::AddressNotGlobal)
        } else {
            None
        };
        if let Some(fault) = packet.fault.or(own) {
            self.answer(token, Verdict::Drop);
            let ruling = Ruling::refusal(env, client, fault);
            return self.log(env, &key, Category::Client, &ruling, &facts);
        }
        let fate = Fate::Judged {
            generation: env.policy.generation(),
        };
        let protocol = packet.transport().number(client.is_ipv6());
        let now_ms = env.now.mono_ms;
        // Queued before the mark landed: resolvers ask for both kinds of address at once.
        if self.carried.fate_of(protocol, &key, now_ms) == Some(fate) {
            return self.answer(token, Verdict::Judged);
        }
        let known = env.policy.client(client).is_some();
        if !known && matches!(self.unknown_door(env, client), Door::Wait) {
            return self.answer(token, Verdict::Drop);
        }
        let question = Question {
            client,
            server: key.server,
            transport: packet.transport(),
            proto,
            name: None,
            bound: false,
        };
        let ruling = rule(env, &question);
        let ruling = if known {
            ruling.because(reason)
        } else {
            ruling
        };
        self.answer(
            token,
            if ruling.is_allowed() {
                Verdict::Judged
            } else {
                verdict
            },
        );
        if ruling.is_allowed() {
            self.counters.judged = self.counters.judged.wrapping_add(1);
            self.carried.note_of(protocol, key, fate, now_ms);
        }
        self.log(env, &key, Category::Client, &ruling, &facts);
    }

    /// Whether see-thru is in force for the whole deployment.
    pub(crate) fn is_see_thru(&self, env: &Env<'_>) -> bool {
        env.policy.deployment_see_thru(env.now.date()).is_some()
    }

    /// A packet of a flow that is to be ended: the challenge ACK to a probe (RFC 5961, section
    /// 4), or whatever either side sends. Its numbers reset both ends. The daemon, which marked
    /// the flow, is the one who logs its end.
    pub(crate) fn kill(&mut self, env: &Env<'_>, token: u32, packet: &Packet<'_>) {
        self.answer(token, Verdict::Drop);
        let Body::Tcp(segment) = &packet.body else {
            return;
        };
        let (from, to) = (packet.src_socket(), packet.dst_socket());
        let there = FlowKey {
            client: from,
            server: to,
        };
        let back = FlowKey {
            client: to,
            server: from,
        };
        for key in [there, back] {
            if let Some(flow) = self.table.take(&key) {
                self.abandon(flow);
            }
            self.decided.note(key, Fate::Refused, env.now.mono_ms);
        }
        // Bare SYNs carry no acknowledgement to learn the numbers from.
        if segment.rst || !segment.has_ack {
            return;
        }
        self.reset(from, to, segment.seq, segment.ack);
        self.reset(to, from, segment.ack, segment.end());
    }

    /// A TCP packet that is refused for its headers before any flow is made of it.
    pub(crate) fn unfit(
        &mut self,
        env: &Env<'_>,
        token: u32,
        key: FlowKey,
        segment: &Segment<'_>,
        reason: Reason,
    ) {
        self.answer(token, Verdict::Drop);
        if segment.syn && !segment.has_ack {
            self.reset(key.server, key.client, crate::seq::Seq(0), segment.end());
        }
        let ruling = Ruling::refusal(env, key.client.ip(), reason);
        self.log(env, &key, Category::Client, &ruling, &Facts::default());
    }
}
