//! GCP: an annotated firewall rule is a group, machines and listed subnets are clients.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use google_cloud_compute_v1::client::{Firewalls, Instances, Projects, Subnetworks};
use google_cloud_gax::client_builder::Error as BuildError;
use ipnet::IpNet;
use tokio::sync::Mutex;

use crate::cloud::{Answer, Cloud, CloudError, CloudErrorKind, Found, Reading};
use crate::config::Config;
use crate::schedule;

mod address;
mod assign;
mod error;
mod firewalls;
mod instances;
mod logging;
mod metadata;
mod names;
mod preflight;
mod projects;
mod secrets;
mod subnets;

pub(crate) use address::ExternalAddress;
pub(crate) use logging::CloudLogging;
pub(crate) use preflight::checks;
pub(crate) use secrets::Secrets;

use assign::Parts;
use firewalls::FirewallRule;
use instances::{Inventory, Nic, Scope};
use metadata::Metadata;
use subnets::Subnet;

/// How often one reading starts over when its pages contradict each other.
const READINGS_MAX: u32 = 3;

/// How long subnets and attached projects are taken for granted.
const SLOW_AGE_MAX: Duration = Duration::from_secs(300);

/// What a page costs against the project's budget, as Google counts it: a list of firewall rules
/// one token, an aggregated list two
/// (<https://cloud.google.com/compute/docs/api/compute-api-quota-metrics>).
const AGGREGATED_COST: u32 = 2;

/// The firewall rules and machines of the served networks. A look-up waits for the reading under
/// way, which is a few calls here, and changes what is known like one.
#[derive(Debug)]
pub(crate) struct Gcp {
    reader: Mutex<Reader>,
    calls: Cell<u32>,
}

#[derive(Debug)]
struct Reader {
    firewalls: Firewalls,
    instances: Instances,
    subnetworks: Subnetworks,
    projects: Projects,
    /// Served networks, as [`names::qualified`] writes them.
    networks: BTreeSet<String>,
    config: Config,
    rules: BTreeMap<String, Vec<FirewallRule>>,
    nics: BTreeMap<Scope, Vec<Nic>>,
    /// Projects with machines, and their subnets; when they were asked for.
    slow: Option<(Instant, Slow)>,
    inventory: Option<Instant>,
    rule_pages: u32,
    inventory_pages: u32,
    silent: BTreeMap<Scope, String>,
}

/// What changes rarely.
#[derive(Debug, Clone, Default)]
struct Slow {
    machine_projects: BTreeSet<String>,
    subnets: Vec<Subnet>,
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
        let reader = Reader {
            firewalls: client!(Firewalls),
            instances: client!(Instances),
            subnetworks: client!(Subnetworks),
            projects,
            networks,
            config: config.clone(),
            rules: BTreeMap::new(),
            nics: BTreeMap::new(),
            slow: None,
            inventory: None,
            rule_pages: 1,
            inventory_pages: 0,
            silent: BTreeMap::new(),
        };
        Ok(Self {
            reader: Mutex::new(reader),
            calls: Cell::new(1),
        })
    }
}

impl Reader {
    /// Projects with served networks.
    fn network_projects(&self) -> BTreeSet<String> {
        self.networks
            .iter()
            .filter_map(|network| Some(network.split_once('/')?.0.to_owned()))
            .collect()
    }

