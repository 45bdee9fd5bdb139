//! NFQUEUE on a netlink socket of our own: binds a queue, receives packets in batches, answers a batch in one send.
//!
//! Says nothing about what a packet means. The queue is bound fail-closed: no `FAIL_OPEN`, so that a full queue drops,
//! and the ruleset never uses `bypass`, so that a dead daemon passes nothing.

mod batch;
mod packet;
mod verdict;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

pub use batch::Batch;
pub use packet::{Event, Packet, read_event};
pub use verdict::{Action, VerdictBatch};

use crate::netlink::{
    FAMILY_UNSPEC, MessageWriter, NLM_F_ACK, NetfilterSocket, NetlinkError, Requester,
    SUBSYSTEM_QUEUE, message_type,
};

/// `NFQNL_MSG_PACKET`.
const MSG_PACKET: u8 = 0;
/// `NFQNL_MSG_VERDICT`.
const MSG_VERDICT: u8 = 1;
/// `NFQNL_MSG_CONFIG`.
const MSG_CONFIG: u8 = 2;

/// `NFQA_CFG_CMD`, `NFQA_CFG_PARAMS`, `NFQA_CFG_QUEUE_MAXLEN`, `NFQA_CFG_MASK`, `NFQA_CFG_FLAGS`.
const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CFG_QUEUE_MAXLEN: u16 = 3;
const CFG_MASK: u16 = 4;
const CFG_FLAGS: u16 = 5;

/// `NFQNL_CFG_CMD_BIND`.
const CMD_BIND: u8 = 1;
/// `NFQNL_CFG_CMD_PF_BIND`: does nothing since Linux 3.8, with the privilege to do it.
const CMD_NOTHING: u8 = 3;
/// `NFQNL_COPY_PACKET`.
const COPY_PACKET: u8 = 2;
/// `NFQA_CFG_F_FAIL_OPEN`.
const FLAG_FAIL_OPEN: u32 = 1;
/// `NFQA_CFG_F_GSO`: super-packets arrive whole instead of as segments.
const FLAG_GSO: u32 = 4;
/// The copy range: whole packets.
const COPY_RANGE: u32 = 0xffff;

/// How a queue is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueOptions {
    /// Packets that may wait for a verdict; the kernel drops what comes on top. More than the engine holds for all
    /// clients together (`inspect::Limits::segments`), or those it holds would starve everybody else.
    pub max_packets: u32,
    /// Socket receive buffer in bytes. The kernel charges a copied packet at more than its length.
    pub receive_buffer: usize,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            max_packets: 65_536,
            receive_buffer: 64 * 1024 * 1024,
        }
    }
}

/// A queue that could not be set up or served.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another process serves this queue.
    #[error("queue {0} is already served by another process")]
    Taken(u16),
    /// The process may not bind queues.
    #[error("binding queue {0} needs CAP_NET_ADMIN in this network namespace")]
    Privilege(u16),
    /// The kernel has no NFQUEUE.
    #[error("this kernel has no NFQUEUE (CONFIG_NETFILTER_NETLINK_QUEUE)")]
    Unsupported,
    /// One of the set-up requests was refused.
    #[error("setting up queue {queue}: {step}")]
    Configure {
        /// The queue.
        queue: u16,
        /// The request.
        step: &'static str,
        /// Why.
        #[source]
        source: NetlinkError,
    },
    /// Receiving did not work.
    #[error("receiving from queue {queue}")]
    Receive {
        /// The queue.
        queue: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sending verdicts did not work; the packets stay queued.
    #[error("answering queue {queue}")]
    Send {
        /// The queue.
        queue: u16,
        /// Why.
        #[source]
        source: NetlinkError,
    },
}

/// What one [`Queue::receive`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Datagrams now in the batch.
    pub datagrams: usize,
}

/// One bound queue. May be made in one thread and served in another.
#[derive(Debug)]
pub struct Queue {
    socket: NetfilterSocket,
    number: u16,
}

