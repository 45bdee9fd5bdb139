//! SSH 2 up to the end of its first key exchange, as far as it is in clear (RFC 4253).
//!
//! Reads both identification strings, both KEXINITs, and every binary packet until NEWKEYS; the
//! host key in the key exchange reply is hashed for a pinned fingerprint. SSH says no server
//! name: the engine judges by the names bound to the destination.

mod conversation;
mod host_key;
mod identification;
mod kexinit;
mod packet;

#[cfg(test)]
mod tests;

pub use conversation::Conversation;
pub use host_key::HostKey;
pub use identification::{
    Identification, PRE_BANNER_MAX, client_identification, server_identification,
};
pub use kexinit::{KexInit, Negotiated, negotiate};
