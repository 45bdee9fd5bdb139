//! What the daemon and its witness say to each other over their socket pair.
//!
//! The witness asks resolvers on the daemon's behalf, as another user and with no capability.
//! It is trusted to answer, not to be well formed: a reply is checked like bytes from the wire.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod certificate;
mod front;

pub use certificate::{CertificateVerdict, CertifiedV1, CertifyV1, DETAIL_BYTES_MAX};
pub use front::{
    AskedV1, FoundV1, FrontHealthV1, FrontStateV1, FrontV1, FrontVerdict, PermitV1, ReleaseV1,
};

/// The most one message takes: a [`ToWitness::Watch`] is sent in batches to stay under it.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Names to put in one [`ToWitness::Watch`] or [`ToWitness::Unwatch`] at most: with the longest
/// names this stays under [`MESSAGE_BYTES_MAX`].
pub const NAMES_PER_MESSAGE_MAX: usize = 2_000;

/// Addresses in one [`AnswerV1`] at most: with the longest form of each this stays under
/// [`MESSAGE_BYTES_MAX`], whatever a hostile zone answers.
pub const ADDRESSES_PER_ANSWER_MAX: usize = 4_096;

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToWitness {
    /// How to go about it. The first message, and again whenever it changes.
    Configure(Configure),
    /// Keep these names answered: now, and again whenever their time to live ends.
    Watch {
        /// Validated names, lower case.
        names: Vec<String>,
    },
    /// Forget these names.
    Unwatch {
        /// As they were watched.
        names: Vec<String>,
    },
    /// Ask once, at once: a packet waits for it.
    Lookup(Lookup),
    /// Ask some more times, out of the refresh share: the addresses of this name rotate.
    Sample(Sample),
    /// Answer clients, like this or not at all.
    Front(Option<FrontV1>),
    /// What becomes of a client's question.
    Permit(PermitV1),
    /// A client's answer may leave.
    Release(ReleaseV1),
    /// See which certificate a server shows.
    Certify(CertifyV1),
}

/// How the witness asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// Resolvers, `address:port`; none means the system's.
    pub upstreams: Vec<String>,
    /// Questions a second to each of them (`dns_max_qps`).
    pub max_qps: u32,
    /// Whether to ask for AAAA.
    pub ipv6: bool,
    /// A PEM file with certificate authorities to trust beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchors: Option<PathBuf>,
    /// More of them, PEM itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authorities: String,
}

/// One question that a packet waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// The name, validated and in lower case.
    pub name: String,
    /// How long the packet can wait, in milliseconds.
    pub budget_ms: u32,
    /// Questions to spend on each family: several samples find more addresses of a rotating name.
    pub samples: u8,
    /// Whether to ask for A.
    pub ipv4: bool,
    /// Whether to ask for AAAA.
    pub ipv6: bool,
    /// Whether to ask for HTTPS, once: for the addresses it hints at.
    pub hints: bool,
}

/// Questions about one record type of a name whose answers differ from each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The name, validated and in lower case.
    pub name: String,
    /// AAAA rather than A.
    pub ipv6: bool,
    /// How many questions, one after the other; fewer when the budget is short.
    pub count: u8,
    /// Whether a packet waits for it: then what the DNS front leaves over may be spent too.
    pub urgent: bool,
}

/// What the witness says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromWitness {
    /// It serves. The first message.
    Ready,
    /// One name was asked about.
    Answer(AnswerV1),
    /// How the resolvers have been since the last such message; once a second at most.
    Health(HealthV1),
    /// A client asks the DNS front.
    Asked(AskedV1),
    /// What a resolver answers to a client's question.
    Found(FoundV1),
    /// How the DNS front is, whenever that changes.
    Front(FrontStateV1),
    /// What a server's certificate is worth.
    Certified(CertifiedV1),
}

