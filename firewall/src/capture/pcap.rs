//! Classic pcap (draft-ietf-opsawg-pcap).

use std::io::Read;

use super::link::Link;
use super::{CaptureError, Frame, Order, Source};

/// A classic capture being read.
#[derive(Debug)]
pub(super) struct Pcap<R> {
    source: Source<R>,
    order: Order,
    /// Fractions of a second in one unit of the second time field.
    per_ms: u32,
    link: Link,
}

impl<R: Read> Pcap<R> {
    pub(super) fn open(mut source: Source<R>, magic: [u8; 4]) -> Result<Self, CaptureError> {
        let (order, per_ms) = match magic {
            [0xa1, 0xb2, 0xc3, 0xd4] => (Order::Big, MICROSECONDS),
            [0xd4, 0xc3, 0xb2, 0xa1] => (Order::Little, MICROSECONDS),
            [0xa1, 0xb2, 0x3c, 0x4d] => (Order::Big, NANOSECONDS),
            [0x4d, 0x3c, 0xb2, 0xa1] => (Order::Little, NANOSECONDS),
            _ => return Err(CaptureError::UnknownFormat),
        };
        // Version, two unused fields and the snapshot length say nothing we need.
        let header = source.array::<16>()?;
        let (Some(_), Some(link)) = (header, source.array::<4>()?) else {
            return Err(source.malformed("the file header is cut off"));
        };
        // The upper bits hold the length of the frame check sequence.
        let number = order.u32(link) & 0xffff;
        let link = Link::from_number(u16::try_from(number).unwrap_or(u16::MAX))?;
        Ok(Self {
            source,
            order,
            per_ms,
            link,
        })
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        let order = self.order;
        let (Some(seconds), Some(fraction), Some(length), Some(_)) = (
            self.source.array::<4>()?,
            self.source.array::<4>()?,
            self.source.array::<4>()?,
            self.source.array::<4>()?,
        ) else {
            return Ok(None);
        };
        let Some(bytes) = self.source.bytes(order.u32(length))? else {
            return Ok(None);
        };
        let fraction_ms = order.u32(fraction).checked_div(self.per_ms).unwrap_or(0);
        let unix_ms = u64::from(order.u32(seconds))
            .saturating_mul(1_000)
            .saturating_add(u64::from(fraction_ms));
        Ok(Some(Frame {
            unix_ms,
            link: self.link,
            bytes,
        }))
    }
}

const MICROSECONDS: u32 = 1_000;
const NANOSECONDS: u32 = 1_000_000;
