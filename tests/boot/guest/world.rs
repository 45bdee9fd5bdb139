//! The lab's three namespaces with servers in them, and what the firewall's kernel says about flows.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::capture::Capture;
use e2e::peer::{Authority, TlsServer};
use e2e::topology::{API, FAMILIES, Family, NAMELESS, OLD, RECORDER, Topology};
use e2e::wait;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use crate::application::Application;

/// The port of everything here.
pub(crate) const HTTPS: u16 = 443;

/// Client ports whose resets from the server are lost on the way: to them a server can only fall silent.
pub(crate) const SILENT_PORTS: std::ops::RangeInclusive<u16> = 43_000..=43_999;

/// Everything but the firewall itself.
#[derive(Debug)]
pub(crate) struct World {
    /// Namespaces, links, addresses, resolvers.
    pub(crate) topology: Topology,
    /// The server that does what its client says, at [`RECORDER`] and, unbidden, at [`NAMELESS`].
    pub(crate) application: Application,
    /// Everything on the internet's side of the firewall.
    pub(crate) outside: Capture,
    _servers: Vec<TlsServer>,
}

impl World {
    /// Builds it and waits until every server answers.
    pub(crate) fn new() -> Result<Self> {
        let topology = Topology::new()?;
        let mut addresses = Vec::new();
        for site in [RECORDER, NAMELESS] {
            addresses.extend(FAMILIES.map(|family| site.at(family, HTTPS)));
        }
        let application = Application::start(&topology.internet, &addresses)?;
        let authority = Authority::new(topology.files.path())?;
        let mut servers = Vec::new();
        for (site, family, protocol) in [
            (API, Family::V4, &[][..]),
            (API, Family::V6, &[]),
            (OLD, Family::V4, &["-tls1_1"]),
        ] {
            let address = site.at(family, HTTPS);
            servers.push(TlsServer::start(
                &topology.internet,
                &authority,
                site.name,
                address,
                protocol,
            )?);
        }
        let (first, last) = (SILENT_PORTS.start(), SILENT_PORTS.end());
        let silence = format!(
            "table inet lost {{ chain out {{ type filter hook output priority 0; \
             tcp flags & rst != 0 tcp dport {first}-{last} drop; }}; }}"
        );
        topology.internet.run("nft", &[&silence])?;
        // Before the daemon's own chains, and never removed: removing a base chain would empty its queues.
        topology.firewall.run("nft", &[FORWARD_COUNTER])?;
        let outside = topology.capture_outside()?;
        Ok(Self {
            topology,
            application,
            outside,
            _servers: servers,
        })
    }

    /// Dials every allowed server until the firewall lets it through: an emulated machine may take longer to learn a
    /// name's addresses than a first packet is held.
    pub(crate) fn warm_up(&self) -> Result<()> {
        let mut addresses = vec![API.at(Family::V4, HTTPS), API.at(Family::V6, HTTPS)];
        addresses.extend(FAMILIES.map(|family| RECORDER.at(family, HTTPS)));
        addresses.push(OLD.at(Family::V4, HTTPS));
        for address in addresses {
            let dial = || {
                let dialled = TcpStream::connect_timeout(&address, Duration::from_secs(5));
                dialled.is_ok()
            };
            let through = || self.topology.client.enter(dial).unwrap_or(false);
            ensure!(
                wait::holds(WARM_UP_LIMIT, through),
                "{address} could not be reached"
            );
        }
        Ok(())
    }

    /// The conntrack entry of the flow from a client's port to [`HTTPS`], in the kernel's words; empty without one.
    pub(crate) fn entry(&self, port: u16) -> Result<String> {
        let table = self.firewall_file("nf_conntrack")?;
        let wanted = format!("sport={port} dport={HTTPS} ");
        let line = table.lines().find(|line| line.contains(&wanted));
        // Two words of protocol family come before what the conntrack tool prints.
        Ok(line.unwrap_or_default().to_owned())
    }

    /// Packets that were put into any queue of the firewall since its daemon bound it.
    pub(crate) fn queued(&self) -> Result<u64> {
        // queue, port id, waiting, copy mode, copy range, dropped, dropped by the user, id of the last packet, 1
        let table = self.firewall_file("netfilter/nfnetlink_queue")?;
        let ids = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(7)?.parse::<u64>().ok());
        Ok(ids.sum())
    }

    /// Packets that passed the firewall's forward hook since the beginning.
    pub(crate) fn forwarded(&self) -> Result<u64> {
        self.counter("forwarded")
    }

    /// Counts, from now on, packets of the flow from a client's port that the daemon's ruleset marks for its queues.
    pub(crate) fn watch(&self, port: u16) -> Result<()> {
        let rule = format!(
            "flush chain inet boot_probe marked; add rule inet boot_probe marked \
             meta l4proto tcp ct original proto-src {port} meta mark & 0x700 != 0 counter name marked"
        );
        self.topology.firewall.run("nft", &[&rule]).map(drop)
    }

    /// What [`World::watch`] has counted, over all flows it was ever told of.
    pub(crate) fn marked(&self) -> Result<u64> {
        self.counter("marked")
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let shown = self
            .topology
            .firewall
            .run("nft", &["list", "counter", "inet", "boot_probe", name])?;
        let mut words = shown
            .split_whitespace()
            .skip_while(|word| *word != "packets")
            .skip(1);
        let count = words.next().context("nft shows no packets")?;
        count.parse().with_context(|| format!("reading {count}"))
    }

    /// A file of `/proc/net` as seen in the firewall's namespace.
    fn firewall_file(&self, name: &str) -> Result<String> {
        // Not /proc/net: that is the namespace of the process, and only this thread enters another.
        let path = format!("/proc/thread-self/net/{name}");
        match self.topology.firewall.enter(|| fs::read_to_string(&path))? {
            Ok(text) => Ok(text),
            // The module that provides it comes with the first rule that needs it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).with_context(|| format!("reading {path}")),
        }
    }
}

/// Connects from an address and port of one's own choosing.
pub(crate) fn dial(from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))
        .with_context(|| format!("binding {from}"))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
        .with_context(|| format!("connecting to {to}"))?;
    Ok(TcpStream::from(socket))
}

const WARM_UP_LIMIT: Duration = Duration::from_secs(15);

/// Chain `marked` comes after the daemon's chains that mark packets and let some through, and before the one that queues
/// them, which are at −152, −151 and −150: of two chains with one priority the newer runs first, and the daemon's are.
const FORWARD_COUNTER: &str = "table inet boot_probe { counter forwarded { }; counter marked { }; \
     chain forward { type filter hook forward priority -500; counter name forwarded; }; \
     chain marked { type filter hook forward priority -151; }; }";
