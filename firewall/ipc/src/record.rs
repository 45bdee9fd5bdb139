//! The published log schemas (DESIGN, section 5): what is in a line, under which name, and
//! when it is left out.
//!
//! Field names are the incumbent's where it has one, so that saved queries keep working. A
//! field may be added; none is ever renamed. Values may come from hostile bytes, so strings
//! are [`Text`] and lines are made by [`to_line`] alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod line;
mod text;
mod timestamp;

pub use line::{append_line, peek_time, to_line};
pub use text::{TEXT_BYTES_MAX, Text};
pub use timestamp::{InvalidTimestamp, Timestamp};

/// The four logs, each a folder of the spool and a stream or log of its own in the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Decisions on flows: [`FlowLineV1`].
    Flow,
    /// Ends of allowed flows: [`EndLineV1`].
    End,
    /// Questions to the DNS front: [`DnsLineV1`].
    Dns,
    /// Changes of policy, faults and status: [`ConfigLineV1`].
    Config,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Flow, Self::End, Self::Dns, Self::Config];

    /// The folder's name, and the first part of the cloud stream's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::End => "end",
            Self::Dns => "dns",
            Self::Config => "config",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stream {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|stream| stream.as_str() == text)
            .ok_or(())
    }
}

/// Whose packet a line of the flow log is about, or which log it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowCat {
    /// The client's claim.
    Client,
    /// The server's answer.
    Server,
    /// The end of a flow.
    End,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowOutcome {
    /// The flow goes on.
    Allowed,
    /// The flow is refused.
    Disallowed,
}

/// One line of the flow log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLineV1 {
    /// When it was decided.
    pub time: Timestamp,
    /// Whose packet.
    pub cat: FlowCat,
    /// What was decided.
    pub outcome: FlowOutcome,
    /// The gid that matched when allowed, else a code of DESIGN, section 5.1.
    pub reason: Text,
    /// The name asked for, or the destination address when no name is known.
    pub dhost: Text,
    /// Source of the packet in question, before translation.
    pub src: IpAddr,
    /// Its source port; 0 where the protocol has none.
    pub spt: u16,
    /// Destination of the packet in question, before translation.
    pub dst: IpAddr,
    /// Its destination port; 0 where the protocol has none.
    pub dpt: u16,
    /// `tls`, `ssh`, `http`, `quic`, `udp`, `icmp` or `unknown`.
    pub proto: Text,
    /// The protocol version seen: `1.3`, `2.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto_v: Option<Text>,
    /// The client's instance, as its provider names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Text>,
    /// The group that allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<Text>,
    /// The rule of that group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text>,
    /// The policy that decided, by number on this appliance.
    pub generation: u64,
    /// The same policy, by content.
    pub policy_id: Text,
    /// Which appliance.
    pub appliance: Text,
    /// TLS only: whether a post-quantum group of the IANA registry was offered or chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pqc: Option<bool>,
    /// Present and true when only a fresh look-up bound the address to the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescued: Option<bool>,
    /// While see-thru is in force: whether only see-thru let this through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub see_thru_exerted: Option<bool>,
    /// The group that sees through, or `%default` for the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub see_thru_gid: Option<Text>,
    /// Days until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub see_thru_days_remaining: Option<u32>,
    /// The code with which enforcement would have refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_reason: Option<Text>,
    /// HTTP only: the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_method: Option<Text>,
    /// HTTP only: the path, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<Text>,
    /// HTTP only: the user agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_user_agent: Option<Text>,
    /// HTTP only: the response status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_code: Option<u16>,
}

/// One line of the end log: the flow's line again, and what went through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndLineV1 {
    /// As on the `client` line, with `cat` `end` and the time of the end.
    #[serde(flatten)]
    pub flow: FlowLineV1,
    /// Bytes from the client, IP headers included.
    pub bytes_out: u64,
    /// Bytes to the client.
    pub bytes_in: u64,
    /// Packets from the client.
    pub packets_out: u64,
    /// Packets to the client.
    pub packets_in: u64,
    /// From the first packet to the last, without the closing state's time-out.
    pub duration_ms: u64,
}

/// One line of the DNS log: a question to the DNS front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsLineV1 {
    /// When it was answered.
    pub time: Timestamp,
    /// Always `dns`.
    pub cat: DnsCat,
    /// Whether it was passed on.
    pub outcome: FlowOutcome,
    /// The gid that lets the client reach the name, or a code of DESIGN, section 5.1.
    pub reason: Text,
    /// The name asked about.
    pub dhost: Text,
    /// Who asked: a client, or a cloud resolver.
    pub src: IpAddr,
    /// From which port.
    pub spt: u16,
    /// The client's instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Text>,
    /// `A`, `AAAA`, `HTTPS`, …
    pub qtype: Text,
    /// `NOERROR`, `NXDOMAIN`, `REFUSED`, …
    pub rcode: Text,
    /// What was answered, in presentation form.
    #[serde(default)]
    pub answers: Vec<Text>,
    /// Why it would not have been passed on, where `dns_front` observes or see-thru is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_reason: Option<Text>,
    /// The policy that decided, by number on this appliance.
    pub generation: u64,
    /// The same policy, by content.
    pub policy_id: Text,
    /// Which appliance.
    pub appliance: Text,
}

/// The only `cat` of the DNS log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsCat {
    /// A question.
    #[default]
    Dns,
}

/// What a line of the config log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigCat {
    /// A name, pattern or address entry of a rule.
    Addr,
    /// A client, and its groups.
    Client,
    /// A see-thru entry, or the deployment's.
    SeeThru,
    /// A preference.
    Preference,
    /// An external list.
    List,
    /// Something written wrong in the cloud or the inventory.
    Fault,
    /// How the appliance is.
    Status,
}

/// One line of the config log: one effective change, or the hourly status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLineV1 {
    /// When it came into force.
    pub time: Timestamp,
    /// What it is about.
    pub cat: ConfigCat,
    /// `accepted`, `removed`, or why it was refused.
    pub outcome: Text,
    /// What it says, except for the fields every line has.
    #[serde(flatten)]
    pub detail: ConfigDetailV1,
    /// The policy it belongs to, by number on this appliance.
    pub generation: u64,
    /// The same policy, by content.
    pub policy_id: Text,
    /// Which appliance.
    pub appliance: Text,
}

/// The fields of a config line that depend on its `cat`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigDetailV1 {
    /// The group concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Text>,
    /// The rule concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text>,
    /// `addr`: the name, pattern, or `address` with its comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<Text>,
    /// `addr`: `tls`, `ssh`, `http` or `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<Text>,
    /// `client`: its address or prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Text>,
    /// `client`: its instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Text>,
    /// `list`, and `addr` from a list: the list's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Text>,
    /// `see-thru`: through which day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Text>,
    /// `preference`: its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preference: Option<Text>,
    /// `preference`: its value, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Text>,
    /// `fault`: what kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    /// `fault`: the object it is in, where that is no group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Text>,
    /// `fault`: the column in the description, counted in characters from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// `fault`, `status`: one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Text>,
    /// `status`: `enforce`, `see-thru` or `lockdown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Text>,
    /// `status`: how many clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// `status`: how many exact names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<u64>,
    /// `status`: log lines lost since the start, for whatever reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub losses: Option<u64>,
    /// `status`: seconds since whoever publishes last said the policy is current; absent when nobody has, or cannot read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_age_s: Option<u64>,
    /// `status`: packets the kernel dropped because a queue was full, since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_queue_full: Option<u64>,
    /// `status` about lost lines: the log they were lost from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
}

#[cfg(test)]
mod incumbent;
#[cfg(test)]
mod tests;
