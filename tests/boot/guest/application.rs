//! The servers' side of hand-made connections: looks like TLS 1.3 to a middlebox, and does what its client says.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::hello;
use e2e::netns::Namespace;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

// No protected record is shorter than its authentication tag, and a firewall may know that: 16 bytes each, at least.

/// Content of a protected record that asks for the same again.
pub(crate) const ECHO: &[u8] = b"please say the same";
/// Content of a protected record that makes the server reset the connection at once.
pub(crate) const ABORT: &[u8] = b"please reset us now";
/// Content of a protected record that makes the server send [`BULK_BYTES`].
pub(crate) const BULK: &[u8] = b"please send it all";
/// Content bytes of a bulk answer.
pub(crate) const BULK_BYTES: usize = 4 << 20;

/// What one connection brought.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    /// The client's port; the firewall keeps it when it translates the address.
    pub(crate) port: u16,
    /// Every byte read, in order.
    pub(crate) bytes: Vec<u8>,
    /// Whether the server's side has ended, in whatever way.
    pub(crate) over: bool,
}

/// A running server; it ends with the process.
#[derive(Debug, Clone)]
pub(crate) struct Application {
    conversations: Arc<Mutex<Vec<Conversation>>>,
}

impl Application {
    /// Listens on every one of `addresses` inside `namespace`.
    pub(crate) fn start(namespace: &Namespace, addresses: &[SocketAddr]) -> Result<Self> {
        let this = Self {
            conversations: Arc::default(),
        };
        for address in addresses {
            let listener = namespace.enter(|| TcpListener::bind(address))?;
            let listener = listener.with_context(|| format!("listening on {address}"))?;
            let server = this.clone();
            std::thread::spawn(move || server.accept(&listener));
        }
        Ok(this)
    }

    /// The conversations with a client's port, in the order of acceptance.
    pub(crate) fn with(&self, port: u16) -> Vec<Conversation> {
        let all = self
            .conversations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|one| one.port == port).cloned().collect()
    }

    fn accept(&self, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let server = self.clone();
            std::thread::spawn(move || server.serve(stream));
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let Ok(from) = stream.peer_addr() else { return };
        let index = {
            let mut all = self
                .conversations
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.push(Conversation {
                port: from.port(),
                bytes: Vec::new(),
                over: false,
            });
            all.len().saturating_sub(1)
        };
        // However it ends, the connection is over; the reports tell resets from closes by the wire.
        let _ended = self.converse(&mut stream, index);
        drop(stream);
        self.change(index, |one| one.over = true);
    }

    fn converse(&self, stream: &mut TcpStream, index: usize) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut buffer = vec![0; 70_000];
        let mut greeted = false;
        loop {
            let length = stream.read(&mut buffer)?;
            let bytes = buffer.get(..length).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            self.change(index, |one| one.bytes.extend(bytes));
            let says = |command: &[u8]| bytes.ends_with(&hello::protected(command));
            if !greeted {
                stream.write_all(&hello::server_flight())?;
                greeted = true;
            } else if says(ECHO) {
                stream.write_all(&hello::protected(ECHO))?;
            } else if says(BULK) {
                bulk(stream)?;
            } else if says(ABORT) {
                let at_once = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(stream, sockopt::Linger, &at_once)?;
                return Ok(());
            }
        }
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Conversation)) {
        let mut all = self
            .conversations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = all.get_mut(index) {
            change(one);
        }
    }
}

/// Sends [`BULK_BYTES`] in records of the greatest size.
fn bulk(stream: &mut TcpStream) -> io::Result<()> {
    let record = hello::protected(&vec![0x42; RECORD]);
    for _ in 0..BULK_BYTES / RECORD {
        stream.write_all(&record)?;
    }
    Ok(())
}

/// Content bytes of a record: 2^14, RFC 8446, section 5.1.
const RECORD: usize = 1 << 14;
