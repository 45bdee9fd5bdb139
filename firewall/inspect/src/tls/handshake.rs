//! Handshake messages in clear after a TLS 1.2 ServerHello: which may stand there, and the
//! server's certificate among them.

use policy::Reason;

use super::record::HeaderOfMessage;
use crate::reader::Reader;

const CERTIFICATE: u8 = 11;
/// Greatest certificate message kept. Chains are 2 to 6 KiB; a longer one passes unread.
const CERTIFICATE_BYTES_MAX: usize = 1 << 16;

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    /// Whether TLS 1.2 lets this side send a message of type `kind` in clear after the hellos
    /// (RFC 5246, section 7.4; RFC 5077; RFC 6066; RFC 4680).
    const fn may_send(self, kind: u8) -> bool {
        match self {
            // certificate, certificate_verify, client_key_exchange, certificate_url,
            // supplemental_data
            Self::Client => matches!(kind, 11 | 15 | 16 | 21 | 23),
            // new_session_ticket, certificate, server_key_exchange, certificate_request,
            // server_hello_done, certificate_status, supplemental_data
            Self::Server => matches!(kind, 4 | 11..=14 | 22 | 23),
        }
    }
}

/// The chain a TLS 1.2 server presents, leaf first, each certificate in DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    chain: Vec<Box<[u8]>>,
}

impl Certificates {
    /// The server's own certificate, in DER; `None` when it presented an empty list.
    #[must_use]
    pub fn leaf(&self) -> Option<&[u8]> {
        self.chain.first().map(|certificate| &**certificate)
    }

    /// What the server sent to lead from its certificate to a root, in its order.
    pub fn intermediates(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().skip(1).map(|certificate| &**certificate)
    }

    /// Reads the body of a Certificate message (RFC 5246, section 7.4.2).
    fn read(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let mut list = reader.vec24().filter(|_| reader.is_empty())?;
        let mut chain: Vec<Box<[u8]>> = Vec::new();
        while !list.is_empty() {
            let certificate = list.vec24().filter(|der| !der.is_empty())?;
            chain.push(certificate.rest().into());
        }
        Some(Self { chain })
    }
}

/// Follows the messages of one direction through its handshake records.
#[derive(Debug)]
pub(super) struct Messages {
    side: Side,
    header: HeaderOfMessage,
    left: usize,
    kept: Option<Vec<u8>>,
    certificates: Option<Certificates>,
}

impl Messages {
    pub(super) const fn new(side: Side) -> Self {
        Self {
            side,
            header: HeaderOfMessage::new(),
            left: 0,
            kept: None,
            certificates: None,
        }
    }

    /// Takes the next bytes of handshake records.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) -> Result<(), Reason> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let taken = self.header.fill(bytes);
                bytes = bytes.get(taken..).unwrap_or_default();
                self.begin()?;
            } else {
                let taken = self.left.min(bytes.len());
                let (body, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
                if let Some(kept) = &mut self.kept {
                    kept.extend_from_slice(body);
                }
                self.left -= taken;
                bytes = rest;
            }
            self.finish()?;
        }
        Ok(())
    }

    /// Looks at a header that has just grown.
    fn begin(&mut self) -> Result<(), Reason> {
        let kind = self.header.kind();
        if kind.is_some_and(|kind| !self.side.may_send(kind)) {
            return Err(Reason::TlsMalformed);
        }
        let Some(length) = self.header.length() else {
            return Ok(());
        };
        self.left = length.saturating_sub(4);
        let keep = self.side == Side::Server
            && kind == Some(CERTIFICATE)
            && self.left <= CERTIFICATE_BYTES_MAX;
        self.kept = keep.then(Vec::new);
        Ok(())
    }

    /// Takes up the next message once this one is whole.
    fn finish(&mut self) -> Result<(), Reason> {
        if self.left > 0 || self.header.length().is_none() {
            return Ok(());
        }
        if let Some(body) = self.kept.take() {
            // Two certificates of one server are two answers to one question.
            if self.certificates.is_some() {
                return Err(Reason::TlsMalformed);
            }
            self.certificates = Some(Certificates::read(&body).ok_or(Reason::TlsMalformed)?);
        }
        self.header = HeaderOfMessage::new();
        Ok(())
    }

    /// Whether the last message is whole: only there may keys change.
    pub(super) const fn is_between(&self) -> bool {
        self.left == 0 && self.header.is_empty()
    }

    pub(super) const fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Bytes held.
    pub(super) fn buffered(&self) -> usize {
        self.kept.as_ref().map_or(0, Vec::len)
    }
}
