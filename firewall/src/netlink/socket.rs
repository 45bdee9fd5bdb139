//! A netlink socket of the netfilter family, and request/answer over it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{InvalidNetlink, Message, MessageWriter, Messages, NLM_F_DUMP_INTR, NLMSG_DONE};

/// A netlink operation that did not work.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// Making or setting up the socket.
    #[error("opening a netfilter socket: {step}")]
    Open {
        /// The call that did not work.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sending a request.
    #[error("sending a netfilter request")]
    Send(#[source] io::Error),
    /// Receiving an answer or an event.
    #[error("receiving from netfilter")]
    Receive(#[source] io::Error),
    /// The kernel refused a request.
    #[error("netfilter refused the request")]
    Refused(#[source] io::Error),
    /// The kernel's answer is no netlink.
    #[error("reading netfilter's answer")]
    Invalid(#[from] InvalidNetlink),
    /// The kernel reported that the table changed under a dump.
    #[error("the table changed during the dump")]
    Interrupted,
}

impl NetlinkError {
    /// The kernel's error number, when there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open { source, .. } => source.raw_os_error(),
            Self::Send(source) | Self::Receive(source) | Self::Refused(source) => {
                source.raw_os_error()
            }
            Self::Invalid(_) | Self::Interrupted => None,
        }
    }
}

/// A bound `NETLINK_NETFILTER` socket.
pub struct NetfilterSocket {
    socket: Socket,
}

impl std::fmt::Debug for NetfilterSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NetfilterSocket({})", self.socket.as_raw_fd())
    }
}

impl NetfilterSocket {
    /// Opens and binds a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no nfnetlink or the process may not use it.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(opening("socket"))?;
        socket
            .bind(&SocketAddr::new(0, 0))
            .map_err(opening("bind"))?;
        // Errors come back with the request's header only: an answer stays a few bytes long.
        socket
            .set_cap_ack(true)
            .map_err(opening("NETLINK_CAP_ACK"))?;
        Ok(Self { socket })
    }

    /// Asks for a receive buffer of `bytes`, beyond `net.core.rmem_max` where the process may.
    ///
    /// # Errors
    /// When neither form of the option is accepted.
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<(), NetlinkError> {
        setsockopt(self, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(self, sockopt::RcvBuf, &bytes))
            .map_err(|errno| opening("SO_RCVBUF")(errno.into()))
    }

    /// Keeps `recv` from reporting messages lost to a full buffer.
    ///
    /// # Errors
    /// When the option is refused.
    pub fn set_no_enobufs(&self) -> Result<(), NetlinkError> {
        self.socket
            .set_no_enobufs(true)
            .map_err(opening("NETLINK_NO_ENOBUFS"))
    }

    /// Makes the kernel hold events back instead of losing them when the buffer is full.
    ///
    /// # Errors
    /// When the option is refused.
    pub fn set_broadcast_error(&self) -> Result<(), NetlinkError> {
        self.socket
            .set_broadcast_error(true)
            .map_err(opening("NETLINK_BROADCAST_ERROR"))
    }

    /// Subscribes to a multicast group.
    ///
    /// # Errors
    /// When the process may not listen.
    pub fn join(&self, group: u32) -> Result<(), NetlinkError> {
        self.socket
            .add_membership(group)
            .map_err(opening("NETLINK_ADD_MEMBERSHIP"))
    }

    /// Makes every receive return at once, or lets it wait.
    ///
    /// # Errors
    /// When the descriptor's flags cannot be set.
    pub fn set_non_blocking(&self, non_blocking: bool) -> Result<(), NetlinkError> {
        self.socket
            .set_non_blocking(non_blocking)
            .map_err(opening("O_NONBLOCK"))
    }

    /// Bounds how long a receive waits.
    ///
    /// # Errors
    /// When the option is refused.
    pub fn set_receive_timeout(&self, milliseconds: u32) -> Result<(), NetlinkError> {
        let time = TimeVal::milliseconds(i64::from(milliseconds));
        setsockopt(self, sockopt::ReceiveTimeout, &time)
            .map_err(|errno| opening("SO_RCVTIMEO")(errno.into()))
    }

    /// Sends finished messages in one system call.
    ///
    /// # Errors
    /// When the kernel does not take them.
    pub fn send(&self, messages: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send(messages, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(NetlinkError::Send(e)),
            }
        }
    }

    /// Receives one datagram into `buffer` and returns its length. A datagram longer than the buffer is cut, which the
    /// strict reader then reports.
    ///
    /// # Errors
    /// `EAGAIN` when nothing is there in time, `ENOBUFS` when events were lost.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, NetlinkError> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(NetlinkError::Receive(errno.into())),
            }
        }
    }
}

