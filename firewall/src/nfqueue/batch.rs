//! Preallocated room for one `recvmmsg`.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};

use super::Received;
use super::packet::{Event, read_event};
use crate::netlink::{Messages, NetfilterSocket};

/// Datagrams taken by one system call. Past 64 nothing more was gained where this was measured.
pub(super) const BATCH_DATAGRAMS: usize = 64;
/// Room for one datagram: a 64 KiB packet and its attributes.
const DATAGRAM_BYTES: usize = 0x1_0000 + 4096;

/// Buffers for one receive. Belongs to the thread that uses it; about 4.5 MiB, touched only as far as packets are long.
pub struct Batch {
    headers: MultiHeaders<()>,
    buffers: Box<[Box<[u8]>; BATCH_DATAGRAMS]>,
    lengths: [usize; BATCH_DATAGRAMS],
    filled: usize,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} of {BATCH_DATAGRAMS})", self.filled)
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Allocates the buffers; nothing is allocated afterwards.
    #[must_use]
    pub fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH_DATAGRAMS, None),
            buffers: Box::new(std::array::from_fn(|_| {
                vec![0; DATAGRAM_BYTES].into_boxed_slice()
            })),
            lengths: [0; BATCH_DATAGRAMS],
            filled: 0,
        }
    }

    /// What was received, in order. Bytes that are no netlink end the walk of their datagram; the packet in question
    /// keeps its place in the kernel's queue until the socket closes, and is dropped then.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.buffers
            .iter()
            .zip(self.lengths)
            .take(self.filled)
            .flat_map(|(buffer, length)| Messages::new(buffer.get(..length).unwrap_or_default()))
            .map(|message| message.map_or_else(Event::Unreadable, |m| read_event(&m)))
    }

    /// Receives without waiting.
    pub(super) fn fill(&mut self, socket: &NetfilterSocket) -> Result<Received, Errno> {
        self.filled = 0;
        let mut received = Received::default();
        let mut slices = self.buffers.each_mut().map(|b| [IoSliceMut::new(b)]);
        let results = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        );
        match results {
            Ok(messages) => {
                for (message, length) in messages.zip(self.lengths.iter_mut()) {
                    *length = message.bytes;
                    self.filled = self.filled.saturating_add(1);
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        received.datagrams = self.filled;
        Ok(received)
    }
}
