//! The sidecar against Google as its double plays it.

mod address;
mod bad_input;
mod changes;
mod documents;
mod equal;
mod forwarded;
mod large;
mod policy;
mod preflight;
mod ship;
mod stage;
