//! client —veth— firewall —veth— internet, IPv4 and IPv6, and who has which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::capture::Capture;
use crate::dns::DnsDouble;
use crate::netns::Namespace;
use crate::peer::Dns;
use crate::raw::RawHost;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both, for loops.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A machine of the lab: its name in the zone, and the last part of both of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Its host name; empty when the zone does not name it.
    pub name: &'static str,
    /// The last byte of `203.0.113.N`, and N read as decimal digits in `2001:db8:77::N`.
    pub host: u8,
}

impl Site {
    /// Its address of one family.
    pub fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(203, 0, 113, self.host).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, digits(self.host)).into(),
        }
    }

    /// Its address of one family with a port.
    pub fn at(self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }
}

/// TLS of any version up to 1.3 under an allowed name.
pub const API: Site = Site {
    name: "api.allowed.example",
    host: 10,
};
/// TLS 1.2 only.
pub const TLS12: Site = Site {
    name: "tls12.allowed.example",
    host: 11,
};
/// TLS 1.1 only, under an allowed name.
pub const OLD: Site = Site {
    name: "old.allowed.example",
    host: 12,
};
/// Another allowed name with an address of its own.
pub const MIRROR: Site = Site {
    name: "mirror.allowed.example",
    host: 13,
};
/// OpenSSH, allowed on port 22.
pub const GIT: Site = Site {
    name: "git.allowed.example",
    host: 14,
};
/// A name that only the pattern `*.wild.example` allows.
pub const WEB: Site = Site {
    name: "web.wild.example",
    host: 15,
};
/// Has a name that no rule lists.
pub const EVIL: Site = Site {
    name: "evil.example",
    host: 20,
};
/// Has no name at all.
pub const NAMELESS: Site = Site { name: "", host: 21 };
/// Where tests put their recording server.
pub const RECORDER: Site = Site {
    name: "recorder.allowed.example",
    host: 30,
};
/// Where tests put their hand-made server; no kernel answers for it.
pub const PUPPET: Site = Site {
    name: "puppet.allowed.example",
    host: 66,
};
/// A name that is allowed, whose zone points at addresses nobody may bind: see [`Dns`].
pub const REBOUND: &str = "rebound.allowed.example";
/// The resolver of the firewall.
pub const RESOLVER: Site = Site {
    name: "ns.allowed.example",
    host: 53,
};
/// Where tests put their scripted name server, [`crate::dns::DnsDouble`].
pub const DOUBLE: Site = Site { name: "", host: 54 };
/// And a second one.
pub const SECOND_DOUBLE: Site = Site { name: "", host: 55 };
/// Where the firewall's default route points.
pub const GATEWAY: Site = Site {
    name: "",
    host: 254,
};

/// Every site whose address the internet's kernel owns.
pub const SITES: [Site; 10] = [
    API, TLS12, OLD, MIRROR, GIT, WEB, EVIL, NAMELESS, RECORDER, RESOLVER,
];

/// Who asks, on the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A workload in the client table.
    Workload,
    /// A second one, whose packets tests make by hand; no kernel answers for it.
    Attacker,
    /// Inside the served ranges and in no table.
    Unlisted,
    /// Outside the served ranges.
    Foreign,
}

impl Asker {
    /// Its address of one family.
    pub fn address(self, family: Family) -> IpAddr {
        let text = match (self, family) {
            (Self::Workload, Family::V4) => "10.77.1.10",
            (Self::Workload, Family::V6) => "fd77:1::10",
            (Self::Attacker, Family::V4) => "10.77.1.66",
            (Self::Attacker, Family::V6) => "fd77:1::66",
            (Self::Unlisted, Family::V4) => "10.77.2.5",
            (Self::Unlisted, Family::V6) => "fd77:2::5",
            (Self::Foreign, Family::V4) => "198.51.100.77",
            (Self::Foreign, Family::V6) => "2001:db8:99::77",
        };
        #[expect(clippy::expect_used, reason = "the eight texts above")]
        text.parse().expect("an address literal")
    }
}

