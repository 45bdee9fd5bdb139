//! What exists in the double's cloud, and how tests change it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

/// A firewall rule to be made: egress, TCP 443, for the whole network.
#[derive(Debug, Clone)]
pub struct Firewall {
    /// The resource, field by field.
    pub fields: Value,
}

impl Firewall {
    /// With this annotation.
    pub fn https(name: &str, description: &str) -> Self {
        let fields = json!({
            "name": name,
            "description": description,
            "direction": "EGRESS",
            "priority": 1000,
            "disabled": false,
            "destinationRanges": ["0.0.0.0/0"],
            "allowed": [{"IPProtocol": "tcp", "ports": ["443"]}],
        });
        Self { fields }
    }

    /// With another value of one field.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.fields[field] = value;
        self
    }

    /// Only for machines with one of these tags.
    #[must_use]
    pub fn tags(self, tags: &[&str]) -> Self {
        self.with("targetTags", json!(tags))
    }

    /// Denies instead of allowing.
    #[must_use]
    pub fn denying(mut self) -> Self {
        if let Some(fields) = self.fields.as_object_mut() {
            let allowed = fields.remove("allowed");
            fields.insert("denied".to_owned(), allowed.unwrap_or_default());
        }
        self
    }
}

/// A machine to be made, with one interface.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The resource, field by field.
    pub fields: Value,
}

impl Machine {
    /// With this address, without tags.
    pub fn new(name: &str, address: &str) -> Self {
        let fields = json!({
            "name": name,
            "status": "RUNNING",
            "networkInterfaces": [{"name": "nic0", "networkIP": address}],
        });
        Self { fields }
    }

    /// With these tags.
    #[must_use]
    pub fn tags(mut self, tags: &[&str]) -> Self {
        self.fields["tags"] = json!({"items": tags, "fingerprint": "AAAA"});
        self
    }

    /// Running as this account.
    #[must_use]
    pub fn account(mut self, email: &str) -> Self {
        self.fields["serviceAccounts"] = json!([{"email": email, "scopes": []}]);
        self
    }

    /// With more on its interface.
    #[must_use]
    pub fn nic(mut self, field: &str, value: Value) -> Self {
        self.fields["networkInterfaces"][0][field] = value;
        self
    }
}

/// What the caller may do.
#[derive(Debug, Clone, Default)]
pub enum Policy {
    /// Everything.
    #[default]
    Open,
    /// Only what is listed.
    Granted(BTreeSet<String>),
}

/// Everything there is.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Firewall rules by project.
    pub(super) firewalls: BTreeMap<String, Vec<Value>>,
    /// Machines by project and zone.
    pub(super) machines: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
    /// Subnets by project and region.
    pub(super) subnets: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
    /// Reserved addresses by project and region.
    pub(super) addresses: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
    /// Service projects by host project.
    pub(super) attached: BTreeMap<String, Vec<String>>,
    /// Payload of the newest version by `projects/P/secrets/S`.
    pub(super) secrets: HashMap<String, String>,
    /// Entries that were written, by log, once each.
    pub(super) entries: Vec<Value>,
    /// By log, time and insert id.
    pub(super) written: HashSet<String>,
    /// Addresses that another machine takes first.
    pub(super) contests: Vec<(String, String)>,
    /// Metadata by path.
    pub(super) metadata: BTreeMap<String, String>,
    /// Tokens given out.
    pub(super) tokens: u32,
    /// Numbers given out.
    pub(super) numbers: u64,
}

/// Where everything of the API is.
pub(super) const ROOT: &str = "https://www.googleapis.com/compute/v1";

impl World {
    /// The next number.
    pub(super) fn number(&mut self) -> String {
        self.numbers += 1;
        (7_000_000_000 + self.numbers).to_string()
    }

    /// A rule in a network of a project; its number.
    pub(super) fn firewall(&mut self, project: &str, network: &str, rule: Firewall) -> String {
        let id = self.number();
        let mut fields = rule.fields;
        fields["kind"] = "compute#firewall".into();
        fields["id"] = id.as_str().into();
        fields["network"] = format!("{ROOT}/projects/{project}/global/networks/{network}").into();
        self.firewalls
            .entry(project.to_owned())
            .or_default()
            .push(fields);
        id
    }

    /// A machine of a project on a network, which may be another project's.
    pub(super) fn machine(
        &mut self,
        (project, zone): (&str, &str),
        network: &str,
        machine: Machine,
    ) {
        let mut fields = machine.fields;
        fields["kind"] = "compute#instance".into();
        fields["id"] = self.number().into();
        fields["zone"] = format!("{ROOT}/projects/{project}/zones/{zone}").into();
        for nic in fields["networkInterfaces"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            nic["network"] = format!("{ROOT}/projects/{network}").into();
            nic["kind"] = "compute#networkInterface".into();
        }
        let zones = self.machines.entry(project.to_owned()).or_default();
        zones.entry(zone.to_owned()).or_default().push(fields);
    }

    /// A subnet.
    pub(super) fn subnet(&mut self, (project, region): (&str, &str), name: &str, fields: Value) {
        let mut subnet = fields;
        subnet["kind"] = "compute#subnetwork".into();
        subnet["name"] = name.into();
        subnet["region"] = format!("{ROOT}/projects/{project}/regions/{region}").into();
        let regions = self.subnets.entry(project.to_owned()).or_default();
        regions.entry(region.to_owned()).or_default().push(subnet);
    }
}
