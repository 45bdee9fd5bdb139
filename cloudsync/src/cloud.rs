//! What a cloud says, before anybody judges it, and what a cloud does with logs.
//!
//! A provider reads; [`crate::assemble`] understands. So every cloud is one function from its
//! API to a [`Reading`], and what an annotation means is written once.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ipc::record::Stream;
use ipnet::IpNet;
use policy::Draft;
use policy::annotation::{ListReference, Standing};

mod found;

pub(crate) use found::Found;

/// Everything a reading of the cloud found, in no particular order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    /// Who has which addresses.
    pub(crate) interfaces: Vec<Interface>,
    /// Rules with a description, of the groups in use.
    pub(crate) rules: Vec<DescribedRule>,
    /// Groups in use, with rules or without.
    pub(crate) groups: BTreeSet<String>,
    /// Networks that are served.
    pub(crate) served: Vec<IpNet>,
    /// What could not be read.
    pub(crate) troubles: Vec<Trouble>,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interface {
    /// The cloud's id of it.
    pub(crate) id: String,
    /// The instance it is attached to, as logs show it; the interface's id when there is none.
    pub(crate) instance: String,
    /// Addresses, as prefixes of full length, and delegated prefixes.
    pub(crate) nets: Vec<IpNet>,
    /// Ids of its groups.
    pub(crate) groups: Vec<String>,
}

/// One rule of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DescribedRule {
    /// The group it is in.
    pub(crate) gid: String,
    /// Its own id.
    pub(crate) rule: String,
    /// Whether it can allow anything.
    pub(crate) standing: Standing,
    /// The protocol, as the cloud writes it: `tcp`, `udp`, `-1`, `icmp`, a number.
    pub(crate) protocol: String,
    /// First and last port, as the cloud writes them: -1 for none or all.
    pub(crate) ports: (i32, i32),
    /// The destination, where it is a prefix.
    pub(crate) cidr: Option<IpNet>,
    /// What the author wrote.
    pub(crate) description: String,
}

/// An object that could not be read, or not wholly, while the rest could. Its words stay the same
/// while the trouble does: a change of them is published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Trouble {
    /// The object: a group, an account.
    pub(crate) object: String,
    /// What is wrong, who is concerned, and what would mend it.
    pub(crate) detail: String,
}

/// What a provider hands over: AWS and GCP a reading, the file provider a whole policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To be assembled. One that says what the last one said may be that one.
    Reading(Rc<Reading>),
    /// Assembled already.
    Draft(Box<Draft>),
}

/// A source of policy. Both methods may run at the same time: a new client does not wait for the
/// reading under way.
pub(crate) trait Cloud {
    /// Reads everything, page by page, and hands over all of it or nothing.
    async fn read(&self) -> Result<Answer, CloudError>;

    /// Looks for the interfaces that have these addresses, with the rules of groups that `known`,
    /// the last reading, has not; `None` when nobody has any of them.
    async fn look_up(
        &self,
        addresses: &[IpAddr],
        known: &Reading,
    ) -> Result<Option<Found>, CloudError>;

    /// Whether a look-up finds every address that a reading finds. Where it does not, an address it
    /// did not find is nobody's only once the next reading has not found it either.
    fn finds_every_address(&self, _known: &Reading) -> bool {
        true
    }

    /// Calls that one reading takes, most used API first, for the poll interval.
    fn calls_per_reading(&self) -> u32;
}

/// Where documents are kept beside the rules: the preferences and the external lists.
pub(crate) trait Store {
    /// The document of this name; `None` when there is none.
    async fn preferences(&self, name: &str) -> Result<Option<String>, CloudError>;

    /// The body of an external list; one that does not exist is [`CloudErrorKind::Missing`].
    async fn list(&self, reference: &ListReference) -> Result<String, CloudError>;
}

/// What went wrong with a call to the cloud, and what that means for the next one.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {kind}: {detail}")]
pub(crate) struct CloudError {
    /// The call, with its page: `DescribeSecurityGroupRules, page 3`.
    pub(crate) call: String,
    /// What it means.
    pub(crate) kind: CloudErrorKind,
    /// In the cloud's words.
    pub(crate) detail: String,
}

/// Kinds of failure that an operator tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloudErrorKind {
    /// Too many requests.
    Throttled,
    /// Credentials missing, wrong or expired.
    Credentials,
    /// The credentials are good and may not do this.
    Denied,
    /// Server trouble, no connection, no answer in time.
    Unavailable,
    /// An answer that stops half way, or leaves out what must be there.
    Incomplete,
    /// The cloud does not like the request.
    Refused,
    /// What was asked about does not exist.
    Missing,
    /// Two answers of one reading contradict each other.
    Inconsistent,
}

impl fmt::Display for CloudErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throttled => "throttled",
            Self::Credentials => "credentials",
            Self::Denied => "not permitted",
            Self::Unavailable => "unavailable",
            Self::Incomplete => "incomplete answer",
            Self::Refused => "refused",
            Self::Missing => "does not exist",
            Self::Inconsistent => "answers contradict each other",
        })
    }
}

/// One event for the log service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEvent {
    /// Milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// Where in the stream's spool it begins, `SEGMENT-OFFSET`: the same when it is sent again, and
    /// no other line's.
    pub(crate) place: String,
    /// The line, without its new line.
    pub(crate) message: String,
}

/// What the service did with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Acknowledged {
    /// Events it will not keep, for their age or their form.
    pub(crate) rejected: usize,
}

/// A log service.
pub(crate) trait LogSink {
    /// What one batch may hold.
    fn limits(&self) -> BatchLimits;

    /// Sends one batch, sorted by time, to the stream of one appliance, creating what is absent.
    async fn put(
        &self,
        stream: Stream,
        appliance: &str,
        events: &[LogEvent],
    ) -> Result<Acknowledged, CloudError>;
}

/// What one batch may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    /// Events.
    pub(crate) events: usize,
    /// Bytes of all messages and [`BatchLimits::event_overhead`] for each.
    pub(crate) bytes: usize,
    /// Bytes the service counts for an event beside its message.
    pub(crate) event_overhead: usize,
    /// Bytes of one event, overhead included.
    pub(crate) event_bytes: usize,
    /// From the first event to the last.
    pub(crate) span: Duration,
}
