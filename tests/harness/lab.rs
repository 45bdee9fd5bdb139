//! `cargo lab`: Postern's main job on real traffic, in three namespaces on this machine.

pub mod attempts;
pub mod build;
mod observe;
pub mod report;

use anyhow::{Context, Result};

use crate::daemon::{Daemon, INVENTORY};
use crate::peer::{Authority, HttpServer, Recorder, Script, SshServer, TlsServer};
use crate::topology::{
    API, EVIL, FAMILIES, GIT, MIRROR, NAMELESS, OLD, RECORDER, TLS12, Topology, WEB,
};

pub use attempts::{Attempt, Ending, all};
pub use observe::{Observed, is_unreachable};

/// The servers of the lab, each in both families.
#[derive(Debug)]
pub struct Servers {
    /// What clients trust.
    pub authority: Authority,
    /// The OpenSSH servers: of the allowed name first, of the address nobody named second, per family.
    pub ssh: Vec<SshServer>,
    /// At [`RECORDER`], port 443, like a TLS server.
    pub recorders: Vec<Recorder>,
    _tls: Vec<TlsServer>,
    _http: Vec<HttpServer>,
}

impl Servers {
    /// Starts them all; each answers when this returns.
    pub fn start(topology: &Topology) -> Result<Self> {
        let authority = Authority::new(topology.files.path())?;
        let internet = &topology.internet;
        let (mut tls, mut ssh, mut http, mut recorders) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for family in FAMILIES {
            for site in [MIRROR, WEB, EVIL] {
                tls.push(TlsServer::start(
                    internet,
                    &authority,
                    site.name,
                    site.at(family, 443),
                    &[],
                )?);
            }
            // A server that has not been told to refuse old versions: refusing them is not its doing.
            let lax = ["-min_protocol", "TLSv1", "-cipher", "DEFAULT:@SECLEVEL=0"];
            tls.push(TlsServer::start(
                internet,
                &authority,
                API.name,
                API.at(family, 443),
                &lax,
            )?);
            // It would show the certificate of any name to whoever asks: only the address is wrong.
            tls.push(TlsServer::start(
                internet,
                &authority,
                API.name,
                NAMELESS.at(family, 443),
                &[],
            )?);
            let modern = ["-tls1_2"];
            tls.push(TlsServer::start(
                internet,
                &authority,
                TLS12.name,
                TLS12.at(family, 443),
                &modern,
            )?);
            tls.push(TlsServer::start(
                internet,
                &authority,
                OLD.name,
                OLD.at(family, 443),
                &["-tls1_1"],
            )?);
            for site in [GIT, EVIL] {
                let folder = topology.file(&format!("ssh-{}-{family:?}", site.host));
                ssh.push(SshServer::start(internet, &folder, site.at(family, 22))?);
            }
            http.push(HttpServer::start(internet, RECORDER.at(family, 80))?);
            recorders.push(Recorder::start(
                internet,
                RECORDER.at(family, 443),
                Script::Tls,
            )?);
        }
        Ok(Self {
            authority,
            ssh,
            recorders,
            _tls: tls,
            _http: http,
        })
    }
}

/// Everything an attempt needs.
#[derive(Debug)]
pub struct Lab<'t> {
    /// The namespaces.
    pub topology: &'t Topology,
    /// The servers.
    pub servers: &'t Servers,
    /// Postern.
    pub daemon: &'t Daemon<'t>,
}

impl Lab<'_> {
    /// Makes every attempt, one after the other, and hands each result to `each` as it is known.
    pub fn run(&self, mut each: impl FnMut(&Attempt, &Observed)) -> Result<bool> {
        let mut good = true;
        for attempt in all() {
            let observed = observe::observe(self, &attempt)
                .with_context(|| format!("attempt: {}", attempt.title))?;
            good &= observed.as_expected(&attempt);
            each(&attempt, &observed);
        }
        Ok(good)
    }
}

/// The inventory the lab runs on.
pub const POLICY: &str = INVENTORY;
