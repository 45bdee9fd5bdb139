//! The clients.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;

use crate::Target;
use crate::exchange::{self, ONE, STREAM};
use crate::stats::Report;

/// An exchange that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to connect to and what to say, connection after connection.
#[derive(Debug)]
pub(crate) struct Script {
    hello: Vec<u8>,
    digits_at: usize,
    target: Target,
    next: Cell<u32>,
}

/// One connection to be made.
#[derive(Debug)]
struct Plan {
    source: Ipv4Addr,
    server: SocketAddr,
    hello: Vec<u8>,
}

impl Script {
    /// Reads the hello and finds the name in it.
    pub(crate) fn read(target: &Target) -> Result<Rc<Self>> {
        let path = &target.hello;
        let hello = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let name = target.name.as_bytes();
        let digits_at = hello
            .windows(name.len())
            .position(|window| window == name)
            .zip(name.iter().position(u8::is_ascii_digit))
            .map(|(name_at, digit)| name_at + digit)
            .with_context(|| format!("{}: no name {} with digits", path.display(), target.name))?;
        Ok(Rc::new(Self {
            hello,
            digits_at,
            target: target.clone(),
            next: Cell::new(0),
        }))
    }

    fn plan(&self) -> Plan {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        // Coprime steps, so that every source meets every name.
        let target = &self.target;
        let name = number.wrapping_mul(7) % target.names;
        let source = u32::from(target.source) + number % target.sources;
        let server = u32::from(target.server) + name % target.servers;
        let mut hello = self.hello.clone();
        for (place, digit) in hello
            .iter_mut()
            .skip(self.digits_at)
            .zip(format!("{name:04}").bytes())
        {
            *place = digit;
        }
        Plan {
            source: source.into(),
            server: SocketAddr::new(Ipv4Addr::from(server).into(), target.port),
            hello,
        }
    }
}

impl Plan {
    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        // A reset at the end: no TIME_WAIT anywhere.
        stream.set_zero_linger()?;
        Ok(stream)
    }

    /// Connects and says hello; the stream and its first answer.
    async fn open(&self) -> std::io::Result<(TcpStream, Vec<u8>)> {
        let mut stream = self.connect().await?;
        stream.write_all(&self.hello).await?;
        let mut answer = Vec::with_capacity(8_192);
        while !exchange::whole_record(&answer) {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok((stream, answer))
    }
}

