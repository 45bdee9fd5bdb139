//! Handshakes of the witness's own, to see the certificate that TLS 1.3 hides from the road.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Bytes of [`CertifiedV1::detail`] at most.
pub const DETAIL_BYTES_MAX: usize = 200;

/// A server whose certificate is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifyV1 {
    /// The name to ask for, validated and in lower case.
    pub name: String,
    /// Where.
    pub server: SocketAddr,
}

/// What came of a [`CertifyV1`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedV1 {
    /// The name asked for.
    pub name: String,
    /// Where.
    pub server: SocketAddr,
    /// What the certificate is worth.
    pub verdict: CertificateVerdict,
    /// Why, in words; at most [`DETAIL_BYTES_MAX`], empty for a valid one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Seconds a valid certificate stays so at least, for all its dates say; 0 for the others.
    #[serde(default)]
    pub lasts_s: u32,
}

/// What a certificate is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateVerdict {
    /// It is of this name, by an authority that is trusted, in time, and the server holds its key.
    Valid,
    /// It is not, for certain.
    Invalid,
    /// None was seen: nobody answered, or not in TLS.
    Inconclusive,
}
