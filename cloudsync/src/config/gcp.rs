//! `[gcp]`: which networks, whose machines.

use serde::Deserialize;

/// GCP alone. Credentials come from where every Google program finds them (Application Default
/// Credentials: on an appliance, the metadata server).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gcp {
    /// The project of the served networks, and so of their firewall rules: the host project of a
    /// Shared VPC. By default that of the instance's own network.
    pub(crate) project: Option<String>,
    /// Served networks, `NAME` in that project or `PROJECT/NAME`; when empty the instance's own.
    pub(crate) networks: Vec<String>,
    /// More projects whose machines are clients; by default those attached to the host project.
    pub(crate) service_projects: Option<Vec<String>>,
    /// Subnets whose addresses are clients though no machine has them: serverless connectors,
    /// direct VPC egress.
    pub(crate) subnet: Vec<ListedSubnet>,
    /// Another place to find every Google service: a private endpoint, or a test.
    pub(crate) endpoint_url: Option<String>,
}

/// One subnet of clients without machines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListedSubnet {
    /// `REGION/NAME`.
    pub(crate) name: String,
    /// Network tags that everything in it counts as having: a connector's are `vpc-connector` and
    /// `vpc-connector-REGION-NAME`.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Accounts that everything in it counts as running as.
    #[serde(default)]
    pub(crate) service_accounts: Vec<String>,
}

impl ListedSubnet {
    /// Whether it is this one.
    pub(crate) fn is(&self, region: &str, name: &str) -> bool {
        self.name.split_once('/') == Some((region, name))
    }
}
