//! How the daemon is: the answer behind `postern status` and cloudsync's hourly line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::Stream;

/// Everything an operator asks first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReply {
    /// The daemon's version.
    pub program: String,
    /// Its name in logs.
    pub appliance: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// `enforce`, `see-thru` (the whole deployment, until a date) or `lockdown` (no policy).
    pub mode: String,
    /// What it does not do as it should, one sentence each; empty is healthy.
    pub degraded: Vec<String>,
    /// The number of the policy in force; 0 before the first.
    pub generation: u64,
    /// Its identity; empty before the first.
    pub policy_id: String,
    /// Seconds since it was adopted.
    pub policy_age_s: u64,
    /// Seconds since whoever publishes last said the policy is current; absent when nobody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_age_s: Option<u64>,
    /// How often the source is asked; absent when nobody asks one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll: Option<PollState>,
    /// Clients in the policy.
    pub clients: u64,
    /// Groups in the policy.
    pub groups: u64,
    /// Exact names in the policy.
    pub names: u64,
    /// Exact names that have at least one address.
    pub names_bound: u64,
    /// Faults found in the policy.
    pub faults: u64,
    /// Flows being judged now.
    pub flows_undecided: u64,
    /// Flows handed to the kernel and not yet ended.
    pub flows_judged: u64,
    /// Connections allowed since the start.
    pub allowed: u64,
    /// Connections refused since the start, by reason code.
    pub refused: BTreeMap<String, u64>,
    /// Which queue statement the kernel took.
    pub queue_form: QueueForm,
    /// Queues, and so threads that judge.
    pub queues: u32,
    /// The DNS witness.
    pub witness: WitnessState,
    /// The spool, by stream.
    pub spool: BTreeMap<Stream, StreamStatus>,
    /// What was lost, ever since the start.
    pub losses: LossCounts,
}

/// How often the cloud is asked, and what that follows from.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PollState {
    /// Seconds between two readings, at most.
    pub interval_s: f64,
    /// Calls of the most used API that one reading takes.
    pub calls: u32,
    /// Appliances that share the request rate.
    pub appliances: u32,
}

/// Which of the two forms of the queue statement is in the ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueForm {
    /// No ruleset yet.
    #[default]
    None,
    /// `nft queue`.
    Native,
    /// `iptables-nft -j NFQUEUE`, for a kernel without `nft_queue`.
    Compat,
}

/// Whether names are being watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WitnessState {
    /// Not started.
    #[default]
    Absent,
    /// Running, and its look-ups are answered.
    Answering,
    /// Running, and the resolver behind it does not answer.
    Unanswered,
    /// It ended and is being started again.
    Restarting,
}

/// One stream of the spool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamStatus {
    /// Segments on disk, the growing one included.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines written since the start.
    pub lines: u64,
    /// The oldest segment still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    /// Lines deleted unshipped because the spool was full.
    pub lost: u64,
}

/// What did not happen as promised, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LossCounts {
    /// Log lines that found the log thread's queue full.
    pub lines_overrun: u64,
    /// Log lines that left with a spool segment before they were shipped.
    pub lines_spool_full: u64,
    /// Refusals not logged one by one because their client made too many.
    pub lines_suppressed: u64,
    /// Packets the kernel dropped because a queue was full.
    pub packets_queue_full: u64,
    /// Conntrack events the kernel dropped; ends found by the next dump instead.
    pub conntrack_events: u64,
}