/// What became of one question about one name, all record types together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerV1 {
    /// The name asked about.
    pub name: String,
    /// How it ended.
    pub outcome: AnswerOutcome,
    /// What it resolved to; empty unless `outcome` is `resolved`.
    #[serde(default)]
    pub addresses: Vec<SightingV1>,
    /// Seconds until it should be asked again, by the answer's own time to live.
    pub ttl_s: u32,
    /// Whether this answers a [`ToWitness::Lookup`] rather than a refresh.
    pub asked: bool,
    /// Whether that look-up asked for AAAA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
    /// The aliases (CNAME) followed inside the answer, in order, at most 16; empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// Which answers the addresses came from; [`SightingV1::source`] counts into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceV1>,
    /// Whether more of the same look-up follows: a packet may go on as soon as one answer names
    /// its address, and nothing has failed before the last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// One answer of one resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceV1 {
    /// The resolver, `address:port`.
    pub upstream: String,
    /// The type of the records: `A`, `AAAA`, `HTTPS`.
    pub record_type: String,
}

/// One address in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SightingV1 {
    /// The address.
    pub address: IpAddr,
    /// Its own time to live, in seconds.
    pub ttl_s: u32,
    /// Whether it was a hint in an HTTPS or SVCB record (RFC 9460, section 7.3), not an address
    /// record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hint: bool,
    /// Which of [`AnswerV1::sources`] named it first.
    #[serde(default)]
    pub source: u8,
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerOutcome {
    /// At least one address.
    Resolved,
    /// The name exists and has no address.
    NoAddress,
    /// NXDOMAIN.
    NoSuchName,
    /// Refused, server failure, or an answer that made no sense.
    ServerFailure,
    /// Nobody answered in time.
    TimedOut,
    /// Not asked: the budget of questions is spent.
    OverBudget,
}

/// The resolvers, seen from the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthV1 {
    /// Questions sent.
    pub asked: u64,
    /// Questions answered, NXDOMAIN included.
    pub answered: u64,
    /// Questions not sent because the budget was spent.
    pub over_budget: u64,
    /// Questions that nobody answered in time.
    #[serde(default)]
    pub timed_out: u64,
    /// Questions refused, failed at the resolver, or answered with something unreadable.
    #[serde(default)]
    pub failed: u64,
    /// Questions that another resolver had to answer, because the first was silent or failed.
    #[serde(default)]
    pub failed_over: u64,
    /// Addresses left out because an answer had more than [`ADDRESSES_PER_ANSWER_MAX`].
    #[serde(default)]
    pub addresses_dropped: u64,
    /// Resolvers that are asked last, because they did not answer lately.
    #[serde(default)]
    pub suspended: u64,
    /// Names watched now.
    pub watched: u64,
    /// What the DNS front did.
    #[serde(default)]
    pub front: FrontHealthV1,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_of_the_longest_names_fits_a_message() {
        let label = "a".repeat(63);
        let name = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(name.len(), 253);
        let watch = ToWitness::Watch {
            names: vec![name; NAMES_PER_MESSAGE_MAX],
        };
        crate::framing::encode(&watch, MESSAGE_BYTES_MAX).unwrap();
    }

    #[test]
    fn a_full_answer_of_the_longest_addresses_fits_a_message() {
        let label = "a".repeat(63);
        let name = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        let sighting = |last| SightingV1 {
            address: std::net::Ipv6Addr::from(u128::MAX - last).into(),
            ttl_s: u32::MAX,
            hint: true,
            source: u8::MAX,
        };
        let source = SourceV1 {
            upstream: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".to_owned(),
            record_type: "HTTPS".to_owned(),
        };
        let answer = AnswerV1 {
            chain: vec![name.clone(); 16],
            name,
            outcome: AnswerOutcome::ServerFailure,
            addresses: (0..ADDRESSES_PER_ANSWER_MAX as u128)
                .map(sighting)
                .collect(),
            ttl_s: u32::MAX,
            asked: true,
            ipv6: true,
            sources: vec![source; usize::from(u8::MAX) + 1],
            more: true,
        };
        crate::framing::encode(&FromWitness::Answer(answer), MESSAGE_BYTES_MAX).unwrap();
    }
}
