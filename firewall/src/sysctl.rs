//! The kernel parameters the verdict rests on: what they must be, setting them, checking them.
//!
//! Acts inside the calling thread's network namespace, for that is what `/proc/sys/net` shows.
//! Touches nothing outside the list.

use std::io;
use std::path::{Path, PathBuf};

/// Reverse-path filtering of IPv4 sources (`rp_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReversePath {
    /// The route back must leave by the interface the packet came from.
    #[default]
    Strict,
    /// Some route back must exist: for appliances whose routes are not symmetric.
    Loose,
}

/// What the list depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SysctlOptions {
    /// Whether IPv6 is forwarded.
    pub ipv6: bool,
    /// See [`ReversePath`].
    pub reverse_path: ReversePath,
}

/// One parameter and the value it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Path below `/proc/sys`, as in `net/ipv4/ip_forward`.
    pub key: String,
    /// The value, as the file shows it.
    pub value: String,
    /// False for a parameter that some kernels lack without harm.
    pub required: bool,
    /// What goes wrong otherwise.
    pub why: &'static str,
}

/// What became of one parameter.
#[derive(Debug)]
pub enum Outcome {
    /// It had the value.
    Held,
    /// It was set; this is what it was.
    Repaired(String),
    /// The kernel does not have it.
    Missing,
    /// It could not be read, set, or did not keep the value.
    Refused(io::Error),
}

/// The outcome of one parameter.
#[derive(Debug)]
pub struct Finding {
    /// The parameter.
    pub setting: Setting,
    /// What became of it.
    pub outcome: Outcome,
}

impl Finding {
    /// True when the daemon must not run: a required parameter does not have its value.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        self.setting.required && matches!(self.outcome, Outcome::Missing | Outcome::Refused(_))
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.setting.key.replace('/', ".");
        let Setting { value, why, .. } = &self.setting;
        match &self.outcome {
            Outcome::Held => write!(f, "{name} is {value}"),
            Outcome::Repaired(from) => write!(f, "{name} was {from}, set to {value}: {why}"),
            Outcome::Missing => write!(f, "{name} is missing in this kernel: {why}"),
            Outcome::Refused(e) => write!(f, "{name} must be {value} and is not ({e}): {why}"),
        }
    }
}

/// The parameters under one root.
#[derive(Debug, Clone)]
pub struct Sysctls {
    root: PathBuf,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self::under("/proc/sys")
    }
}

impl Sysctls {
    /// The parameters below `root`: `/proc/sys`, or a copy of it in tests.
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The list for this machine: the fixed part, and what has to be said per interface.
    #[must_use]
    pub fn plan(&self, options: &SysctlOptions) -> Vec<Setting> {
        let mut interfaces: Vec<String> = std::fs::read_dir(self.root.join("net/ipv4/conf"))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        interfaces.sort();
        plan(options, &interfaces)
    }

    /// Sets every parameter that has another value, reads each back, and says what was found. All
    /// are tried, so that one report names everything that is missing.
    #[must_use]
    pub fn assert(&self, plan: Vec<Setting>) -> Vec<Finding> {
        plan.into_iter()
            .map(|setting| {
                let outcome = match self.assert_one(&setting) {
                    Ok(outcome) => outcome,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Outcome::Missing,
                    Err(e) => Outcome::Refused(e),
                };
                Finding { setting, outcome }
            })
            .collect()
    }

