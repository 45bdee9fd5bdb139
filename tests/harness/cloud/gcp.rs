//! Google's double: Compute Engine, Cloud Logging, Secret Manager and the metadata server, as far as the product uses
//! them, built from Google's published API descriptions (<https://cloud.google.com/compute/docs/reference/rest/v1>,
//! <https://cloud.google.com/logging/docs/reference/v2/rest>, <https://cloud.google.com/secret-manager/docs/reference/rest>).
//! No emulator of Google's exists for any of them. What is unknown or malformed is refused as the service refuses it.

mod answer;
mod call;
mod compute;
mod fault;
pub mod large;
mod logging;
mod metadata;
mod model;
mod quota;
mod scene;
mod secrets;
mod server;

pub use fault::{GoogleBreak, GoogleFault};
pub use logging::Counted;
pub use model::{Firewall, Machine, Policy, Route};
pub use server::Google;
