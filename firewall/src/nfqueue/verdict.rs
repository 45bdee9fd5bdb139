//! Encoding verdicts back to back.

use super::MSG_VERDICT;
use crate::netlink::{FAMILY_UNSPEC, MessageWriter, SUBSYSTEM_QUEUE, message_type};

/// `NFQA_VERDICT_HDR`, `NFQA_MARK`.
const VERDICT_HEADER: u16 = 2;
const MARK: u16 = 3;

/// `NF_DROP`, `NF_ACCEPT`.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// Bytes of one encoded verdict with a mark.
const VERDICT_BYTES: usize = 40;

/// What happens to a queued packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Goes on to the later chains with this packet mark, which must hold a verdict and no class:
    /// [`crate::marks::VERDICT_PASS`], [`crate::marks::judged`] or [`crate::marks::VERDICT_REJECT`].
    Continue(u32),
    /// Ends here.
    Drop,
}

/// Verdicts collected for one send. A packet has exactly one; a second one for the same id is refused by the kernel
/// with `ENOENT`.
#[derive(Debug)]
pub struct VerdictBatch {
    writer: MessageWriter,
    queue: u16,
    verdicts: usize,
}

impl VerdictBatch {
    /// An empty batch for queue `queue` with room for `verdicts`; it grows once when a batch is larger.
    #[must_use]
    pub fn new(queue: u16, verdicts: usize) -> Self {
        Self {
            writer: MessageWriter::with_capacity(verdicts.saturating_mul(VERDICT_BYTES)),
            queue,
            verdicts: 0,
        }
    }

    /// Adds the verdict on packet `id`.
    pub fn push(&mut self, id: u32, action: Action) {
        let kind = message_type(SUBSYSTEM_QUEUE, MSG_VERDICT);
        // No acknowledgement is asked for: the kernel answers errors only.
        self.writer.begin(kind, 0, 0, FAMILY_UNSPEC, self.queue);
        let verdict = match action {
            Action::Continue(_) => NF_ACCEPT,
            Action::Drop => NF_DROP,
        };
        let mut header = [0; 8];
        let (verdict_field, id_field) = header.split_at_mut(4);
        verdict_field.copy_from_slice(&verdict.to_be_bytes());
        id_field.copy_from_slice(&id.to_be_bytes());
        self.writer.attribute(VERDICT_HEADER, &header);
        if let Action::Continue(mark) = action {
            self.writer.attribute_be32(MARK, mark);
        }
        self.writer.end();
        self.verdicts = self.verdicts.saturating_add(1);
    }

    /// Verdicts collected.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.verdicts
    }

    /// True when there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.verdicts == 0
    }

    /// The encoded messages.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.writer.as_bytes()
    }

    /// Forgets the verdicts and keeps the room.
    pub(super) fn clear(&mut self) {
        self.writer.clear();
        self.verdicts = 0;
    }
}
