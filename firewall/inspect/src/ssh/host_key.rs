//! The server's host key, as it stands in the key exchange reply.

use sha2::{Digest, Sha256};

use super::kexinit::Negotiated;
use crate::reader::Reader;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A host key that a server has presented.
///
/// Whether it also holds the private half is for the client to verify: the signature covers a
/// secret that only the two ends know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// SHA-256 over the key blob.
    pub sha256: [u8; 32],
}

impl HostKey {
    /// Reads the key from a packet of the server's key exchange, if this is the one it is in.
    pub(super) fn read(payload: &[u8], negotiated: &Negotiated) -> Option<Self> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != reply_number(&negotiated.key_exchange) {
            return None;
        }
        let blob = reader.vec32()?.rest();
        Reader::new(blob)
            .vec32()
            .filter(|algorithm| !algorithm.is_empty())?;
        Some(Self {
            sha256: Sha256::digest(blob).into(),
        })
    }

    /// The fingerprint as OpenSSH prints it after `SHA256:`: base64 without padding.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut text = String::with_capacity(43);
        for chunk in self.sha256.chunks(3) {
            let mut bits = [0u8; 4];
            for (slot, &byte) in bits.iter_mut().skip(1).zip(chunk) {
                *slot = byte;
            }
            let bits = u32::from_be_bytes(bits);
            for sextet in 0..=chunk.len() {
                let index = (bits >> (18 - 6 * sextet)) & 0x3f;
                let digit = BASE64.get(index as usize).copied().unwrap_or(b'=');
                text.push(char::from(digit));
            }
        }
        text
    }
}

/// Number of the message whose first field is the host key.
fn reply_number(key_exchange: &str) -> u8 {
    if key_exchange.starts_with("diffie-hellman-group-exchange-") {
        // RFC 4419, section 5: 31 carries the group, 33 the reply.
        33
    } else if key_exchange.starts_with("rsa1024-") || key_exchange.starts_with("rsa2048-") {
        // RFC 4432, section 6: SSH_MSG_KEXRSA_PUBKEY.
        30
    } else {
        // RFC 4253, section 8; RFC 5656, section 7.1; RFC 8731; the hybrids follow them.
        31
    }
}