impl AsFd for NetfilterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for NetfilterSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

fn opening(step: &'static str) -> impl FnOnce(io::Error) -> NetlinkError {
    move |source| NetlinkError::Open { step, source }
}

/// What to do after one message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// More messages belong to this answer.
    More,
    /// The answer is complete.
    Complete,
}

/// Bytes of the buffer answers are read into; the kernel fills dumps in chunks of at most 32 KiB.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long the kernel may take over one chunk of an answer.
const ANSWER_TIMEOUT_MS: u32 = 2_000;

/// A socket for requests that are answered at once. One request at a time.
#[derive(Debug)]
pub struct Requester {
    socket: NetfilterSocket,
    writer: MessageWriter,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Requester {
    /// Opens a socket of its own.
    ///
    /// # Errors
    /// As [`NetfilterSocket::open`].
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = NetfilterSocket::open()?;
        socket.set_receive_timeout(ANSWER_TIMEOUT_MS)?;
        Ok(Self {
            socket,
            writer: MessageWriter::with_capacity(256),
            buffer: vec![0; ANSWER_BYTES],
            sequence: 0,
        })
    }

    /// Gives the socket up for another use; the kernel ties a queue to the socket that bound it.
    #[must_use]
    pub fn into_socket(self) -> NetfilterSocket {
        self.socket
    }

    /// Sends one request with an acknowledgement asked for, and waits for that.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's error number, or the transport's own.
    pub fn acknowledged(
        &mut self,
        write: impl FnOnce(&mut MessageWriter, u32),
    ) -> Result<(), NetlinkError> {
        self.exchange(write, |_| Ok(Reply::More))
    }

    /// Sends `count` requests in one system call, each of which the kernel answers with one message, and reads those
    /// answers without looking at them. For what asking alone does.
    ///
    /// # Errors
    /// The transport's own. A refusal is an answer.
    pub fn ask(
        &mut self,
        count: usize,
        mut write: impl FnMut(&mut MessageWriter, u32, usize),
    ) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.writer.clear();
        for index in 0..count {
            write(&mut self.writer, self.sequence, index);
        }
        self.socket.send(self.writer.as_bytes())?;
        let mut answers = 0;
        while answers < count {
            let length = self.socket.receive(&mut self.buffer)?;
            for message in Messages::new(self.buffer.get(..length).unwrap_or_default()) {
                if message?.sequence == self.sequence {
                    answers = answers.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// Sends one request and hands every message of the answer to `each` until the kernel acknowledges, ends the dump,
    /// or `each` says that the answer is complete.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's error number, what `each` returns, or the transport's own.
    pub fn exchange(
        &mut self,
        write: impl FnOnce(&mut MessageWriter, u32),
        mut each: impl FnMut(&Message<'_>) -> Result<Reply, NetlinkError>,
    ) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.writer.clear();
        write(&mut self.writer, self.sequence);
        self.socket.send(self.writer.as_bytes())?;
        let mut interrupted = false;
        loop {
            let length = self.socket.receive(&mut self.buffer)?;
            for message in Messages::new(self.buffer.get(..length).unwrap_or_default()) {
                let message = message?;
                // The rest of an answer that was given up on earlier.
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                let complete = match message.error_code() {
                    Some(0) => true,
                    Some(code) => {
                        return Err(NetlinkError::Refused(io::Error::from_raw_os_error(code)));
                    }
                    None if message.kind == NLMSG_DONE => true,
                    None => each(&message)? == Reply::Complete,
                };
                if complete {
                    return if interrupted {
                        Err(NetlinkError::Interrupted)
                    } else {
                        Ok(())
                    };
                }
            }
        }
    }
}
