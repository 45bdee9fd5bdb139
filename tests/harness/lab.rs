//! `cargo lab`: Postern's main job on real traffic, in three namespaces on this machine.

pub mod attempts;
pub mod build;
mod observe;
pub mod report;

use anyhow::{Context, Result};

use crate::daemon::{Daemon, INVENTORY};
use crate::peer::{Authority, HttpServer, Recorder, Script, SshServer, TlsServer};
use crate::topology::{
    API, EVIL, FAMILIES, Family, GIT, MIRROR, NAMELESS, OLD, RECORDER, Site, TLS12, Topology, WEB,
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
    /// The openssl servers, per family.
    pub tls: Vec<TlsServer>,
    /// The plain HTTP servers, per family.
    pub http: Vec<HttpServer>,
}

impl Servers {
    /// Starts them all; each answers when this returns.
    pub fn start(topology: &Topology) -> Result<Self> {
        let mut this = Self {
            authority: Authority::new(topology.files.path())?,
            ssh: Vec::new(),
            recorders: Vec::new(),
            tls: Vec::new(),
            http: Vec::new(),
        };
        for family in FAMILIES {
            this.start_family(topology, family)?;
        }
        Ok(this)
    }

    fn start_family(&mut self, topology: &Topology, family: Family) -> Result<()> {
        let internet = &topology.internet;
        // A server that has not been told to refuse old versions: refusing them is not its doing.
        let lax = ["-min_protocol", "TLSv1", "-cipher", "DEFAULT:@SECLEVEL=0"];
        let sites: [(Site, &str, &[&str]); 7] = [
            (API, API.name, &lax),
            (MIRROR, MIRROR.name, &[]),
            (WEB, WEB.name, &[]),
            (EVIL, EVIL.name, &[]),
            // It shows the certificate of a name that is not its own: only the address is wrong.
            (NAMELESS, API.name, &[]),
            (TLS12, TLS12.name, &["-tls1_2"]),
            (OLD, OLD.name, &["-tls1_1"]),
        ];
        for (site, name, options) in sites {
            let address = site.at(family, 443);
            self.tls.push(TlsServer::start(
                internet,
                &self.authority,
                name,
                address,
                options,
            )?);
        }
        for site in [GIT, EVIL] {
            let folder = topology.file(&format!("ssh-{}-{family:?}", site.host));
            self.ssh
                .push(SshServer::start(internet, &folder, site.at(family, 22))?);
        }
        self.http
            .push(HttpServer::start(internet, RECORDER.at(family, 80))?);
        let recorder = Recorder::start(internet, RECORDER.at(family, 443), Script::Tls)?;
        self.recorders.push(recorder);
        Ok(())
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
