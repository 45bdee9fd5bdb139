//! The cloud tier: the sidecar against AWS as a double plays it, and, in `whole`, a description in a security group that
//! decides real connections and is read back from CloudWatch.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that cannot go on stops, and shows what it has"
)]

mod adopted;
mod aws_accounts;
mod aws_documents;
mod aws_instance;
mod aws_parity;
mod aws_permissions;
mod bad_input;
mod gcp;
mod large_account;
mod new_client;
mod outage;
mod ship;
mod ship_rate;
mod snapshot;
mod stage;
mod whole;
