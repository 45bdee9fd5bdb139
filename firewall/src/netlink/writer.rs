//! Writing messages back to back into one reused buffer.

use super::{ATTRIBUTE_HEADER_BYTES, HEADER_BYTES, NLM_F_REQUEST, align};

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// Encodes messages one after the other. Nothing is allocated once the buffer has reached its working size.
#[derive(Debug, Default)]
pub struct MessageWriter {
    buffer: Vec<u8>,
    message_start: usize,
}

impl MessageWriter {
    /// An empty writer with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            message_start: 0,
        }
    }

    /// Drops what was written and keeps the room.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.message_start = 0;
    }

    /// The finished messages.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// True when nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Begins a request of an nfnetlink subsystem. `flags` are added to `NLM_F_REQUEST`; `resource` is the queue number
    /// for NFQUEUE and zero elsewhere.
    pub fn begin(&mut self, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) {
        self.message_start = self.buffer.len();
        self.buffer.extend_from_slice(&0_u32.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer
            .extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.buffer.extend_from_slice(&sequence.to_ne_bytes());
        // Port id zero: the kernel fills in the sender's.
        self.buffer.extend_from_slice(&0_u32.to_ne_bytes());
        // struct nfgenmsg: family, version (NFNETLINK_V0), resource id.
        self.buffer.extend_from_slice(&[family, 0]);
        self.buffer.extend_from_slice(&resource.to_be_bytes());
        debug_assert_eq!(
            self.buffer.len(),
            self.message_start + HEADER_BYTES + super::GENERIC_BYTES
        );
    }

    /// Appends one attribute to the message begun last. `value` is at most 64 KiB less the header; the callers here
    /// write a few bytes.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = ATTRIBUTE_HEADER_BYTES.saturating_add(value.len());
        let stated = u16::try_from(length).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(stated), length);
        self.buffer.extend_from_slice(&stated.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        self.pad();
    }

    /// Appends a big-endian `u32`.
    pub fn attribute_be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends a big-endian `u16`.
    pub fn attribute_be16(&mut self, kind: u16, value: u16) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends an attribute whose value is what `inner` writes.
    pub fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.attribute(kind | NESTED, &[]);
        inner(self);
        let length = self.buffer.len().saturating_sub(start);
        let stated = u16::try_from(length).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(stated), length);
        if let Some(field) = self.buffer.get_mut(start..start.saturating_add(2)) {
            field.copy_from_slice(&stated.to_ne_bytes());
        }
    }

    /// Ends the message begun last by filling in its length.
    pub fn end(&mut self) {
        let length = self.buffer.len().saturating_sub(self.message_start);
        let stated = u32::try_from(length).unwrap_or(u32::MAX);
        let field = self.message_start..self.message_start.saturating_add(4);
        if let Some(field) = self.buffer.get_mut(field) {
            field.copy_from_slice(&stated.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        self.buffer.resize(align(self.buffer.len()), 0);
    }
}
