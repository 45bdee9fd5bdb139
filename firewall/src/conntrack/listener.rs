//! The stream of ended entries.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::MSG_DELETE;
use super::entry::{Entry, read_entry};
use crate::netlink::{Messages, NetfilterSocket, NetlinkError, SUBSYSTEM_CONNTRACK, message_type};

/// `NFNLGRP_CONNTRACK_DESTROY`.
const GROUP_DESTROY: u32 = 3;
/// Receive buffer: at 12,000 connections/s with a burst on top the default lost 9 % and this none.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Room for one datagram; an event with counters and timestamps is about 260 bytes.
const DATAGRAM_BYTES: usize = 16 * 1024;
/// Datagrams taken before the caller gets to look at something else.
const DATAGRAMS_PER_RECEIVE: usize = 256;

/// What one [`DestroyListener::receive`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListenerReport {
    /// Entries handed over.
    pub entries: usize,
    /// True when nothing was left to be read.
    pub drained: bool,
    /// Messages that could not be read.
    pub unreadable: usize,
    /// True when the kernel ran out of buffer for us: events may be missing, so the caller compares
    /// its flows with a dump of the table.
    pub overrun: bool,
}

/// Receives destroy events of the network namespace it was opened in.
///
/// The socket makes the kernel keep an event it could not deliver instead of losing it. A reader
/// that stops reading then pins dead entries, so the owner closes the listener when reading stalls.
#[derive(Debug)]
pub struct DestroyListener {
    socket: NetfilterSocket,
    buffer: Vec<u8>,
}

impl DestroyListener {
    /// Subscribes.
    ///
    /// # Errors
    /// When the process may not listen.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = NetfilterSocket::open()?;
        socket.set_receive_buffer(RECEIVE_BUFFER_BYTES)?;
        socket.set_broadcast_error()?;
        socket.set_non_blocking(true)?;
        socket.join(GROUP_DESTROY)?;
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM_BYTES],
        })
    }

    /// Hands what is there to `each` without waiting, a bounded number of datagrams at a time.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub fn receive(&mut self, mut each: impl FnMut(Entry)) -> Result<ListenerReport, NetlinkError> {
        let mut report = ListenerReport::default();
        for _ in 0..DATAGRAMS_PER_RECEIVE {
            let length = match self.socket.receive(&mut self.buffer) {
                Ok(length) => length,
                Err(error) => match error.errno().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => {
                        report.drained = true;
                        break;
                    }
                    Some(Errno::ENOBUFS) => {
                        report.overrun = true;
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for message in Messages::new(datagram) {
                let entry = match message {
                    Ok(m) if m.kind == message_type(SUBSYSTEM_CONNTRACK, MSG_DELETE) => {
                        read_entry(&m)
                    }
                    Ok(_) => continue,
                    Err(fault) => Err(fault),
                };
                match entry {
                    Ok(entry) => {
                        report.entries = report.entries.saturating_add(1);
                        each(entry);
                    }
                    Err(_) => report.unreadable = report.unreadable.saturating_add(1),
                }
            }
        }
        Ok(report)
    }
}

impl AsFd for DestroyListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
