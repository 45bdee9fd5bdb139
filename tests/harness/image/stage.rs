//! The world around the appliance: clients, servers, DHCP, a metadata service and a cloud's interfaces.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::clock;
use super::guest::{INSIDE_MAC, OUTSIDE_MAC};
use super::metadata::{Metadata, join};
use super::wire::Wire;
use crate::capture::Capture;
use crate::netns::Namespace;
use crate::peer::{Authority, PatientTlsServer};
use crate::topology::{
    API, Asker, CLIENT_IF, EVIL, Family, GATEWAY, INSIDE, INTERNET_IF, OUTSIDE, RECORDER, RESOLVER,
    Site, Topology,
};
use crate::wait;

/// Everything but the machine itself.
#[derive(Debug)]
pub struct Stage {
    /// Clients, servers, resolvers. Its firewall namespace holds only the cables' ends.
    pub topology: Topology,
    /// What the machine reads about itself.
    pub metadata: Metadata,
    /// Everything that crossed the outer cable.
    pub outside: Capture,
    wires: [Wire; 2],
    helpers: Vec<Child>,
    _servers: Vec<PatientTlsServer>,
    /// The authority of their certificates, in PEM.
    pub authority: String,
    api: Arc<Mutex<Option<SocketAddr>>>,
    knocks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Stage {
    /// Builds it; somebody inside begins to knock at once where nobody may go.
    pub fn new() -> Result<Self> {
        let topology = Topology::new()?;
        // The machine has these addresses; the namespace only passes frames on.
        topology.firewall.ip(&format!(
            "addr flush dev {INSIDE}\naddr flush dev {OUTSIDE}\n"
        ))?;
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            topology.firewall.sysctl(key, "0")?;
        }
        for (namespace, interface) in [
            (&topology.client, CLIENT_IF),
            (&topology.internet, INTERNET_IF),
        ] {
            // A checksum that is left to a card is wrong on our cable.
            let off = [
                "-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off",
            ];
            namespace.run("ethtool", &off)?;
        }
        for address in [super::metadata::ADDRESS, clock::ADDRESS] {
            let add = format!("addr add {address}/32 dev {INTERNET_IF}\n");
            topology.internet.ip(&add)?;
        }
        clock::serve(&topology.internet)?;
        let metadata = Metadata::start(&topology.internet)?;
        let outside = topology.capture_outside()?;
        let authority = Authority::new(topology.files.path())?;
        let mut servers = Vec::new();
        for site in [API, EVIL] {
            let name = site.name;
            let at = site.at(Family::V4, HTTPS);
            let server = PatientTlsServer::start(&topology.internet, &authority, name, at)?;
            servers.push(server);
        }
        let wires = [
            Wire::lay(&topology.firewall, INSIDE, topology.files.path())?,
            Wire::lay(&topology.firewall, OUTSIDE, topology.files.path())?,
        ];
        let helpers = vec![
            dhcp_inside(&topology)?,
            dhcp_outside(&topology)?,
            echo(&topology, &authority)?,
        ];
        let this = Self {
            metadata,
            outside,
            wires,
            helpers,
            _servers: servers,
            authority: std::fs::read_to_string(authority.certificate())?,
            api: Arc::default(),
            knocks: Arc::default(),
            stop: Arc::default(),
            topology,
        };
        this.serve_api()?;
        this.knock()?;
        Ok(this)
    }

