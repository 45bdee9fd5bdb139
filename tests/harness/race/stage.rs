//! The wires and the servers of the race.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::generator::Server;
use crate::hello;
use crate::netns::Namespace;
use crate::peer::Dns;

/// The first of [`CLIENTS`] client addresses.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 10);
/// The first of [`SERVERS`] server addresses.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The resolver, beside the servers.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// Addresses clients call from. A gateway stands before many, and Postern limits each to 1,000 new flows a second.
pub const CLIENTS: u8 = 64;
/// Addresses of servers.
pub const SERVERS: u8 = 16;
/// Names that are allowed.
pub const NAMES: u32 = 1_000;
/// An allowed name; the four digits count.
pub const NAME: &str = "n0000.race.example";
/// A name nobody allows, with digits in the same place.
pub const OTHER_NAME: &str = "x0000.else.example";
/// The Postern to compare with.
pub const BEFORE: &str = "postern of another build";
/// The firewall's inner interface.
pub const INSIDE: &str = "rin";
/// The firewall's outer interface.
pub const OUTSIDE: &str = "rout";

/// Who may run where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Everything on every processor.
    Shared,
    /// The firewall alone on the second processor, all else on the first.
    Split,
}

/// Three namespaces, a server that answers on all of its addresses, a resolver, and the hellos to send.
#[derive(Debug)]
pub struct Stage {
    /// Where load comes from.
    pub client: Namespace,
    /// Where the datapath runs.
    pub firewall: Namespace,
    /// Where it goes.
    pub server: Namespace,
    files: TempDir,
    serving: Server,
    _dns: Dns,
}

impl Stage {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let files = tempfile::Builder::new()
            .prefix("postern-race-")
            .tempdir()
            .context("making a folder")?;
        let client = Namespace::new("client")?;
        let firewall = Namespace::new("firewall")?;
        let server = Namespace::new("server")?;
        for namespace in [&client, &firewall, &server] {
            // Receive packet steering is set in sysfs, which shows the namespace of whoever mounted it.
            namespace.run("mount", &["-t", "sysfs", "sysfs", "/sys"])?;
        }
        // Squid's processes share memory, and are killed before they could give it back.
        firewall.run("mount", &["-t", "tmpfs", "tmpfs", "/dev/shm"])?;
        wire(&client, &firewall, &server)?;
        let path = files.path();
        let write = |name: &str, bytes: Vec<u8>| {
            std::fs::write(path.join(name), bytes).with_context(|| format!("writing {name}"))
        };
        write("hello", hello::ClientHello::new(NAME).record())?;
        write("hello-pq", hello::ClientHello::post_quantum(NAME).record())?;
        write("hello-other", hello::ClientHello::new(OTHER_NAME).record())?;
        write("flight", hello::server_flight())?;
        let dns = Dns::with_zone(&server, &path.join("dns.conf"), RESOLVER.into(), &zone())?;
        let serving = Server::start(&server, &path.join("flight"))?;
        let stage = Self {
            client,
            firewall,
            server,
            files,
            serving,
            _dns: dns,
        };
        stage.arrange(Layout::Shared)?;
        Ok(stage)
    }

    /// A file of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Moves the interrupts and the servers to where `layout` wants them.
    pub fn arrange(&self, layout: Layout) -> Result<()> {
        let (ends, middle, cores) = match layout {
            Layout::Shared => ("0", "0", "0-1"),
            Layout::Split => ("1", "2", "0"),
        };
        let steer = |namespace: &Namespace, interface: &str, mask: &str| {
            let path = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
            namespace.feed("tee", &[&path], mask).map(drop)
        };
        steer(&self.client, "client0", ends)?;
        steer(&self.server, "server0", ends)?;
        steer(&self.firewall, INSIDE, middle)?;
        steer(&self.firewall, OUTSIDE, middle)?;
        pin(self.serving.pid(), cores)
    }

    /// A policy of `names` exact names, in groups of a few, for the clients that call and `more` that never do.
    pub fn inventory(names: u32, more: u32) -> String {
        let mut text = String::from(
            "served = [\"10.0.0.0/8\"]\n\n[preferences]\nallow_private_answers = [\"203.0.113.0/24\"]\n\n\
             [[group]]\nid = \"race\"\n",
        );
        let all: Vec<String> = (0..names).map(name).collect();
        for chunk in all.chunks(10) {
            text.push_str(&format!(
                "[[group.rule]]\ndescription = \"postern:tls:{}\"\nprotocol = \"tcp\"\nports = \"443\"\n",
                chunk.join(",")
            ));
        }
        let ours = (0..u32::from(CLIENTS)).map(|n| Ipv4Addr::from(u32::from(CLIENT) + n));
        let others = (0..more).map(|n| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 0, 0)) + n));
        for (number, address) in ours.chain(others).enumerate() {
            text.push_str(&format!(
                "[[client]]\naddress = \"{address}\"\ninstance = \"i-{number}\"\ngroups = [\"race\"]\n"
            ));
        }
        text
    }

    /// Plain masquerading: the yardstick, and what stands behind every proxy too.
    pub fn masquerade(&self) -> Result<()> {
        let rules = format!(
            "table ip race {{ chain post {{ type nat hook postrouting priority 100; \
             oifname {OUTSIDE} masquerade; }}; }}"
        );
        self.firewall.feed("nft", &["-f", "-"], &rules).map(drop)
    }

    /// Takes every rule out again.
    pub fn clear(&self) -> Result<()> {
        self.firewall.run("nft", &["flush", "ruleset"])?;
        // What one datapath left in the connection table would meet the next.
        self.firewall.output("conntrack", &["-F"]).map(drop)
    }
}