impl Queue {
    /// Binds queue `number` in the calling thread's network namespace: whole packets, GSO, never fail-open.
    ///
    /// # Errors
    /// When the queue is served elsewhere, the privilege or the kernel feature is missing, or a request is refused.
    pub fn bind(number: u16, options: &QueueOptions) -> Result<Self, QueueError> {
        let mut requester = Requester::open().map_err(configuring(number, "opening a socket"))?;
        let mut configure = |step, write: &dyn Fn(&mut MessageWriter)| {
            requester
                .acknowledged(|w, sequence| {
                    let kind = message_type(SUBSYSTEM_QUEUE, MSG_CONFIG);
                    w.begin(kind, NLM_F_ACK, sequence, FAMILY_UNSPEC, number);
                    write(w);
                    w.end();
                })
                .map_err(configuring(number, step))
        };
        // The kernel says EPERM both for a missing privilege and for a queue that is taken; asking
        // for nothing first tells them apart.
        configure("privilege", &|w| {
            w.attribute(CFG_CMD, &[CMD_NOTHING, 0, 0, 0])
        })?;
        // struct nfqnl_msg_config_cmd: command, padding, protocol family (ignored since Linux 3.8).
        configure("bind", &|w| w.attribute(CFG_CMD, &[CMD_BIND, 0, 0, 0]))?;
        configure("flags", &|w| {
            // Fail-open is in the mask and not in the flags: switched off, whatever the default.
            w.attribute_be32(CFG_FLAGS, FLAG_GSO);
            w.attribute_be32(CFG_MASK, FLAG_GSO | FLAG_FAIL_OPEN);
        })?;
        configure("queue length", &|w| {
            w.attribute_be32(CFG_QUEUE_MAXLEN, options.max_packets);
        })?;
        configure("copy mode", &|w| {
            // struct nfqnl_msg_config_params, packed: range, mode.
            let [a, b, c, d] = COPY_RANGE.to_be_bytes();
            w.attribute(CFG_PARAMS, &[a, b, c, d, COPY_PACKET]);
        })?;
        let socket = requester.into_socket();
        socket
            .set_receive_buffer(options.receive_buffer)
            .and_then(|()| socket.set_no_enobufs())
            .and_then(|()| socket.set_non_blocking(true))
            .map_err(configuring(number, "socket options"))?;
        Ok(Self { socket, number })
    }

    /// The queue's number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Receives what is there into `batch`, up to its capacity, without waiting.
    ///
    /// # Errors
    /// When the socket fails for good. A full socket buffer is no error: see [`drops`].
    pub fn receive(&self, batch: &mut Batch) -> Result<Received, QueueError> {
        batch
            .fill(&self.socket)
            .map_err(|errno| QueueError::Receive {
                queue: self.number,
                source: errno.into(),
            })
    }

    /// Sends the collected verdicts in one system call and empties the batch.
    ///
    /// # Errors
    /// When the kernel does not take them; the batch is kept, so that the call may be repeated.
    pub fn send(&self, verdicts: &mut VerdictBatch) -> Result<(), QueueError> {
        if verdicts.is_empty() {
            return Ok(());
        }
        self.socket
            .send(verdicts.as_bytes())
            .map_err(|source| QueueError::Send {
                queue: self.number,
                source,
            })?;
        verdicts.clear();
        Ok(())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn configuring(queue: u16, step: &'static str) -> impl FnOnce(NetlinkError) -> QueueError {
    move |source| match source.errno() {
        Some(libc_errno::EPERM | libc_errno::EBUSY) if step == "bind" => QueueError::Taken(queue),
        Some(libc_errno::EPERM) => QueueError::Privilege(queue),
        Some(libc_errno::EINVAL | libc_errno::EOPNOTSUPP | libc_errno::EPROTONOSUPPORT)
            if step == "privilege" =>
        {
            QueueError::Unsupported
        }
        _ => QueueError::Configure {
            queue,
            step,
            source,
        },
    }
}

/// Error numbers as the plain integers that netlink answers carry.
mod libc_errno {
    use nix::errno::Errno;

    pub(super) const EPERM: i32 = Errno::EPERM as i32;
    pub(super) const EBUSY: i32 = Errno::EBUSY as i32;
    pub(super) const EINVAL: i32 = Errno::EINVAL as i32;
    pub(super) const EOPNOTSUPP: i32 = Errno::EOPNOTSUPP as i32;
    pub(super) const EPROTONOSUPPORT: i32 = Errno::EPROTONOSUPPORT as i32;
}

/// Packets that the kernel dropped because they found something full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops {
    /// As many waited for a verdict as may.
    pub queue: u64,
    /// The socket's buffer had no room for a copy.
    pub socket: u64,
}

/// What the queues of the calling thread's network namespace have dropped since they were bound. The kernel tells
/// their readers nothing of it.
///
/// # Errors
/// When the kernel's table of queues cannot be read.
pub fn drops() -> io::Result<Drops> {
    std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue")
        .map(|table| drops_of(&table))
}

fn drops_of(table: &str) -> Drops {
    // Number, reader, waiting, copy mode, copy range, dropped by the queue, dropped by the socket.
    let column = |index| {
        let fields = table.lines().filter_map(|line| {
            let field = line.split_whitespace().nth(index)?;
            field.parse::<u64>().ok()
        });
        fields.fold(0, u64::saturating_add)
    };
    Drops {
        queue: column(5),
        socket: column(6),
    }
}

#[cfg(test)]
mod tests;
