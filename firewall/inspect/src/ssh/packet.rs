//! Binary packets before encryption (RFC 4253, section 6).

use policy::Reason;

use super::kexinit::KEXINIT;
use crate::reader::Reader;

const DISCONNECT: u8 = 1;
pub(super) const NEWKEYS: u8 = 21;

/// Greatest packet an implementation must accept (RFC 4253, section 6.1).
const PACKET_MAX: usize = 35_000;
/// Length field, padding length, and the least that may follow them.
const PACKET_MIN: usize = 16;
/// Packets are a multiple of this long while there is no cipher.
const BLOCK: usize = 8;
const PADDING_MIN: usize = 4;

/// The payload of one whole packet, and the stream bytes it took.
pub(super) struct Packet<'a> {
    pub(super) payload: &'a [u8],
    pub(super) bytes: usize,
}

impl<'a> Packet<'a> {
    /// Reads the packet at the start of `stream`; `Ok(None)` while it is incomplete.
    pub(super) fn read(stream: &'a [u8]) -> Result<Option<Self>, Reason> {
        let mut reader = Reader::new(stream);
        let Some(length) = reader.u32() else {
            return Ok(None);
        };
        let bytes = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_add(4);
        if !(PACKET_MIN..=PACKET_MAX).contains(&bytes) || !bytes.is_multiple_of(BLOCK) {
            return Err(Reason::SshMalformed);
        }
        let Some(mut body) = reader.bytes(bytes - 4).map(Reader::new) else {
            return Ok(None);
        };
        let padding = body.u8().map_or(0, usize::from);
        let payload = body
            .remaining()
            .checked_sub(padding)
            .and_then(|length| body.bytes(length));
        match payload {
            Some(payload) if padding >= PADDING_MIN && !payload.is_empty() => {
                Ok(Some(Self { payload, bytes }))
            }
            _ => Err(Reason::SshMalformed),
        }
    }
}

/// What a packet before NEWKEYS does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// KEXINIT itself.
    KexInit,
    /// A message of the key exchange method.
    KeyExchange,
    /// What follows in this direction is encrypted.
    NewKeys,
    /// IGNORE, UNIMPLEMENTED, DEBUG.
    Aside,
    /// DISCONNECT: nothing follows.
    Disconnect,
}

/// Whose turn it is in one direction, before NEWKEYS.
#[derive(Debug, Default)]
pub(super) struct Order {
    kexinit: bool,
    exchanged: bool,
    asides: u8,
}

impl Order {
    /// Asides one direction may send before NEWKEYS. Each carries up to 35,000 bytes that
    /// mean nothing, so a handful is generous.
    const ASIDES_MAX: u8 = 16;

    /// Judges the next packet: KEXINIT first and once, NEWKEYS after the exchange, only what
    /// RFC 4253, sections 7 and 11 allow between them.
    pub(super) fn admit(&mut self, payload: &[u8]) -> Result<Role, Reason> {
        let role = match payload.first() {
            Some(&DISCONNECT) => Role::Disconnect,
            Some(&KEXINIT) if !self.kexinit => Role::KexInit,
            Some(2..=4) if self.kexinit => Role::Aside,
            Some(30..=49) if self.kexinit => Role::KeyExchange,
            Some(&NEWKEYS) if self.exchanged && payload.len() == 1 => Role::NewKeys,
            _ => return Err(Reason::SshMalformed),
        };
        match role {
            Role::KexInit => self.kexinit = true,
            Role::KeyExchange => self.exchanged = true,
            Role::Aside => self.asides += 1,
            Role::NewKeys | Role::Disconnect => {}
        }
        if self.asides > Self::ASIDES_MAX {
            return Err(Reason::SshMalformed);
        }
        Ok(role)
    }
}