/// The inner interface of the firewall.
pub const INSIDE: &str = "pin";
/// The outer interface of the firewall.
pub const OUTSIDE: &str = "pout";
/// The client's interface.
pub const CLIENT_IF: &str = "client0";
/// The internet's interface.
pub const INTERNET_IF: &str = "wan0";

/// The three namespaces, wired, with both resolvers answering.
#[derive(Debug)]
pub struct Topology {
    /// Where workloads live.
    pub client: Namespace,
    /// Where Postern runs.
    pub firewall: Namespace,
    /// Where the servers live.
    pub internet: Namespace,
    /// Files of this run; gone with it.
    pub files: TempDir,
    far: Dns,
    // Stops with the topology.
    _near: Dns,
}

impl Topology {
    /// The usual one, with an MTU of 1,500 bytes everywhere.
    pub fn new() -> Result<Self> {
        Self::with_client_mtu(1500)
    }

    /// The client side has its own MTU: 9,001 as in AWS.
    pub fn with_client_mtu(mtu: u16) -> Result<Self> {
        sweep();
        let files = tempfile::Builder::new()
            .prefix(&format!("{FOLDER}{}-", std::process::id()))
            .tempdir()
            .context("making a folder")?;
        let client = Namespace::new("client")?;
        let firewall = Namespace::new("firewall")?;
        let internet = Namespace::new("internet")?;
        wire(&client, &firewall, &internet, mtu)?;
        let far = Dns::start(
            &internet,
            &files.path().join("far.conf"),
            RESOLVER.address(Family::V4),
        )?;
        let near = Dns::start(
            &client,
            &files.path().join("near.conf"),
            Ipv4Addr::LOCALHOST.into(),
        )?;
        let this = Self {
            client,
            firewall,
            internet,
            files,
            far,
            _near: near,
        };
        this.point_resolvers()?;
        Ok(this)
    }

    /// Every name the firewall's resolver has been asked for.
    pub fn questions(&self) -> Vec<String> {
        self.far.questions()
    }

    /// Starts a scripted name server at `site`, an address nobody has yet.
    pub fn double(&self, site: Site) -> Result<DnsDouble> {
        DnsDouble::start_at_new(&self.internet, INTERNET_IF, site.address(Family::V4))
    }

    /// A fresh file of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Starts recording what crosses the firewall's outer link, seen from the internet.
    pub fn capture_outside(&self) -> Result<Capture> {
        Capture::start(&self.internet, INTERNET_IF)
    }

    /// Starts recording what crosses the firewall's inner link, seen from the client.
    pub fn capture_inside(&self) -> Result<Capture> {
        Capture::start(&self.client, CLIENT_IF)
    }

    /// A client whose every packet is made by hand.
    pub fn attacker(&self) -> Result<RawHost> {
        let addresses = [
            Asker::Attacker.address(Family::V4),
            Asker::Attacker.address(Family::V6),
        ];
        RawHost::join(&self.client, CLIENT_IF, &self.firewall, INSIDE, addresses)
    }

    /// A server whose every packet is made by hand, at [`PUPPET`].
    pub fn puppet(&self) -> Result<RawHost> {
        let addresses = [PUPPET.address(Family::V4), PUPPET.address(Family::V6)];
        RawHost::join(
            &self.internet,
            INTERNET_IF,
            &self.firewall,
            OUTSIDE,
            addresses,
        )
    }

    /// Forwards and masquerades without judging anything: what the lab checks itself with.
    pub fn forward_plainly(&self) -> Result<()> {
        self.firewall
            .feed(
                "nft",
                &["-f", "-"],
                &format!(
                    "table inet plain {{ chain post {{ type nat hook postrouting priority 100; \
                     oifname {OUTSIDE} masquerade; }}; }}"
                ),
            )
            .map(drop)
    }

