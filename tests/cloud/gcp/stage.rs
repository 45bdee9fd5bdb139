//! What these tests begin with: a small project, a sidecar and a daemon's double.

use std::time::Duration;

use e2e::cloud::{DaemonDouble, Firewall, Google, Machine, Pace, Sidecar};
use ipc::snapshot::SnapshotV1;
use tempfile::TempDir;

pub(crate) use crate::stage::{LIMIT, names};

/// A project with one machine, tagged `web`, in one subnet.
pub(crate) struct Stage {
    pub(crate) google: Google,
    pub(crate) folder: TempDir,
}

impl Stage {
    /// At a pace that makes tests quick and still has several pages.
    pub(crate) fn new() -> Self {
        Self::with_pace(Pace {
            page_items: 2,
            page_time: Duration::from_millis(20),
        })
    }

    pub(crate) fn with_pace(pace: Pace) -> Self {
        let google = Google::start(pace).unwrap();
        google.subnet("machines", "10.77.1.0/24");
        google.machine(Machine::new("web-1", "10.77.1.10").tags(&["web"]));
        let folder = tempfile::Builder::new()
            .prefix("postern-gcp-")
            .tempdir()
            .unwrap();
        Self { google, folder }
    }

    /// A rule for HTTPS from machines tagged `web`; its number.
    pub(crate) fn allow(&self, name: &str, description: &str) -> String {
        self.google
            .firewall(Firewall::https(name, description).tags(&["web"]))
    }

    /// A sidecar, reading as often as it may, not yet started. `more` goes into `[gcp]` and what follows it.
    pub(crate) fn sidecar(&self, more: &str) -> Sidecar {
        self.paced(
            "interval_s = 0.3\nmax_backoff_s = 1.0\ncalls_per_second = 1000.0",
            more,
        )
    }

    /// A sidecar at another pace.
    pub(crate) fn paced(&self, poll: &str, more: &str) -> Sidecar {
        let config = format!(
            "provider = \"gcp\"\n[poll]\n{poll}\n[gcp]\nendpoint_url = \"{}\"\n{more}",
            self.google.url()
        );
        let mut sidecar = Sidecar::new(self.folder.path(), "http://127.0.0.1:1", &config).unwrap();
        sidecar.set("GCE_METADATA_HOST", &self.google.host());
        sidecar
    }

    /// A daemon's double and a running sidecar.
    pub(crate) fn run(&self, more: &str) -> (DaemonDouble, Sidecar) {
        let daemon = DaemonDouble::start(self.folder.path()).unwrap();
        let mut sidecar = self.sidecar(more);
        sidecar.start().unwrap();
        (daemon, sidecar)
    }
}

/// The groups of whoever has this address or prefix.
pub(crate) fn groups_of(snapshot: &SnapshotV1, net: &str) -> Option<Vec<String>> {
    let net = net.parse().unwrap();
    let mut clients = snapshot.clients.iter();
    clients
        .find(|client| client.net == net)
        .map(|client| client.groups.clone())
}
