//! Payload, FIN and RST of undecided flows: in which order they are looked at, and which are
//! held, passed, dropped or fatal.

use policy::{AppProto, Reason};

use crate::claim::Claim;
use crate::conclude::Facts;
use crate::decided::Fate;
use crate::detect::{Detected, detect};
use crate::env::Env;
use crate::flow::{FlowKey, Side};
use crate::inspector::Inspector;
use crate::judge::{rule_blind, ssh_candidates};
use crate::output::{Output, Verdict};
use crate::packet::Segment;
use crate::reassembly::Placed;
use crate::record::Category;
use crate::ruling::Ruling;
use crate::seq::Seq;
use crate::ssh;
use crate::stage::{Flow, Held, Stage};

impl Inspector {
    /// A packet of either side that is neither SYN nor SYN/ACK. `fault` is what its headers
    /// are refused for, if they are.
    pub(crate) fn segment(
        &mut self,
        env: &Env<'_>,
        token: u32,
        (key, side): (FlowKey, Side),
        segment: &Segment<'_>,
        fault: Option<Reason>,
    ) {
        let Some(flow) = self.table.take(&key) else {
            return self.stray(env, token, (key, side), segment, fault);
        };
        let Some(mut flow) = self.recheck(env, flow) else {
            return self.answer(token, Verdict::Drop);
        };
        if let Some(reason) = fault {
            self.answer(token, Verdict::Drop);
            return self.refuse_for(env, flow, side, reason);
        }
        if !flow.is_connected() {
            return self.early(env, token, flow, side, segment);
        }
        if matches!(flow.stage, Stage::Http(_)) {
            flow.deadline = self.http_deadline(env);
        }
        if segment.has_ack {
            self.acknowledge(&mut flow, side, segment.ack);
        }
        if segment.rst {
            return self.rst(env, token, flow, side, segment);
        }
        if segment.payload.is_empty() && !segment.fin {
            self.answer(token, Verdict::Pass);
            return self.table.put(flow);
        }
        self.place(env, token, flow, side, segment);
    }

    fn acknowledge(&self, flow: &mut Flow, side: Side, ack: Seq) {
        let half = flow.half_mut(side);
        if ack.since(half.ack) > 0 {
            half.ack = ack;
        }
        // Only plain HTTP goes on long enough for its judged bytes to have to be forgotten.
        if matches!(flow.stage, Stage::Http(_)) {
            let before = flow.half(side.other()).stream.at_start();
            let stream = &mut flow.half_mut(side.other()).stream;
            stream.acknowledged(ack);
            let forgotten = usize::try_from(stream.at_start().since(before)).unwrap_or(0);
            if let Stage::Http(http) = &mut flow.stage {
                http.forgotten(side.other(), forgotten);
            }
        }
    }

    /// Before the SYN/ACK there is nothing a client may send, and of the server only a reset
    /// that answers the SYN.
    fn early(
        &mut self,
        env: &Env<'_>,
        token: u32,
        flow: Box<Flow>,
        side: Side,
        segment: &Segment<'_>,
    ) {
        let refuses = side == Side::Server
            && segment.rst
            && segment.payload.is_empty()
            && segment.ack == flow.client.stream.expected();
        if refuses {
            self.answer(token, Verdict::Pass);
            return self.close(env, flow);
        }
        if side == Side::Client && matches!(flow.stage, Stage::AwaitingSynAck) {
            // Its SYN/ACK went another way.
            self.counters.asymmetric = self.counters.asymmetric.wrapping_add(1);
        }
        self.answer(token, Verdict::Drop);
        self.table.put(flow);
    }

    /// A packet of no flow we follow.
    fn stray(
        &mut self,
        env: &Env<'_>,
        token: u32,
        (key, side): (FlowKey, Side),
        segment: &Segment<'_>,
        fault: Option<Reason>,
    ) {
        let bare = segment.payload.is_empty() && fault.is_none();
        match self.decided.fate(&key, env.now.mono_ms) {
            Some(Fate::Judged { generation }) if fault.is_none() => {
                // Queued before the mark landed. Under another generation the mark is the
                // business of whoever re-judges live flows.
                let current = generation == env.policy.generation();
                self.answer(
                    token,
                    if current {
                        Verdict::Judged
                    } else {
                        Verdict::Pass
                    },
                );
            }
            Some(Fate::Closed) if bare => self.answer(token, Verdict::Pass),
            Some(Fate::Judged { .. } | Fate::Refused | Fate::Closed) => {
                self.answer(token, Verdict::Drop);
            }
            // No payload, nothing to judge: it ends a connection, or keeps one that will be
            // refused as soon as it says anything.
            None if bare && !segment.fin => self.answer(token, Verdict::Pass),
            None => {
                self.answer(token, Verdict::Drop);
                self.refuse_stray(env, (key, side), segment, fault.unwrap_or(Reason::TcpState));
            }
        }
    }

