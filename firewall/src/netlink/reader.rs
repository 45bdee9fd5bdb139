//! Reading messages and attributes.

use super::{ATTRIBUTE_HEADER_BYTES, GENERIC_BYTES, HEADER_BYTES, NLMSG_ERROR, align};

/// Bytes that are no netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetlink {
    /// A message header states a length that is shorter than itself or longer than what was received.
    #[error("message length {0} does not fit")]
    MessageLength(usize),
    /// An attribute states a length that is shorter than its header or longer than its container.
    #[error("attribute length {0} does not fit")]
    AttributeLength(usize),
    /// An attribute of a fixed size has another one.
    #[error("attribute {0} has the wrong size")]
    AttributeSize(u16),
    /// An attribute that the message is useless without.
    #[error("attribute {0} is missing")]
    Missing(u16),
}

/// One netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq` of the request it answers, zero for an event.
    pub sequence: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The error code of an `NLMSG_ERROR` message as a positive errno, zero for an acknowledgement; `None` for other
    /// kinds.
    #[must_use]
    pub fn error_code(&self) -> Option<i32> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let code = self.body.first_chunk::<4>()?;
        Some(i32::from_ne_bytes(*code).saturating_neg())
    }

    /// The family byte of the nfnetlink header.
    #[must_use]
    pub fn family(&self) -> Option<u8> {
        self.body.first().copied()
    }

    /// The resource id of the nfnetlink header: the queue number for NFQUEUE.
    #[must_use]
    pub fn resource(&self) -> Option<u16> {
        let header = self.body.first_chunk::<GENERIC_BYTES>()?;
        let [_, _, high, low] = *header;
        Some(u16::from_be_bytes([high, low]))
    }

    /// The attributes behind the nfnetlink header.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.body.get(GENERIC_BYTES..).unwrap_or_default())
    }
}

/// The messages of one datagram, in order. Ends after the first that does not fit.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Walks a received datagram.
    #[must_use]
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, InvalidNetlink>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((header, _)) = self.rest.split_first_chunk::<HEADER_BYTES>() else {
            let length = self.rest.len();
            self.rest = &[];
            return Some(Err(InvalidNetlink::MessageLength(length)));
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some(body) = self.rest.get(HEADER_BYTES..length) else {
            self.rest = &[];
            return Some(Err(InvalidNetlink::MessageLength(length)));
        };
        // The padding of the last message may be absent.
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        }))
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// `nla_type` without the nested and byte-order flags.
    pub kind: u16,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The value as exactly `N` bytes.
    ///
    /// # Errors
    /// When it has another size.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], InvalidNetlink> {
        self.value
            .try_into()
            .map_err(|_| InvalidNetlink::AttributeSize(self.kind))
    }

    /// The value as one byte.
    ///
    /// # Errors
    /// When it has another size.
    pub fn u8(&self) -> Result<u8, InvalidNetlink> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    /// The value as a big-endian `u16`.
    ///
    /// # Errors
    /// When it has another size.
    pub fn be16(&self) -> Result<u16, InvalidNetlink> {
        self.bytes().map(u16::from_be_bytes)
    }

    /// The value as a big-endian `u32`.
    ///
    /// # Errors
    /// When it has another size.
    pub fn be32(&self) -> Result<u32, InvalidNetlink> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// The value as a big-endian `u64`.
    ///
    /// # Errors
    /// When it has another size.
    pub fn be64(&self) -> Result<u64, InvalidNetlink> {
        self.bytes().map(u64::from_be_bytes)
    }

    /// The attributes nested in this one.
    #[must_use]
    pub const fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }
}

/// The attributes of one container, in order. Ends after the first that does not fit.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Walks a container.
    #[must_use]
    pub const fn new(container: &'a [u8]) -> Self {
        Self { rest: container }
    }
}

/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, InvalidNetlink>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(header) = self.rest.first_chunk::<ATTRIBUTE_HEADER_BYTES>() else {
            let length = self.rest.len();
            self.rest = &[];
            return Some(Err(InvalidNetlink::AttributeLength(length)));
        };
        let [l0, l1, k0, k1] = *header;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = self.rest.get(ATTRIBUTE_HEADER_BYTES..length) else {
            self.rest = &[];
            return Some(Err(InvalidNetlink::AttributeLength(length)));
        };
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([k0, k1]) & !ATTRIBUTE_FLAGS;
        Some(Ok(Attribute { kind, value }))
    }
}
