//! Many connections at a bounded rate: kernel sockets on both sides, each connection a whole short TLS-like one.

mod held;
mod reloads;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

pub use held::Held;
pub use reloads::{Publication, publish_in_turn, wrong_lines, wrong_verdicts};

use crate::hello::{self, ClientHello};
use crate::netns::Namespace;

/// What a load consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where connections go.
    pub to: SocketAddr,
    /// Addresses they come from, in turn; each must be an address of the namespace.
    pub from: Vec<IpAddr>,
    /// Names they claim, in turn; of none, they say nothing, and end when the server has answered the SYN.
    pub names: Vec<String>,
    /// Connections begun per second over all threads.
    pub per_second: u32,
    /// How long new connections are begun.
    pub lasting: Duration,
    /// Threads; each has one connection at a time.
    pub threads: usize,
}

/// How one connection ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// It was answered and echoed.
    Served,
    /// It was reset.
    Reset,
    /// Nothing came for ten seconds, or it could not be begun.
    Failed,
}

/// One connection.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Which of the plan's names it claimed.
    pub name: usize,
    /// When it was begun.
    pub at: Instant,
    /// From the SYN to the server's first flight, of those that say nothing to its SYN/ACK; or to the end.
    pub took: Duration,
    /// How it ended.
    pub fate: Fate,
    /// From where.
    pub from: SocketAddr,
}

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Every connection, in no order.
    pub attempts: Vec<Attempt>,
    /// From the first to the last.
    pub lasted: Duration,
}

impl Outcome {
    /// How many ended in this way.
    pub fn count(&self, fate: Fate) -> usize {
        self.attempts.iter().filter(|one| one.fate == fate).count()
    }

    /// How many of each name ended how.
    pub fn by_name(&self) -> BTreeMap<(usize, Fate), usize> {
        let mut counts = BTreeMap::new();
        for one in &self.attempts {
            *counts.entry((one.name, one.fate)).or_default() += 1;
        }
        counts
    }

    /// The time that this many of a thousand served connections stayed within: 500 is the median.
    pub fn latency(&self, of_thousand: usize) -> Duration {
        let served = self.attempts.iter().filter(|one| one.fate == Fate::Served);
        let mut times: Vec<Duration> = served.map(|one| one.took).collect();
        times.sort_unstable();
        let at = (times.len() * of_thousand / 1_000).min(times.len().saturating_sub(1));
        times.get(at).copied().unwrap_or_default()
    }

    /// Those of them for which this holds.
    pub fn only(&self, wanted: impl Fn(&Attempt) -> bool) -> Self {
        let attempts = self.attempts.iter().copied().filter(wanted);
        Self {
            attempts: attempts.collect(),
            lasted: self.lasted,
        }
    }

    /// Connections begun per second.
    pub fn rate(&self) -> f64 {
        self.attempts.len() as f64 / self.lasted.as_secs_f64().max(0.001)
    }
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    threads: Vec<JoinHandle<Vec<Attempt>>>,
    begun: Arc<AtomicU64>,
    started: Instant,
}

impl Load {
    /// Starts it inside a namespace.
    pub fn start(namespace: &Namespace, plan: &Plan) -> Result<Self> {
        let (started, begun) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut threads = Vec::new();
        for _ in 0..plan.threads {
            let worker = Worker {
                plan: plan.clone(),
                started,
                begun: Arc::clone(&begun),
            };
            threads.push(namespace.spawn(move || worker.run())?);
        }
        Ok(Self {
            threads,
            begun,
            started,
        })
    }

    /// Connections begun so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits for its end.
    pub fn finish(self) -> Outcome {
        let results = self.threads.into_iter().map(JoinHandle::join);
        let attempts: Vec<Attempt> = results.filter_map(Result::ok).flatten().collect();
        let last = attempts.iter().map(|one| one.at + one.took).max();
        let lasted = last.map_or(Duration::ZERO, |last| last.duration_since(self.started));
        Outcome { attempts, lasted }
    }
}

struct Worker {
    plan: Plan,
    started: Instant,
    begun: Arc<AtomicU64>,
}

