//! Judges forwarded packets. Performs no I/O and reads no clock.
//!
//! The caller hands in packets and the current time and takes out what is to be done about
//! them: exactly one [`Verdict`] per packet, at once or later, resets, look-ups and log
//! records. Everything a packet can do to us happens in this crate, so it is the crate we
//! fuzz: it must not panic, and its memory is bounded by [`Limits`], whatever the bytes.
//!
//! [`Inspector`] is the engine. The parsers ([`tls`], [`ssh`], [`http`], [`detect`]) are pure
//! and know nothing of packets. [`replay`] drives an inspector from a capture.

pub mod counters;
pub mod detect;
pub mod env;
pub mod escape;
pub mod flow;
pub mod http;
pub mod inspector;
pub mod limits;
mod misses;
pub mod output;
pub mod progress;
pub mod reader;
pub mod record;
pub mod replay;
pub mod ssh;
pub mod tls;

mod allowance;
mod certificate;
mod claim;
mod conclude;
mod converse;
mod decided;
mod familiar;
mod gate;
mod http_flow;
mod judge;
mod machine;
mod other;
mod packed;
mod packet;
mod reassembly;
mod revisit;
mod ruling;
mod segment;
mod seq;
mod stage;
mod table;
mod unknown;
mod waiting;

pub use counters::Counters;
pub use detect::{Detected, detect};
pub use env::{Answer, Bindings, Certificate, Env, Known, Sought, Time};
pub use familiar::FAMILIAR_MS;
pub use flow::FlowKey;
pub use inspector::Inspector;
pub use judge::ssh_names;
pub use limits::Limits;
pub use output::{Class, Output, Query, Reset, Verdict, Why};
pub use packed::PackedKey;
pub use progress::{Framed, Progress};
pub use record::{Category, FlowRecord, HttpRecord, Outcome, SeeThruRecord};
pub use replay::{Replay, ReplayOptions};
pub use revisit::REJUDGED_AT_ONCE;

#[cfg(test)]
mod sim;
