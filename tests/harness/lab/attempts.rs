//! What the lab tries: who asks, what it claims, where it goes, and how that should end.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Servers;
use crate::hello::{self, ClientHello};
use crate::packet::{Seen, udp};
use crate::raw::RawTcp;
use crate::topology::{
    API, Asker, EVIL, Family, GIT, MIRROR, NAMELESS, OLD, RECORDER, Site, TLS12, Topology, WEB,
};

/// How an attempt should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client gets what it came for; the log calls the protocol version this.
    Allowed(&'static str),
    /// Refused with this reason, before a byte of the client's has left.
    Refused(&'static str),
    /// Refused with this reason because of what the server answered: the client's hello did leave.
    AnswerRefused(&'static str),
}

/// What drives an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// curl with these arguments before the URL.
    Curl(&'static [&'static str]),
    /// `openssl s_client` with these arguments; it succeeds when the handshake does.
    Openssl(&'static [&'static str]),
    /// ssh.
    Ssh,
    /// A hand-made client that sends a hello in pieces.
    Pieces(Pieces),
    /// A hand-made UDP datagram.
    Datagram,
}

/// How a hand-made client sends its hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// One byte a segment, last byte first.
    BytesBackwards,
    /// In TLS records of 16 bytes.
    Records,
    /// Two copies of the second half that differ.
    Overlap,
    /// In one piece, with an encrypted client hello inside.
    Ech,
}

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// What it is, in a few words.
    pub title: &'static str,
    /// The tool.
    pub driver: Driver,
    /// Whose address it comes from.
    pub asker: Asker,
    /// The name it claims; empty for none.
    pub claims: &'static str,
    /// Where it really goes.
    pub site: Site,
    /// The port there.
    pub port: u16,
    /// By which family.
    pub family: Family,
    /// How it should end.
    pub ending: Ending,
}

/// Every attempt of the lab.
pub fn all() -> Vec<Attempt> {
    let mut all = Vec::new();
    for family in crate::topology::FAMILIES {
        all.extend(
            honest()
                .into_iter()
                .chain(refused())
                .map(|attempt| Attempt { family, ..attempt }),
        );
    }
    all
}

const fn attempt(
    title: &'static str,
    driver: Driver,
    claims: &'static str,
    site: Site,
    ending: Ending,
) -> Attempt {
    let asker = match driver {
        Driver::Pieces(_) | Driver::Datagram => Asker::Attacker,
        Driver::Curl(_) | Driver::Openssl(_) | Driver::Ssh => Asker::Workload,
    };
    let port = if matches!(driver, Driver::Ssh) {
        22
    } else {
        443
    };
    Attempt {
        title,
        driver,
        asker,
        claims,
        site,
        port,
        family: Family::V4,
        ending,
    }
}

const OLD_CIPHERS: &str = "DEFAULT:@SECLEVEL=0";

fn honest() -> Vec<Attempt> {
    use Driver::{Curl, Openssl, Pieces as Raw, Ssh};
    use Ending::Allowed;
    vec![
        attempt(
            "TLS 1.3 to an allowed name",
            Curl(&["--tlsv1.3"]),
            API.name,
            API,
            Allowed("1.3"),
        ),
        attempt(
            "TLS 1.2 to an allowed name",
            Curl(&["--tls-max", "1.2"]),
            TLS12.name,
            TLS12,
            Allowed("1.2"),
        ),
        attempt(
            "a name that a pattern allows",
            Openssl(&[]),
            WEB.name,
            WEB,
            Allowed("1.3"),
        ),
        attempt("SSH to an allowed name", Ssh, GIT.name, GIT, Allowed("2.0")),
        attempt(
            "an allowed hello, a byte a segment, backwards",
            Raw(Pieces::BytesBackwards),
            RECORDER.name,
            RECORDER,
            Allowed("1.3"),
        ),
        attempt(
            "an allowed hello in 16-byte records",
            Raw(Pieces::Records),
            RECORDER.name,
            RECORDER,
            Allowed("1.3"),
        ),
    ]
}

