//! Record framing of one direction once its hello has been read.
//!
//! A hello is followed by what TLS allows there and nothing else, or it was only a key to open
//! the door for another protocol. The framing walks record headers, passes what is protected
//! unread, and reads what is in clear: change_cipher_spec, alerts, TLS 1.2's handshake messages.

use policy::Reason;

use super::ClientHello;
use super::handshake::{Certificates, Messages, Side};
use super::record::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER_BYTES, Header, PLAINTEXT_MAX,
};
use super::server_hello::{ALERT_LEVELS, CLOSE_NOTIFY, ServerHello, WARNING};
use super::version::TlsVersion;
use crate::progress::Framed;

/// Greatest protected record of TLS 1.3 (RFC 8446, section 5.2).
const PROTECTED_MAX_1_3: usize = PLAINTEXT_MAX + 256;
/// Greatest protected record of TLS 1.2 (RFC 5246, section 6.2.3).
const PROTECTED_MAX_1_2: usize = PLAINTEXT_MAX + 2048;
/// Least protected record of TLS 1.3: one byte of content type and the shortest tag, CCM_8's.
const PROTECTED_MIN_1_3: usize = 9;
/// change_cipher_spec and warning records in clear that one direction may send. TLS 1.3 needs
/// one; the rest is for stacks that repeat it around a HelloRetryRequest.
const PLAIN_MAX: u8 = 4;

/// What may come next.
#[derive(Debug)]
enum Phase {
    /// Server: a hello, which is not for this module to read.
    Hello,
    /// Client: the server has not answered.
    Unanswered { early_data: bool },
    /// Either side, after a HelloRetryRequest: the second hello, not read here either.
    Retried { early_data: bool },
    /// TLS 1.2; opaque after change_cipher_spec.
    Tls12 { messages: Messages, opaque: bool },
    /// TLS 1.3, after the ServerHello.
    Tls13,
    /// An alert has closed this direction.
    Ended,
}

/// How the body of the record at hand is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    ChangeCipherSpec,
    Alert,
    Messages,
    /// Early data: protected, but under keys that prove nothing about this server.
    Early,
    Protected,
}

/// Follows one direction's records; resumable at any byte.
#[derive(Debug)]
pub struct Framing {
    side: Side,
    phase: Phase,
    header: [u8; HEADER_BYTES],
    filled: usize,
    record: Option<(Body, usize)>,
    /// First byte of an alert whose second has not come.
    alert_level: Option<u8>,
    plain: u8,
    framed: Framed,
    given: u64,
}

impl Framing {
    /// The client's direction, from the first byte after its hello.
    #[must_use]
    pub const fn client(hello: &ClientHello) -> Self {
        Self::new(
            Side::Client,
            Phase::Unanswered {
                early_data: hello.early_data,
            },
        )
    }

    /// The server's direction, from its first byte.
    #[must_use]
    pub const fn server() -> Self {
        Self::new(Side::Server, Phase::Hello)
    }

    const fn new(side: Side, phase: Phase) -> Self {
        Self {
            side,
            phase,
            header: [0; HEADER_BYTES],
            filled: 0,
            record: None,
            alert_level: None,
            plain: 0,
            framed: Framed {
                safe: 0,
                protected: false,
                ended: false,
            },
            given: 0,
        }
    }

