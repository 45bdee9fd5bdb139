//! The ruleset, the queue and the raw sockets on real packets: three namespaces, both families.
//!
//! Needs root, nftables, iptables and iproute2. A decider of a few lines stands in for the daemon,
//! so that what is tested is the kernel's half of every promise.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a helper that cannot go on is a failed test, and what a test does not look at passes"
)]

#[path = "kernel/conntrack.rs"]
mod conntrack;
#[path = "kernel/handshake.rs"]
mod handshake;
#[path = "kernel/refusal.rs"]
mod refusal;
#[path = "kernel/ruleset.rs"]
mod ruleset;
#[path = "kernel/undecided.rs"]
mod undecided;
#[path = "kernel/wire.rs"]
mod wire;
#[path = "kernel/world.rs"]
mod world;
