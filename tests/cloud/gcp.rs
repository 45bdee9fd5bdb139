//! The sidecar against Google as its double plays it.

mod bad_input;
mod policy;
mod ship;
mod stage;
