//! pcapng (draft-ietf-opsawg-pcapng): sections, interfaces, enhanced and simple packets.

use std::io::Read;

use super::link::Link;
use super::{CaptureError, Frame, Order, Source};

/// Type of a section header block; reads the same in both byte orders.
pub(super) const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Option `if_tsresol` of an interface.
const RESOLUTION: u16 = 9;
/// Option `if_tsoffset`.
const OFFSET: u16 = 14;
/// Interfaces of one section.
const INTERFACES_MAX: usize = 4_096;

/// A pcapng capture being read.
#[derive(Debug)]
pub(super) struct Pcapng<R> {
    source: Source<R>,
    order: Order,
    interfaces: Vec<Interface>,
    last_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    /// `None` for a link layer we do not read: its packets are skipped.
    link: Option<Link>,
    units_per_second: u64,
    offset_s: u64,
}

impl<R: Read> Pcapng<R> {
    /// Continues behind the type of the first section header.
    pub(super) fn open(source: Source<R>) -> Result<Self, CaptureError> {
        let mut this = Self {
            source,
            order: Order::Little,
            interfaces: Vec::new(),
            last_ms: 0,
        };
        if !this.section()? {
            return Err(this.source.malformed("the section header is cut off"));
        }
        Ok(this)
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        loop {
            let Some(kind) = self.source.array::<4>()? else {
                return Ok(None);
            };
            if kind == SECTION {
                if !self.section()? {
                    return Ok(None);
                }
                continue;
            }
            let kind = self.order.u32(kind);
            let Some(body) = self.body()? else {
                return Ok(None);
            };
            let frame = match kind {
                INTERFACE => {
                    self.interface(&body)?;
                    None
                }
                ENHANCED_PACKET => self.enhanced(&body),
                SIMPLE_PACKET => self.simple(&body),
                _ => None,
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    /// Reads a section header behind its type; false at the end of the file.
    fn section(&mut self) -> Result<bool, CaptureError> {
        let (Some(length), Some(magic)) = (self.source.array::<4>()?, self.source.array::<4>()?)
        else {
            return Ok(false);
        };
        self.order = match magic {
            [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
            [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
            _ => return Err(self.source.malformed("a section without a byte order")),
        };
        self.interfaces.clear();
        // Type, both lengths and the magic are 16 bytes; what is left are version and options.
        let Some(rest) = self.order.u32(length).checked_sub(12) else {
            return Err(self.source.malformed("a section header that is too short"));
        };
        Ok(self.source.bytes(rest)?.is_some())
    }

    /// Reads a block's length, body and second length.
    fn body(&mut self) -> Result<Option<Vec<u8>>, CaptureError> {
        let Some(length) = self.source.array::<4>()? else {
            return Ok(None);
        };
        let length = self.order.u32(length);
        let body_length = length.checked_sub(12).filter(|_| length.is_multiple_of(4));
        let Some(body_length) = body_length else {
            return Err(self.source.malformed("a block of impossible length"));
        };
        let Some(body) = self.source.bytes(body_length)? else {
            return Ok(None);
        };
        Ok(self.source.array::<4>()?.map(|_| body))
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), CaptureError> {
        let Some(link) = body.first_chunk::<2>() else {
            return Err(self.source.malformed("an interface without a link layer"));
        };
        let mut interface = Interface {
            link: Link::from_number(self.order.u16(*link)).ok(),
            units_per_second: 1_000_000,
            offset_s: 0,
        };
        let mut options = body.get(8..).unwrap_or_default();
        while let Some((code, value, rest)) = self.option(options) {
            match (code, value) {
                (RESOLUTION, [exponent, ..]) => interface.units_per_second = resolution(*exponent),
                (OFFSET, value) => {
                    let bytes = value.first_chunk::<8>().copied().unwrap_or_default();
                    interface.offset_s = match self.order {
                        Order::Big => u64::from_be_bytes(bytes),
                        Order::Little => u64::from_le_bytes(bytes),
                    };
                }
                _ => {}
            }
            options = rest;
        }
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(self.source.malformed("more interfaces than a machine has"));
        }
        self.interfaces.push(interface);
        Ok(())
    }

    /// The first option: code, value, and what follows. Values are padded to four bytes.
    fn option<'b>(&self, options: &'b [u8]) -> Option<(u16, &'b [u8], &'b [u8])> {
        let (code, rest) = options.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let code = self.order.u16(*code);
        let length = usize::from(self.order.u16(*length));
        if code == 0 {
            return None;
        }
        let value = rest.get(..length)?;
        Some((
            code,
            value,
            rest.get(length.next_multiple_of(4)..).unwrap_or_default(),
        ))
    }

    fn enhanced(&mut self, body: &[u8]) -> Option<Frame> {
        let (number, rest) = body.split_first_chunk::<4>()?;
        let (high, rest) = rest.split_first_chunk::<4>()?;
        let (low, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let data = rest.get(4..)?;
        let index = usize::try_from(self.order.u32(*number)).ok()?;
        let interface = *self.interfaces.get(index)?;
        let bytes = data.get(..usize::try_from(self.order.u32(*length)).ok()?)?;
        let high = u64::from(self.order.u32(*high)) << 32;
        let units = high | u64::from(self.order.u32(*low));
        let ms = u128::from(units)
            .saturating_mul(1_000)
            .checked_div(u128::from(interface.units_per_second))?;
        let offset_ms = interface.offset_s.saturating_mul(1_000);
        self.last_ms = u64::try_from(ms).ok()?.saturating_add(offset_ms);
        Some(Frame {
            unix_ms: self.last_ms,
            link: interface.link?,
            bytes: bytes.to_vec(),
        })
    }

    /// A simple packet has no time: it gets that of the one before.
    fn simple(&self, body: &[u8]) -> Option<Frame> {
        let (length, data) = body.split_first_chunk::<4>()?;
        let length = usize::try_from(self.order.u32(*length)).ok()?;
        let bytes = data.get(..length.min(data.len()))?;
        let link = self.interfaces.first()?.link?;
        Some(Frame {
            unix_ms: self.last_ms,
            link,
            bytes: bytes.to_vec(),
        })
    }
}

/// Units of a time stamp in a second: a power of ten, or of two with the top bit set.
fn resolution(exponent: u8) -> u64 {
    let power = u32::from(exponent & 0x7f);
    let base: u64 = if exponent & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(power).unwrap_or(u64::MAX)
}
