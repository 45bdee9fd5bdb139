//! Reading packet captures: pcap and pcapng, and the link layers of cloud and laptop captures.
//!
//! Bytes in, IP packets out. A capture is somebody else's file: nothing in it is trusted, and
//! a block that claims more than the file holds ends the reading.

use std::io::{self, Read};

use thiserror::Error;

mod link;
mod pcap;
mod pcapng;

use link::Link;

/// An IP packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// The bytes from the IP header on, possibly with padding behind.
    pub packet: Vec<u8>,
}

/// Why a capture could not be read further.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file is neither pcap nor pcapng.
    #[error("neither pcap nor pcapng")]
    UnknownFormat,
    /// A link layer we do not read.
    #[error("link layer {0} is not Ethernet, raw IP or Linux cooked")]
    UnknownLink(u16),
    /// A block or record is impossible.
    #[error("byte {at}: {what}")]
    Malformed {
        /// Where in the file.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A capture being read.
#[derive(Debug)]
pub struct Capture<R> {
    format: Format<R>,
}

#[derive(Debug)]
enum Format<R> {
    Pcap(pcap::Pcap<R>),
    Pcapng(pcapng::Pcapng<R>),
}

impl<R: Read> Capture<R> {
    /// Looks at the first bytes and says what they are.
    ///
    /// # Errors
    /// When they are no capture.
    pub fn open(reader: R) -> Result<Self, CaptureError> {
        let mut source = Source { reader, at: 0 };
        let Some(magic) = source.array::<4>()? else {
            return Err(CaptureError::UnknownFormat);
        };
        let format = if magic == pcapng::SECTION {
            Format::Pcapng(pcapng::Pcapng::open(source)?)
        } else {
            Format::Pcap(pcap::Pcap::open(source, magic)?)
        };
        Ok(Self { format })
    }

    /// The next IP packet; other frames are skipped. `None` at the end.
    ///
    /// # Errors
    /// When the rest cannot be read.
    pub fn next_packet(&mut self) -> Result<Option<Captured>, CaptureError> {
        loop {
            let frame = match &mut self.format {
                Format::Pcap(pcap) => pcap.next_frame()?,
                Format::Pcapng(pcapng) => pcapng.next_frame()?,
            };
            let Some(Frame {
                unix_ms,
                link,
                bytes,
            }) = frame
            else {
                return Ok(None);
            };
            if let Some(packet) = link.ip(&bytes) {
                return Ok(Some(Captured {
                    unix_ms,
                    packet: packet.to_vec(),
                }));
            }
        }
    }
}

/// A frame as the capture holds it.
#[derive(Debug)]
struct Frame {
    unix_ms: u64,
    link: Link,
    bytes: Vec<u8>,
}

/// Which end of a number comes first; both formats are written either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Big => u16::from_be_bytes(bytes),
            Self::Little => u16::from_le_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }
}

/// A reader that knows where it is.
#[derive(Debug)]
struct Source<R> {
    reader: R,
    at: u64,
}

impl<R: Read> Source<R> {
    /// Exactly `N` bytes; `None` at the end of the file, however many bytes are left over: a
    /// capture that was cut off is read as far as it goes.
    fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, CaptureError> {
        let mut bytes = [0; N];
        match self.reader.read_exact(&mut bytes) {
            Ok(()) => {
                self.at = self.at.saturating_add(u64::try_from(N).unwrap_or(u64::MAX));
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `length` bytes, as far as a block may be long; `None` at the end of the file.
    fn bytes(&mut self, length: u32) -> Result<Option<Vec<u8>>, CaptureError> {
        if length > BLOCK_BYTES_MAX {
            return Err(self.malformed("a block of more than 16 MiB"));
        }
        let mut bytes = Vec::new();
        let wanted = u64::from(length);
        let read = self.reader.by_ref().take(wanted).read_to_end(&mut bytes)?;
        self.at = self
            .at
            .saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        Ok((u64::try_from(read).ok() == Some(wanted)).then_some(bytes))
    }

    fn malformed(&self, what: &'static str) -> CaptureError {
        CaptureError::Malformed { at: self.at, what }
    }
}

/// Longest block or record taken; a packet is 64 KiB at most, comments come on top.
const BLOCK_BYTES_MAX: u32 = 16 << 20;

#[cfg(test)]
mod tests;