    /// Walks the next bytes and says how many it took: all, unless a hello begins that
    /// another reader must read first.
    ///
    /// # Errors
    ///
    /// The reason to refuse, when no TLS peer sends this here.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            let taken = match self.record {
                None if matches!(self.phase, Phase::Ended) => return Err(Reason::TlsMalformed),
                None if self.filled == 0 && self.stops_at(first) => break,
                None => self.take_header(rest)?,
                Some((body, left)) => self.take_body(body, left, rest)?,
            };
            rest = rest.get(taken..).unwrap_or_default();
            self.given += taken as u64;
            if self.filled == 0 {
                self.framed.safe = self.given;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// What has been understood of this direction.
    #[must_use]
    pub const fn framed(&self) -> Framed {
        self.framed
    }

    /// The certificates a TLS 1.2 server has presented, once their message is whole.
    #[must_use]
    pub const fn certificates(&self) -> Option<&Certificates> {
        match &self.phase {
            Phase::Tls12 { messages, .. } => messages.certificates(),
            Phase::Hello
            | Phase::Unanswered { .. }
            | Phase::Retried { .. }
            | Phase::Tls13
            | Phase::Ended => None,
        }
    }

    /// Bytes held for messages that are not whole.
    #[must_use]
    pub fn buffered(&self) -> usize {
        match &self.phase {
            Phase::Tls12 { messages, .. } => messages.buffered(),
            Phase::Hello
            | Phase::Unanswered { .. }
            | Phase::Retried { .. }
            | Phase::Tls13
            | Phase::Ended => 0,
        }
    }

    /// Counts `bytes` that another reader has judged.
    pub(super) const fn pass_over(&mut self, bytes: usize) {
        self.given += bytes as u64;
        self.framed.safe = self.given;
    }

    /// The server has answered: from here on its version's rules hold.
    pub(super) fn answered(&mut self, hello: &ServerHello) {
        self.framed.protected = false;
        self.phase = match hello.version {
            TlsVersion::TLS1_3 => Phase::Tls13,
            _ => Phase::Tls12 {
                messages: Messages::new(self.side),
                opaque: false,
            },
        };
        if matches!(self.side, Side::Server) && hello.record_left > 0 {
            self.record = Some((Body::Messages, hello.record_left));
        }
    }

    /// A HelloRetryRequest has passed: another hello is due from both sides.
    pub(super) fn retried(&mut self, early_data: bool) {
        self.phase = Phase::Retried { early_data };
    }

    /// The client's second hello has passed.
    pub(super) fn repeated(&mut self) {
        self.phase = Phase::Unanswered { early_data: false };
    }

    /// An alert instead of a hello has passed.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.framed.ended = true;
    }

    /// Whether a record beginning with `first` is for the reader of hellos.
    const fn stops_at(&self, first: u8) -> bool {
        match (&self.phase, self.side) {
            (Phase::Hello, _) => true,
            (Phase::Retried { .. }, Side::Client) => first == HANDSHAKE,
            (Phase::Retried { .. }, Side::Server) => first != CHANGE_CIPHER_SPEC,
            _ => false,
        }
    }

    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        if self.filled == 0
            && let Some(whole) = bytes.first_chunk::<HEADER_BYTES>()
            && let Some(header) = Header::read(whole)?
        {
            self.record = Some((self.admit(header)?, header.length));
            return Ok(HEADER_BYTES);
        }
        let space = self.header.get_mut(self.filled..).unwrap_or_default();
        let taken = space.len().min(bytes.len());
        for (slot, &byte) in space.iter_mut().zip(bytes) {
            *slot = byte;
        }
        self.filled += taken;
        let so_far = self.header.get(..self.filled).unwrap_or_default();
        if let Some(header) = Header::read(so_far)? {
            self.filled = 0;
            self.record = Some((self.admit(header)?, header.length));
        }
        Ok(taken)
    }

    /// Whether a record with this header may stand here, and how its body is read.
    fn admit(&mut self, header: Header) -> Result<Body, Reason> {
        let (body, greatest) = match (&self.phase, header.content) {
            (Phase::Tls12 { opaque: true, .. }, ALERT | HANDSHAKE | APPLICATION_DATA) => {
                (Body::Protected, PROTECTED_MAX_1_2)
            }
            (Phase::Tls12 { opaque: true, .. } | Phase::Ended | Phase::Hello, _) => {
                return Err(Reason::TlsMalformed);
            }
            (Phase::Tls12 { messages, .. }, CHANGE_CIPHER_SPEC) if messages.is_between() => {
                (Body::ChangeCipherSpec, 1)
            }
            (Phase::Tls12 { .. }, HANDSHAKE) => (Body::Messages, PLAINTEXT_MAX),
            (Phase::Tls13, APPLICATION_DATA) if header.length >= PROTECTED_MIN_1_3 => {
                (Body::Protected, PROTECTED_MAX_1_3)
            }
            (
                Phase::Unanswered { early_data: true } | Phase::Retried { early_data: true },
                APPLICATION_DATA,
            ) => (Body::Early, PROTECTED_MAX_1_3),
            (
                Phase::Unanswered { .. } | Phase::Retried { .. } | Phase::Tls13,
                CHANGE_CIPHER_SPEC,
            ) => (Body::ChangeCipherSpec, 1),
            (_, ALERT) if !self.framed.protected => (Body::Alert, 2),
            _ => return Err(Reason::TlsMalformed),
        };
        if header.length == 0 || header.length > greatest {
            return Err(Reason::RecordAbuse);
        }
        if body == Body::Alert && header.length != 2 {
            return Err(Reason::TlsMalformed);
        }
        if matches!(body, Body::Alert | Body::ChangeCipherSpec) {
            self.plain += 1;
            if self.plain > PLAIN_MAX {
                return Err(Reason::RecordAbuse);
            }
        }
        Ok(body)
    }

    fn take_body(&mut self, body: Body, left: usize, bytes: &[u8]) -> Result<usize, Reason> {
        let taken = left.min(bytes.len());
        let content = bytes.get(..taken).unwrap_or_default();
        match body {
            Body::ChangeCipherSpec => self.change_cipher_spec(content)?,
            Body::Alert => self.alert(content)?,
            Body::Messages => {
                if let Phase::Tls12 { messages, .. } = &mut self.phase {
                    messages.advance(content)?;
                }
            }
            Body::Early => {}
            Body::Protected if taken == left => self.framed.protected = true,
            Body::Protected => {}
        }
        self.record = (taken < left).then_some((body, left - taken));
        Ok(taken)
    }

    fn change_cipher_spec(&mut self, content: &[u8]) -> Result<(), Reason> {
        if content != [1] {
            return Err(Reason::TlsMalformed);
        }
        if let Phase::Tls12 { opaque, .. } = &mut self.phase {
            *opaque = true;
        }
        Ok(())
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), Reason> {
        for &byte in content {
            let Some(level) = self.alert_level.take() else {
                if !ALERT_LEVELS.contains(&byte) {
                    return Err(Reason::TlsMalformed);
                }
                self.alert_level = Some(byte);
                continue;
            };
            let is_warning = level == WARNING && byte != CLOSE_NOTIFY;
            if !is_warning {
                self.end();
            }
        }
        Ok(())
    }
}
