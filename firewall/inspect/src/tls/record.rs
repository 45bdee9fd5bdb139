//! Collects the first handshake message of a stream from its TLS records.
//!
//! A message may be spread over records in any way RFC 8446, section 5.1 allows; what that
//! section forbids, and what only an evader does, is refused `record_abuse`.

use std::borrow::Cow;

use policy::Reason;

use super::Limits;
use crate::reader::Reader;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

/// Length of a record's header.
pub(super) const HEADER_BYTES: usize = 5;
/// Greatest length of a plaintext record (RFC 8446, section 5.1).
pub(super) const PLAINTEXT_MAX: usize = 1 << 14;

/// A record's header, its version already checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) content: u8,
    pub(super) length: usize,
}

impl Header {
    /// Reads a header of which `bytes` may hold only the beginning.
    ///
    /// `Ok(None)` while it is incomplete; a version that is not 3.0 to 3.4 is refused as soon as
    /// it shows.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Reason> {
        if bytes.get(1).is_some_and(|&major| major != 3)
            || bytes.get(2).is_some_and(|&minor| minor > 4)
        {
            return Err(Reason::TlsMalformed);
        }
        let mut reader = Reader::new(bytes);
        let header = reader.u8().zip(reader.u16()).zip(reader.u16());
        Ok(header.map(|((content, _), length)| Self {
            content,
            length: usize::from(length),
        }))
    }
}

/// A whole handshake message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// Type, length and body, as the handshake layer sees them.
    pub(super) bytes: Cow<'a, [u8]>,
    /// Stream bytes up to the end of the message, record headers included.
    pub(super) end: usize,
    /// Bytes of the last record that follow the message.
    pub(super) record_left: usize,
}

/// How far the collection of the first message has come.
#[derive(Debug)]
pub(super) enum Collected<'a> {
    Incomplete,
    Message(Message<'a>),
    Refused(Reason),
}

/// What a message looks like once its last record is found.
struct Extent {
    length: usize,
    end: usize,
    record_left: usize,
    records: usize,
}

/// Collects the handshake message at the start of `stream`, whose type must be `expected`.
///
/// `unexpected` is the reason for a first byte that is not a handshake record or a message that
/// is of another type. Costs one step per record header, at most `limits.records`, until the
/// message is whole, so that calling again for every byte that arrives stays linear.
pub(super) fn first_message<'a>(
    stream: &'a [u8],
    expected: u8,
    unexpected: Reason,
    limits: &Limits,
) -> Collected<'a> {
    match extent(stream, expected, unexpected, limits) {
        Ok(None) => Collected::Incomplete,
        Err(reason) => Collected::Refused(reason),
        Ok(Some(found)) => Collected::Message(Message {
            bytes: gather(stream, &found),
            end: found.end,
            record_left: found.record_left,
        }),
    }
}

fn extent(
    stream: &[u8],
    expected: u8,
    unexpected: Reason,
    limits: &Limits,
) -> Result<Option<Extent>, Reason> {
    let mut start = HeaderOfMessage::new();
    let mut collected = 0;
    let mut position = 0;
    for records in 1..=limits.records {
        let rest = stream.get(position..).unwrap_or_default();
        let Some(&content) = rest.first() else {
            return Ok(None);
        };
        if content != HANDSHAKE {
            // In the middle of a message, RFC 8446 section 5.1 forbids any other record.
            return Err(if records == 1 {
                unexpected
            } else {
                Reason::RecordAbuse
            });
        }
        let Some(header) = Header::read(rest)? else {
            return Ok(None);
        };
        if header.length == 0 || header.length > PLAINTEXT_MAX {
            return Err(Reason::RecordAbuse);
        }
        let body = rest.get(HEADER_BYTES..).unwrap_or_default();
        let body = body.get(..header.length).unwrap_or(body);
        start.fill(body);
        if start.kind().is_some_and(|kind| kind != expected) {
            return Err(unexpected);
        }
        let wanted = start.length();
        if wanted.is_some_and(|length| length > limits.hello_bytes) {
            return Err(Reason::HelloTooBig);
        }
        if let Some(length) = wanted.filter(|&length| collected + body.len() >= length) {
            let taken = length - collected;
            let end = position + HEADER_BYTES + taken;
            return Ok(Some(Extent {
                length,
                end,
                record_left: header.length - taken,
                records,
            }));
        }
        if body.len() < header.length {
            return Ok(None);
        }
        collected += body.len();
        position += HEADER_BYTES + header.length;
    }
    Err(Reason::RecordAbuse)
}

/// Copies only when the message is spread over several records.
fn gather<'a>(stream: &'a [u8], found: &Extent) -> Cow<'a, [u8]> {
    if found.records == 1 {
        return Cow::Borrowed(stream.get(HEADER_BYTES..found.end).unwrap_or_default());
    }
    let mut message = Vec::with_capacity(found.length);
    let mut reader = Reader::new(stream);
    while message.len() < found.length {
        let Some(record) = reader.bytes(3).and_then(|_| reader.u16()) else {
            break;
        };
        let wanted = (found.length - message.len()).min(usize::from(record));
        message.extend_from_slice(reader.bytes(wanted).unwrap_or_default());
    }
    Cow::Owned(message)
}

/// The four bytes in front of every handshake message (RFC 8446, section 4), as they come in.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeaderOfMessage {
    bytes: [u8; 4],
    filled: usize,
}

impl HeaderOfMessage {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; 4],
            filled: 0,
        }
    }

    /// Takes what is missing from the front of `bytes` and says how many bytes that was.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> usize {
        let space = self.bytes.get_mut(self.filled..).unwrap_or_default();
        let mut taken = 0;
        for (slot, &byte) in space.iter_mut().zip(bytes) {
            *slot = byte;
            taken += 1;
        }
        self.filled += taken;
        taken
    }

    pub(super) fn kind(&self) -> Option<u8> {
        let [kind, ..] = self.bytes;
        (self.filled > 0).then_some(kind)
    }

    /// Length of the whole message, these four bytes included.
    pub(super) fn length(&self) -> Option<usize> {
        let length = Reader::new(self.bytes.get(1..)?).u24()?;
        (self.filled == self.bytes.len()).then_some(length + self.bytes.len())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.filled == 0
    }
}
