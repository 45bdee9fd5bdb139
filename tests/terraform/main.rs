//! The Terraform tier: every module and example against current schemas, its own tests, and the AWS modules for real against
//! moto. Everything offline but for packages; see `harness/terraform.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod bundles;
mod checkov;
mod documents;
mod modules;
mod variables;
