//! What is said about a flow once one of its sides has been judged.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::{AppProto, Reason, Transport};

/// Which side's message a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// The client's message, or a flow refused before it sent one.
    Client,
    /// The server's.
    Server,
}

impl Category {
    /// The value of `cat`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Whether the message was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was; `reason` in the log is the group that allowed it.
    Allowed,
    /// It was not, for this reason.
    Disallowed(Reason),
}

/// See-thru as it bears on one flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeeThruRecord {
    /// Whether only see-thru let the flow pass.
    pub exerted: bool,
    /// The group that carries it; `%default` for the whole deployment.
    pub gid: Arc<str>,
    /// Days until it ends, today not counted.
    pub days_remaining: u32,
}

/// What a plain HTTP request said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpRecord {
    /// Method.
    pub method: Box<str>,
    /// Path without its query.
    pub path: Box<str>,
    /// `User-Agent`.
    pub user_agent: Box<str>,
    /// Status code of the answer, once there is one.
    pub code: Option<u16>,
}

/// One flow line: every field of the flow log that the engine knows.
///
/// Text that comes from the wire has been through [`escape`](crate::escape::escape): printable
/// ASCII of at most 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// When, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Which side was judged.
    pub category: Category,
    /// How.
    pub outcome: Outcome,
    /// The name claimed, bound or asked for, as far as there was one.
    pub dhost: Option<Arc<str>>,
    /// Sender of the message, before translation; the server on `server` lines. The port of an
    /// ICMP echo is its identifier.
    pub src: SocketAddr,
    /// Receiver of the message; the client on `server` lines.
    pub dst: SocketAddr,
    /// What it was carried by.
    pub transport: Transport,
    /// Application protocol as recognised.
    pub proto: AppProto,
    /// Its version, such as `1.3` or `2.0`; empty when there is none.
    pub proto_v: &'static str,
    /// Instance behind the client's address.
    pub instance: Option<Arc<str>>,
    /// Group whose rule allowed the flow.
    pub gid: Option<Arc<str>>,
    /// That rule.
    pub rule: Option<Arc<str>>,
    /// Generation of the policy that judged.
    pub generation: u64,
    /// Fingerprint of that policy's content.
    pub policy_id: Arc<str>,
    /// Whether the client offered (client line) or the server chose (server line) a
    /// post-quantum key exchange.
    pub pqc: bool,
    /// Whether a look-up made for this very flow is what bound its address.
    pub rescued: bool,
    /// See-thru, when in force for this flow; on client lines only.
    pub see_thru: Option<SeeThruRecord>,
    /// Why enforcement would have refused what see-thru let pass.
    pub would_reason: Option<Reason>,
    /// The request, with protocol `http` only.
    pub http: Option<HttpRecord>,
    /// SSH, which claims no name: the names beside `dhost` that the flow was judged by.
    pub also: Option<Arc<[Arc<str>]>>,
    /// Refusals of this client that were not logged since its last logged one.
    pub suppressed: u64,
    /// Whether the policy that judged wants a line of it (`flow_log_verbosity`). A flow without an `allowed` line has no
    /// `end` line either.
    pub logged: bool,
}

impl FlowRecord {
    /// Whether the message was let through.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }
}
