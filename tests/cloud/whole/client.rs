//! The workload: real TLS by curl, and connections made by hand that stay open.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::hello::{self, ClientHello};
use e2e::peer::Authority;
use e2e::topology::{Asker, Family, Topology};

/// How long an answer may take before it counts as none.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether a real TLS client in the workload's place gets a page of this name.
pub(crate) fn fetch(
    lab: &Topology,
    authority: &Authority,
    name: &str,
    asker: Asker,
) -> Result<bool> {
    fetch_from(lab, authority, name, asker.address(Family::V4))
}

/// As [`fetch`], from an address of the workload's machine.
pub(crate) fn fetch_from(
    lab: &Topology,
    authority: &Authority,
    name: &str,
    source: IpAddr,
) -> Result<bool> {
    let certificate = authority.certificate();
    let certificate = certificate.to_str().context("a path in UTF-8")?;
    let source = source.to_string();
    let url = format!("https://{name}/");
    let arguments = [
        "-4",
        "--silent",
        "--max-time",
        "8",
        "--interface",
        &source,
        "--cacert",
        certificate,
        "--output",
        "/dev/null",
        &url,
    ];
    Ok(lab.client.output("curl", &arguments)?.status.success())
}

/// An open connection of the workload, its hello judged and both sides proved.
pub(crate) struct Flow {
    stream: TcpStream,
}

impl Flow {
    /// Connects and claims `name`.
    pub(crate) fn open(lab: &Topology, name: &str, server: SocketAddr) -> Result<Self> {
        let stream = lab
            .client
            .enter(|| TcpStream::connect_timeout(&server, ANSWER))??;
        let source: IpAddr = stream.local_addr()?.ip();
        if source != Asker::Workload.address(Family::V4) {
            bail!("dialled from {source}");
        }
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut this = Self { stream };
        this.stream.write_all(&ClientHello::new(name).record())?;
        this.expect(&hello::server_flight())?;
        this.stream.write_all(&hello::client_finish())?;
        this.expect(&hello::client_finish())?;
        this.echo(b"hello")?;
        Ok(this)
    }

    /// Sends protected data and expects it back.
    pub(crate) fn echo(&mut self, content: &[u8]) -> Result<()> {
        let record = hello::protected(content);
        self.stream.write_all(&record)?;
        self.expect(&record)
    }

    fn expect(&mut self, wanted: &[u8]) -> Result<()> {
        let mut got = vec![0; wanted.len()];
        self.stream
            .read_exact(&mut got)
            .context("reading from the server")?;
        if got != wanted {
            bail!("the server answered something else");
        }
        Ok(())
    }

    /// Whether the connection is ended from outside while both sides stay silent.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        self.stream
            .set_read_timeout(Some(Duration::from_millis(10)))?;
        while Instant::now() < deadline {
            match self.stream.read(&mut [0; 64]) {
                Ok(0) => return Ok(true),
                Ok(_) => bail!("data nobody asked for"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(true),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

/// The id and CIDR of the rule whose description holds `text`, in the XML of an answer.
pub(crate) fn rule_with(rules: &str, text: &str) -> Option<(String, String)> {
    let item = rules.split("<item>").find(|item| item.contains(text))?;
    let field = |name: &str| {
        let (_, rest) = item.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(value, _)| value.to_owned())
    };
    Some((field("securityGroupRuleId")?, field("cidrIpv4")?))
}
