//! Ten of the lab's attempts: honest and forged clients, each from a port of its own by which the wire and the log
//! know it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::boot::report::Attempt;
use e2e::daemon::Daemon;
use e2e::packet::{Seen, flags};
use e2e::topology::{API, Asker, EVIL, Family, NAMELESS, OLD, RECORDER, Site};
use e2e::wait;

use crate::world::{HTTPS, World, dial};

/// One attempt to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Its name in the report.
    pub(crate) name: &'static str,
    from: Asker,
    family: Family,
    to: Site,
    speaks: Speaks,
}

/// What the client says.
#[derive(Debug, Clone, Copy)]
enum Speaks {
    /// TLS, with these options of `openssl s_client`.
    Tls(&'static [&'static str]),
    /// A request in the clear.
    Http,
}

const API_NAME: &[&str] = &["-servername", API.name];

const fn tls(
    name: &'static str,
    family: Family,
    to: Site,
    options: &'static [&'static str],
) -> Plan {
    Plan {
        name,
        from: Asker::Workload,
        family,
        to,
        speaks: Speaks::Tls(options),
    }
}

/// All of them.
pub(crate) const PLANS: [Plan; 12] = [
    tls(
        "tls13",
        Family::V4,
        API,
        &["-servername", API.name, "-tls1_3"],
    ),
    tls(
        "tls12",
        Family::V4,
        API,
        &["-servername", API.name, "-tls1_2"],
    ),
    tls(
        "tls13_v6",
        Family::V6,
        API,
        &["-servername", API.name, "-tls1_3"],
    ),
    // The name is allowed, the address is somebody else's.
    tls("forged_sni", Family::V4, NAMELESS, API_NAME),
    tls("forged_sni_v6", Family::V6, NAMELESS, API_NAME),
    // The address is allowed, the name is not.
    tls(
        "name_not_allowed",
        Family::V4,
        API,
        &["-servername", EVIL.name],
    ),
    tls(
        "name_not_allowed_v6",
        Family::V6,
        API,
        &["-servername", EVIL.name],
    ),
    tls("no_sni", Family::V4, API, &["-noservername"]),
    tls(
        "old_client",
        Family::V4,
        API,
        &[
            "-servername",
            API.name,
            "-tls1_1",
            "-cipher",
            "DEFAULT:@SECLEVEL=0",
        ],
    ),
    tls(
        "old_server",
        Family::V4,
        OLD,
        &[
            "-servername",
            OLD.name,
            "-min_protocol",
            "TLSv1.1",
            "-max_protocol",
            "TLSv1.2",
            "-cipher",
            "DEFAULT:@SECLEVEL=0",
        ],
    ),
    Plan {
        name: "plain_http",
        from: Asker::Workload,
        family: Family::V4,
        to: API,
        speaks: Speaks::Http,
    },
    Plan {
        name: "unknown_client",
        from: Asker::Foreign,
        family: Family::V4,
        to: API,
        speaks: Speaks::Tls(API_NAME),
    },
];

/// Dials an allowed server while no daemon runs; the ruleset is all there is.
pub(crate) fn without_daemon(world: &World) -> Result<Attempt> {
    let to = RECORDER.at(Family::V4, HTTPS);
    let dialled = || {
        world
            .outside
            .matching(|seen| seen.protocol == 6 && seen.to == to)
    };
    let before = dialled().len();
    let started = Instant::now();
    let answer = world
        .topology
        .client
        .enter(|| TcpStream::connect_timeout(&to, UNANSWERED_LIMIT))?;
    let fresh = dialled().split_off(before);
    Ok(Attempt {
        name: "without_daemon".to_owned(),
        served: answer.is_ok(),
        elapsed_ms: u64::try_from(started.elapsed().as_millis())?,
        packets_on_wire: u64::try_from(fresh.len())?,
        payload_on_wire: 0,
        resets_on_wire: 0,
        log: Vec::new(),
    })
}

