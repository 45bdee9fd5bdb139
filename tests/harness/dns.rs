//! A name server whose every answer is scripted: rotating, slow, silent, wrong or hostile, over UDP and TCP.
//!
//! dnsmasq is the real counterpart for ordinary names ([`crate::peer::Dns`]); this one says what no well-kept server says.
//! What it was asked is logged question by question, so that a test asserts on queries and not on our own counters.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
pub use hickory_proto::op::ResponseCode;
use hickory_proto::op::{Message, Query};
pub use hickory_proto::rr::RecordType;
use hickory_proto::rr::{Name, Record};

use crate::netns::Namespace;
use crate::wait;

mod answer;
mod client;
mod lie;

pub use answer::{Answer, record};
pub use client::{Stub, Told};
pub use lie::{Lie, UNREADABLE};

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct DnsDouble {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// One question it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The name in lower case, without the last dot.
    pub name: String,
    /// The name as it was written: resolvers that fear spoofing mix the case.
    pub written: String,
    /// The type asked for.
    pub record_type: RecordType,
    /// The id of the message.
    pub id: u16,
    /// Where it came from.
    pub from: SocketAddr,
    /// Whether it came over TCP.
    pub tcp: bool,
    /// The largest answer it says it takes over UDP (EDNS, RFC 6891); `None` without that.
    pub payload: Option<u16>,
    /// When.
    pub at: Instant,
    /// The addresses it was answered with.
    pub addresses: Vec<IpAddr>,
}

/// What is wrong with the server as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Questions are read and never answered; TCP connections are accepted and never answered.
    Hang,
    /// Of every so many questions only the last is answered.
    Flap(u32),
    /// Every question gets this code and nothing else.
    Code(ResponseCode),
    /// Datagrams are lost, TCP works.
    NoUdp,
    /// Connections are accepted and never answered, datagrams are.
    NoTcp,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    log: Mutex<Vec<Asked>>,
    fault: Mutex<(Fault, u32)>,
    stopped: AtomicBool,
}

/// One message to send back.
struct Reply {
    bytes: Vec<u8>,
    /// From a port nobody was asked on.
    elsewhere: bool,
    delay: Duration,
}

impl DnsDouble {
    /// Serves port 53 of an address that `namespace` has.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        namespace.enter(|| Self::bind(SocketAddr::new(address, 53)))?
    }

    /// Adds `address` to an interface of `namespace` first.
    pub fn start_at_new(namespace: &Namespace, interface: &str, address: IpAddr) -> Result<Self> {
        let length = if address.is_ipv4() { "32" } else { "128 nodad" };
        namespace.ip(&format!("addr add {address}/{length} dev {interface}\n"))?;
        Self::start(namespace, address)
    }

    /// Serves a free port of this machine's loopback.
    pub fn on_loopback() -> Result<Self> {
        // A port that is free for UDP may be taken for TCP.
        let bound = wait::until(wait::PATIENCE, || {
            Self::bind((Ipv4Addr::LOCALHOST, 0).into()).ok()
        });
        bound.context("a port free for both UDP and TCP")
    }

    fn bind(address: SocketAddr) -> Result<Self> {
        let datagrams = UdpSocket::bind(address).with_context(|| format!("binding {address}"))?;
        let address = datagrams.local_addr().context("its own address")?;
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        let other = UdpSocket::bind(SocketAddr::new(address.ip(), 0)).context("a second port")?;
        datagrams
            .set_read_timeout(Some(GLANCE))
            .context("a read timeout")?;
        listener.set_nonblocking(true).context("not blocking")?;
        let shared = Arc::new(Shared::default());
        let server = Arc::clone(&shared);
        std::thread::spawn(move || serve_datagrams(&server, &datagrams, &other));
        let server = Arc::clone(&shared);
        std::thread::spawn(move || serve_connections(&server, &listener));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Scripts a name, from the next question on; `*.example.org` stands for everything below. Other names do not exist.
    pub fn set(&self, name: &str, answer: Answer) {
        lock(&self.shared.answers).insert(key(name), answer);
    }

    /// Forgets a name.
    pub fn remove(&self, name: &str) {
        lock(&self.shared.answers).remove(&key(name));
    }

    /// Breaks or mends the whole server.
    pub fn set_fault(&self, fault: Fault) {
        *lock(&self.shared.fault) = (fault, 0);
    }

    /// Every question so far, in order of arrival.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.log).clone()
    }

    /// How many questions so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.log).len()
    }

    /// The questions about one name.
    pub fn asked_for(&self, name: &str) -> Vec<Asked> {
        let name = key(name);
        let log = lock(&self.shared.log);
        log.iter()
            .filter(|asked| asked.name == name)
            .cloned()
            .collect()
    }

    /// Forgets what it was asked.
    pub fn clear_log(&self) {
        lock(&self.shared.log).clear();
    }

    /// Draws an answer as a client would get it that asks by itself; not logged.
    pub fn draw(&self, name: &str, record_type: RecordType) -> Vec<IpAddr> {
        let Ok(name) = Name::from_ascii(key(name)) else {
            return Vec::new();
        };
        let query = Query::query(name, record_type);
        let answer = self.shared.answer_for(&query);
        addresses(&answer.records(&query))
    }
}