/// Lets a process, all of its threads, run on these processors only.
pub fn pin(pid: u32, cores: &str) -> Result<()> {
    let output = std::process::Command::new("taskset")
        .args(["-a", "-c", "-p", cores, &pid.to_string()])
        .output()
        .context("running taskset")?;
    // A program that was started for a moment has ended meanwhile.
    let is_gone = !Path::new("/proc").join(pid.to_string()).exists();
    anyhow::ensure!(
        output.status.success() || is_gone,
        "taskset {cores} {pid}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The allowed name of this number: four digits as in [`NAME`], five and six beyond 9,999.
pub fn name(number: u32) -> String {
    format!("n{number:04}.race.example")
}

/// The server address of a name.
pub fn address_of(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(SERVER) + number % u32::from(SERVERS))
}

/// With an hour to live, so that no look-up falls into what is measured.
fn zone() -> String {
    let mut text: String = (0..NAMES)
        .map(|n| format!("host-record={},{},3600\n", name(n), address_of(n)))
        .collect();
    text.push_str(&format!("host-record=ns.allowed.example,{RESOLVER}\n"));
    text
}

fn wire(client: &Namespace, firewall: &Namespace, server: &Namespace) -> Result<()> {
    firewall.sysctl("net.ipv4.ip_forward", "1")?;
    for namespace in [client, server] {
        namespace.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        // The pacing of bbr would be what bulk measures.
        namespace.sysctl("net.ipv4.tcp_congestion_control", "reno")?;
        namespace.sysctl("net.core.somaxconn", "4096")?;
        namespace.sysctl("net.ipv4.tcp_max_syn_backlog", "4096")?;
    }
    firewall.ip(&format!(
        "link add {INSIDE} mtu 1500 type veth peer name client0 mtu 1500 netns {}\n\
         link add {OUTSIDE} mtu 1500 type veth peer name server0 mtu 1500 netns {}\n\
         addr add 10.77.1.1/24 dev {INSIDE}\naddr add 203.0.113.1/24 dev {OUTSIDE}\n\
         link set {INSIDE} up\nlink set {OUTSIDE} up\nroute add default via 203.0.113.254\n",
        client.pid(),
        server.pid()
    ))?;
    let each = |first: Ipv4Addr, count: u8, interface: &str| -> String {
        (0..u32::from(count))
            .map(|n| {
                format!(
                    "addr add {}/24 dev {interface}\n",
                    Ipv4Addr::from(u32::from(first) + n)
                )
            })
            .collect()
    };
    client.ip(&format!(
        "{}link set client0 up\nroute add default via 10.77.1.1\n",
        each(CLIENT, CLIENTS, "client0")
    ))?;
    server.ip(&format!(
        "{}addr add {RESOLVER}/24 dev server0\naddr add 203.0.113.254/24 dev server0\nlink set server0 up\n",
        each(SERVER, SERVERS, "server0")
    ))
}

/// Where release programs of this clone are; `POSTERN_BIN` races another Postern in its place, and `POSTERN_BEFORE`
/// is what [`Kind::Before`](super::datapath::Kind::Before) races.
pub fn release(program: &str) -> Result<PathBuf> {
    let other = match program {
        "postern" => std::env::var_os("POSTERN_BIN"),
        BEFORE => Some(std::env::var_os("POSTERN_BEFORE").context("POSTERN_BEFORE is not set")?),
        _ => None,
    };
    if let Some(other) = other {
        return Ok(other.into());
    }
    let me = std::env::current_exe().context("finding this program")?;
    let found = me
        .ancestors()
        .map(|folder| folder.join("release").join(program))
        .find(|path: &PathBuf| Path::is_file(path));
    found.with_context(|| format!("no release build of {program}"))
}
