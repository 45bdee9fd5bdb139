//! The control socket, blocking, for programs that have no event loop.
//!
//! The daemon serves the socket from its own loop with [`crate::framing::Decoder`]; the command
//! line and the tests use [`Client`]. [`bind`] is for both.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control::{Event, Hello, Message, Reply, Request, Welcome};
use crate::framing::{self, Decoder, FramingError, MESSAGE_BYTES_MAX, PUBLISH_BYTES_MAX};

/// Where the daemon listens (DESIGN, section 4.5).
pub const CONTROL_SOCKET: &str = "/run/postern/control.sock";

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody listens there, or we may not connect.
    #[error("connecting to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The path cannot be listened on.
    #[error("listening on {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A message could not be sent or read.
    #[error("talking on the control socket")]
    Framing(#[from] FramingError),
    /// The other side closed.
    #[error("the other side closed the control socket")]
    Closed,
    /// The daemon does not want us.
    #[error("the daemon refuses: {why}")]
    Refused {
        /// In its own words.
        why: String,
    },
}

/// Listens on `path`, in place of a socket that a dead process left there.
///
/// # Errors
///
/// When something is there that is no socket, or a live process answers on it.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let error = |source| SocketError::Bind {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(error(io::ErrorKind::AlreadyExists.into()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(error(io::ErrorKind::AddrInUse.into()));
        }
        Ok(_) => fs::remove_file(path).map_err(error)?,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(other) => return Err(error(other)),
    }
    UnixListener::bind(path).map_err(error)
}

/// One end of a conversation.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    decoder: Decoder,
}

impl Connection {
    /// Takes over a connected socket; bodies over `limit` bytes end the conversation.
    #[must_use]
    pub fn new(stream: UnixStream, limit: usize) -> Self {
        Self {
            stream,
            decoder: Decoder::new(limit),
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    ///
    /// When it is too long or the other side is gone.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), SocketError> {
        Ok(framing::write(
            &mut self.stream,
            message,
            PUBLISH_BYTES_MAX,
        )?)
    }

    /// Waits for one message; `None` when the other side closed.
    ///
    /// # Errors
    ///
    /// When what comes is no `T`, or nothing came within the time-out of the socket.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, SocketError> {
        Ok(framing::read(&mut self.stream, &mut self.decoder)?)
    }

    /// How long [`Connection::receive`] waits; for ever with `None`.
    ///
    /// # Errors
    ///
    /// When the duration is zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), SocketError> {
        Ok(self
            .stream
            .set_read_timeout(timeout)
            .map_err(FramingError::Io)?)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A client that has been welcomed.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    welcome: Welcome,
    events: VecDeque<Event>,
}

impl Client {
    /// Connects and introduces itself; every wait from here on ends after `timeout`.
    ///
    /// # Errors
    ///
    /// When nobody listens, or no version is common.
    pub fn connect(path: &Path, hello: Hello, timeout: Duration) -> Result<Self, SocketError> {
        let stream = UnixStream::connect(path).map_err(|source| SocketError::Connect {
            path: path.to_owned(),
            source,
        })?;
        let mut connection = Connection::new(stream, MESSAGE_BYTES_MAX);
        connection.set_timeout(Some(timeout))?;
        connection.send(&Request::Hello(hello))?;
        let mut events = VecDeque::new();
        match reply(&mut connection, &mut events)? {
            Reply::Welcome(welcome) => Ok(Self {
                connection,
                welcome,
                events,
            }),
            Reply::Refused { why } => Err(SocketError::Refused { why }),
            other @ (Reply::Adopted(_)
            | Reply::Rejected(_)
            | Reply::Noted
            | Reply::Status(_)
            | Reply::Explained(_)
            | Reply::Bindings(_)) => Err(SocketError::Refused {
                why: format!("no greeting but {other:?}"),
            }),
        }
    }

    /// What the daemon said of itself.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Asks, and waits for the answer. Events that come first are kept.
    ///
    /// # Errors
    ///
    /// When the daemon is gone or does not answer in time. [`Reply::Refused`] is no error here.
    pub fn call(&mut self, request: &Request) -> Result<Reply, SocketError> {
        self.connection.send(request)?;
        reply(&mut self.connection, &mut self.events)
    }

    /// The next event, waiting for it if none is kept.
    ///
    /// # Errors
    ///
    /// When the daemon is gone, or none comes in time.
    pub fn event(&mut self) -> Result<Event, SocketError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        match self.connection.receive()? {
            Some(Message::Event(event)) => Ok(event),
            Some(Message::Reply(stray)) => Err(SocketError::Refused {
                why: format!("an answer nobody asked for: {stray:?}"),
            }),
            None => Err(SocketError::Closed),
        }
    }
}

/// The next reply; events before it are put in `events`.
fn reply(connection: &mut Connection, events: &mut VecDeque<Event>) -> Result<Reply, SocketError> {
    loop {
        match connection.receive()? {
            Some(Message::Reply(reply)) => return Ok(reply),
            Some(Message::Event(event)) => events.push_back(event),
            None => return Err(SocketError::Closed),
        }
    }
}
