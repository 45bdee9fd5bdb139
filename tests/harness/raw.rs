//! Machines whose every packet is made by hand: no kernel of ours owns their addresses, so none answers, corrects or
//! resets on its own. The firewall reaches them through a fixed neighbour entry.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{LinkAddr, MsgFlags, sendto};

use crate::capture;
use crate::netns::Namespace;
use crate::packet::{Seen, Tcp, flags, options};
use crate::topology::Family;

/// A hand-made machine on a link of the firewall.
#[derive(Debug)]
pub struct RawHost {
    socket: OwnedFd,
    link: LinkAddr,
    // Destination and source of every frame, and nothing else of the Ethernet header.
    macs: [u8; 12],
    addresses: [IpAddr; 2],
}

impl RawHost {
    /// Puts a machine with these two addresses (IPv4, IPv6) on `interface` of `namespace`.
    pub fn join(
        namespace: &Namespace,
        interface: &str,
        firewall: &Namespace,
        opposite: &str,
        addresses: [IpAddr; 2],
    ) -> Result<Self> {
        let socket = capture::open(namespace, interface)?;
        let link = namespace.enter(|| capture::link(interface))??;
        let near = link.addr().context("its hardware address")?;
        let far = firewall
            .enter(|| capture::link(opposite))??
            .addr()
            .context("the other one")?;
        let text = near.map(|byte| format!("{byte:02x}")).join(":");
        let commands: String = addresses
            .iter()
            .map(|address| {
                format!("neigh replace {address} lladdr {text} dev {opposite} nud permanent\n")
            })
            .collect();
        firewall.ip(&commands)?;
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&far);
        macs[6..].copy_from_slice(&near);
        Ok(Self {
            socket,
            link,
            macs,
            addresses,
        })
    }

    /// Its address.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.addresses[0],
            Family::V6 => self.addresses[1],
        }
    }

    /// Sends one IP packet as it is.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        let kind = if packet.first().is_some_and(|byte| byte >> 4 == 6) {
            [0x86, 0xdd]
        } else {
            [0x08, 0x00]
        };
        let frame = [&self.macs[..], &kind, packet].concat();
        sendto(
            self.socket.as_raw_fd(),
            &frame,
            &self.link,
            MsgFlags::empty(),
        )
        .context("sending a frame")?;
        Ok(())
    }

    /// The next packet for this machine that `wanted` accepts, within `limit`.
    pub fn receive(&self, limit: Duration, wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; 70_000];
        while Instant::now() < deadline {
            let Some(packet) = capture::receive(&self.socket, &mut buffer) else {
                continue;
            };
            let ours = !packet.outgoing && self.addresses.contains(&packet.seen.to.ip());
            if ours && wanted(&packet.seen) {
                return Some(packet.seen);
            }
        }
        None
    }

    /// Opens a connection to `to` from `port` with the initial sequence number `isn`.
    pub fn connect(&self, port: u16, to: SocketAddr, isn: u32) -> Result<RawTcp<'_>> {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let mut tcp = RawTcp::new(self, SocketAddr::new(self.address(family), port), to, isn);
        tcp.handshake()?;
        Ok(tcp)
    }

    /// Waits for a SYN to `port` and answers it.
    pub fn accept(&self, port: u16, isn: u32) -> Result<RawTcp<'_>> {
        let syn = self
            .receive(PATIENCE, |seen| {
                seen.to.port() == port && seen.flags & (flags::SYN | flags::ACK) == flags::SYN
            })
            .with_context(|| format!("no SYN arrived at port {port}"))?;
        let mut tcp = RawTcp::new(self, syn.to, syn.from, isn);
        tcp.peer_next = syn.seq.wrapping_add(1);
        let mut reply = tcp.segment(0, flags::SYN | flags::ACK, &[]);
        reply.seq = isn;
        reply.options = options::MSS.to_vec();
        self.send(&reply.packet())?;
        Ok(tcp)
    }
}

/// One connection of a [`RawHost`]; nothing is sent, acknowledged or repeated unless a method says so.
#[derive(Debug)]
pub struct RawTcp<'h> {
    host: &'h RawHost,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Our initial sequence number; stream offset 0 is `isn + 1`.
    pub isn: u32,
    /// The next byte expected from the other end.
    pub peer_next: u32,
    /// What the other end has sent, in order.
    pub received: Vec<u8>,
    /// Whether the other end reset the connection.
    pub reset: bool,
    /// Whether the other end has closed its direction.
    pub closed: bool,
    sent: usize,
}

impl<'h> RawTcp<'h> {
    /// A connection that nothing has been sent for yet.
    pub fn new(host: &'h RawHost, local: SocketAddr, remote: SocketAddr, isn: u32) -> Self {
        let received = Vec::new();
        Self {
            host,
            local,
            remote,
            isn,
            peer_next: 0,
            received,
            reset: false,
            closed: false,
            sent: 0,
        }
    }

