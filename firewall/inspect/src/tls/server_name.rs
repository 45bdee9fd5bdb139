//! The name a client asks for (RFC 6066, section 3), or why there is none to judge.

use std::sync::Arc;

use policy::{InvalidName, Name, Reason};

use crate::escape::escape;
use crate::reader::Reader;

/// Type of the only kind of name there has ever been.
const HOST_NAME: u8 = 0;

/// What a ClientHello says about the server it wants.
///
/// A bad name comes with its text, escaped and capped at 253 bytes, for the log alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// One well-formed DNS name.
    Claimed(Name),
    /// No server_name extension.
    Absent,
    /// More than one extension, more than one entry, or an entry that is no host name.
    Multiple(Box<str>),
    /// Not a DNS name: NUL, space, empty label, trailing dot, U-label, too long; or the list
    /// around it is broken.
    Malformed(Box<str>),
    /// An IP address in any numeric form, which RFC 6066 forbids.
    IpLiteral(Box<str>),
}

impl ServerName {
    /// Reads the content of a server_name extension.
    pub(super) fn read(content: &[u8]) -> Self {
        let mut reader = Reader::new(content);
        let Some(mut list) = reader.vec16().filter(|_| reader.is_empty()) else {
            return Self::Malformed(escape(content));
        };
        let entry = list.u8().zip(list.vec16());
        let Some((kind, host)) = entry else {
            return Self::Malformed(escape(content));
        };
        let host = host.rest();
        if kind != HOST_NAME || !list.is_empty() {
            return Self::Multiple(escape(host));
        }
        match Name::parse(host) {
            Ok(name) => Self::Claimed(name),
            Err(InvalidName::IpLiteral) => Self::IpLiteral(escape(host)),
            Err(_) => Self::Malformed(escape(host)),
        }
    }

    /// The name, if it is one that can be judged.
    #[must_use]
    pub const fn name(&self) -> Option<&Name> {
        match self {
            Self::Claimed(name) => Some(name),
            Self::Absent | Self::Multiple(_) | Self::Malformed(_) | Self::IpLiteral(_) => None,
        }
    }

    /// What the log's `dhost` says: empty when nothing was claimed.
    #[must_use]
    pub fn log_text(&self) -> &str {
        match self {
            Self::Claimed(name) => name.as_str(),
            Self::Absent => "",
            Self::Multiple(text) | Self::Malformed(text) | Self::IpLiteral(text) => text,
        }
    }

    /// [`log_text`](Self::log_text), shared with the name where it is one.
    #[must_use]
    pub fn shared_text(&self) -> Arc<str> {
        match self {
            Self::Claimed(name) => name.shared(),
            Self::Absent => Arc::default(),
            Self::Multiple(text) | Self::Malformed(text) | Self::IpLiteral(text) => (**text).into(),
        }
    }

    /// Why no rule by name can admit this, if none can.
    #[must_use]
    pub const fn fault(&self) -> Option<Reason> {
        match self {
            Self::Claimed(_) => None,
            Self::Absent => Some(Reason::SniMissing),
            Self::Multiple(_) => Some(Reason::SniMultiple),
            Self::Malformed(_) => Some(Reason::SniMalformed),
            Self::IpLiteral(_) => Some(Reason::SniIpLiteral),
        }
    }
}
