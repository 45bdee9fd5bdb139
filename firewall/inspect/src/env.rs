//! What the caller brings to every call: the time, the policy and what DNS has told us.

use std::net::{IpAddr, SocketAddr};

use policy::{ClientRef, Date, Name, Snapshot};

/// A moment, read once by the caller and used for the whole call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Milliseconds on a clock that never goes back; every deadline is on this one.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch, UTC; for log lines and see-thru dates only.
    pub unix_ms: u64,
}

impl Time {
    /// The calendar day, UTC.
    #[must_use]
    pub fn date(self) -> Date {
        Date::from_unix_ms(self.unix_ms)
    }
}

/// What is known of a name's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Never looked up, or forgotten since.
    Unasked,
    /// The first look-up of a name that has just entered the policy is under way.
    Priming,
    /// At least one look-up has brought addresses.
    Answered,
    /// The last look-up brought none.
    Failed,
}

/// What is known of the certificate a server shows for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing, and nobody has asked lately.
    Unasked,
    /// Nothing yet: somebody is asking, or must not right now.
    Asked,
    /// It is of this name, by an authority that is trusted.
    Valid,
    /// It is not.
    Invalid,
    /// None could be seen, or no more servers of this name may be asked within the hour.
    Unseen,
}

/// Which names belong to which addresses, as far as the witness knows.
///
/// Read on the packet path: an implementation must not block.
pub trait Bindings {
    /// Whether `name` resolved to `addr` recently enough.
    fn is_bound(&self, name: &Name, addr: IpAddr, now: Time) -> bool;
    /// Calls `each` with every name bound to `addr`, in any order.
    fn names_of(&self, addr: IpAddr, now: Time, each: &mut dyn FnMut(&Name));
    /// Whether `addr` may be bound at all: global, or listed in `allow_private_answers`.
    fn is_global(&self, addr: IpAddr) -> bool;
    /// How far the look-ups of `name` have come.
    fn is_known(&self, name: &Name) -> Known;
    /// Whether an address is bound to a name that `client` may reach on a port under `policy`, if
    /// that is known without asking the policy about every name of the address.
    fn opens(
        &self,
        _policy: &Snapshot,
        _client: ClientRef,
        _to: (IpAddr, u16),
        _now: Time,
    ) -> Option<bool> {
        None
    }
    /// Whether the last answer about `name` is older than its time to live: until then it is the
    /// same for everybody who asks this resolver.
    fn is_stale(&self, _name: &Name, _now: Time) -> bool {
        true
    }
    /// Whether the answers about `name` differ from each other, so that another may bring more.
    fn varies(&self, _name: &Name) -> bool {
        false
    }
    /// Whether `addr` is in an answer about `name` whose time to live has not ended: otherwise it is known from history
    /// only, and may be somebody else's by now.
    fn is_current(&self, _name: &Name, _addr: IpAddr, _now: Time) -> bool {
        true
    }
    /// What the certificate witness knows of `server` under `name`.
    fn certificate(&self, _name: &Name, _server: SocketAddr, _now: Time) -> Certificate {
        Certificate::Asked
    }
}

/// The surroundings of one call into the [`Inspector`](crate::Inspector).
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The time of this call; never earlier than that of the call before.
    pub now: Time,
    /// The policy in force.
    pub policy: &'a Snapshot,
    /// What names resolve to.
    pub bindings: &'a dyn Bindings,
}

impl std::fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("now", &self.now)
            .field("generation", &self.policy.generation())
            .finish_non_exhaustive()
    }
}

/// The addresses of one name in one family: what a look-up on behalf of a packet is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sought {
    /// The name, always one the policy mentions.
    pub name: Name,
    /// IPv6 rather than IPv4: the family the packet goes to.
    pub ipv6: bool,
}

/// How a look-up that was asked for with a [`Query`](crate::Query) ended, or how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There are addresses so far, in the bindings already; the look-up goes on. Whoever waited for
    /// one of them goes on at once, and nobody is refused.
    Partial,
    /// There are addresses, new or not; the bindings hold them already.
    Resolved,
    /// It has ended with addresses, and the name has more than could be learnt in time. Whoever
    /// waits for one of those is dropped silently and may come back with its retransmission.
    Unsettled,
    /// No addresses: the name does not exist, or nobody answered.
    Failed,
    /// Not asked: the deployment has used up its look-ups. Whoever waits is dropped silently and
    /// may come back with its retransmission.
    OverBudget,
    /// Not asked on behalf of this client, which has used up its own look-ups: its flows are
    /// dropped silently and may come back. Those of others have asked for themselves.
    Spent(IpAddr),
}
