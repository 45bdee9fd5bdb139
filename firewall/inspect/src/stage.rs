//! The life of one undecided flow.
//!
//! ```text
//! HeldSyn → AwaitingSynAck → AwaitingClient → AwaitingBinding → Conversing → (decided)
//!                                                            ↘ Http
//! ```
//!
//! A stage is consumed by value to make the next, so a flow cannot fall back, and the only
//! way to a judged flow leads through the answer of the server.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::claim::Claim;
use crate::flow::{FlowKey, Side};
use crate::http_flow::HttpFlow;
use crate::machine::Machine;
use crate::reassembly::Stream;
use crate::record::FlowRecord;
use crate::ruling::Ruling;
use crate::seq::Seq;
use crate::table::{Footprint, Place};
use crate::waiting::Lookups;

/// One undecided flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    /// Generation of the policy it was last judged by.
    pub(crate) generation: u64,
    /// When it has waited long enough, on the monotonic clock; never 0.
    pub(crate) deadline: u64,
    /// Its SYN was held, and a look-up opened the gate.
    pub(crate) rescued: bool,
    pub(crate) client: Half,
    pub(crate) server: Half,
    pub(crate) stage: Stage,
    /// What the table last accounted for.
    pub(crate) accounted: Footprint,
    /// Where the table has queued it.
    pub(crate) place: Option<Place>,
}

/// Where a flow stands.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The first SYN is held while the names that may belong to its address are looked up.
    HeldSyn { token: u32, lookups: Lookups },
    /// The SYN has passed.
    AwaitingSynAck,
    /// Both sequence numbers are known; the client's first message is not complete.
    AwaitingClient,
    /// It is complete, and a look-up may still bind its name to the address.
    AwaitingBinding { claim: Box<Claim>, lookups: Lookups },
    /// The client's message has passed; the server's answer, or the proof, is awaited.
    Conversing(Box<Conversing>),
    /// Plain HTTP: every request is judged, so the flow is never handed over.
    Http(Box<HttpFlow>),
    /// A stage was taken out to be worked on.
    Moving,
}

/// A flow whose client has been allowed.
#[derive(Debug)]
pub(crate) struct Conversing {
    pub(crate) machine: Machine,
    pub(crate) ruling: Ruling,
    /// Whether faults of the server are forgiven: an `address` rule or see-thru would have
    /// let any bytes pass.
    pub(crate) is_lenient: bool,
    pub(crate) rescued: bool,
    /// The server's first message has been judged and logged.
    pub(crate) answered: bool,
    /// Bytes of each direction the machine has read.
    pub(crate) read_client: usize,
    pub(crate) read_server: usize,
    pub(crate) protected_client: bool,
    pub(crate) protected_server: bool,
    /// The client's line, where it waits for the server's answer.
    pub(crate) session: Option<Arc<FlowRecord>>,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Half {
    pub(crate) stream: Stream,
    /// Packets without a verdict, in stream order.
    pub(crate) held: SmallVec<[Held; 2]>,
    /// The newest acknowledgement number this side has sent.
    pub(crate) ack: Seq,
    /// This side's FIN has been let through.
    pub(crate) closed: bool,
}

/// A packet without a verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) token: u32,
    pub(crate) start: Seq,
    /// The number after its last payload byte.
    pub(crate) end: Seq,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
}

impl Half {
    /// A direction whose SYN had number `isn`.
    pub(crate) fn new(isn: Seq) -> Self {
        Self {
            stream: Stream::new(isn.plus(1)),
            held: SmallVec::new(),
            ack: Seq(0),
            closed: false,
        }
    }

    /// Holds a packet, in stream order; of equals, the one that came first stays first.
    pub(crate) fn hold(&mut self, held: Held) {
        let at = self
            .held
            .iter()
            .rposition(|other| {
                let by_start = held.start.since(other.start);
                by_start > 0 || (by_start == 0 && held.end.since(other.end) >= 0)
            })
            .map_or(0, |at| at.saturating_add(1));
        self.held.insert(at, held);
    }

    /// The number after everything this side has sent as far as we know.
    pub(crate) fn sent_to(&self) -> Seq {
        let mut to = self.stream.expected();
        for held in &self.held {
            let end = held.end.plus(u32::from(held.fin));
            if end.since(to) > 0 {
                to = end;
            }
        }
        to
    }
}

impl Flow {
    pub(crate) fn new(
        key: FlowKey,
        isn: Seq,
        generation: u64,
        stage: Stage,
        deadline: u64,
    ) -> Self {
        Self {
            key,
            generation,
            deadline,
            rescued: false,
            client: Half::new(isn),
            server: Half::new(Seq(0)),
            stage,
            accounted: Footprint::default(),
            place: None,
        }
    }

    pub(crate) fn half(&self, side: Side) -> &Half {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    pub(crate) fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// What the flow takes up now.
    pub(crate) fn footprint(&self) -> Footprint {
        let held_syns = usize::from(matches!(self.stage, Stage::HeldSyn { .. }));
        let held = self
            .client
            .held
            .len()
            .saturating_add(self.server.held.len());
        let streams = self
            .client
            .stream
            .bytes()
            .saturating_add(self.server.stream.bytes());
        let buffered = match &self.stage {
            Stage::Conversing(talk) => talk.machine.buffered(),
            Stage::HeldSyn { .. }
            | Stage::AwaitingSynAck
            | Stage::AwaitingClient
            | Stage::AwaitingBinding { .. }
            | Stage::Http(_)
            | Stage::Moving => 0,
        };
        Footprint {
            bytes: streams.saturating_add(buffered),
            segments: held.saturating_add(held_syns),
            held_syns,
        }
    }

    /// Takes the stage out, to make the next one of it.
    pub(crate) fn take_stage(&mut self) -> Stage {
        std::mem::replace(&mut self.stage, Stage::Moving)
    }

    /// The look-ups it waits for.
    pub(crate) const fn lookups(&self) -> Option<&Lookups> {
        match &self.stage {
            Stage::HeldSyn { lookups, .. } | Stage::AwaitingBinding { lookups, .. } => {
                Some(lookups)
            }
            Stage::AwaitingSynAck
            | Stage::AwaitingClient
            | Stage::Conversing(_)
            | Stage::Http(_)
            | Stage::Moving => None,
        }
    }

    /// The same, to be changed.
    pub(crate) const fn lookups_mut(&mut self) -> Option<&mut Lookups> {
        match &mut self.stage {
            Stage::HeldSyn { lookups, .. } | Stage::AwaitingBinding { lookups, .. } => {
                Some(lookups)
            }
            Stage::AwaitingSynAck
            | Stage::AwaitingClient
            | Stage::Conversing(_)
            | Stage::Http(_)
            | Stage::Moving => None,
        }
    }

    /// Whether the SYN/ACK has been seen.
    pub(crate) const fn is_connected(&self) -> bool {
        !matches!(self.stage, Stage::HeldSyn { .. } | Stage::AwaitingSynAck)
    }
}
