//! Secret Manager's `versions.access`
//! (<https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access>).

use serde_json::json;

use super::super::http::Message;
use super::answer::{error, ok};
use super::model::World;

/// Bytes of one version's payload (<https://cloud.google.com/secret-manager/quotas>: 64 KiB).
pub(super) const PAYLOAD_BYTES_MAX: usize = 65_536;

/// The newest version of `projects/P/secrets/S`.
pub(super) fn access(world: &World, secret: &str) -> Message {
    let Some(payload) = world.secrets.get(secret) else {
        let message = format!("Secret [{secret}] not found or has no versions.");
        return error(404, "NOT_FOUND", "notFound", &message);
    };
    ok(&json!({
        "name": format!("{secret}/versions/1"),
        "payload": {"data": base64(payload.as_bytes()), "dataCrc32c": crc32c(payload.as_bytes()).to_string()},
    }))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(
                    ALPHABET[(word >> (18 - 6 * place) & 63) as usize],
                ));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Castagnoli's polynomial, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_written_as_google_writes_them() {
        assert_eq!(base64(b"ab"), "YWI=");
        assert_eq!(base64(b"abcd"), "YWJjZA==");
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