    fn point_resolvers(&self) -> Result<()> {
        let far = self.file("far.resolv");
        std::fs::write(
            &far,
            format!("nameserver {}\n", RESOLVER.address(Family::V4)),
        )
        .context("resolv.conf")?;
        self.firewall.bind_mount(&far, "/etc/resolv.conf")?;
        let near = self.file("near.resolv");
        std::fs::write(&near, "nameserver 127.0.0.1\n").context("resolv.conf")?;
        self.client.bind_mount(&near, "/etc/resolv.conf")
    }
}

const FOLDER: &str = "postern-lab-";

/// Removes the folders of runs that were killed: namespaces go by themselves, files do not.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            name.strip_prefix(FOLDER)?
                .split('-')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another run may be sweeping too, or it belongs to another user.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// Joins the namespaces and gives everybody addresses and routes.
fn wire(client: &Namespace, firewall: &Namespace, internet: &Namespace, mtu: u16) -> Result<()> {
    // Without duplicate address detection an IPv6 address can be used at once.
    for namespace in [client, firewall, internet] {
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        namespace.sysctl("net.ipv6.conf.default.accept_ra", "0")?;
    }
    firewall.sysctl("net.ipv4.ip_forward", "1")?;
    firewall.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    internet.sysctl("net.ipv4.ip_unprivileged_port_start", "0")?;
    firewall.ip(&format!(
        "link add {INSIDE} mtu {mtu} type veth peer name {CLIENT_IF} mtu {mtu} netns {}\n\
         link add {OUTSIDE} mtu 1500 type veth peer name {INTERNET_IF} mtu 1500 netns {}\n\
         addr add 10.77.1.1/24 dev {INSIDE}\naddr add fd77:1::1/64 dev {INSIDE} nodad\n\
         addr add 203.0.113.1/24 dev {OUTSIDE}\naddr add 2001:db8:77::1/64 dev {OUTSIDE} nodad\n\
         link set {INSIDE} up\nlink set {OUTSIDE} up\n\
         route add 10.77.2.0/24 dev {INSIDE}\nroute add 198.51.100.0/24 dev {INSIDE}\n\
         route add fd77:2::/64 dev {INSIDE}\nroute add 2001:db8:99::/64 dev {INSIDE}\n\
         route add default via 203.0.113.254\nroute add ::/0 via 2001:db8:77::254\n",
        client.pid(),
        internet.pid()
    ))?;
    let mut commands = String::new();
    for asker in [Asker::Workload, Asker::Unlisted, Asker::Foreign] {
        let length = if asker == Asker::Workload {
            (24, 64)
        } else {
            (32, 128)
        };
        let (v4, v6) = (asker.address(Family::V4), asker.address(Family::V6));
        commands.push_str(&format!("addr add {v4}/{} dev {CLIENT_IF}\n", length.0));
        commands.push_str(&format!(
            "addr add {v6}/{} dev {CLIENT_IF} nodad\n",
            length.1
        ));
    }
    let (v4, v6) = (
        Asker::Workload.address(Family::V4),
        Asker::Workload.address(Family::V6),
    );
    commands.push_str(&format!(
        "link set {CLIENT_IF} up\nroute add default via 10.77.1.1 src {v4}\n\
         route add ::/0 via fd77:1::1 src {v6}\n"
    ));
    client.ip(&commands)?;
    let mut commands = String::new();
    for site in SITES.into_iter().chain([GATEWAY]) {
        let (v4, v6) = (site.address(Family::V4), site.address(Family::V6));
        commands.push_str(&format!("addr add {v4}/24 dev {INTERNET_IF}\n"));
        commands.push_str(&format!("addr add {v6}/64 dev {INTERNET_IF} nodad\n"));
    }
    commands.push_str(&format!("link set {INTERNET_IF} up\n"));
    internet.ip(&commands)
}

/// `30` as the hexadecimal `0x30`, so that both families show the same digits.
fn digits(host: u8) -> u16 {
    let host = u16::from(host);
    (host / 100) * 0x100 + (host / 10 % 10) * 0x10 + host % 10
}
