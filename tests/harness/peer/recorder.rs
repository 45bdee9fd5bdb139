//! A TCP server that remembers, per connection, exactly the bytes its application read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::hello;
use crate::netns::Namespace;
use crate::wait;

/// What a [`Recorder`] answers.
#[derive(Debug, Clone)]
pub enum Script {
    /// Nothing, ever.
    Silent,
    /// Speaks first, then stays silent.
    Greet(Vec<u8>),
    /// To the first whole TLS message (or the first bytes of anything else), these; to everything later, nothing.
    Once(Vec<u8>),
    /// Like a TLS 1.3 server: its first flight to a whole first message, then an echo of every later read.
    Tls,
    /// As [`Script::Tls`], but to the first bytes only an unread connection and a reset.
    Abort,
}

/// What one connection brought.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// The client, as the server saw it.
    pub from: SocketAddr,
    /// Every byte read, in order.
    pub bytes: Vec<u8>,
    /// How it ended: `None` while open, else whether by a reset.
    pub ended_by_reset: Option<bool>,
}

/// The running server; its threads end with the process.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    conversations: Arc<Mutex<Vec<Conversation>>>,
}

impl Recorder {
    /// Listens on `address` inside `namespace`.
    pub fn start(namespace: &Namespace, address: SocketAddr, script: Script) -> Result<Self> {
        let listener = namespace
            .enter(|| TcpListener::bind(address))?
            .with_context(|| format!("listening on {address}"))?;
        let conversations = Arc::new(Mutex::new(Vec::new()));
        let this = Self {
            address,
            conversations,
        };
        let server = this.clone();
        std::thread::spawn(move || {
            // The peer's address comes with the connection: one that is reset already no longer tells it.
            while let Ok((stream, from)) = listener.accept() {
                // Noted by this thread: those that serve come to it in any order.
                let index = server.note(from);
                let (server, script) = (server.clone(), script.clone());
                std::thread::spawn(move || server.serve(stream, index, &script));
            }
        });
        Ok(this)
    }

    /// Every connection so far, in the order of acceptance.
    pub fn conversations(&self) -> Vec<Conversation> {
        self.conversations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Every byte any connection brought.
    pub fn received(&self) -> Vec<u8> {
        self.conversations()
            .into_iter()
            .flat_map(|conversation| conversation.bytes)
            .collect()
    }

    /// Waits until some connection has brought exactly these bytes, or more that begin with them.
    pub fn got(&self, bytes: &[u8]) -> bool {
        wait::holds(wait::PATIENCE, || {
            self.conversations()
                .iter()
                .any(|conversation| conversation.bytes.starts_with(bytes))
        })
    }

    /// The latest conversation with a client of this port; the firewall keeps ports where it can.
    pub fn with_port(&self, port: u16) -> Option<Conversation> {
        self.conversations()
            .into_iter()
            .rfind(|conversation| conversation.from.port() == port)
    }

    /// Waits until the latest connection from this port was reset.
    pub fn reset_port(&self, port: u16) -> bool {
        wait::holds(wait::PATIENCE, || {
            self.with_port(port)
                .is_some_and(|last| last.ended_by_reset == Some(true))
        })
    }

    /// Waits until its latest connection was reset.
    pub fn was_reset(&self) -> bool {
        wait::holds(wait::PATIENCE, || {
            self.conversations()
                .last()
                .is_some_and(|last| last.ended_by_reset == Some(true))
        })
    }

    /// Begins a conversation; which one it is.
    fn note(&self, from: SocketAddr) -> usize {
        self.change(|all| {
            all.push(Conversation {
                from,
                bytes: Vec::new(),
                ended_by_reset: None,
            });
            all.len() - 1
        })
    }

    fn serve(&self, mut stream: TcpStream, index: usize, script: &Script) {
        let outcome = self.converse(&mut stream, script, index);
        let reset = outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        self.change(|all| all[index].ended_by_reset = Some(reset));
    }

    fn converse(
        &self,
        stream: &mut TcpStream,
        script: &Script,
        index: usize,
    ) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        if let Script::Greet(greeting) = script {
            stream.write_all(greeting)?;
        }
        let mut buffer = vec![0; 70_000];
        let mut answered = false;
        loop {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            let all = self.change(|all| {
                all[index].bytes.extend(&buffer[..length]);
                all[index].bytes.clone()
            });
            let bytes = &buffer[..length];
            match script {
                Script::Tls if answered => stream.write_all(bytes)?,
                Script::Once(_) | Script::Tls | Script::Abort if answered || unfinished(&all) => {}
                Script::Tls => stream.write_all(&hello::server_flight())?,
                Script::Once(answer) => stream.write_all(answer)?,
                Script::Abort => return reset(stream),
                Script::Silent | Script::Greet(_) => {}
            }
            answered |= !unfinished(&all);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Conversation>) -> T) -> T {
        change(
            &mut self
                .conversations
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// Whether these bytes are the beginning of a TLS handshake message that needs more of them.
fn unfinished(bytes: &[u8]) -> bool {
    let (mut rest, mut message) = (bytes, Vec::<u8>::new());
    while let [22, _, _, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        message.extend(tail.iter().take(length));
        rest = tail.get(length..).unwrap_or_default();
    }
    match message[..] {
        [_, a, b, c, ..] => {
            message.len() - 4 < usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
        }
        _ => bytes.first() == Some(&22),
    }
}

/// Answers as a TLS server would, then resets: closing with a zero linger time sends RST.
fn reset(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(&hello::server_flight())?;
    // Until the client has answered and its answer lies unread, as when a worker dies.
    stream.read(&mut [0; 1]).map(drop)?;
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger)?;
    Ok(())
}
