//! Rules one by one on hellos built by hand, then everything again on captured ones.

mod build;
mod captured;
mod client;
mod conversation;
mod server;