    /// Resets both ends of a connection whose beginning we have not seen, with the numbers of
    /// the one packet there is.
    pub(crate) fn refuse_stray(
        &mut self,
        env: &Env<'_>,
        (key, side): (FlowKey, Side),
        segment: &Segment<'_>,
        reason: Reason,
    ) {
        let (from, to) = match side {
            Side::Client => (key.client, key.server),
            Side::Server => (key.server, key.client),
        };
        if !segment.rst {
            // Bytes before these may have been held by whoever judged before us, so that neither
            // end expects these numbers.
            self.outputs.push_back(Output::Ending(key));
            self.reset(from, to, segment.seq, segment.ack);
            self.reset(to, from, segment.ack, segment.end());
        }
        let ruling = Ruling::refusal(env, key.client.ip(), reason);
        self.log(env, &key, Category::Client, &ruling, &Facts::default());
        self.decided.note(key, Fate::Refused, env.now.mono_ms);
    }

    /// A reset is believed when its number is exactly the next one (RFC 5961, section 3.2),
    /// and waits behind held data so that it cannot overtake it. Behind a message that is not complete it would wait for
    /// nothing, and the server keep a connection that no client has: that ends now.
    fn rst(
        &mut self,
        env: &Env<'_>,
        token: u32,
        mut flow: Box<Flow>,
        side: Side,
        segment: &Segment<'_>,
    ) {
        let half = flow.half_mut(side);
        if segment.payload.is_empty() && segment.seq == half.stream.released_to() {
            self.answer(token, Verdict::Pass);
            return self.close(env, flow);
        }
        if segment.payload.is_empty() && segment.seq == half.sent_to() {
            if side == Side::Client && matches!(flow.stage, Stage::AwaitingClient) {
                self.answer(token, Verdict::Drop);
                return self.refuse_for(env, flow, side, Reason::HelloIncomplete);
            }
            let half = flow.half_mut(side);
            let (start, end) = (segment.seq, segment.seq);
            half.hold(Held {
                token,
                start,
                end,
                fin: false,
                rst: true,
            });
            return self.table.put(flow);
        }
        self.answer(token, Verdict::Drop);
        self.table.put(flow);
    }

    fn place(
        &mut self,
        env: &Env<'_>,
        token: u32,
        mut flow: Box<Flow>,
        side: Side,
        segment: &Segment<'_>,
    ) {
        let end = segment
            .seq
            .plus(u32::try_from(segment.payload.len()).unwrap_or(u32::MAX));
        let cap = self.limits.bytes_per_direction;
        let half = flow.half_mut(side);
        let placed = half
            .stream
            .insert(segment.seq, segment.payload, segment.fin, cap);
        match placed {
            Placed::New => {
                let start = segment.seq;
                half.hold(Held {
                    token,
                    start,
                    end,
                    fin: segment.fin,
                    rst: false,
                });
                self.advance(env, flow, side);
            }
            Placed::Repeat if half.stream.is_released(end) => {
                self.answer(token, Verdict::Pass);
                self.table.put(flow);
            }
            Placed::Opaque => {
                half.closed |= segment.fin;
                self.answer(token, Verdict::Pass);
                self.keep(env, flow);
            }
            Placed::Old if half.stream.has_forgotten() => {
                self.answer(token, Verdict::Pass);
                self.table.put(flow);
            }
            Placed::Repeat | Placed::Old => {
                self.answer(token, Verdict::Drop);
                self.table.put(flow);
            }
            Placed::Outside => self.outside(env, token, flow, side, segment.seq),
            Placed::Conflict => {
                self.answer(token, Verdict::Drop);
                self.refuse_for(env, flow, side, Reason::TcpOverlap);
            }
            Placed::Straddles | Placed::AfterFin => {
                self.answer(token, Verdict::Drop);
                self.refuse_for(env, flow, side, Reason::TcpState);
            }
        }
    }

    /// What does not fit. In order it means that the first message does not fit; ahead of
    /// order, or once that message has passed, the sender repeats it.
    fn outside(&mut self, env: &Env<'_>, token: u32, flow: Box<Flow>, side: Side, seq: Seq) {
        self.answer(token, Verdict::Drop);
        let in_order = seq.since(flow.half(side).stream.expected()) <= 0;
        let first = match (&flow.stage, side) {
            (Stage::AwaitingClient, Side::Client) | (Stage::Http(_), Side::Client) => true,
            (Stage::Conversing(talk), Side::Server) => !talk.answered,
            _ => false,
        };
        if in_order && first {
            return self.refuse_for(env, flow, side, Reason::HelloTooBig);
        }
        self.table.put(flow);
    }

