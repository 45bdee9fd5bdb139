//! What is said on the daemon's control socket.
//!
//! A client opens with [`Request::Hello`] and then sends requests; the daemon answers each, in
//! order, with one [`Reply`], and to a client that asked for them sends an [`Event`] in
//! between. Who may say what is decided by the peer's credentials (DESIGN, section 4.5), not
//! by anything in a message.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::record::Stream;

mod binding;
mod status;

pub use binding::{BindingPlace, BindingState, BindingsReply};
pub use status::{LossCounts, PollState, QueueForm, StatusReply, StreamStatus, WitnessState};

/// What a client says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Opens the conversation. Anything else before it is refused.
    Hello(Hello),
    /// A whole policy, to be adopted or rejected. From `postern-sync` or root only.
    Publish(Document),
    /// Everything in a spool segment is safe elsewhere, so the daemon may delete it. From
    /// `postern-sync` or root only.
    Shipped(Segment),
    /// How the source of policy is, after every look at it that published nothing. From
    /// `postern-sync` or root only.
    Source(SourceState),
    /// How often the source is asked, after every look at it that succeeded. From `postern-sync`
    /// or root only.
    Poll(PollState),
    /// No client has this address: the answer to [`Event::UnknownClient`] when the cloud does
    /// not know it either. From `postern-sync` or root only.
    NotAClient {
        /// The address asked about.
        address: IpAddr,
    },
    /// Asks how the daemon is.
    Status,
    /// Asks what would become of one connection, and by which rule.
    Explain(Question),
    /// Asks which addresses are bound to which names: the next page of them.
    Bindings {
        /// The last binding of the page before; the first page without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<BindingPlace>,
    },
}

/// A client introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The newest version it speaks.
    pub version: u32,
    /// The oldest version it speaks.
    pub oldest: u32,
    /// Which program it is, for the daemon's log: `postern-cloudsync 0.1.0`.
    pub program: String,
    /// Whether it wants [`Event`]s on this connection.
    #[serde(default)]
    pub events: bool,
}

impl Hello {
    /// The greeting of `program`, built from this crate.
    #[must_use]
    pub fn new(program: impl Into<String>, events: bool) -> Self {
        Self {
            version: crate::VERSION,
            oldest: crate::OLDEST_VERSION,
            program: program.into(),
            events,
        }
    }

    /// The version both sides speak, if there is one.
    #[must_use]
    pub fn common_version(&self) -> Option<u32> {
        crate::common_version(
            (crate::OLDEST_VERSION, crate::VERSION),
            (self.oldest, self.version),
        )
    }
}

/// A snapshot document as text, not yet read: [`crate::snapshot::read`] says which version it
/// is before it says what is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Document(Box<RawValue>);

impl Document {
    /// Wraps a document that is already JSON.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn from_json(json: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(json).map(Self)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

/// The document in the body of a [`Request::Publish`], without reading either; `None` of any other request. Megabytes
/// are then looked at once, by whoever reads the document.
#[must_use]
pub fn published(body: &[u8]) -> Option<&[u8]> {
    body.strip_prefix(PUBLISH_BEGINS)?
        .strip_suffix(PUBLISH_ENDS)
}

/// What is before and after the document, as [`Request::Publish`] is written.
const PUBLISH_BEGINS: &[u8] = b"{\"publish\":";
const PUBLISH_ENDS: &[u8] = b"}";

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

/// One closed file of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// The folder it is in.
    pub stream: Stream,
    /// Its number: the file is `NNNNNNNN.jsonl`.
    pub segment: u64,
}

/// Whether the cloud, or the file, can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It was read just now and says what was published last.
    Current,
    /// It cannot be read, and the policy published last stays in force. Said once for each
    /// cause; the daemon writes it to the config log.
    Failing {
        /// What failed and where, one sentence.
        why: String,
    },
}

/// One connection to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The client's address.
    pub source: IpAddr,
    /// `tls`, `ssh` or `http`.
    pub kind: String,
    /// The name it would claim, as typed.
    pub name: String,
    /// The destination port.
    pub port: u16,
    /// The address it would dial; without one, an address bound to the name is assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
}

/// What becomes of that connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// A code of DESIGN, section 5.1, when it would not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The group that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// The rule of that group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What was considered, near misses among it, one sentence each.
    #[serde(default)]
    pub steps: Vec<String>,
}

/// What the daemon says: answers in the order of the requests, events whenever they happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The answer to the oldest request not yet answered.
    Reply(Reply),
    /// Something nobody asked for.
    Event(Event),
}

/// The daemon's answer to one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Welcome(Welcome),
    /// To [`Request::Publish`]: the policy is in force. `primed` follows as an event.
    Adopted(Adopted),
    /// To [`Request::Publish`]: the policy in force is the one from before.
    Rejected(Rejected),
    /// To [`Request::Shipped`], [`Request::Source`], [`Request::Poll`] and [`Request::NotAClient`]: noted.
    Noted,
    /// To [`Request::Status`].
    Status(Box<StatusReply>),
    /// To [`Request::Explain`].
    Explained(Explanation),
    /// To [`Request::Bindings`].
    Bindings(BindingsReply),
    /// To any request that cannot be served: no common version, no right to ask, no such
    /// request, no policy yet.
    Refused {
        /// One sentence, for a person.
        why: String,
    },
}

/// The daemon introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The version both sides speak from here on.
    pub version: u32,
    /// The daemon's own, for the client's log: `postern 0.1.0`.
    pub program: String,
    /// The appliance's name in every log line and log stream.
    pub appliance: String,
    /// Differs whenever the daemon was started anew.
    pub boot: String,
    /// The policy in force, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Adopted>,
}

/// A policy that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopted {
    /// Counts adopted changes on this appliance. A publication that changed nothing is answered
    /// with the number already in force.
    pub generation: u64,
    /// Sixteen hexadecimal digits, equal on every appliance with the same policy.
    pub policy_id: String,
}

/// A policy that was not adopted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Where in the document: `groups[3].rules[1].ports`, `version`, or the count over a limit.
    pub place: String,
    /// What is wrong there.
    pub why: String,
}

/// What the daemon says unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Each exact name new in this generation has an answer or a failure.
    Primed {
        /// The generation that is now primed.
        generation: u64,
    },
    /// A packet came from inside the served networks, from an address no client has. At most
    /// ten a second, each address once until it is answered by a publication.
    UnknownClient {
        /// Its source address.
        address: IpAddr,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_carries_its_document_unread() {
        let json = r#"{"publish":{"version":2,"of":"a later build"}}"#;
        let request: Request = serde_json::from_str(json).unwrap();
        let Request::Publish(document) = &request else {
            panic!("{request:?}")
        };
        assert_eq!(document.as_json(), r#"{"version":2,"of":"a later build"}"#);
        assert_eq!(serde_json::to_string(&request).unwrap(), json);
        assert_eq!(
            published(json.as_bytes()),
            Some(document.as_json().as_bytes())
        );
        let status = serde_json::to_vec(&Request::Status).unwrap();
        assert_eq!(published(&status), None);
    }

    #[test]
    fn a_greeting_from_one_version_ahead_finds_the_common_one() {
        let mut hello = Hello::new("test", false);
        hello.version = crate::VERSION + 1;
        hello.oldest = crate::VERSION;
        assert_eq!(hello.common_version(), Some(crate::VERSION));
        hello.oldest = crate::VERSION + 1;
        assert_eq!(hello.common_version(), None);
    }
}
