//! The sidecar against Google as its double plays it.

mod bad_input;
mod equal;
mod policy;
mod ship;
mod stage;
