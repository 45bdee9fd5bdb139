//! A TCP server that remembers, per connection, exactly the bytes its application read.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
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
    /// To the first bytes it reads, these; to everything later, nothing.
    Once(Vec<u8>),
    /// Like a TLS 1.3 server: its first flight to the first bytes, then an echo of every later read.
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
            for stream in listener.incoming().flatten() {
                let (server, script) = (server.clone(), script.clone());
                std::thread::spawn(move || server.serve(stream, &script));
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

    /// Waits until its latest connection was reset.
    pub fn was_reset(&self) -> bool {
        wait::holds(wait::PATIENCE, || {
            self.conversations()
                .last()
                .is_some_and(|last| last.ended_by_reset == Some(true))
        })
    }

    fn serve(&self, mut stream: TcpStream, script: &Script) {
        let Ok(from) = stream.peer_addr() else { return };
        let index = self.change(|all| {
            all.push(Conversation {
                from,
                bytes: Vec::new(),
                ended_by_reset: None,
            });
            all.len() - 1
        });
        let outcome = self.converse(&mut stream, script, index);
        let reset = outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        self.change(|all| all[index].ended_by_reset = Some(reset));
        // A peer that is gone already does not hear it.
        drop(stream.shutdown(Shutdown::Both));
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
        let mut first = true;
        loop {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            let bytes = &buffer[..length];
            self.change(|all| all[index].bytes.extend(bytes));
            match script {
                Script::Tls if first => stream.write_all(&hello::server_flight())?,
                Script::Tls => stream.write_all(bytes)?,
                Script::Once(answer) if first => stream.write_all(answer)?,
                Script::Abort if first => return reset(stream),
                Script::Silent | Script::Greet(_) | Script::Once(_) | Script::Abort => {}
            }
            first = false;
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
