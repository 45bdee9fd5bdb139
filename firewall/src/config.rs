//! The daemon's own settings: `/etc/postern/postern.toml` into [`Config`].
//!
//! Every key has a default (DESIGN: files, users, ports), so a missing file is a valid
//! one. An unknown key is refused with its line and the nearest known key. Policy is not
//! here: it comes from the control socket or from an inventory.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use hickory_resolver::proto::rr::RecordType;
use ipnet::IpNet;
use serde::Deserialize;
use thiserror::Error;

use crate::suggest::closest;
use crate::witness::record_type_name;

mod certificates;

pub use certificates::CertificatesConfig;

/// Everything about this appliance that is not policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What logs call this appliance; default: the host name.
    pub appliance: String,
    /// Number of packet queues and threads, 1 to 64; default: one per processor, at most 16.
    pub queues: u16,
    /// Interface towards the internet; default: the one each packet's route says.
    pub wan: Option<String>,
    /// What happens to forwarded IPv6.
    pub ipv6_egress: Ipv6Egress,
    /// Inventory file that is the policy; default: policy comes over the control socket.
    pub inventory: Option<PathBuf>,
    /// File whose clients, groups and preferences are laid over a published policy; need not exist.
    /// Not looked at beside an inventory.
    pub overlay: PathBuf,
    /// Where the last good policy is kept.
    pub state_dir: PathBuf,
    /// Unix socket for cloudsync and the command line.
    pub control_socket: PathBuf,
    /// Address of `/healthz`; an empty string turns it off.
    pub health: OptionalAddress,
    /// TCP ports of this machine that stay open to everyone beside health, such as 22 for SSH where
    /// there is no serial console; default: none.
    pub open_ports: Vec<u16>,
    /// Address of `/metrics`; an empty string turns it off.
    pub metrics: OptionalAddress,
    /// The log files waiting for cloudsync.
    pub spool: SpoolConfig,
    /// Copies every log line to standard output as well.
    pub log_stdout: bool,
    /// The DNS witness.
    pub dns: DnsConfig,
    /// The certificate witness.
    pub certificates: CertificatesConfig,
    /// Who may do what; see [`Users`].
    pub users: Users,
}

/// What happens to forwarded IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6Egress {
    /// Source-translated like IPv4.
    #[default]
    Masquerade,
    /// Routed untranslated, for networks whose return path is proved.
    Route,
    /// Refused.
    Off,
}

/// Where log lines wait for cloudsync, and how many.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// Directory of the spool; default: `spool` under `state_dir`.
    pub dir: Option<PathBuf>,
    /// Bytes kept over all streams, at least 16 MiB; past it the oldest closed segment goes.
    pub max_bytes: u64,
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsConfig {
    /// Resolvers to ask, `ADDRESS` or `ADDRESS:PORT`; default: those of `/etc/resolv.conf`.
    pub upstreams: Vec<Upstream>,
    /// Queries per second and upstream over all purposes, 10 to 10,000.
    pub max_qps: u32,
    /// How long an address counts after the TTL of its answer, seconds, 0 to 86,400.
    pub history_seconds: u32,
    /// Cloud resolvers that ask the DNS front for many clients: exempt from the source gate, for port 53 only
    /// (`dns_resolver_sources`).
    pub resolver_sources: Vec<Prefix>,
    /// Types of records that the DNS front passes on beside [`crate::witness::RECORD_TYPES`].
    pub front_record_types: Vec<RecordTypeName>,
}

/// The name of a type of DNS records, such as `TXT`, or `TYPE64` for one without a name (RFC 3597, section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordTypeName(pub String);

/// Users of the parts, by name. A user that does not exist is no error: as root the daemon
/// then keeps its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Users {
    /// Runs the witness process.
    pub witness: String,
    /// May publish a snapshot and report shipped segments, besides root.
    pub publishers: Vec<String>,
    /// Members may ask for status and explanations, besides publishers.
    pub operators: String,
    /// Group that owns the control socket and the spool.
    pub ipc_group: String,
    /// Ask resolvers on behalf of this machine's own programs: cloudsync has to find its cloud.
    pub resolvers: Vec<String>,
    /// Other programs of this machine that may connect out, such as the one that keeps the clock.
    pub services: Vec<String>,
}

/// A resolver's address; the port is 53 unless written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream(pub SocketAddr);

/// A prefix; written without a length, one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(pub IpNet);

/// A listening address, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalAddress(pub Option<SocketAddr>);

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("reading configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file's content was refused.
    #[error("reading configuration {}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why, with the line.
        source: InvalidConfig,
    },
}

