//! `cloudsync.toml`: which cloud, which networks, how often, where the logs go.
//!
//! Every key has a default, so an appliance that finds its cloud by itself needs no file. An
//! unknown key is refused, with the nearest known one: a misspelt `vpcs` must not quietly mean
//! every network there is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use policy::preferences::SCOPE;
use policy::{Fault, Preferences};
use serde::Deserialize;

mod gcp;
mod health;
mod known;

pub(crate) use gcp::{Gcp, ListedSubnet};
pub(crate) use health::Health;

/// Where the file is when no other is named.
pub(crate) const CONFIG_FILE: &str = "/etc/postern/cloudsync.toml";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It cannot be opened.
    #[error("reading {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("reading {path}: line {line}: {why}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
}

/// Where policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProviderKind {
    /// Security groups of AWS.
    Aws,
    /// Firewall rules of GCP.
    Gcp,
    /// An inventory file.
    File,
}

/// Everything in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where policy comes from.
    pub(crate) provider: ProviderKind,
    /// The deployment's name, in the names of its documents; none when the account has one
    /// deployment.
    pub(crate) deployment: Option<String>,
    /// The daemon's control socket.
    pub(crate) control_socket: PathBuf,
    /// The daemon's spool.
    pub(crate) spool: PathBuf,
    /// Where the cursor is kept.
    pub(crate) state_dir: PathBuf,
    /// Networks whose addresses may be clients, beside those of the served VPCs.
    pub(crate) served: Vec<IpNet>,
    /// How often the cloud is asked.
    pub(crate) poll: Poll,
    /// AWS alone.
    pub(crate) aws: Aws,
    /// GCP alone.
    pub(crate) gcp: Gcp,
    /// The file provider alone.
    pub(crate) file: File,
    /// Where logs go.
    pub(crate) logs: Logs,
    /// The deployment's preferences, until the cloud's own document is found.
    preferences: toml::Table,
}

/// How often the cloud is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Poll {
    /// Seconds between two readings, at least.
    interval_s: f64,
    /// The longest pause after failures, in seconds.
    max_backoff_s: f64,
    /// How many appliances share the account's request rate.
    pub(crate) appliances: u32,
    /// Requests a second that the deployment may make of one API: by default a tenth of the
    /// documented refill of 20.
    pub(crate) calls_per_second: f64,
    /// Seconds between two readings of the preferences document, at most.
    preferences_s: f64,
    /// Seconds between two readings of an external list, at most.
    lists_s: f64,
}

/// AWS alone. Credentials and region come from where every AWS program finds them.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Aws {
    /// Served VPCs; when empty the instance's own, and without metadata every VPC the
    /// credentials can see.
    pub(crate) vpcs: Vec<String>,
    /// Other accounts whose interfaces and groups are read.
    pub(crate) accounts: Vec<AwsAccount>,
    /// The region, where the environment does not say.
    pub(crate) region: Option<String>,
    /// Another place to find every AWS service: a VPC endpoint, or a test.
    pub(crate) endpoint_url: Option<String>,
    /// Whether an instance without a public address takes a free Elastic IP tagged `postern` or
    /// `discriminat`.
    pub(crate) elastic_ip: bool,
    /// The autoscaling group this instance is launched by.
    pub(crate) autoscaling_group: Option<String>,
    /// The launch hook of that group, completed once a policy is in force.
    pub(crate) launch_hook: Option<String>,
    /// Seconds a launch waits for a policy before it goes on without one (DESIGN, section 4.5).
    launch_wait_s: f64,
    /// When the group is told that this instance is to be replaced.
    pub(crate) health: Health,
}

/// Another account, read through a role it has for us.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AwsAccount {
    /// Its id, twelve digits.
    pub(crate) account: String,
    /// The role's name, with its path, or its ARN.
    pub(crate) role: String,
    /// VPCs to look at there; when empty the deployment's own, shared with that account.
    pub(crate) vpcs: Vec<String>,
    /// What the role's trust policy asks for.
    pub(crate) external_id: Option<String>,
}

/// The file provider alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    /// The inventory (DESIGN, section 4.3).
    pub(crate) inventory: PathBuf,
}

/// Where logs go.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Logs {
    /// Whether they are shipped at all.
    pub(crate) ship: bool,
    /// The CloudWatch Logs group.
    pub(crate) group: String,
    /// Whether somebody else makes the group, and says how long it keeps its lines.
    #[serde(alias = "log_group_managed")]
    pub(crate) group_managed: bool,
    /// Days the service keeps lines, set on a group that we create; 0 keeps them for ever.
    pub(crate) retention_days: u32,
    /// How long lines may wait for company, in seconds.
    linger_s: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            provider: ProviderKind::Aws,
            deployment: None,
            control_socket: ipc::socket::CONTROL_SOCKET.into(),
            spool: "/var/lib/postern/spool".into(),
            state_dir: "/var/lib/postern-sync".into(),
            served: Vec::new(),
            poll: Poll::default(),
            aws: Aws::default(),
            gcp: Gcp::default(),
            file: File::default(),
            logs: Logs::default(),
            preferences: toml::Table::new(),
        }
    }
}