    /// Something new is held: does it complete anything?
    pub(crate) fn advance(&mut self, env: &Env<'_>, flow: Box<Flow>, side: Side) {
        let held = flow
            .client
            .held
            .len()
            .saturating_add(flow.server.held.len());
        if held > self.limits.segments_per_flow {
            return self.refuse_for(env, flow, side, Reason::HelloIncomplete);
        }
        // The table still counts the flow as it was; what is new in it is one packet.
        let now_bytes = flow.footprint().bytes;
        let with_it = |bytes: usize| {
            bytes
                .saturating_sub(flow.accounted.bytes)
                .saturating_add(now_bytes)
        };
        if with_it(self.table.bytes()) > self.limits.bytes
            || self.table.segments() >= self.limits.segments
        {
            return self.refuse_for(env, flow, side, Reason::TableFull);
        }
        let load = self.table.load(flow.key.client.ip());
        if with_it(load.bytes) > self.limits.bytes_per_client
            || load.segments >= self.limits.segments_per_client
        {
            return self.refuse_for(env, flow, side, Reason::ClientLimit);
        }
        match (&flow.stage, side) {
            (Stage::AwaitingClient, Side::Client) => self.client_spoke(env, flow),
            (Stage::AwaitingClient, Side::Server) => self.server_spoke_first(env, flow),
            (Stage::Conversing(_), _) => self.converse(env, flow, side),
            (Stage::Http(_), _) => self.advance_http(env, flow, side),
            _ => self.table.put(flow),
        }
    }

    fn client_spoke(&mut self, env: &Env<'_>, flow: Box<Flow>) {
        let stream = &flow.client.stream;
        if let Some(claim) = Claim::read(stream.contiguous()) {
            return self.claimed(env, flow, claim);
        }
        if stream.is_finished() && !stream.contiguous().is_empty() {
            return self.refuse_for(env, flow, Side::Client, Reason::HelloIncomplete);
        }
        if detect(stream.contiguous()) == Detected::NeedMore && !stream.contiguous().is_empty() {
            return self.barely_spoke(env, flow);
        }
        // A bare FIN, and nothing before it: nothing was said.
        let Some(flow) = self.flush(env, flow, Side::Client) else {
            return;
        };
        self.keep(env, flow);
    }

    /// Bytes that may yet become one protocol or another. Where any bytes may pass, a client
    /// that says no more than this is not made to wait for long.
    fn barely_spoke(&mut self, env: &Env<'_>, mut flow: Box<Flow>) {
        if rule_blind(env, &flow.key).is_allowed() {
            let soon = env.now.mono_ms.saturating_add(self.limits.lookup_ms).max(1);
            flow.deadline = flow.deadline.min(soon);
        }
        self.table.put(flow);
    }

    /// A server that speaks first: an SSH server may identify itself, whole lines and nothing
    /// else, when its address is bound to an `ssh` name of this client and port. Where any
    /// bytes may pass, anything else is judged by its address now. The rest waits.
    fn server_spoke_first(&mut self, env: &Env<'_>, mut flow: Box<Flow>) {
        let key = flow.key;
        let stream = &mut flow.server.stream;
        if stream.contiguous().is_empty() {
            let Some(flow) = self.flush(env, flow, Side::Server) else {
                return;
            };
            return self.keep(env, flow);
        }
        let is_ssh = {
            let begun = stream.contiguous();
            let prefix = begun.get(..4).unwrap_or(begun);
            b"SSH-".starts_with(prefix)
        };
        let blind = rule_blind(env, &key);
        if blind.is_allowed() && !is_ssh {
            let blind = blind.because(Reason::ProtocolUnknown);
            self.log(env, &key, Category::Client, &blind, &Facts::default());
            return self.hand_over(env, flow, Side::Server);
        }
        let (candidates, _) = ssh_candidates(env, &key);
        if candidates.is_empty() && !blind.is_allowed() {
            return self.table.put(flow);
        }
        let mut conversation = ssh::Conversation::new();
        match conversation.server(stream.contiguous()) {
            Ok(framed) => {
                let lines = usize::try_from(framed.safe).unwrap_or(0);
                let known = conversation.server_identification();
                stream.release_to(known.map_or(lines, |line| line.bytes));
                let Some(flow) = self.flush(env, flow, Side::Server) else {
                    return;
                };
                self.keep(env, flow);
            }
            Err(_) if blind.is_allowed() => {
                let blind = blind.because(Reason::ProtocolUnknown);
                self.log(env, &key, Category::Client, &blind, &Facts::default());
                self.hand_over(env, flow, Side::Server);
            }
            Err(reason) => {
                let ruling = Ruling::refusal(env, key.client.ip(), reason);
                let facts = Facts {
                    proto: AppProto::Ssh,
                    dhost: candidates
                        .first()
                        .map(|candidate| candidate.name.as_str().into()),
                    ..Facts::default()
                };
                self.refuse(env, flow, Category::Server, &ruling, &facts);
            }
        }
    }
}