fn refused() -> Vec<Attempt> {
    let mut all = REFUSED.to_vec();
    for (title, asker) in [
        ("a client in no table", Asker::Unlisted),
        ("a client from outside the served ranges", Asker::Foreign),
    ] {
        let refused = Ending::Refused("client_unknown");
        let base = attempt(title, Driver::Openssl(&[]), API.name, API, refused);
        all.push(Attempt { asker, ..base });
    }
    all
}

const REFUSED: [Attempt; 13] = {
    use Driver::{Curl, Datagram, Openssl, Pieces as Raw, Ssh};
    use Ending::{AnswerRefused, Refused};
    const FORGED: Ending = Refused("address_not_of_name");
    const OLD_CLIENT: Driver = Openssl(&["-tls1_1", "-cipher", OLD_CIPHERS]);
    const PATIENT: Driver = Openssl(&["-min_protocol", "TLSv1", "-cipher", OLD_CIPHERS]);
    [
        attempt(
            "an allowed name, an address nobody named",
            Openssl(&[]),
            API.name,
            NAMELESS,
            FORGED,
        ),
        attempt(
            "an allowed name, the address of another",
            Openssl(&[]),
            API.name,
            MIRROR,
            FORGED,
        ),
        attempt(
            "a name no rule lists",
            Curl(&[]),
            EVIL.name,
            EVIL,
            Refused("name_not_allowed"),
        ),
        attempt(
            "a client that offers TLS 1.1 only",
            OLD_CLIENT,
            API.name,
            API,
            Refused("tls_version_client"),
        ),
        attempt(
            "a server that answers TLS 1.1",
            PATIENT,
            OLD.name,
            OLD,
            AnswerRefused("tls_version_server"),
        ),
        attempt(
            "TLS without a name",
            Openssl(&["-noservername"]),
            "",
            API,
            Refused("sni_missing"),
        ),
        attempt(
            "plain HTTP on port 443",
            Curl(&[]),
            RECORDER.name,
            RECORDER,
            Refused("plaintext_http"),
        ),
        attempt("SSH to an address nobody named", Ssh, "", EVIL, FORGED),
        attempt(
            "a forged hello, a byte a segment",
            Raw(Pieces::BytesBackwards),
            API.name,
            RECORDER,
            FORGED,
        ),
        attempt(
            "a forged hello in 16-byte records",
            Raw(Pieces::Records),
            API.name,
            RECORDER,
            FORGED,
        ),
        attempt(
            "two second halves that differ",
            Raw(Pieces::Overlap),
            RECORDER.name,
            RECORDER,
            Refused("tcp_overlap"),
        ),
        attempt(
            "an encrypted client hello",
            Raw(Pieces::Ech),
            RECORDER.name,
            RECORDER,
            Refused("ech"),
        ),
        attempt("QUIC", Datagram, API.name, API, Refused("quic")),
    ]
};

