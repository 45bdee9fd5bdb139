//! What is asked about one flow, and the answer.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::{AppProto, ClientRef, Date, HostKeyPin, Name, Reason, Transport};

/// One flow as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub client: ClientRef,
    /// The protocol of the IP header.
    pub transport: Transport,
    /// What the flow speaks.
    pub proto: AppProto,
    /// The name the client claims. For SSH, which claims none, a name bound to the destination.
    pub name: Option<&'a Name>,
    /// Whether the destination is bound to that name.
    pub bound: bool,
    /// The destination address.
    pub dst: IpAddr,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
    /// Today, UTC.
    pub date: Date,
}

/// Allow or refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The flow may continue.
    Allow,
    /// The flow ends here.
    Refuse(Reason),
}

/// The answer for one flow, and everything its log lines say about policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The verdict.
    pub outcome: Outcome,
    /// The group and rule that allow the flow, see-thru included; gid `%default` and an empty rule
    /// when that is the deployment's see-thru.
    pub by: Option<(&'a str, &'a str)>,
    /// The see-thru in force for this flow, whether or not it was needed.
    pub see_thru: Option<SeeThru<'a>>,
    /// What enforcement would have said, when only see-thru or `address_mismatch = observe` let the
    /// flow pass.
    pub would_reason: Option<Reason>,
    /// Whether another rule would have decided, had the destination been bound to the name: a look-up
    /// is worth its while.
    pub binding_would_help: bool,
    /// The host keys that the allowing rules accept; any key when empty.
    ///
    /// Rules add up: one rule that lists the name without a pin accepts any key.
    pub pins: Cow<'a, [HostKeyPin]>,
}

impl Decision<'_> {
    /// Whether the flow may continue.
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allow
    }
}

/// A see-thru that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeeThru<'a> {
    /// The group whose rule it is; `%default` for the deployment's.
    pub gid: &'a str,
    /// Whole days left: 0 on the last day.
    pub days_remaining: u32,
    /// Whether nothing else let the flow pass.
    pub exerted: bool,
}

/// What a bare TCP SYN may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SynGate {
    /// No rule speaks for this port: refuse now.
    Closed(Reason),
    /// The destination must be bound to a name that this client may reach on this port.
    Exact,
    /// A pattern, a see-thru, an `address` rule that holds the destination, or `address_mismatch =
    /// observe` opens this port: the TCP handshake may pass.
    Open,
}
