//! What the [`Inspector`](crate::Inspector) wants done.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::Name;

use crate::env::Sought;
use crate::flow::FlowKey;
use crate::record::FlowRecord;

/// Which rule of the kernel's ruleset queued a packet; taken from its packet mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A bare SYN whose conntrack entry is new.
    Syn,
    /// A bare SYN on a conntrack entry that is not new.
    StaleSyn,
    /// A SYN/ACK from the server.
    SynAck,
    /// The server's answer, SYN/ACK or reset, to a SYN that the kernel let through by itself because its pair was
    /// familiar ([`Verdict::Familiar`]).
    Admitted,
    /// Client to server: payload, FIN or RST.
    Original,
    /// Server to client: payload, FIN or RST.
    Reply,
    /// The first packet of a flow that is not TCP.
    NonTcp,
    /// A packet of a flow that is to be ended: the challenge ACK to a probe, or whatever
    /// either side sends next.
    Kill,
}

/// The answer on one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let this packet through and keep watching the flow.
    Pass,
    /// Let this packet through and have the kernel carry the rest of the flow.
    Judged,
    /// As [`Verdict::Judged`]; moreover the kernel may let SYNs of this client to this server and port through by
    /// itself for [`FAMILIAR_MS`](crate::FAMILIAR_MS), if they have nothing in them but who and where, and until the
    /// policy changes: the gates will be open to them.
    Familiar,
    /// Discard this packet.
    Drop,
    /// Discard this packet and have the kernel tell the sender by ICMP; never used for TCP.
    Reject,
}

/// A RST with the ACK flag, to be sent from a raw socket.
///
/// Addresses and ports are those of the flow before translation, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reset {
    /// Whom the reset claims to come from.
    pub src: SocketAddr,
    /// Whom it is for.
    pub dst: SocketAddr,
    /// Sequence number: exactly what `dst` expects next (RFC 5961, section 3.2).
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
}

/// A name somebody should resolve now, and tell us with
/// [`handle_answer`](crate::Inspector::handle_answer).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Which addresses of which name.
    pub sought: Sought,
    /// The client whose look-up budget this is charged to.
    pub client: IpAddr,
    /// What waits for the answer.
    pub why: Why,
}

/// What waits for a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// A SYN towards an address no reachable name is bound to: the likeliest names, few questions.
    Gate,
    /// The same SYN a moment later, of a client that does not scan: the other names, and more of
    /// the addresses of names that rotate.
    Search,
    /// A claim of this very name towards an address it is not bound to.
    Claim,
}

/// One thing to do, in the order given.
#[derive(Clone, Debug)]
pub enum Output {
    /// Answer the packet with this token. Every token gets exactly one answer.
    Verdict {
        /// The token given to [`handle_packet`](crate::Inspector::handle_packet).
        token: u32,
        /// The answer.
        verdict: Verdict,
    },
    /// Send a reset.
    Reset(Reset),
    /// Mark this flow's conntrack entry as one that is being ended: every packet of it comes as
    /// [`Class::Kill`] from then on. Comes before resets whose numbers are not certain: a careful
    /// receiver answers those with the right ones (RFC 5961, section 3.2).
    Ending(FlowKey),
    /// This flow's SYN, sent again, was let through again. Where the kernel has no entry of the first, it found no port
    /// to translate it to: say so with [`handle_no_port`](crate::Inspector::handle_no_port).
    Unanswered(FlowKey),
    /// Delete this flow's conntrack entry, so that a SYN retransmission starts afresh.
    Forget(FlowKey),
    /// Resolve a name.
    Query(Query),
    /// A source inside the served ranges that no inventory lists: look it up at once.
    /// De-duplicated and at most ten a second.
    UnknownClient(IpAddr),
    /// A flow was allowed under a name, and nothing is known of the certificate its server shows.
    Certify {
        /// The name.
        name: Name,
        /// The server.
        server: SocketAddr,
    },
    /// Log a flow line.
    Record(Arc<FlowRecord>),
    /// A client's claim was allowed while `flow_log_verbosity` is `sessions`. To be remembered like
    /// any other; its line is the [`Output::Session`] that follows when the server has answered, or
    /// when the flow ends without that. A flow that is refused after all has its refusal's line.
    Claimed(Arc<FlowRecord>),
    /// Log the one line of a flow: the client's claim with what the server chose.
    Session(Arc<FlowRecord>),
}
