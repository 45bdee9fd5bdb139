//! The Terraform tier: every module and example against current schemas, and its own tests; the AWS modules
//! applied and destroyed against moto. Everything offline but for packages; see `harness/terraform.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod apply;
mod bundles;
mod checkov;
mod documents;
mod modules;
mod user_data;
mod variables;