impl Plan {
    /// Makes the attempt from `port` and collects what each place saw of it.
    pub(crate) fn run(&self, world: &World, daemon: &Daemon<'_>, port: u16) -> Result<Attempt> {
        let started = Instant::now();
        let served = self
            .client(world, port)
            .with_context(|| format!("attempt {}", self.name))?;
        let elapsed = started.elapsed();
        let log = wait::until(LOG_LIMIT, || {
            Some(lines(daemon, port)).filter(|lines| !lines.is_empty())
        });
        let log = log.unwrap_or_default();
        let wire = world.outside.matching(|seen| {
            seen.protocol == 6 && seen.from.port() == port && seen.to.port() == HTTPS
        });
        let payload: usize = wire.iter().map(|seen| seen.payload.len()).sum();
        let resets = wire
            .iter()
            .filter(|seen: &&Seen| seen.has(flags::RST))
            .count();
        Ok(Attempt {
            name: self.name.to_owned(),
            served,
            elapsed_ms: u64::try_from(elapsed.as_millis())?,
            packets_on_wire: u64::try_from(wire.len())?,
            payload_on_wire: u64::try_from(payload)?,
            resets_on_wire: u64::try_from(resets)?,
            log,
        })
    }

    /// Runs the client; whether it got the server's page.
    fn client(&self, world: &World, port: u16) -> Result<bool> {
        let from = SocketAddr::new(self.from.address(self.family), port);
        let to = self.to.at(self.family, HTTPS);
        match self.speaks {
            Speaks::Tls(options) => {
                let mut command = world.topology.client.command("openssl");
                command.args(["s_client", "-quiet", "-bind", &from.to_string()]);
                command.args(["-connect", &to.to_string()]).args(options);
                talk(&mut command)
            }
            Speaks::Http => Ok(world
                .topology
                .client
                .enter(|| plain(from, to))?
                .unwrap_or(false)),
        }
    }
}

/// Asks in the clear; whether an answer of success came.
fn plain(from: SocketAddr, to: SocketAddr) -> Result<bool> {
    let mut stream = dial(from, to)?;
    stream.set_read_timeout(Some(CLIENT_LIMIT))?;
    stream.write_all(REQUEST)?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(text.starts_with(SUCCESS))
}

/// Feeds openssl's client its request and reads to its end, or kills it; whether an answer of success came.
fn talk(command: &mut Command) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input of a client")?;
    let mut stdout = child.stdout.take().context("standard output of a client")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // A client that is killed has said what it has said.
        let _end = stdout.read_to_end(&mut text);
        text
    });
    // A client that was refused may be gone before it is asked anything.
    let _sent = stdin.write_all(REQUEST);
    let ended = wait::holds(CLIENT_LIMIT, || matches!(child.try_wait(), Ok(Some(_))));
    drop(stdin);
    if !ended {
        child.kill().context("killing a client")?;
        child.wait().context("waiting for a client")?;
    }
    let text = reader
        .join()
        .map_err(|_| anyhow::anyhow!("reading a client's output"))?;
    Ok(text.starts_with(SUCCESS))
}

/// The flow log's lines about the flow from a client's port.
fn lines(daemon: &Daemon<'_>, port: u16) -> Vec<serde_json::Value> {
    let port = port.to_string();
    let about = |line: &e2e::flowlog::Line| line.text("spt") == port || line.text("dpt") == port;
    daemon
        .logs()
        .lines("flow")
        .into_iter()
        .filter(about)
        .map(|line| line.0)
        .collect()
}

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
const SUCCESS: &[u8] = b"HTTP/1.0 200";
/// The longest a client may take; refusals end theirs at once.
const CLIENT_LIMIT: Duration = Duration::from_secs(8);
/// Long enough for two repetitions of a SYN.
const UNANSWERED_LIMIT: Duration = Duration::from_millis(3_500);
/// How long the log may lag behind a client's end.
const LOG_LIMIT: Duration = Duration::from_secs(3);
