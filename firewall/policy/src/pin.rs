//! Host key pins: which SSH server keys a rule accepts.

use std::fmt;
use std::str::FromStr;

/// Length of SHA-256 in unpadded base64 (RFC 4648, section 4): 32 bytes in 43 characters.
const ENCODED_LEN: usize = 43;

/// The SHA-256 of an SSH host key, as `ssh-keygen -l` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostKeyPin([u8; 32]);

/// Text that is no `SHA256:` fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a fingerprint such as SHA256: and 43 characters of base64")]
pub struct InvalidHostKeyPin(pub String);

impl HostKeyPin {
    /// The pin of a key whose SHA-256 is `digest`.
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The SHA-256 of the key blob (RFC 4253, section 6.6).
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// The pin of this key blob, in the encoding of RFC 4253, section 6.6.
    pub fn of_key(blob: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(blob).into())
    }
}

impl FromStr for HostKeyPin {
    type Err = InvalidHostKeyPin;

    fn from_str(text: &str) -> Result<Self, InvalidHostKeyPin> {
        let fault = || InvalidHostKeyPin(text.to_owned());
        let encoded = text.strip_prefix("SHA256:").ok_or_else(fault)?;
        if encoded.len() != ENCODED_LEN {
            return Err(fault());
        }
        let mut digest = [0_u8; 32];
        let (mut bits, mut width) = (0_u32, 0_u32);
        let mut out = digest.iter_mut();
        for byte in encoded.bytes() {
            bits = (bits << 6 | u32::from(sextet(byte).ok_or_else(fault)?)) & 0x3fff;
            width += 6;
            if width >= 8 {
                width -= 8;
                if let Some(slot) = out.next() {
                    *slot = u8::try_from(bits >> width & 0xff).map_err(|_| fault())?;
                }
            }
        }
        // The last character carries two bits past the digest; one digest has one spelling.
        if bits & 0b11 != 0 {
            return Err(fault());
        }
        Ok(Self(digest))
    }
}

/// The value of one base64 character.
fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// The base64 character of the low six bits.
fn character(value: u32) -> char {
    let byte = u8::try_from(value & 0x3f).unwrap_or_default();
    char::from(match byte {
        0..=25 => b'A' + byte,
        26..=51 => b'a' + byte - 26,
        52..=61 => b'0' + byte - 52,
        62 => b'+',
        _ => b'/',
    })
}

impl fmt::Display for HostKeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        f.write_str("SHA256:")?;
        let mut left = ENCODED_LEN;
        for chunk in self.0.chunks(3) {
            let group = chunk
                .iter()
                .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for shift in [18, 12, 6, 0] {
                if left > 0 {
                    f.write_char(character(group >> shift))?;
                    left -= 1;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for HostKeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GitHub's Ed25519 host key fingerprint, from its public documentation.
    const GITHUB: &str = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";

    #[test]
    fn a_fingerprint_reads_and_prints_as_openssh_writes_it() {
        assert_eq!(GITHUB.parse::<HostKeyPin>().unwrap().to_string(), GITHUB);
        let zero = HostKeyPin::new([0; 32]);
        assert_eq!(zero.to_string(), format!("SHA256:{}", "A".repeat(43)));
        let ones = HostKeyPin::new([0xff; 32]);
        assert_eq!(ones.to_string().parse(), Ok(ones));
    }

    #[test]
    fn a_fingerprint_has_exactly_one_spelling() {
        for text in [
            &format!("{GITHUB}="),
            &GITHUB.replace("SHA256", "sha256"),
            &GITHUB.replace('+', "-"),
            &GITHUB.replace("qU", "qV"),
            "SHA256:",
            "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
            "",
        ] {
            assert!(text.parse::<HostKeyPin>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_pin_of_a_key_is_the_sha256_of_its_blob() {
        let pin = HostKeyPin::of_key(b"");
        assert_eq!(
            pin.to_string(),
            "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
        );
    }
}
