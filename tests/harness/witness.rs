//! The witness process alone, without a daemon: this end of its socket pair is the test's.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipc::framing::{self, Decoder};
use ipc::witness::{
    AnswerOutcome, AnswerV1, Configure, FromWitness, HealthV1, Lookup, MESSAGE_BYTES_MAX, ToWitness,
};

use crate::daemon;

/// A running `postern witness`; killed when dropped.
#[derive(Debug)]
pub struct WitnessProcess {
    child: Child,
    socket: UnixStream,
    decoder: Decoder,
    health: HealthV1,
}

/// All that one look-up brought, part by part.
#[derive(Debug, Clone)]
pub struct Found {
    /// How it ended.
    pub outcome: AnswerOutcome,
    /// Every message about it, the last one last.
    pub parts: Vec<AnswerV1>,
    /// How long it took.
    pub took: Duration,
}

impl Found {
    /// Every address, sorted.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let parts = self.parts.iter().flat_map(|part| &part.addresses);
        let mut addresses: Vec<IpAddr> = parts.map(|seen| seen.address).collect();
        addresses.sort();
        addresses
    }
}

impl WitnessProcess {
    /// Starts one that asks these resolvers and has plenty of budget.
    pub fn start(upstreams: &[SocketAddr]) -> Result<Self> {
        Self::with_budget(upstreams, 10_000)
    }

    /// Starts one that asks these resolvers, so many questions a second at most.
    pub fn with_budget(upstreams: &[SocketAddr], max_qps: u32) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("a socket pair")?;
        // Killed with this thread, however it ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(daemon::binary()?)
            .arg("witness")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .context("starting the witness")?;
        ours.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut this = Self {
            child,
            socket: ours,
            decoder: Decoder::new(MESSAGE_BYTES_MAX),
            health: HealthV1::default(),
        };
        this.say(&ToWitness::Configure(Configure {
            upstreams: upstreams.iter().map(ToString::to_string).collect(),
            max_qps,
            ipv6: true,
            anchors: None,
            authorities: String::new(),
        }))?;
        let first = this.hear()?;
        if first != FromWitness::Ready {
            bail!("not ready but {first:?}");
        }
        Ok(this)
    }

    /// Sends a message.
    pub fn say(&mut self, message: &ToWitness) -> Result<()> {
        let bytes = framing::encode(message, MESSAGE_BYTES_MAX)?;
        self.socket.write_all(&bytes).context("to the witness")
    }

    /// The next message, at most 10 s later.
    pub fn hear(&mut self) -> Result<FromWitness> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(message) = self.decoder.next_message()? {
                if let FromWitness::Health(health) = message {
                    self.health = health;
                }
                return Ok(message);
            }
            let length = self.socket.read(&mut buffer).context("from the witness")?;
            if length == 0 {
                bail!("the witness has ended: {:?}", self.child.try_wait());
            }
            self.decoder.push(&buffer[..length]);
        }
    }

    /// One look-up to its end, with the budget a packet has.
    pub fn look_up(&mut self, name: &str, samples: u8) -> Result<Found> {
        let started = Instant::now();
        self.say(&ToWitness::Lookup(Lookup {
            name: name.to_owned(),
            budget_ms: 900,
            samples,
            ipv4: true,
            ipv6: true,
            hints: true,
        }))?;
        let mut parts = Vec::new();
        loop {
            let FromWitness::Answer(answer) = self.hear()? else {
                continue;
            };
            if answer.name != name {
                continue;
            }
            let (outcome, more) = (answer.outcome, answer.more);
            parts.push(answer);
            if !more {
                return Ok(Found {
                    outcome,
                    parts,
                    took: started.elapsed(),
                });
            }
        }
    }

    /// Its counters, once they satisfy a condition; they come once a second.
    pub fn health_when(&mut self, condition: impl Fn(&HealthV1) -> bool) -> Result<HealthV1> {
        while !condition(&self.health) {
            self.hear().with_context(|| format!("{:?}", self.health))?;
        }
        Ok(self.health)
    }

    /// The most memory it has ever had, in bytes.
    pub fn peak_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("VmHWM")?.parse::<u64>()? * 1024)
    }
}

impl Drop for WitnessProcess {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