/// Connects, exchanges, closes; the time from the connect to the first whole record of the answer.
pub(crate) async fn connect_to_answer(script: Rc<Script>) -> Option<Duration> {
    let plan = script.plan();
    let whole = async {
        let start = Instant::now();
        let (mut stream, mut answer) = plan.open().await?;
        let latency = start.elapsed();
        stream.write_all(&exchange::finish(ONE)).await?;
        while !exchange::contains(&answer, b"answer") {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok::<_, std::io::Error>(latency)
    };
    tokio::time::timeout(PATIENCE, whole).await.ok()?.ok()
}

/// Connects, says what will be refused, and waits for the close; the time from the hello to the close.
pub(crate) async fn hello_to_close(script: Rc<Script>) -> Option<Duration> {
    let plan = script.plan();
    let whole = async {
        let mut stream = plan.connect().await.ok()?;
        let start = Instant::now();
        let said = stream.write_all(&plan.hello).await;
        let mut answer = [0; 64];
        // A reset may meet the hello while it is being written.
        let heard = if said.is_ok() {
            stream.read(&mut answer).await
        } else {
            Ok(0)
        };
        matches!(heard, Ok(0) | Err(_)).then(|| start.elapsed())
    };
    tokio::time::timeout(PATIENCE, whole).await.ok()?
}

/// Workers that connect again as soon as an exchange has ended.
pub(crate) async fn saturate(
    script: Rc<Script>,
    workers: usize,
    warm_up: Duration,
    measured: Duration,
) -> Result<()> {
    let begin = Instant::now() + warm_up;
    let end = begin + measured;
    let local = LocalSet::new();
    let handles: Vec<_> = (0..workers)
        .map(|_| local.spawn_local(work(Rc::clone(&script), begin, end)))
        .collect();
    local.await;
    let (mut latencies, mut errors) = (Vec::new(), 0);
    for handle in handles {
        let (good, bad) = handle.await.context("a worker")?;
        latencies.extend(good);
        errors += bad;
    }
    Report::of(latencies, errors, measured.as_secs_f64()).print()
}

async fn work(script: Rc<Script>, begin: Instant, end: Instant) -> (Vec<Duration>, u64) {
    let (mut latencies, mut errors) = (Vec::new(), 0);
    while Instant::now() < end {
        let latency = connect_to_answer(Rc::clone(&script)).await;
        let now = Instant::now();
        if now < begin || now > end {
            continue;
        }
        match latency {
            Some(latency) => latencies.push(latency),
            None => errors += 1,
        }
    }
    (latencies, errors)
}

/// An open loop: `per_second` exchanges of one kind, begun whether or not earlier ones have ended.
pub(crate) async fn paced<F>(
    script: Rc<Script>,
    per_second: u32,
    measured: Duration,
    exchange: fn(Rc<Script>) -> F,
) -> Result<()>
where
    F: Future<Output = Option<Duration>> + 'static,
{
    let local = LocalSet::new();
    let handles = local
        .run_until(async {
            let mut handles = Vec::new();
            let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
            let end = Instant::now() + measured;
            while Instant::now() < end {
                tick.tick().await;
                handles.push(tokio::task::spawn_local(exchange(Rc::clone(&script))));
            }
            handles
        })
        .await;
    local.await;
    let (mut latencies, mut errors) = (Vec::new(), 0);
    for handle in handles {
        match handle.await.context("an exchange")? {
            Some(latency) => latencies.push(latency),
            None => errors += 1,
        }
    }
    Report::of(latencies, errors, measured.as_secs_f64()).print()
}

/// Downloads; only what arrives after the warm-up counts.
pub(crate) async fn bulk(
    script: Rc<Script>,
    streams: usize,
    warm_up: Duration,
    measured: Duration,
) -> Result<()> {
    let begin = Instant::now() + warm_up;
    let end = begin + measured;
    let local = LocalSet::new();
    let handles: Vec<_> = (0..streams)
        .map(|_| local.spawn_local(download(script.plan(), begin, end)))
        .collect();
    local.await;
    let mut report = Report {
        seconds: measured.as_secs_f64(),
        ..Report::default()
    };
    for handle in handles {
        match handle.await.context("a download")? {
            Ok(bytes) => {
                report.connections += 1;
                report.bytes += bytes;
            }
            Err(_) => report.errors += 1,
        }
    }
    report.print()
}

async fn download(plan: Plan, begin: Instant, end: Instant) -> std::io::Result<u64> {
    let (mut stream, _) = plan.open().await?;
    stream.write_all(&exchange::finish(STREAM)).await?;
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await??;
        let now = Instant::now();
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if now >= end {
            return Ok(bytes);
        }
        if now >= begin {
            bytes += read as u64;
        }
    }
}

/// Opens connections and keeps them.
pub(crate) async fn hold(script: Rc<Script>, flows: usize, half: bool) -> Result<()> {
    let mut streams = Vec::with_capacity(flows);
    for _ in 0..flows {
        let plan = script.plan();
        let stream = if half {
            let mut stream = plan.connect().await.context("connecting")?;
            let (first, _) = plan.hello.split_at(plan.hello.len() / 2);
            stream.write_all(first).await.context("half a hello")?;
            stream
        } else {
            let (mut stream, mut answer) = plan.open().await.context("opening")?;
            stream
                .write_all(&exchange::finish(ONE))
                .await
                .context("asking")?;
            while !exchange::contains(&answer, b"answer") {
                if stream.read_buf(&mut answer).await.context("reading")? == 0 {
                    bail!("a connection ended");
                }
            }
            stream
        };
        streams.push(stream);
    }
    println!("{{\"ready\":{}}}", streams.len());
    // Blocks the only thread: nothing is left to do but to hold.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())
        .map(drop)
        .context("waiting")
}
