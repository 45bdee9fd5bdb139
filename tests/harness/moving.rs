//! Names that move: each has an address known to the firewall, and then another, so that the next connection needs a
//! look-up.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::dns::{Answer, DnsDouble};
use crate::topology::{Family, RECORDER, Topology};

/// Where they move to, one after another.
const NEW_HOMES: Ipv4Addr = Ipv4Addr::new(45, 61, 0, 0);

/// A name and the port it is reached on: no other name has that port, so a SYN to it asks about that name only.
pub fn mover(index: u16) -> (String, u16) {
    (format!("m{index}.allowed.example"), 9_000 + index)
}

/// The rules of `count` names, to follow the `[[group]]` they belong to.
pub fn rules(count: u16) -> String {
    let rule = |(name, port)| {
        format!(
            "[[group.rule]]\ndescription = \"postern:tls:{name}\"\nprotocol = \"tcp\"\nports = \"{port}\"\n"
        )
    };
    (0..count).map(mover).map(rule).collect()
}

/// Gives `count` names the address they have at first. It is read again by nobody who does not dial them.
pub fn settle(dns: &DnsDouble, count: u16) {
    for index in 0..count {
        dns.set(
            &mover(index).0,
            Answer::of([RECORDER.address(Family::V4)]).ttl(1),
        );
    }
}

/// Moves a name to an address of its own; a server listens there. Its answers come `delay` late.
pub fn move_on(
    lab: &Topology,
    dns: &DnsDouble,
    index: u16,
    delay: Duration,
) -> Result<TcpListener> {
    let (name, port) = mover(index);
    let fresh = Ipv4Addr::from(u32::from(NEW_HOMES) + 1 + u32::from(index));
    lab.internet
        .ip(&format!("route add local {fresh}/32 dev lo\n"))?;
    dns.set(&name, Answer::of([fresh]).ttl(60).delayed(delay));
    lab.internet
        .enter(|| TcpListener::bind((fresh, port)))?
        .context("listening where it moved to")
}

/// How long the workload's handshake with a server takes.
pub fn connect(lab: &Topology, to: SocketAddr) -> Result<Duration> {
    lab.client.enter(|| {
        let begun = Instant::now();
        TcpStream::connect_timeout(&to, Duration::from_secs(10)).context("a handshake")?;
        Ok(begun.elapsed())
    })?
}

/// The value that so many in a hundred are below.
pub fn percentile(mut all: Vec<Duration>, percent: usize) -> Duration {
    all.sort();
    let at = (all.len() * percent / 100).min(all.len().saturating_sub(1));
    all.get(at).copied().unwrap_or_default()
}
