//! What most of these tests begin with: a small account, a sidecar and a daemon's double.

use std::time::Duration;

use e2e::cloud::{Cloud, DaemonDouble, Pace, Rule, Sidecar};
use ipc::snapshot::{EntryV1, SnapshotV1};
use tempfile::TempDir;

/// Ample for a policy to arrive on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A VPC with one interface in one group.
pub(crate) struct Stage {
    pub(crate) cloud: Cloud,
    pub(crate) folder: TempDir,
    pub(crate) vpc: String,
    pub(crate) subnet: String,
    pub(crate) gid: String,
    pub(crate) interface: String,
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
        let cloud = Cloud::with_pace(pace).unwrap();
        let vpc = cloud.api.vpc("10.77.0.0/16").unwrap();
        let subnet = cloud.api.subnet(&vpc, "10.77.1.0/24").unwrap();
        let gid = cloud.api.group(&vpc, "web").unwrap();
        let interface = cloud.api.interface(&subnet, "10.77.1.10", &[&gid]).unwrap();
        let folder = tempfile::Builder::new()
            .prefix("postern-cloud-")
            .tempdir()
            .unwrap();
        Self {
            cloud,
            folder,
            vpc,
            subnet,
            gid,
            interface,
        }
    }

    /// A rule for HTTPS with this description, in the group.
    pub(crate) fn allow(&self, description: &str) -> String {
        // Clouds refuse two rules that differ in nothing else, so people vary the CIDR.
        let known = self
            .cloud
            .api
            .ec2("DescribeSecurityGroupRules", &[])
            .unwrap()
            .matches("<item>")
            .count();
        let cidr = format!("198.51.100.{known}/32");
        self.cloud
            .api
            .allow(
                &self.gid,
                Rule {
                    cidr: &cidr,
                    ..Rule::https(description)
                },
            )
            .unwrap()
    }

    /// A sidecar for this VPC, reading as often as it may, not yet started.
    pub(crate) fn sidecar(&self, more: &str) -> Sidecar {
        let config = format!(
            "[aws]\nvpcs = [\"{}\"]\n[poll]\ninterval_s = 0.3\nmax_backoff_s = 1.0\ncalls_per_second = 1000.0\n{more}",
            self.vpc
        );
        Sidecar::new(self.folder.path(), &self.cloud.double.url(), &config).unwrap()
    }

    /// A daemon's double and a running sidecar.
    pub(crate) fn run(&self) -> (DaemonDouble, Sidecar) {
        let daemon = DaemonDouble::start(self.folder.path()).unwrap();
        let mut sidecar = self.sidecar("");
        sidecar.start().unwrap();
        (daemon, sidecar)
    }
}

/// Every exact name and pattern of a policy.
pub(crate) fn names(snapshot: &SnapshotV1) -> Vec<String> {
    let rules = snapshot.groups.iter().flat_map(|group| &group.rules);
    let mut names: Vec<String> = rules
        .flat_map(|rule| &rule.entries)
        .filter_map(|entry| match entry {
            EntryV1::Name { name, .. } => Some(name.clone()),
            EntryV1::Pattern { pattern, .. } => Some(pattern.clone()),
            EntryV1::Address { .. } | EntryV1::SeeThru { .. } => None,
        })
        .collect();
    names.sort_unstable();
    names
}
