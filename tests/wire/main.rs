//! The promises of Postern, on wires: what a server received and what a capture saw is asserted first, the flow log
//! apart from it. Each test has namespaces and a Postern of its own.

#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on stops"
)]

#[macro_use]
mod scene;

mod address_binding;
mod annotations;
mod certificates;
mod clients;
mod congestion;
mod dns_answers;
mod dns_bad_input;
mod dns_child;
mod dns_front;
mod dns_front_limits;
mod dns_front_messages;
mod dns_front_modes;
mod dns_front_rotating;
mod dns_scale;
mod dns_scan;
mod dns_spent;
mod dns_told;
mod end_rate;
mod end_records;
mod every_packet;
mod explain;
mod fail_closed;
mod fail_closed_matrix;
mod familiar;
mod flows_command;
mod fragments;
mod harness_itself;
mod hello_rules;
mod inheritance;
mod initial_sequence;
mod kernel_ruleset;
mod limits;
mod metrics;
mod multipath;
mod nat_ports;
mod nothing_leaves;
mod other_protocols;
mod overlap;
mod overlay;
mod own_traffic;
mod post_quantum;
mod privileges;
mod refused_hello;
mod reload;
mod restart;
mod segmentation;
mod server_side;
mod sessions;
mod ssh;
mod start;
mod status_line;
mod supervised;
mod tcp_tricks;
mod trips;
mod under_load;
