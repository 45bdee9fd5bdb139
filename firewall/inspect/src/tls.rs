//! TLS 1.2 and 1.3 handshakes, as far as they are in clear.
//!
//! One strict walk over records, messages and extensions of our own, since the general parser
//! underneath accepts what an evader sends (a malformed extension hides those after it, a second
//! server name goes unnoticed). What the walk reads is then read again by `tls-parser`, and a
//! hello on which the two disagree is refused: there is one interpretation or none.
//!
//! [`client_hello`] and [`server_hello`] read a stream's first message. [`Conversation`] follows
//! both directions from there until nothing in clear is left: a second hello after a
//! HelloRetryRequest, TLS 1.2's certificate, alerts, record framing.

mod client_hello;
mod conversation;
mod cross_check;
mod extension;
mod framing;
mod group;
mod handshake;
mod record;
mod server_hello;
mod server_name;
mod version;

#[cfg(test)]
mod tests;

pub use client_hello::{
    CipherSuites, ClientHello, Ech, Groups, KeyShares, Rejected, Seen, SessionId, client_hello,
    second_hello,
};
pub use conversation::Conversation;
pub use framing::Framing;
pub use group::is_post_quantum;
pub use handshake::Certificates;
pub use server_hello::{Alert, ServerAnswer, ServerHello, server_hello};
pub use server_name::ServerName;
pub use version::{TlsVersion, Versions};

/// Bounds on a stream's first handshake message.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Greatest handshake message, its four-byte header included.
    pub hello_bytes: usize,
    /// Greatest number of records it may be spread over.
    pub records: usize,
}

impl Default for Limits {
    /// 64 KiB: three times a hello with the largest key share in use (FrodoKEM-1344, 21.5 KB).
    /// 32 records: splitting tools use two to eight.
    fn default() -> Self {
        Self {
            hello_bytes: 1 << 16,
            records: 32,
        }
    }
}

impl Limits {
    /// Greatest number of stream bytes a hello within these limits can take.
    #[must_use]
    pub const fn stream_bytes(&self) -> usize {
        self.hello_bytes + self.records * record::HEADER_BYTES
    }
}

/// Whether a 16-bit code point is one of the values that mean nothing (RFC 8701).
const fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}
