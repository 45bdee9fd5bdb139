//! The sidecar against Google as its double plays it.

mod address;
mod bad_input;
mod equal;
mod policy;
mod ship;
mod stage;
