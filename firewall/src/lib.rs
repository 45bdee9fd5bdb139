//! The Postern daemon and command line.
//!
//! Everything that touches kernel, disk, clock or network is here; what judges packets
//! (`inspect`), what policy means (`policy`) and every byte between programs (`ipc`) are
//! crates of their own.

pub mod appliance;
pub mod background;
pub mod bindings;
mod bounded;
pub mod capture;
pub mod cli;
pub mod clock;
mod command;
pub mod conditions;
pub mod config;
pub mod configlog;
pub mod confine;
pub mod conntrack;
pub mod control;
pub mod daemon;
pub mod explain;
pub mod familiar;
pub mod flowlog;
pub mod flows;
pub mod health;
pub mod kernel;
pub mod latch;
pub mod lockdown;
pub mod marks;
pub mod metrics;
pub mod netfilter;
pub mod netlink;
pub mod nfqueue;
pub mod policy_store;
pub mod probe;
pub mod provider;
pub mod queue;
pub mod raw;
pub mod ruleset;
pub mod suggest;
pub mod sysctl;
pub mod tally;
pub mod wake;
pub mod witness;