    fn assert_one(&self, setting: &Setting) -> io::Result<Outcome> {
        let path = self.root.join(&setting.key);
        let before = read(&path)?;
        if before == setting.value {
            return Ok(Outcome::Held);
        }
        std::fs::write(&path, &setting.value)?;
        let after = read(&path)?;
        if after == setting.value {
            return Ok(Outcome::Repaired(before));
        }
        Err(io::Error::other(format!("it stays {after}")))
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

/// Renders the list.
fn plan(options: &SysctlOptions, interfaces: &[String]) -> Vec<Setting> {
    let required = |&(key, value, why): &(&str, u32, &'static str)| Setting {
        key: key.to_owned(),
        value: value.to_string(),
        required: true,
        why,
    };
    let mut plan: Vec<Setting> = CONNTRACK
        .iter()
        .chain(TIMEOUTS)
        .chain(ADDRESSING)
        .map(required)
        .collect();
    plan.extend(OPTIONAL.iter().map(|entry| Setting {
        required: false,
        ..required(entry)
    }));
    let reverse_path = match options.reverse_path {
        ReversePath::Strict => 1,
        ReversePath::Loose => 2,
    };
    let why = "a source address must be one that could answer";
    plan.push(required(&(
        "net/ipv4/conf/all/rp_filter",
        reverse_path,
        why,
    )));
    // The kernel sends redirects when either the interface or `all` says so.
    plan.extend(interfaces.iter().map(|interface| Setting {
        key: format!("net/ipv4/conf/{interface}/send_redirects"),
        value: "0".to_owned(),
        required: true,
        why: "a client that is redirected leaves without us",
    }));
    if options.ipv6 {
        plan.extend(IPV6.iter().map(required));
        // The kernel limits the types of the mask for all receivers together, 50 at once. Type 127 is
        // reserved (RFC 4443, section 2.1), so that nothing is left in it.
        let why = "one client's refusals would use up everyone's";
        plan.push(required(&("net/ipv6/icmp/ratemask", 127, why)));
    }
    // Last: nothing is forwarded before everything else holds.
    plan.push(required(&(
        "net/ipv4/ip_forward",
        1,
        "nothing is forwarded at all",
    )));
    if options.ipv6 {
        let why = "no IPv6 is forwarded";
        plan.push(required(&("net/ipv6/conf/all/forwarding", 1, why)));
    }
    plan
}

type Fixed = (&'static str, u32, &'static str);

const CONNTRACK: &[Fixed] = &[
    (
        "net/netfilter/nf_conntrack_tcp_loose",
        0,
        "a flow picked up in the middle has no beginning to judge",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_be_liberal",
        0,
        "segments outside the window would reach the server unread",
    ),
    (
        "net/netfilter/nf_conntrack_checksum",
        1,
        "a segment with a bad checksum is read here and ignored by the server",
    ),
    (
        "net/netfilter/nf_conntrack_acct",
        1,
        "end records have no byte counts",
    ),
    (
        "net/netfilter/nf_conntrack_timestamp",
        1,
        "end records have no duration",
    ),
    (
        "net/netfilter/nf_conntrack_events",
        1,
        "flows that began while nobody listened would have no end record",
    ),
];

/// Seconds. Short for every state that is not established: an entry that lingers costs table room
/// and delays its end record.
const TIMEOUTS: &[Fixed] = &[
    (
        "net/netfilter/nf_conntrack_tcp_timeout_syn_sent",
        10,
        "unanswered connections fill the table",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_timeout_syn_recv",
        10,
        "half-open connections fill the table",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_timeout_established",
        3600,
        "idle connections fill the table for five days",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_timeout_fin_wait",
        60,
        "half-closed connections fill the table",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
        60,
        "half-closed connections fill the table",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_timeout_last_ack",
        10,
        "the end record is late",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_timeout_time_wait",
        10,
        "the end record is two minutes late",
    ),
    (
        "net/netfilter/nf_conntrack_tcp_timeout_close",
        10,
        "the end record is late",
    ),
];

const ADDRESSING: &[Fixed] = &[
    (
        "net/ipv4/icmp_ratelimit",
        0,
        "refusals would not reach the client; the ruleset limits them per source",
    ),
    (
        "net/ipv4/icmp_ratemask",
        0,
        "refusals would not reach the client; the ruleset limits them per source",
    ),
    (
        "net/ipv4/conf/all/accept_redirects",
        0,
        "a neighbour could move our route",
    ),
    (
        "net/ipv4/conf/all/accept_source_route",
        0,
        "a packet could choose its own path",
    ),
];

/// Absent before Linux 5.14 and after 6.0 respectively; what they would switch is off then.
const OPTIONAL: &[Fixed] = &[
    (
        "net/netfilter/nf_conntrack_tcp_ignore_invalid_rst",
        0,
        "a reset outside the window must not pass as valid",
    ),
    (
        "net/netfilter/nf_conntrack_helper",
        0,
        "a helper opens ports that a client's bytes ask for",
    ),
];

const IPV6: &[Fixed] = &[
    (
        "net/ipv6/icmp/ratelimit",
        0,
        "refusals would not reach the client; the ruleset limits them per source",
    ),
    (
        "net/ipv6/conf/all/accept_redirects",
        0,
        "a neighbour could move our route",
    ),
    (
        "net/ipv6/conf/all/accept_source_route",
        0,
        "a packet could choose its own path",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: SysctlOptions = SysctlOptions {
        ipv6: true,
        reverse_path: ReversePath::Strict,
    };

    /// A copy of `/proc/sys` in which every planned parameter is 7.
    fn sandbox() -> (tempfile::TempDir, Sysctls) {
        let directory = tempfile::tempdir().unwrap();
        for interface in ["all", "eth0"] {
            std::fs::create_dir_all(directory.path().join("net/ipv4/conf").join(interface))
                .unwrap();
        }
        let sysctls = Sysctls::under(directory.path());
        for setting in sysctls.plan(&OPTIONS) {
            let path = directory.path().join(setting.key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "7\n").unwrap();
        }
        (directory, sysctls)
    }

    #[test]
    fn every_interface_stops_sending_redirects() {
        let (_directory, sysctls) = sandbox();
        let keys: Vec<_> = sysctls.plan(&OPTIONS).into_iter().map(|s| s.key).collect();
        assert!(keys.contains(&"net/ipv4/conf/eth0/send_redirects".to_owned()));
        assert!(keys.contains(&"net/ipv4/conf/all/send_redirects".to_owned()));
    }

    #[test]
    fn forwarding_is_switched_on_last() {
        let plan = plan(&OPTIONS, &[]);
        let tail: Vec<_> = plan.iter().rev().take(2).map(|s| s.key.as_str()).collect();
        assert_eq!(
            tail,
            ["net/ipv6/conf/all/forwarding", "net/ipv4/ip_forward"]
        );
    }

    #[test]
    fn wrong_values_are_repaired_and_then_held() {
        let (directory, sysctls) = sandbox();
        let first = sysctls.assert(sysctls.plan(&OPTIONS));
        assert!(
            first
                .iter()
                .all(|f| matches!(&f.outcome, Outcome::Repaired(v) if v == "7"))
        );
        let second = sysctls.assert(sysctls.plan(&OPTIONS));
        assert!(second.iter().all(|f| matches!(f.outcome, Outcome::Held)));
        let loose = directory
            .path()
            .join("net/netfilter/nf_conntrack_tcp_loose");
        assert_eq!(std::fs::read_to_string(loose).unwrap(), "0");
    }

    #[test]
    fn missing_parameter_is_named_and_fatal_only_when_required() {
        let (directory, sysctls) = sandbox();
        for key in ["nf_conntrack_tcp_loose", "nf_conntrack_helper"] {
            std::fs::remove_file(directory.path().join("net/netfilter").join(key)).unwrap();
        }
        let findings = sysctls.assert(sysctls.plan(&OPTIONS));
        let fatal: Vec<_> = findings.iter().filter(|f| f.is_fatal()).collect();
        assert_eq!(fatal.len(), 1);
        assert!(
            fatal[0]
                .to_string()
                .starts_with("net.netfilter.nf_conntrack_tcp_loose is missing in this kernel")
        );
    }

    #[test]
    fn no_ipv6_means_no_ipv6_parameter() {
        let options = SysctlOptions {
            ipv6: false,
            ..OPTIONS
        };
        assert!(plan(&options, &[]).iter().all(|s| !s.key.contains("ipv6")));
    }
}
