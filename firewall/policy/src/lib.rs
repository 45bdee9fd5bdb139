//! What may leave, and nothing of how.
//!
//! Providers turn annotations, preferences and lists into a [`Draft`]; [`Snapshot::compile`]
//! turns a draft into an immutable index; [`Snapshot::decide`] answers for one flow. Nothing in
//! here reads a clock or a socket, and what it is asked about by hostile bytes is a [`Name`] that
//! was validated first.

pub mod annotation;
pub mod change;
mod date;
mod decision;
mod draft;
mod fault;
pub mod inventory;
pub mod lists;
mod name;
mod net;
mod pattern;
mod pin;
pub mod preferences;
mod proto;
mod reason;
mod snapshot;
pub mod suffix;
mod words;

pub use date::{Date, InvalidDate};
pub use decision::{Ask, Decision, Outcome, SeeThru, SynGate};
pub use draft::{Client, Draft, Entry, Group, Rule};
pub use fault::{Fault, FaultKind};
pub use name::{InvalidName, LABEL_BYTES_MAX, NAME_BYTES_MAX, Name};
pub use net::{InvalidPrefix, parse_prefix};
pub use pattern::{InvalidPattern, Pattern};
pub use pin::{HostKeyPin, InvalidHostKeyPin};
pub use preferences::Preferences;
pub use proto::{AppProto, InvalidPortRange, Kind, PortRange, RuleTransport, Transport};
pub use reason::Reason;
pub use snapshot::{
    Asking, CLIENTS_MAX, CONTENT_BYTES_MAX, CanonicalDraft, ClientRef, GroupRef, Index, NAMES_MAX,
    Opening, RULES_MAX, RejectedDraft, Snapshot,
};
pub use words::UnknownWord;
