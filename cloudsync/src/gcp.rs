//! GCP: an annotated firewall rule is a group, machines and listed subnets are clients.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use google_cloud_compute_v1::client::{
    Firewalls, Instances, Projects, Subnetworks, ZoneOperations,
};
use google_cloud_gax::client_builder::Error as BuildError;

use crate::cloud::{Answer, Cloud, CloudError, CloudErrorKind, Found, Interface, Reading};
use crate::config::Config;
use crate::schedule;

mod address;
mod assign;
mod budget;
mod changes;
mod error;
mod firewalls;
mod instances;
mod known;
mod logging;
mod metadata;
mod names;
mod preflight;
mod projects;
mod recheck;
mod routes;
mod secrets;
mod subnets;

pub(crate) use address::ExternalAddress;
pub(crate) use logging::CloudLogging;
pub(crate) use preflight::checks;
pub(crate) use secrets::Secrets;

use budget::Bucket;
use instances::{Inventory, Nic};
use known::{Known, Slow};
use metadata::Metadata;

/// How often one reading starts over when its pages contradict each other.
const READINGS_MAX: u32 = 3;

/// What a page costs against the project's budget, as Google counts it: a list of firewall rules
/// one token, an aggregated list two
/// (<https://cloud.google.com/compute/docs/api/compute-api-quota-metrics>).
const AGGREGATED_COST: u32 = 2;

/// The firewall rules and machines of the served networks.
#[derive(Debug)]
pub(crate) struct Gcp {
    firewalls: Firewalls,
    instances: Instances,
    operations: ZoneOperations,
    subnetworks: Subnetworks,
    projects: Projects,
    config: Config,
    /// Never borrowed while a call is under way: look-ups and a reading change it in turn.
    known: RefCell<Known>,
    spending: RefCell<Spending>,
    rule_pages: Cell<u32>,
    inventory_pages: Cell<u32>,
}

/// What was spent, and may be, beside the rules and the list of all machines. Google counts each group of
/// calls for itself (<https://cloud.google.com/compute/api-quota>: "Each group is counted separately").
#[derive(Debug)]
struct Spending {
    look_ups: Bucket,
    /// Tokens that look-ups took since every machine was last asked for.
    looked_up: u32,
    /// Calls about zones, by project and region.
    regions: BTreeMap<(String, String), Bucket>,
}

/// Addresses that load balancers forward to this instance; `None` when no metadata server answers.
pub(crate) async fn forwarded() -> Option<Vec<String>> {
    Metadata::new().forwarded().await
}

/// A client that cannot be made: there are no credentials.
fn unusable(error: BuildError) -> CloudError {
    CloudError {
        call: "making a client".to_owned(),
        kind: CloudErrorKind::Credentials,
        detail: error.to_string(),
    }
}

impl Gcp {
    /// Finds out which networks are served: those configured, else the instance's own.
    pub(crate) async fn new(config: &Config) -> Result<Self, CloudError> {
        let endpoint = config.gcp.endpoint_url.as_deref();
        macro_rules! client {
            ($service:ident) => {{
                let mut builder = $service::builder();
                if let Some(url) = endpoint {
                    builder = builder.with_endpoint(url);
                }
                builder.build().await.map_err(unusable)?
            }};
        }
        let projects = client!(Projects);
        let networks = projects::served(&projects, &config.gcp, &Metadata::new()).await?;
        tracing::info!(
            networks = networks.iter().cloned().collect::<Vec<_>>().join(","),
            "serving"
        );
        let share = share(config);
        let known = Known::new(networks, config.gcp.subnet.clone(), config.served.clone());
        Ok(Self {
            firewalls: client!(Firewalls),
            instances: client!(Instances),
            operations: client!(ZoneOperations),
            subnetworks: client!(Subnetworks),
            projects,
            config: config.clone(),
            known: RefCell::new(known),
            spending: RefCell::new(Spending {
                look_ups: Bucket::full(share / 2.0, Instant::now()),
                looked_up: 0,
                regions: BTreeMap::new(),
            }),
            rule_pages: Cell::new(1),
            inventory_pages: Cell::new(0),
        })
    }

    /// Asks for what changes rarely when it is old or when `is_needed`.
    async fn read_slow(&self, is_needed: bool) -> Result<(), CloudError> {
        if !self.known.borrow().is_slow_old(is_needed) {
            return Ok(());
        }
        let hosts = self.known.borrow().network_projects();
        let mut slow = Slow::default();
        for host in hosts {
            slow.subnets
                .extend(subnets::list(&self.subnetworks, &host).await?);
            match &self.config.gcp.service_projects {
                Some(listed) => slow.machine_projects.extend(listed.iter().cloned()),
                None => {
                    let attached = projects::attached(&self.projects, &host).await?;
                    slow.machine_projects.extend(attached);
                }
            }
            slow.machine_projects.insert(host);
        }
        self.known.borrow_mut().put_slow(slow);
        Ok(())
    }

    async fn read_rules(&self) -> Result<(), CloudError> {
        let hosts = self.known.borrow().network_projects();
        let mut rules = BTreeMap::new();
        let mut most = 1;
        for project in hosts {
            let (found, pages) = firewalls::list(&self.firewalls, &project).await?;
            most = most.max(pages);
            rules.insert(project, found);
        }
        self.rule_pages.set(most);
        self.known.borrow_mut().put_rules(rules);
        Ok(())
    }

    /// Whether it is time to read every machine.
    fn is_inventory_due(&self) -> bool {
        let read = self.known.borrow().inventory();
        read.is_none_or(|asked| asked.elapsed() >= self.inventory_interval())
    }