impl Drop for DnsDouble {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// What is scripted for a question, the nearest wildcard if there is nothing exact.
    fn answer_for(&self, query: &Query) -> Answer {
        let name = key(&query.name().to_ascii());
        let answers = lock(&self.answers);
        if let Some(answer) = answers.get(&name) {
            return answer.clone();
        }
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(answer) = answers.get(&format!("*.{parent}")) {
                return answer.clone();
            }
            rest = parent;
        }
        Answer::code(ResponseCode::NXDomain)
    }

    /// What to send back for the bytes of one question.
    fn replies(&self, bytes: &[u8], from: SocketAddr, tcp: bool) -> Vec<Reply> {
        let Ok(question) = Message::from_vec(bytes) else {
            return Vec::new();
        };
        let Some(query) = question.queries.first().cloned() else {
            return Vec::new();
        };
        let mut answer = self.answer_for(&query);
        let silent = self.is_silent(tcp, &mut answer);
        let records = if silent {
            Vec::new()
        } else {
            answer.records(&query)
        };
        lock(&self.log).push(Asked {
            name: key(&query.name().to_ascii()),
            written: query.name().to_ascii().trim_end_matches('.').to_owned(),
            record_type: query.query_type(),
            id: question.id,
            from,
            tcp,
            payload: question.edns.as_ref().map(|edns| edns.max_payload()),
            at: Instant::now(),
            addresses: addresses(&records),
        });
        if silent {
            return Vec::new();
        }
        answer.replies(&question, &query, records, tcp)
    }

    /// Whether the question at hand goes unanswered; a server-wide code replaces the script.
    fn is_silent(&self, tcp: bool, answer: &mut Answer) -> bool {
        let mut fault = lock(&self.fault);
        fault.1 = fault.1.wrapping_add(1);
        match fault.0 {
            Fault::None => false,
            Fault::Hang => true,
            Fault::Flap(every) => !fault.1.is_multiple_of(every.max(1)),
            Fault::Code(code) => {
                *answer = Answer::code(code);
                false
            }
            Fault::NoUdp => !tcp,
            Fault::NoTcp => tcp,
        }
    }
}

fn serve_datagrams(shared: &Arc<Shared>, socket: &UdpSocket, other: &UdpSocket) {
    let mut buffer = [0; 4096];
    while !shared.stopped.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        for reply in shared.replies(&buffer[..length], from, false) {
            let Ok(port) = if reply.elsewhere { other } else { socket }.try_clone() else {
                continue;
            };
            // Nobody is told when a datagram is lost.
            if reply.delay.is_zero() {
                drop(port.send_to(&reply.bytes, from));
            } else {
                std::thread::spawn(move || {
                    std::thread::sleep(reply.delay);
                    drop(port.send_to(&reply.bytes, from));
                });
            }
        }
    }
}

fn serve_connections(shared: &Arc<Shared>, listener: &TcpListener) {
    while !shared.stopped.load(Ordering::Relaxed) {
        let Ok((stream, from)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || serve_connection(&shared, stream, from));
    }
}

/// Serves one connection until either side has had enough.
fn serve_connection(shared: &Shared, mut stream: TcpStream, from: SocketAddr) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_nodelay(true).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes).ok()?;
        for reply in shared.replies(&bytes, from, true) {
            std::thread::sleep(reply.delay);
            let length = u16::try_from(reply.bytes.len()).unwrap_or(u16::MAX);
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&reply.bytes[..usize::from(length)]);
            stream.write_all(&framed).ok()?;
        }
        if shared.stopped.load(Ordering::Relaxed) {
            return None;
        }
    }
}

/// The addresses in records of type A and AAAA.
fn addresses(records: &[Record]) -> Vec<IpAddr> {
    records
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

/// How names are compared here: lower case, no last dot.
fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a thread waits before it looks whether it should end.
const GLANCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