    /// Asks for what changes rarely when it is old or when `is_needed`.
    async fn read_slow(&mut self, is_needed: bool) -> Result<(), CloudError> {
        let is_fresh = |(asked, _): &(Instant, Slow)| asked.elapsed() < SLOW_AGE_MAX;
        if !is_needed && self.slow.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        let mut slow = Slow::default();
        for host in self.network_projects() {
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
        self.slow = Some((Instant::now(), slow));
        Ok(())
    }

    async fn read_rules(&mut self) -> Result<(), CloudError> {
        let mut rules = BTreeMap::new();
        let mut most = 1;
        for project in self.network_projects() {
            let (found, pages) = firewalls::list(&self.firewalls, &project).await?;
            most = most.max(pages);
            rules.insert(project, found);
        }
        self.rules = rules;
        self.rule_pages = most;
        Ok(())
    }

    /// Reads every machine, unless it is too early for that.
    async fn read_inventory(&mut self) -> Result<(), CloudError> {
        if self
            .inventory
            .is_some_and(|read| read.elapsed() < self.inventory_interval())
        {
            return Ok(());
        }
        let projects = self.machine_projects();
        let mut nics: BTreeMap<Scope, Vec<Nic>> = BTreeMap::new();
        let mut silent = BTreeMap::new();
        let mut most = 1;
        for project in projects {
            let found = instances::list(&self.instances, &project).await?;
            most = most.max(found.pages);
            for nic in found.nics {
                nics.entry(nic.scope.clone()).or_default().push(nic);
            }
            silent.extend(found.silent);
        }
        self.keep_silent(&mut nics, &silent)?;
        self.nics = nics;
        self.silent = silent;
        self.inventory_pages = most;
        self.inventory = Some(Instant::now());
        Ok(())
    }

    /// A zone that cannot say keeps what it had; one that never said anything is no reading.
    fn keep_silent(
        &self,
        nics: &mut BTreeMap<Scope, Vec<Nic>>,
        silent: &BTreeMap<Scope, String>,
    ) -> Result<(), CloudError> {
        for (scope, why) in silent {
            if self.inventory.is_none() {
                let what = format!("answer from {}: {why}", scope.zone);
                return Err(error::incomplete("instances.aggregatedList", 1, &what));
            }
            if !self.silent.contains_key(scope) {
                let Scope { project, zone } = scope;
                tracing::warn!(
                    project,
                    zone,
                    why,
                    "a zone cannot say what is in it; what was known stays"
                );
            }
            match self.nics.get(scope) {
                Some(known) => drop(nics.insert(scope.clone(), known.clone())),
                None => drop(nics.remove(scope)),
            }
        }
        Ok(())
    }

    fn machine_projects(&self) -> BTreeSet<String> {
        let known = self.slow.as_ref().map(|(_, slow)| &slow.machine_projects);
        known.cloned().unwrap_or_default()
    }

    /// The pause between two readings of all machines: what the rules leave of the budget.
    fn inventory_interval(&self) -> Duration {
        let poll = &self.config.poll;
        let floor = poll.interval();
        let rules = schedule::interval(floor, self.rule_pages, poll.appliances, self.rules_share());
        let appliances = f64::from(poll.appliances.max(1));
        let taken = f64::from(self.rule_pages) * appliances / rules.as_secs_f64().max(0.01);
        let left = (poll.calls_per_second - taken).max(poll.calls_per_second / 2.0);
        let tokens = self.inventory_pages.saturating_mul(AGGREGATED_COST);
        schedule::interval(floor, tokens, poll.appliances, left)
    }

    /// Tokens a second that reading rules may take: never more than half.
    fn rules_share(&self) -> f64 {
        self.config.poll.calls_per_second / 2.0
    }

    /// What is known, as one reading.
    fn reading(&self) -> Reading {
        let rules: Vec<FirewallRule> = self.rules.values().flatten().cloned().collect();
        let nics: Vec<Nic> = self.nics.values().flatten().cloned().collect();
        let subnets = self.slow.as_ref().map(|(_, slow)| slow.subnets.as_slice());
        let served: &[IpNet] = &self.config.served;
        assign::reading(Parts {
            rules: &rules,
            nics: &nics,
            subnets: subnets.unwrap_or_default(),
            listed: &self.config.gcp.subnet,
            networks: &self.networks,
            served,
            is_qualified: self.network_projects().len() > 1,
        })
    }

    /// Whether an address is outside every subnet known: one may be new.
    fn is_outside(&self) -> bool {
        let reading = self.reading();
        let nets = reading.interfaces.iter().flat_map(|found| &found.nets);
        nets.into_iter()
            .any(|net| !reading.served.iter().any(|served| served.contains(net)))
    }

    async fn read_once(&mut self) -> Result<Reading, CloudError> {
        self.read_slow(false).await?;
        self.read_rules().await?;
        self.read_inventory().await?;
        if self.is_outside() && !self.asked_within(self.config.poll.interval()) {
            self.read_slow(true).await?;
        }
        Ok(self.reading())
    }

    /// Whether subnets were asked for that recently.
    fn asked_within(&self, age: Duration) -> bool {
        self.slow
            .as_ref()
            .is_some_and(|(asked, _)| asked.elapsed() < age.max(Duration::from_secs(30)))
    }

    /// Takes machines just looked up in place of what was known of them and of their addresses.
    fn merge(&mut self, found: Inventory) {
        let taken: BTreeSet<IpNet> = found.nics.iter().flat_map(|nic| nic.nets.clone()).collect();
        let ids: BTreeSet<String> = found.nics.iter().map(Nic::id).collect();
        for nics in self.nics.values_mut() {
            nics.retain_mut(|nic| {
                nic.nets.retain(|net| !taken.contains(net));
                !ids.contains(&nic.id())
            });
        }
        for nic in found.nics {
            self.nics.entry(nic.scope.clone()).or_default().push(nic);
        }
        self.nics.retain(|_, nics| !nics.is_empty());
        for nics in self.nics.values_mut() {
            nics.sort_unstable();
        }
    }
}

impl Reader {
    async fn read(&mut self) -> Result<Reading, CloudError> {
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

    async fn look_up(&mut self, addresses: &[IpAddr]) -> Result<Option<Reading>, CloudError> {
        if self.inventory.is_none() {
            return Ok(None);
        }
        let mut is_news = false;
        for project in self.machine_projects() {
            let found = instances::with_addresses(&self.instances, &project, addresses).await?;
            is_news |= !found.nics.is_empty();
            self.merge(found);
        }
        let reading = self.reading();
        let is_known = |address: &IpAddr| {
            let mut nets = reading.interfaces.iter().flat_map(|found| &found.nets);
            nets.any(|net| net.contains(address))
        };
        if !addresses.iter().all(is_known) {
            // An alias range or IPv6 cannot be asked for: only reading everything finds it.
            self.read_inventory().await?;
            return Ok(Some(self.reading()));
        }
        Ok(is_news.then_some(reading))
    }
}

impl Cloud for Gcp {
    async fn read(&self) -> Result<Answer, CloudError> {
        let mut reader = self.reader.lock().await;
        let reading = reader.read().await?;
        // Machines are read more rarely when there are many; this is about the rules.
        self.calls.set(reader.rule_pages.saturating_mul(2));
        Ok(Answer::Reading(Box::new(reading)))
    }

    async fn look_up(
        &self,
        addresses: &[IpAddr],
        known: &Reading,
    ) -> Result<Option<Found>, CloudError> {
        let found = self.reader.lock().await.look_up(addresses).await?;
        Ok(found.map(|reading| Found {
            interfaces: reading.interfaces,
            rules: reading.rules,
            groups: reading.groups.difference(&known.groups).cloned().collect(),
            troubles: reading.troubles,
            served: reading.served,
        }))
    }

    fn calls_per_reading(&self) -> u32 {
        self.calls.get()
    }
}