impl Default for Aws {
    fn default() -> Self {
        Self {
            vpcs: Vec::new(),
            accounts: Vec::new(),
            region: None,
            endpoint_url: None,
            elastic_ip: true,
            autoscaling_group: None,
            launch_hook: None,
            launch_wait_s: 120.0,
            health: Health::default(),
        }
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            interval_s: 5.0,
            max_backoff_s: 60.0,
            appliances: 1,
            calls_per_second: 2.0,
            preferences_s: 30.0,
            lists_s: 60.0,
        }
    }
}

impl Default for File {
    fn default() -> Self {
        Self {
            inventory: "/etc/postern/inventory.toml".into(),
        }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            ship: true,
            group: "postern".to_owned(),
            group_managed: false,
            retention_days: 90,
            linger_s: 1.0,
        }
    }
}

impl Aws {
    /// How long a launch waits for a policy.
    pub(crate) fn launch_wait(&self) -> Duration {
        seconds(self.launch_wait_s, 1.0, 3_600.0)
    }
}

impl Poll {
    /// Between two readings, at least; never under a quarter of a second.
    pub(crate) fn interval(&self) -> Duration {
        seconds(self.interval_s, 0.25, 3_600.0)
    }

    /// Between two readings of the preferences document.
    pub(crate) fn preferences_interval(&self) -> Duration {
        seconds(self.preferences_s, 0.25, 3_600.0)
    }

    /// Between two readings of an external list.
    pub(crate) fn lists_interval(&self) -> Duration {
        seconds(self.lists_s, 0.25, 3_600.0)
    }

    /// The longest pause after failures.
    pub(crate) fn max_backoff(&self) -> Duration {
        seconds(self.max_backoff_s, 1.0, 3_600.0)
    }
}

impl Logs {
    /// How long lines may wait for company.
    pub(crate) fn linger(&self) -> Duration {
        seconds(self.linger_s, 0.05, 60.0)
    }
}

/// `value` seconds, within bounds that keep a slip of the pen from being a flood or a standstill.
fn seconds(value: f64, least: f64, most: f64) -> Duration {
    Duration::from_secs_f64(if value.is_finite() {
        value.clamp(least, most)
    } else {
        least
    })
}

impl Config {
    /// Reads `path`, or [`CONFIG_FILE`] when it is there and none is named.
    ///
    /// # Errors
    ///
    /// When a file that was named is missing, and when any file is not as it should be.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let named = path.unwrap_or_else(|| Path::new(CONFIG_FILE));
        match std::fs::read_to_string(named) {
            Ok(text) => Self::parse(&text, named),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read {
                path: named.to_owned(),
                source,
            }),
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first line that is wrong.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let invalid = |error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or_default();
            ConfigError::Invalid {
                path: path.to_owned(),
                line: before.matches('\n').count().saturating_add(1),
                why: known::explain(error.message()),
            }
        };
        toml::from_str(text).map_err(invalid)
    }

    /// Names the preferences document may have, the one that wins first (DESIGN, section 4.2).
    pub(crate) fn preference_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for product in ["postern", "DiscrimiNAT"] {
            let deployment = self.deployment.iter();
            names.extend(deployment.map(|deployment| format!("{product}_{deployment}")));
            names.push(product.to_owned());
        }
        names
    }

    /// The deployment's preferences, and what is wrong with them.
    pub(crate) fn preferences(&self) -> (Preferences, Vec<Fault>) {
        let document = serde_json::json!({ SCOPE: self.preferences });
        // The document was made right here: it is JSON and has the scope.
        Preferences::read_json(&document.to_string(), &Preferences::default()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(text: &str) -> String {
        Config::parse(text, Path::new("cloudsync.toml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let config = Config::parse("", Path::new("x")).unwrap();
        assert_eq!(config.provider, ProviderKind::Aws);
        assert_eq!(config.poll.interval(), Duration::from_secs(5));
        assert_eq!(config.logs.group, "postern");
        assert_eq!(config.preferences(), (Preferences::default(), Vec::new()));
    }

    #[test]
    fn a_misspelt_key_is_refused_with_its_line_and_the_nearest_known_one() {
        assert_eq!(
            invalid("provider = \"aws\"\n\n[aws]\nvpc = [\"vpc-1\"]\n"),
            "reading cloudsync.toml: line 4: unknown key \"vpc\"; did you mean \"vpcs\"?"
        );
        assert_eq!(
            invalid("colour = 1"),
            "reading cloudsync.toml: line 1: unknown key \"colour\""
        );
    }

    #[test]
    fn preferences_are_read_and_their_faults_reported() {
        let text = "[preferences]\nech = \"allow_outer\"\nquic = \"maybe\"\n";
        let (preferences, faults) = Config::parse(text, Path::new("x")).unwrap().preferences();
        assert_eq!(preferences.ech.as_str(), "allow_outer");
        assert_eq!(preferences.quic, Preferences::default().quic);
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn an_interval_of_nothing_is_no_flood() {
        let text = "[poll]\ninterval_s = 0.0\n";
        let config = Config::parse(text, Path::new("x")).unwrap();
        assert_eq!(config.poll.interval(), Duration::from_millis(250));
    }

    #[test]
    fn an_appliance_is_replaced_and_let_go_on_by_the_designs_limits() {
        let aws = Config::parse("", Path::new("x")).unwrap().aws;
        let health = &aws.health;
        let limits = [
            health.window(),
            health.uptime(),
            health.pause(),
            aws.launch_wait(),
        ];
        assert_eq!(limits.map(|limit| limit.as_secs()), [60, 300, 1_800, 120]);
        assert!(health.report);
    }
}