/// A configuration text that was refused.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct InvalidConfig {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Config {
    /// Reads the file at `path`; at the default path a missing file means the defaults.
    ///
    /// # Errors
    /// When the file cannot be read or one of its keys or values is refused.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, required) = match path {
            Some(path) => (path, true),
            None => (Path::new(DEFAULT_PATH), false),
        };
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|source| ConfigError::Invalid {
                path: path.to_owned(),
                source,
            }),
            Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads a configuration from its text.
    ///
    /// # Errors
    /// At the first unknown key, wrong type or value out of range.
    pub fn parse(text: &str) -> Result<Self, InvalidConfig> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            InvalidConfig {
                line,
                reason: with_suggestion(error.message()),
            }
        })?;
        config.check(text)?;
        Ok(config)
    }

    /// Where bindings are kept over a restart.
    pub fn bindings_file(&self) -> PathBuf {
        self.state_dir.join("bindings.jsonl")
    }

    /// Where the log lines wait.
    pub fn spool_dir(&self) -> PathBuf {
        self.spool
            .dir
            .clone()
            .unwrap_or_else(|| self.state_dir.join("spool"))
    }

    fn check(&self, text: &str) -> Result<(), InvalidConfig> {
        let in_range = |key: &str, value: u64, allowed: RangeInclusive<u64>| {
            if allowed.contains(&value) {
                return Ok(());
            }
            let reason = format!(
                "`{key}` is {value}, not {} to {}",
                allowed.start(),
                allowed.end()
            );
            Err(InvalidConfig {
                line: line_of_key(text, key),
                reason,
            })
        };
        in_range("queues", self.queues.into(), 1..=64)?;
        in_range("max_qps", self.dns.max_qps.into(), 10..=10_000)?;
        in_range(
            "history_seconds",
            self.dns.history_seconds.into(),
            0..=86_400,
        )?;
        in_range("per_second", self.certificates.per_second.into(), 0..=100)?;
        in_range("max_bytes", self.spool.max_bytes, (16 << 20)..=(1 << 50))?;
        if let Some(reason) = self.certificates.fault() {
            return Err(InvalidConfig {
                line: line_of_key(text, "authorities"),
                reason,
            });
        }
        if self.appliance.is_empty() || self.appliance.len() > 253 {
            let reason = "`appliance` is not 1 to 253 bytes long".to_owned();
            return Err(InvalidConfig {
                line: line_of_key(text, "appliance"),
                reason,
            });
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            appliance: host_name(),
            queues: default_queues(),
            wan: None,
            ipv6_egress: Ipv6Egress::default(),
            inventory: None,
            overlay: PathBuf::from("/etc/postern/overlay.toml"),
            state_dir: PathBuf::from("/var/lib/postern"),
            control_socket: PathBuf::from("/run/postern/control.sock"),
            health: OptionalAddress(Some(SocketAddr::from(([0u16; 8], 1042)))),
            open_ports: Vec::new(),
            metrics: OptionalAddress(Some(SocketAddr::from(([127, 0, 0, 1], 9642)))),
            spool: SpoolConfig::default(),
            log_stdout: false,
            dns: DnsConfig::default(),
            certificates: CertificatesConfig::default(),
            users: Users::default(),
        }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            dir: None,
            max_bytes: 1 << 30,
        }
    }
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            max_qps: 400,
            history_seconds: 3_600,
            resolver_sources: Vec::new(),
            front_record_types: Vec::new(),
        }
    }
}

impl Default for Users {
    fn default() -> Self {
        Self {
            witness: "postern-witness".to_owned(),
            publishers: vec!["postern-sync".to_owned()],
            operators: "postern".to_owned(),
            ipc_group: "postern-ipc".to_owned(),
            resolvers: vec!["systemd-resolve".to_owned()],
            services: vec!["_chrony".to_owned()],
        }
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = text.parse::<SocketAddr>().or_else(|_| {
            text.parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, DNS_PORT))
        });
        address.map(Self).map_err(|_| {
            serde::de::Error::custom(format!("`{text}` is not an address or address:port"))
        })
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let prefix = text.parse::<IpNet>().map(|net| net.trunc());
        prefix
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(Self)
            .map_err(|_| {
                serde::de::Error::custom(format!("`{text}` is not an address or a prefix"))
            })
    }
}

impl<'de> Deserialize<'de> for RecordTypeName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?.to_ascii_uppercase();
        let number = text.strip_prefix("TYPE");
        let number = number.and_then(|text| text.parse::<u16>().ok());
        let known = match number {
            Some(number) => Ok(RecordType::from(number)),
            None => text.parse(),
        };
        match known {
            Ok(known) if !NOT_PASSED.contains(&known) => Ok(Self(record_type_name(known))),
            _ => Err(serde::de::Error::custom(format!(
                "`{text}` is no type of DNS records that can be passed on"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for OptionalAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| {
                serde::de::Error::custom(format!("`{text}` is not an address with a port"))
            })
    }
}

/// Types that are questions about a zone or a connection, not about a name.
const NOT_PASSED: [RecordType; 4] = [
    RecordType::ANY,
    RecordType::AXFR,
    RecordType::IXFR,
    RecordType::OPT,
];

/// The line, from 1, that holds byte `offset` of `text`.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    let newlines = text
        .bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count();
    newlines.saturating_add(1)
}

fn line_of_key(text: &str, key: &str) -> usize {
    let holds = |line: &str| {
        line.trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines()
        .position(holds)
        .map_or(1, |index| index.saturating_add(1))
}

/// Rewrites serde's "unknown field" into the key and the nearest known one.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return message.trim_end().replace('\n', ", ");
    }
    let Some(unknown) = quoted.next() else {
        return message.to_owned();
    };
    match closest(unknown, quoted) {
        Some(known) => format!("unknown key \"{unknown}\", did you mean \"{known}\"?"),
        None => format!("unknown key \"{unknown}\""),
    }
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "postern".to_owned())
}

fn default_queues() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors.min(16)).unwrap_or(1)
}

/// Read when `--config` is not given.
pub const DEFAULT_PATH: &str = "/etc/postern/postern.toml";

const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests;
