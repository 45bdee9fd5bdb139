//! What the daemon and its witness say to each other about the DNS front.
//!
//! The witness holds the sockets and reads what clients send; the daemon decides. For each question: [`AskedV1`],
//! [`PermitV1`], and where it is passed on [`FoundV1`], [`ReleaseV1`]. No answer leaves before its addresses are bound.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::SightingV1;

/// How the front is run. Without it the front is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontV1 {
    /// Port it listens on, on every address of the machine; the ruleset leads port 53 there.
    pub port: u16,
    /// Cloud resolvers, as prefixes: many clients are behind each, so no limit per source counts for them.
    pub resolvers: Vec<String>,
}

/// Someone asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedV1 {
    /// What this question is called between the two, never used again.
    pub id: u64,
    /// Who asks, from where.
    pub from: SocketAddr,
    /// The name in presentation form, without a last dot, as it was written.
    pub name: String,
    /// The record type: `A`, `AAAA`, `HTTPS`, …
    pub record_type: String,
}

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitV1 {
    /// [`AskedV1::id`].
    pub id: u64,
    /// What is done with it.
    pub verdict: FrontVerdict,
}

/// What is done with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrontVerdict {
    /// A resolver is asked.
    Forward,
    /// Nobody is asked; the answer is that there is no such name, which ends no search list.
    NoSuchName,
    /// Nobody is asked; the answer is that the name has nothing of the kind, and says nothing of names below it.
    NoData,
    /// Nobody is asked; the answer is a refusal.
    Refuse,
    /// No answer: whoever asked asks again.
    Ignore,
}

/// What a resolver said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundV1 {
    /// [`AskedV1::id`].
    pub id: u64,
    /// `NOERROR`, `NXDOMAIN`, `SERVFAIL`; empty when nobody answered or the budget was spent.
    pub rcode: String,
    /// Every address that the answer would hand out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<SightingV1>,
    /// The aliases followed inside the answer, in order, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// What the answer holds beside addresses, in presentation form, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// The resolver, `address:port`; empty when nobody answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    /// Whether the daemon has been told of this very answer before: another asked at the same time, or earlier.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// The answer may leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseV1 {
    /// [`AskedV1::id`].
    pub id: u64,
    /// Addresses that are taken out of it first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<IpAddr>,
}

/// How the front is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrontStateV1 {
    /// It has not yet been told whether its resolvers lead back to it.
    Checking,
    /// It answers.
    Serving,
    /// A resolver, `address:port`, leads back to a front: nobody is answered.
    Looping(String),
    /// It cannot listen, and why.
    Failed(String),
}

/// What the front did without asking the daemon, ever since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontHealthV1 {
    /// Questions received.
    #[serde(default)]
    pub questions: u64,
    /// Answers given out of memory.
    #[serde(default)]
    pub cached: u64,
    /// Messages that were no question, or one nobody could answer.
    #[serde(default)]
    pub malformed: u64,
    /// Questions dropped because their source asked too often or too many waited.
    #[serde(default)]
    pub limited: u64,
    /// Questions that were to be passed on and were not, because the budget was spent.
    #[serde(default)]
    pub over_budget: u64,
}
