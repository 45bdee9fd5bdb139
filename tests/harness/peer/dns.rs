//! dnsmasq, authoritative for the names of the lab and for nothing else.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Process;
use crate::netns::Namespace;
use crate::topology::{Family, PUPPET, REBOUND, SITES};

/// A running resolver.
#[derive(Debug)]
pub struct Dns {
    _process: Process,
    query_log: std::path::PathBuf,
}

impl Dns {
    /// Starts one on port 53 of `address`; `config` is where it keeps its configuration.
    pub fn start(namespace: &Namespace, config: &Path, address: IpAddr) -> Result<Self> {
        Self::with_zone(namespace, config, address, &zone())
    }

    /// As [`Dns::start`], for another zone under `example`; it must have `ns.allowed.example`.
    pub fn with_zone(
        namespace: &Namespace,
        config: &Path,
        address: IpAddr,
        zone: &str,
    ) -> Result<Self> {
        let query_log = config.with_extension("queries");
        let text = format!(
            "no-resolv\nno-hosts\nbind-interfaces\nlocal-ttl=5\nport=53\nuser=root\ngroup=root\n\
             pid-file\nlog-queries\nlog-facility={}\nlisten-address={address}\nlocal=/example/\n{}",
            query_log.display(),
            zone
        );
        std::fs::write(config, text).with_context(|| format!("writing {}", config.display()))?;
        let mut command = namespace.command("dnsmasq");
        // Which also keeps it from changing users: in a user namespace there is only one.
        command.args(["--no-daemon", "-C"]).arg(config);
        let process = Process::start(&mut command, "dnsmasq", || answers(namespace, address))?;
        Ok(Self {
            _process: process,
            query_log,
        })
    }

    /// Every name it has been asked for, in lower case: resolvers ask in any.
    pub fn questions(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.query_log).unwrap_or_default();
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| {
                line.split_once("query[")?
                    .1
                    .split_whitespace()
                    .nth(1)
                    .map(str::to_lowercase)
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The zone in dnsmasq's words.
pub fn zone() -> String {
    // As in a network of Google's, whose libraries look for it there.
    let mut text = "host-record=metadata.google.internal,169.254.169.254\n".to_owned();
    for site in SITES
        .into_iter()
        .chain([PUPPET])
        .filter(|site| !site.name.is_empty())
    {
        let (v4, v6) = (site.address(Family::V4), site.address(Family::V6));
        text.push_str(&format!("host-record={},{v4},{v6}\n", site.name));
    }
    // Rebinding: an allowed name whose owner points it at the metadata service and at the inside.
    text.push_str(&format!("host-record={REBOUND},169.254.169.254\n"));
    text.push_str(&format!("host-record={REBOUND},10.77.1.1,fd77:1::1\n"));
    text
}

/// Asks for a name of the zone; whether any answer came.
fn answers(namespace: &Namespace, address: IpAddr) -> bool {
    let asked = namespace.enter(|| -> std::io::Result<usize> {
        let local: SocketAddr = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        }
        .parse()
        .map_err(std::io::Error::other)?;
        let socket = UdpSocket::bind(local)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        // One question for the A record of `ns.allowed.example`.
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
            \x02ns\x07allowed\x07example\x00\x00\x01\x00\x01";
        socket.send_to(query, (address, 53))?;
        socket.recv(&mut [0; 512])
    });
    matches!(asked, Ok(Ok(length)) if length > 12)
}