    /// Reads every machine.
    async fn read_inventory(&self) -> Result<(), CloudError> {
        let asked = Instant::now();
        let projects = self.known.borrow().machine_projects();
        let mut all = Inventory::default();
        for project in projects {
            let found = instances::list(&self.instances, &project).await?;
            all.pages = all.pages.max(found.pages);
            all.nics.extend(found.nics);
            all.silent.extend(found.silent);
        }
        self.inventory_pages.set(all.pages.max(1));
        self.spending.borrow_mut().looked_up = 0;
        let put = self.known.borrow_mut().put_inventory(all, asked);
        put.map_err(|(scope, why)| {
            let what = format!("answer from {}: {why}", scope.zone);
            error::incomplete("instances.aggregatedList", 1, &what)
        })
    }

    /// The pause between two readings of all machines: what rules and look-ups leave of the budget.
    fn inventory_interval(&self) -> Duration {
        let poll = &self.config.poll;
        let floor = poll.interval();
        let pages = self.rule_pages.get();
        // Rules never take more than half.
        let half = poll.calls_per_second / 2.0;
        let rules = schedule::interval(floor, pages, poll.appliances, half);
        let appliances = f64::from(poll.appliances.max(1));
        let taken = f64::from(pages) * appliances / rules.as_secs_f64().max(0.01);
        let left = (poll.calls_per_second - taken).max(half);
        let listed = self.inventory_pages.get().saturating_mul(AGGREGATED_COST);
        // Look-ups put it off to twice the time at most: all together that is still a tenth of the quota.
        let tokens = listed.saturating_add(self.spending.borrow().looked_up.min(listed));
        schedule::interval(floor, tokens, poll.appliances, left)
    }

    async fn read_once(&self) -> Result<Reading, CloudError> {
        self.read_slow(false).await?;
        self.read_rules().await?;
        if self.is_inventory_due() {
            self.read_inventory().await?;
            // From here on, what changes in a zone is told by its operations.
            if !self.known.borrow().is_followed() {
                self.read_changes().await;
            }
        } else {
            self.read_changes().await;
        }
        let is_outside = self.known.borrow_mut().is_outside();
        if is_outside {
            self.read_slow(true).await?;
        }
        Ok(self.known.borrow_mut().reading().clone())
    }

    async fn read_consistently(&self) -> Result<Reading, CloudError> {
        let mut tries = 1;
        loop {
            match self.read_once().await {
                // Something moved from one page to the next while we were reading.
                Err(error)
                    if error.kind == CloudErrorKind::Inconsistent && tries < READINGS_MAX =>
                {
                    tracing::info!(%error, "reading again");
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(reading) => return Ok(reading),
            }
        }
    }

    /// Waits until a look-up may be paid for: strangers' addresses must not use up what policy is read with.
    async fn pay_look_up(&self, projects: &BTreeSet<String>) {
        let cost = u32::try_from(projects.len()).unwrap_or(u32::MAX);
        let cost = cost.saturating_mul(AGGREGATED_COST);
        loop {
            let wait = {
                let mut spending = self.spending.borrow_mut();
                let now = Instant::now();
                if spending.look_ups.take(cost, now) {
                    spending.looked_up = spending.looked_up.saturating_add(cost);
                    return;
                }
                spending.look_ups.wait(cost, now)
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// Tokens a second of each quota that are this appliance's own.
fn share(config: &Config) -> f64 {
    config.poll.calls_per_second / f64::from(config.poll.appliances.max(1))
}

/// Interfaces by the machine they are of.
fn by_machine(nics: Vec<Nic>) -> BTreeMap<known::Machine, Vec<Nic>> {
    let mut machines: BTreeMap<known::Machine, Vec<Nic>> = BTreeMap::new();
    for nic in nics {
        let machine = (nic.scope.clone(), nic.instance.clone());
        machines.entry(machine).or_default().push(nic);
    }
    machines
}

impl Cloud for Gcp {
    async fn read(&self) -> Result<Answer, CloudError> {
        let reading = self.read_consistently().await?;
        Ok(Answer::Reading(Rc::new(reading)))
    }

    async fn look_up(
        &self,
        addresses: &[IpAddr],
        known: &Reading,
    ) -> Result<Option<Found>, CloudError> {
        let projects = self.known.borrow().machine_projects();
        self.pay_look_up(&projects).await;
        let asked = Instant::now();
        let mut nics = Vec::new();
        for project in projects {
            let found = instances::with_addresses(&self.instances, &project, addresses).await?;
            nics.extend(found.nics);
        }
        if nics.is_empty() {
            return Ok(None);
        }
        let ids: BTreeSet<String> = nics.iter().map(Nic::id).collect();
        let mut state = self.known.borrow_mut();
        state.put_machines(by_machine(nics), asked);
        let reading = state.reading();
        let is_asked = |found: &&Interface| ids.contains(&found.id);
        Ok(Some(Found {
            interfaces: reading
                .interfaces
                .iter()
                .filter(is_asked)
                .cloned()
                .collect(),
            // Rules are all known, whether anybody is in their group or not.
            rules: Vec::new(),
            groups: reading.groups.difference(&known.groups).cloned().collect(),
            troubles: Vec::new(),
            served: reading.served.clone(),
        }))
    }

    /// Alias ranges and IPv6 ranges are nothing the service can be asked for.
    fn finds_every_address(&self, known: &Reading) -> bool {
        let mut nets = known.interfaces.iter().flat_map(|found| &found.nets);
        nets.all(|net| net.prefix_len() == net.max_prefix_len())
    }

    /// Machines are read more rarely when there are many; this is about the rules, which may take half.
    fn calls_per_reading(&self) -> u32 {
        self.rule_pages.get().saturating_mul(2)
    }
}
