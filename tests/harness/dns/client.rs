//! Asks a name server as a workload's stub resolver does, message by message.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::Namespace;

/// Someone who asks: from where, whom.
#[derive(Debug)]
pub struct Stub<'n> {
    namespace: &'n Namespace,
    from: IpAddr,
    /// Whom it asks.
    pub server: SocketAddr,
    /// How long it waits.
    pub patience: Duration,
}

/// An answer.
#[derive(Debug)]
pub struct Told {
    /// The message, whole.
    pub message: Message,
    /// Who it came from.
    pub from: SocketAddr,
}

impl Told {
    /// Its code.
    pub fn code(&self) -> ResponseCode {
        self.message.response_code
    }

    /// The addresses in its answer section, sorted.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self
            .message
            .answers
            .iter()
            .filter_map(|record| record.data.ip_addr())
            .collect();
        addresses.sort();
        addresses
    }

    /// The records of its answer section, in presentation form.
    pub fn records(&self) -> Vec<String> {
        self.message
            .answers
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

impl<'n> Stub<'n> {
    /// One that asks `server` from an address that `namespace` has.
    pub fn new(namespace: &'n Namespace, from: IpAddr, server: SocketAddr) -> Self {
        Self {
            namespace,
            from,
            server,
            patience: Duration::from_secs(10),
        }
    }

    /// The question as bytes; with EDNS when there is a payload size to tell.
    pub fn question(name: &str, record_type: RecordType, payload: Option<u16>) -> Result<Vec<u8>> {
        let name = Name::from_ascii(format!("{name}.")).context("a name")?;
        let mut message = Message::new(4_711, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, record_type));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message.to_vec().context("a question")
    }

    /// Asks over UDP; nothing when there is no answer in time.
    pub fn ask(&self, name: &str, record_type: RecordType) -> Result<Option<Told>> {
        self.exchange(&Self::question(name, record_type, Some(1_232))?)
    }

    /// Asks over UDP until there is an answer, as stubs do.
    pub fn insist(&self, name: &str, record_type: RecordType) -> Result<Told> {
        for _ in 0..20 {
            let once = Stub {
                patience: Duration::from_millis(1_500),
                ..*self
            };
            if let Some(reply) = once.ask(name, record_type)? {
                return Ok(reply);
            }
        }
        bail!("{} does not answer for {name}", self.server)
    }

    /// Sends bytes over UDP; what comes back in time.
    pub fn exchange(&self, bytes: &[u8]) -> Result<Option<Told>> {
        let exchange = || -> Result<Option<Told>> {
            let socket = UdpSocket::bind((self.from, 0)).context("binding")?;
            socket
                .set_read_timeout(Some(self.patience))
                .context("a time-out")?;
            // Not connected: who answers is for the test to judge.
            socket.send_to(bytes, self.server).context("sending")?;
            let mut buffer = vec![0; 65_535];
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                return Ok(None);
            };
            let message = Message::from_vec(buffer.get(..length).unwrap_or_default());
            let message = message.context("reading an answer")?;
            Ok(Some(Told { message, from }))
        };
        self.namespace.enter(exchange)?
    }

    /// Opens a connection, from this address.
    fn connect(&self) -> Result<TcpStream> {
        let family = if self.server.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // On Linux the time-out for sending is also the one for connecting.
        let patience = i64::try_from(self.patience.as_millis())?;
        setsockopt(
            &socket,
            sockopt::SendTimeout,
            &TimeVal::milliseconds(patience),
        )?;
        let from = SocketAddr::new(self.from, 0);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(self.server))?;
        Ok(TcpStream::from(socket))
    }

    /// Asks over TCP; nothing when the connection is refused, closed or silent.
    pub fn ask_tcp(&self, name: &str, record_type: RecordType) -> Result<Option<Told>> {
        let question = Self::question(name, record_type, None)?;
        let exchange = || -> Result<Option<Told>> {
            let Ok(mut stream) = self.connect() else {
                return Ok(None);
            };
            stream
                .set_read_timeout(Some(self.patience))
                .context("a time-out")?;
            let length = u16::try_from(question.len()).context("a length")?;
            stream.write_all(&length.to_be_bytes()).context("sending")?;
            stream.write_all(&question).context("sending")?;
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                return Ok(None);
            }
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes).context("reading an answer")?;
            Ok(Some(Told {
                message: Message::from_vec(&bytes).context("reading an answer")?,
                from: self.server,
            }))
        };
        self.namespace.enter(exchange)?
    }
}