impl Worker {
    fn run(self) -> Vec<Attempt> {
        let hellos: Vec<Vec<u8>> = self
            .plan
            .names
            .iter()
            .map(|name| ClientHello::new(name).record())
            .collect();
        let mut attempts = Vec::new();
        loop {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64(number as f64 / f64::from(self.plan.per_second));
            if due >= self.plan.lasting {
                self.begun.fetch_sub(1, Ordering::Relaxed);
                return attempts;
            }
            std::thread::sleep(due.saturating_sub(self.started.elapsed()));
            let turns = hellos.len().max(1);
            let name = number as usize % turns;
            let from = self.plan.from[number as usize / turns % self.plan.from.len()];
            let hello = hellos.get(name).map(Vec::as_slice);
            let at = Instant::now();
            let (fate, local, took) = attempt(from, self.plan.to, hello, at);
            attempts.push(Attempt {
                name,
                at,
                took,
                fate,
                from: local,
            });
        }
    }
}

/// One connection from its SYN to a reset of our own, which leaves no port waiting.
fn attempt(
    from: IpAddr,
    to: SocketAddr,
    hello: Option<&[u8]>,
    at: Instant,
) -> (Fate, SocketAddr, Duration) {
    let nowhere = SocketAddr::new(from, 0);
    let Ok(mut stream) = dial(from, to) else {
        return (Fate::Failed, nowhere, at.elapsed());
    };
    let local = stream.local_addr().unwrap_or(nowhere);
    let mut answered = hello.is_none().then(|| at.elapsed());
    let done = hello.map_or(Ok(()), |hello| {
        exchange(&mut stream, hello, &mut || answered = Some(at.elapsed()))
    });
    let fate = match done {
        Ok(()) => Fate::Served,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Fate::Reset,
        Err(_) => Fate::Failed,
    };
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    match setsockopt(&stream, sockopt::Linger, &linger) {
        // A socket that is reset already has nothing to linger for.
        Ok(()) | Err(_) => {}
    }
    (fate, local, answered.unwrap_or_else(|| at.elapsed()))
}

fn dial(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The port is chosen with the destination in view, so that ports do not run out.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(from, 0)),
    )?;
    setsockopt(
        &socket,
        sockopt::SendTimeout,
        &nix::sys::time::TimeVal::new(10, 0),
    )?;
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &nix::sys::time::TimeVal::new(10, 0),
    )?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(
    stream: &mut TcpStream,
    hello: &[u8],
    answered: &mut dyn FnMut(),
) -> std::io::Result<()> {
    stream.write_all(hello)?;
    let mut flight = vec![0; hello::server_flight().len()];
    stream.read_exact(&mut flight)?;
    answered();
    let finish = hello::client_finish();
    stream.write_all(&finish)?;
    stream.read_exact(&mut flight[..finish.len()])
}

/// Answers loads: a TLS-like server of a fixed number of threads, each with one connection at a time.
#[derive(Debug)]
pub struct LoadServer {
    stop: Arc<AtomicBool>,
}

impl LoadServer {
    /// Listens on `address` inside `namespace`. Who says nothing for 20 seconds is hung up on.
    pub fn start(namespace: &Namespace, address: SocketAddr, threads: usize) -> Result<Self> {
        Self::with_patience(namespace, address, threads, Duration::from_secs(20))
    }

    /// The same, for connections that lie idle for up to `patience`.
    pub fn with_patience(
        namespace: &Namespace,
        address: SocketAddr,
        threads: usize,
        patience: Duration,
    ) -> Result<Self> {
        let listener = namespace
            .enter(|| TcpListener::bind(address))?
            .with_context(|| format!("listening on {address}"))?;
        // The library's backlog is too short for a burst.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4_096)?)?;
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let (listener, stop) = (listener.try_clone()?, Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((stream, _)) = listener.accept() {
                        // However it ends, the client has its own account of it.
                        drop(serve(stream, patience));
                    }
                }
            });
        }
        Ok(Self { stop })
    }
}

impl Drop for LoadServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(mut stream: TcpStream, patience: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    let mut buffer = vec![0; 4_096];
    // Every hello of a load is one record of one segment.
    if stream.read(&mut buffer)? == 0 {
        return Ok(());
    }
    stream.write_all(&hello::server_flight())?;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}
