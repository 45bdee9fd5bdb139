//! The promises of Postern, on wires.

mod harness_itself;
