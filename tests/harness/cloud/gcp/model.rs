//! What exists in the double's cloud, and how tests change it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

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

/// A route to be made: for everything, before a network's own.
#[derive(Debug, Clone)]
pub struct Route {
    /// The resource, field by field.
    pub fields: Value,
}

impl Route {
    /// By way of this field's next hop: `nextHopInstance`, `nextHopIp`, `nextHopIlb`, `nextHopGateway`.
    pub fn new(name: &str, hop: &str, to: &str) -> Self {
        let fields = json!({
            "kind": "compute#route", "name": name, "destRange": "0.0.0.0/0", "priority": 200, hop: to,
        });
        Self { fields }
    }

    /// With another value of one field.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.fields[field] = value;
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
    /// Routes by project.
    pub(super) routes: BTreeMap<String, Vec<Value>>,
    /// Operations by project and zone, the newest last.
    pub(super) operations: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
    /// What changes machines, and when it ends.
    pub(super) under_way: Vec<(Instant, Effect)>,
    /// Payload of the newest version by `projects/P/secrets/S`.
    pub(super) secrets: HashMap<String, String>,
    /// Entries that were written, by log, once each.
    pub(super) entries: Vec<Value>,
    /// What was written, in numbers.
    pub(super) counted: super::logging::Counted,
    /// Whether entries are counted and not kept.
    pub(super) is_counting: bool,
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

/// What an operation does when it ends.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    /// The project.
    pub(super) project: String,
    /// The zone.
    pub(super) zone: String,
    /// The machine.
    pub(super) machine: String,
    /// The operation's number.
    pub(super) operation: String,
    /// The field of the machine that changes, and its new value; none when the machine goes.
    pub(super) change: Option<(String, Value)>,
}

/// How long an operation takes. A change is seen no sooner.
const OPERATION_TIME: Duration = Duration::from_millis(300);

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
        let name = fields["name"].as_str().unwrap_or_default().to_owned();
        let zones = self.machines.entry(project.to_owned()).or_default();
        zones.entry(zone.to_owned()).or_default().push(fields);
        self.operate((project, zone), "insert", &name, true);
    }

    /// An operation on a machine; its number.
    pub(super) fn operate(
        &mut self,
        (project, zone): (&str, &str),
        kind: &str,
        machine: &str,
        is_done: bool,
    ) -> String {
        let id = self.number();
        let zone_link = format!("{ROOT}/projects/{project}/zones/{zone}");
        let operation = json!({
            "kind": "compute#operation", "id": id, "name": format!("operation-{id}"), "zone": zone_link,
            "operationType": kind, "targetLink": format!("{zone_link}/instances/{machine}"),
            "status": if is_done { "DONE" } else { "RUNNING" }, "progress": if is_done { 100 } else { 0 },
            "user": "admin@example.com", "insertTime": "2026-11-22T10:00:00.000-07:00",
        });
        let zones = self.operations.entry(project.to_owned()).or_default();
        zones.entry(zone.to_owned()).or_default().push(operation);
        id
    }

    /// Begins to change a field of every machine of this name, or to delete them.
    pub(super) fn begin(&mut self, kind: &str, machine: &str, change: Option<&(String, Value)>) {
        let mut places = Vec::new();
        for (project, zones) in &self.machines {
            for (zone, machines) in zones {
                if machines.iter().any(|found| found["name"] == machine) {
                    places.push((project.clone(), zone.clone()));
                }
            }
        }
        for (project, zone) in places {
            let operation = self.operate((&project, &zone), kind, machine, false);
            let effect = Effect {
                project,
                zone,
                machine: machine.to_owned(),
                operation,
                change: change.cloned(),
            };
            self.under_way
                .push((Instant::now() + OPERATION_TIME, effect));
        }
    }

    /// Counts entries that were not there before.
    pub(super) fn count(&mut self, keys: Vec<String>) {
        for key in keys {
            if self.written.insert(key) {
                self.counted.entries += 1;
            }
        }
    }

    /// Ends the operations whose time has come.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        let (over, left) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|(end, _)| *end <= now);
        self.under_way = left;
        let over: Vec<(Instant, Effect)> = over;
        for (_, effect) in over {
            let place = |zones: Option<&mut BTreeMap<String, Vec<Value>>>| {
                zones.and_then(|zones| zones.get_mut(&effect.zone).map(std::mem::take))
            };
            let mut machines = place(self.machines.get_mut(&effect.project)).unwrap_or_default();
            match &effect.change {
                Some((field, value)) => {
                    for machine in machines
                        .iter_mut()
                        .filter(|found| found["name"] == *effect.machine)
                    {
                        machine[field] = value.clone();
                    }
                }
                None => machines.retain(|found| found["name"] != *effect.machine),
            }
            let mut operations =
                place(self.operations.get_mut(&effect.project)).unwrap_or_default();
            for operation in operations
                .iter_mut()
                .filter(|found| found["id"] == *effect.operation)
            {
                operation["status"] = "DONE".into();
                operation["progress"] = 100.into();
            }
            let Effect { project, zone, .. } = effect;
            self.machines
                .entry(project.clone())
                .or_default()
                .insert(zone.clone(), machines);
            self.operations
                .entry(project)
                .or_default()
                .insert(zone, operations);
        }
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