    /// The cloud whose interfaces the appliance finds at [`Stage::endpoint`], on this machine's loopback; none: it is down.
    pub fn cloud(&self, at: Option<SocketAddr>) {
        *self.api.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Where the appliance finds the cloud's interfaces.
    pub fn endpoint(&self) -> String {
        format!("http://{}", GATEWAY.at(Family::V4, API_PORT))
    }

    fn serve_api(&self) -> Result<()> {
        let at = GATEWAY.at(Family::V4, API_PORT);
        let listener = self.topology.internet.enter(|| TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("listening on {at}"))?;
        let api = Arc::clone(&self.api);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let cloud = *api.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(far) = cloud.and_then(|cloud| TcpStream::connect(cloud).ok()) {
                    join(stream, far);
                }
            }
        });
        Ok(())
    }

    /// Files of this run; gone with it.
    pub fn folder(&self) -> &Path {
        self.topology.files.path()
    }

    /// The inner cable and the outer one.
    pub(super) fn wires(&self) -> [&Wire; 2] {
        let [inside, outside] = &self.wires;
        [inside, outside]
    }

    /// Whether a client gets a site's page over HTTPS through the appliance.
    pub fn served(&self, site: Site) -> bool {
        let resolve = format!("{}:{HTTPS}:{}", site.name, site.address(Family::V4));
        let url = format!("https://{}/", site.name);
        let args = [
            "--silent",
            "--insecure",
            "--max-time",
            "8",
            "--output",
            "/dev/null",
            "--resolve",
            &resolve,
            &url,
        ];
        let output = self.topology.client.output("curl", &args);
        output.is_ok_and(|output| output.status.success())
    }

    /// Fails when anything left for an address nobody may reach, or with a client's address on it.
    pub fn nothing_unlisted_left(&self) -> Result<()> {
        let client = Asker::Workload.address(Family::V4);
        let evil = EVIL.address(Family::V4);
        let left = self.outside.matching(|seen| {
            seen.to.ip() == evil || seen.from.ip() == client || seen.to.ip() == client
        });
        if let Some(first) = left.first() {
            bail!("{} packets left, the first: {first:?}", left.len());
        }
        Ok(())
    }

    /// How often somebody has knocked.
    pub fn knocks(&self) -> u64 {
        self.knocks.load(Ordering::Relaxed)
    }

    /// Dials and sends datagrams where nobody may go, without end.
    fn knock(&self) -> Result<()> {
        let (to, dns) = (EVIL.at(Family::V4, HTTPS), EVIL.at(Family::V4, 53));
        let datagrams = self
            .topology
            .client
            .enter(|| std::net::UdpSocket::bind("10.77.1.10:0"))?
            .context("a socket to knock with")?;
        let client = std::fs::File::open(format!("/proc/{}/ns/net", self.topology.client.pid()))?;
        let (knocks, stop) = (Arc::clone(&self.knocks), Arc::clone(&self.stop));
        std::thread::spawn(move || {
            if nix::sched::setns(client, nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            while !stop.load(Ordering::Relaxed) {
                // Refused, unreachable or unanswered: each is what is expected.
                drop(TcpStream::connect_timeout(&to, Duration::from_millis(250)));
                drop(datagrams.send_to(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", dns));
                knocks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for helper in &mut self.helpers {
            // Ended already is as good as killed.
            drop(helper.kill());
            drop(helper.wait());
        }
    }
}

fn dhcp_outside(topology: &Topology) -> Result<Child> {
    let (gateway, resolver) = (GATEWAY.address(Family::V4), RESOLVER.address(Family::V4));
    dhcp(
        &topology.internet,
        INTERNET_IF,
        topology.file("outside.leases"),
        &[
            "--dhcp-range=203.0.113.200,203.0.113.220".to_owned(),
            format!("--dhcp-host={OUTSIDE_MAC},203.0.113.1"),
            format!("--dhcp-option=3,{gateway}"),
            format!("--dhcp-option=6,{resolver}"),
            // EC2's, whatever the way out has.
            "--dhcp-option=26,9001".to_owned(),
        ],
    )
}

fn dhcp_inside(topology: &Topology) -> Result<Child> {
    dhcp(
        &topology.client,
        CLIENT_IF,
        topology.file("inside.leases"),
        &[
            "--dhcp-range=10.77.1.200,10.77.1.220".to_owned(),
            format!("--dhcp-host={INSIDE_MAC},10.77.1.1"),
            // No router, no resolver.
            "--dhcp-option=3".to_owned(),
            "--dhcp-option=6".to_owned(),
        ],
    )
}

fn dhcp(
    namespace: &Namespace,
    interface: &str,
    leases: PathBuf,
    options: &[String],
) -> Result<Child> {
    namespace
        .command("dnsmasq")
        .args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--port=0",
            "--bind-interfaces",
            "--no-ping",
        ])
        .args([
            "--user=root",
            "--group=root",
            "--pid-file",
            "--dhcp-authoritative",
        ])
        .arg(format!("--interface={interface}"))
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting dnsmasq")
}

/// A TLS server that says every line backwards, for as long as its client likes.
fn echo(topology: &Topology, authority: &Authority) -> Result<Child> {
    let (key, certificate) = authority.issue(RECORDER.name)?;
    let at = RECORDER.at(Family::V4, HTTPS);
    let mut command = topology.internet.command("openssl");
    command.args(["s_server", "-quiet", "-rev", "-accept"]);
    command.arg(at.to_string()).arg("-key").arg(key);
    command.arg("-cert").arg(certificate);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting openssl s_server")?;
    if !wait::holds(wait::PATIENCE, || topology.internet.accepts(at)) {
        bail!("openssl s_server does not listen on {at}");
    }
    Ok(child)
}

const HTTPS: u16 = 443;
/// Where the appliance finds a cloud's interfaces.
const API_PORT: u16 = 5000;