    /// A segment whose payload lies `offset` bytes into our stream. Change it, then [`RawTcp::put`] it.
    pub fn segment(&self, offset: usize, flags: u8, payload: &[u8]) -> Tcp {
        let seq = self.isn.wrapping_add(1).wrapping_add(offset as u32);
        Tcp::new(self.local, self.remote, seq, self.peer_next, flags, payload)
    }

    /// The SYN this connection starts with.
    pub fn syn(&self) -> Tcp {
        let mut syn = Tcp::new(self.local, self.remote, self.isn, 0, flags::SYN, &[]);
        syn.options = options::MSS.to_vec();
        syn
    }

    /// Sends a segment.
    pub fn put(&self, segment: &Tcp) -> Result<()> {
        self.host.send(&segment.packet())
    }

    /// Sends `payload` at `offset` of the stream.
    pub fn push(&self, offset: usize, payload: &[u8]) -> Result<()> {
        self.put(&self.segment(offset, flags::ACK | flags::PSH, payload))
    }

    /// Sends `payload` after all that was written before.
    pub fn write(&mut self, payload: &[u8]) -> Result<()> {
        self.push(self.sent, payload)?;
        self.sent += payload.len();
        Ok(())
    }

    /// Counts bytes sent by hand, so that [`RawTcp::write`] goes on after them.
    pub fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// Sends the SYN (repeating it as a kernel would, only sooner) and acknowledges the answer.
    pub fn handshake(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let acknowledged = self.isn.wrapping_add(1);
        while Instant::now() < deadline {
            self.put(&self.syn())?;
            // What is left of an earlier connection of these ports acknowledges something else.
            let answer = self.receive(Duration::from_millis(250), |seen| {
                seen.ack == acknowledged
                    && (seen.has(flags::RST) || seen.has(flags::SYN | flags::ACK))
            });
            match answer {
                Some(seen) if seen.has(flags::RST) => {
                    bail!("{} refused the SYN from {}", self.remote, self.local)
                }
                Some(seen) => {
                    self.peer_next = seen.seq.wrapping_add(1);
                    return self.put(&self.segment(0, flags::ACK, &[]));
                }
                None => {}
            }
        }
        bail!("no SYN/ACK from {} for {}", self.remote, self.local)
    }

    /// Closes our direction, and acknowledges the other end's close if it comes soon.
    pub fn close(&mut self) -> Result<()> {
        self.put(&self.segment(self.sent, flags::FIN | flags::ACK, &[]))?;
        self.sent += 1;
        self.pump(Duration::from_millis(500), |tcp| tcp.closed || tcp.reset)
            .map(drop)
    }

    /// Resets the connection after all that was written.
    pub fn reset_at_end(&self) -> Result<()> {
        self.put(&self.segment(self.sent, flags::RST | flags::ACK, &[]))
    }

    /// Forgets all but addresses and ports: the next SYN has this number.
    pub fn restart(&mut self, isn: u32) {
        *self = Self::new(self.host, self.local, self.remote, isn);
    }

    /// The next packet of this connection that `wanted` accepts.
    pub fn receive(&self, limit: Duration, wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let ours = |seen: &Seen| {
            seen.protocol == 6 && (seen.from, seen.to) == (self.remote, self.local) && wanted(seen)
        };
        self.host.receive(limit, ours)
    }

    /// Receives and acknowledges until `done`, or `limit` has passed; whether `done` came true.
    pub fn pump(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let Some(seen) = self.receive(left.min(Duration::from_millis(50)), |_| true) else {
                continue;
            };
            self.take(&seen)?;
        }
        Ok(true)
    }

    /// Waits for the reset that a refusal sends.
    pub fn wait_reset(&mut self) -> Result<bool> {
        self.pump(PATIENCE, |tcp| tcp.reset)
    }

    /// Waits until at least `bytes` have come.
    pub fn wait_bytes(&mut self, bytes: usize) -> Result<bool> {
        self.pump(PATIENCE, |tcp| tcp.received.len() >= bytes || tcp.reset)?;
        Ok(self.received.len() >= bytes)
    }

    fn take(&mut self, seen: &Seen) -> Result<()> {
        self.reset |= seen.has(flags::RST);
        let fresh = seen.seq == self.peer_next;
        if fresh {
            self.received.extend(&seen.payload);
            self.peer_next = self.peer_next.wrapping_add(seen.payload.len() as u32);
        }
        if fresh && seen.has(flags::FIN) && !self.closed {
            self.closed = true;
            self.peer_next = self.peer_next.wrapping_add(1);
        }
        if !seen.payload.is_empty() || seen.has(flags::FIN) {
            self.put(&self.segment(self.sent, flags::ACK, &[]))?;
        }
        Ok(())
    }
}

/// How long a hand-made machine waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
