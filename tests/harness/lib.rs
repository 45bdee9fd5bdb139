//! What the lab, the suite and the tests beyond one process share: namespaces, servers, hand-made clients, captures.

#![expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "the bytes are made here; a slip should stop the test at once"
)]

pub mod boot;
pub mod capture;
pub mod cloud;
pub mod conntrack;
pub mod counters;
pub mod daemon;
pub mod dns;
pub mod evidence;
pub mod flowlog;
pub mod hello;
pub mod image;
pub mod lab;
pub mod load;
pub mod moving;
pub mod netns;
pub mod packet;
pub mod peer;
pub mod prerequisites;
pub mod program;
pub mod publisher;
pub mod python;
pub mod race;
pub mod raw;
pub mod suite;
pub mod terraform;
pub mod topology;
pub mod wait;
pub mod witness;