impl Attempt {
    /// The tool's name, for people.
    pub fn who(&self) -> &'static str {
        match self.driver {
            Driver::Curl(_) => "curl",
            Driver::Openssl(_) => "openssl",
            Driver::Ssh => "ssh",
            Driver::Pieces(_) | Driver::Datagram => "attacker",
        }
    }

    /// Makes the attempt; whether the client got what it came for.
    pub fn drive(&self, topology: &Topology, servers: &Servers) -> Result<bool> {
        match self.driver {
            Driver::Curl(args) => self.curl(topology, servers, args),
            Driver::Openssl(args) => self.openssl(topology, args),
            Driver::Ssh => self.ssh(topology, servers),
            Driver::Pieces(pieces) => self.pieces(topology, pieces),
            Driver::Datagram => self.datagram(topology),
        }
    }

    fn curl(&self, topology: &Topology, servers: &Servers, args: &[&str]) -> Result<bool> {
        let scheme = if self.ending == Ending::Refused("plaintext_http") {
            "http"
        } else {
            "https"
        };
        let url = format!("{scheme}://{}:{}/", self.claims, self.port);
        let flag = if self.family == Family::V4 {
            "-4"
        } else {
            "-6"
        };
        let ca = servers.authority.certificate();
        let ca = ca.to_str().context("a path in UTF-8")?;
        let mut all = vec![
            "-sS",
            "--max-time",
            "6",
            "--noproxy",
            "*",
            flag,
            "--cacert",
            ca,
        ];
        all.extend(args);
        all.push(&url);
        Ok(topology.client.output("curl", &all)?.status.success())
    }

    fn openssl(&self, topology: &Topology, args: &[&str]) -> Result<bool> {
        let connect = self.site.at(self.family, self.port).to_string();
        let source = self.asker.address(self.family).to_string();
        let source = if self.family == Family::V6 {
            format!("[{source}]:0")
        } else {
            format!("{source}:0")
        };
        let mut all = vec!["-k", "3", "6", "openssl", "s_client", "-connect", &connect];
        if self.asker != Asker::Workload {
            all.extend(["-bind", &source]);
        }
        if !self.claims.is_empty() {
            all.extend(["-servername", self.claims]);
        }
        all.extend(args);
        Ok(topology.client.output("timeout", &all)?.status.success())
    }

    fn ssh(&self, topology: &Topology, servers: &Servers) -> Result<bool> {
        let family = if self.family == Family::V4 { 0 } else { 2 };
        let server = &servers.ssh[family + usize::from(self.site == EVIL)];
        let host = self.site.address(self.family).to_string();
        Ok(server.log_in(&topology.client, &[], &host)?.trim() == "welcome")
    }

    fn pieces(&self, topology: &Topology, pieces: Pieces) -> Result<bool> {
        let host = topology.attacker()?;
        // Ports of one's own per attempt: a refused five-tuple may linger in conntrack.
        let port = 20_000 + (self.title.len() as u16) * 16 + self.site.host as u16;
        let mut tcp = host.connect(port, self.site.at(self.family, self.port), 0x1000_0000)?;
        let mut hello = ClientHello::new(self.claims);
        if pieces == Pieces::Ech {
            hello.extensions.push((hello::extension::ECH, hello::ech()));
        }
        match pieces {
            Pieces::BytesBackwards => backwards(&mut tcp, &hello.record())?,
            Pieces::Overlap => overlap(&mut tcp, &hello.record())?,
            Pieces::Records => tcp.write(&hello.records(16))?,
            Pieces::Ech => tcp.write(&hello.record())?,
        }
        let flight = hello::server_flight();
        if !tcp.wait_bytes(flight.len())? {
            return Ok(false);
        }
        // The handshake goes on until the kernel carries the flow, then ends as clients end.
        tcp.write(&hello::client_finish())?;
        let finished = tcp.wait_bytes(flight.len() + hello::client_finish().len())?;
        tcp.close()?;
        Ok(finished)
    }

    fn datagram(&self, topology: &Topology) -> Result<bool> {
        let host = topology.attacker()?;
        let from = std::net::SocketAddr::new(host.address(self.family), 40_443);
        host.send(&udp(
            from,
            self.site.at(self.family, self.port),
            &[0xc0; 1200],
        ))?;
        let answered = |seen: &Seen| seen.protocol == 17 || seen.icmp.is_some();
        let answer = host.receive(Duration::from_secs(2), answered);
        Ok(answer.is_some_and(|seen| seen.protocol == 17))
    }
}

/// Sends a hello one byte a segment, the last byte first.
fn backwards(tcp: &mut RawTcp<'_>, hello: &[u8]) -> Result<()> {
    for (offset, byte) in hello.iter().enumerate().rev() {
        tcp.push(offset, &[*byte])?;
    }
    tcp.advance(hello.len());
    Ok(())
}

/// Sends the second half, a different second half, then the first.
fn overlap(tcp: &mut RawTcp<'_>, hello: &[u8]) -> Result<()> {
    let middle = hello.len() / 2;
    let (first, second) = hello.split_at(middle);
    let other: Vec<u8> = second.iter().map(|byte| byte ^ 1).collect();
    tcp.push(middle, second)?;
    tcp.push(middle, &other)?;
    tcp.push(0, first)?;
    tcp.advance(hello.len());
    Ok(())
}
