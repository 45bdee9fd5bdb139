//! What is known of the networks: kept between readings, changed by readings and by look-ups that run beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::assign::{self, Parts};
use super::changes::{Changed, Journal};
use super::firewalls::FirewallRule;
use super::instances::{Inventory, Nic, Scope};
use super::subnets::Subnet;
use crate::cloud::Reading;
use crate::config::ListedSubnet;

/// How long subnets and attached projects are taken for granted.
const SLOW_AGE_MAX: Duration = Duration::from_secs(300);

/// How long a project is left alone that does not list its operations.
const REST: Duration = Duration::from_secs(60);

/// A machine: its zone and its name.
pub(super) type Machine = (Scope, String);

/// What changes rarely.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slow {
    /// Projects with machines.
    pub(super) machine_projects: BTreeSet<String>,
    /// Subnets of the network projects.
    pub(super) subnets: Vec<Subnet>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Served networks, as [`super::names::qualified`] writes them.
    networks: BTreeSet<String>,
    listed: Vec<ListedSubnet>,
    served: Vec<IpNet>,
    rules: BTreeMap<String, Vec<FirewallRule>>,
    nics: BTreeMap<Scope, Vec<Nic>>,
    slow: Option<(Instant, Slow)>,
    /// When the last reading of every machine was asked for.
    inventory: Option<Instant>,
    silent: BTreeMap<Scope, String>,
    /// When single machines were asked for, after the last reading of every machine began.
    fresh: BTreeMap<Machine, Instant>,
    /// What of each zone's operations was seen.
    journals: BTreeMap<Scope, Journal>,
    /// What is to be read again, as its zone's operations say.
    stale: BTreeMap<Scope, Changed>,
    /// Projects that do not list their operations, and until when they are not asked again.
    resting: BTreeMap<String, Instant>,
    /// What all this comes to; nothing after a change.
    reading: Option<Reading>,
}

impl Known {
    /// Nothing but what the configuration says.
    pub(super) fn new(
        networks: BTreeSet<String>,
        listed: Vec<ListedSubnet>,
        served: Vec<IpNet>,
    ) -> Self {
        Self {
            networks,
            listed,
            served,
            ..Self::default()
        }
    }

    /// Served networks, as `PROJECT/NAME`.
    pub(super) fn networks(&self) -> &BTreeSet<String> {
        &self.networks
    }

    /// Projects with served networks.
    pub(super) fn network_projects(&self) -> BTreeSet<String> {
        self.networks
            .iter()
            .filter_map(|network| Some(network.split_once('/')?.0.to_owned()))
            .collect()
    }

    /// Projects with machines.
    pub(super) fn machine_projects(&self) -> BTreeSet<String> {
        let known = self.slow.as_ref().map(|(_, slow)| &slow.machine_projects);
        known.cloned().unwrap_or_default()
    }

    /// Whether what changes rarely has to be asked for.
    pub(super) fn is_slow_old(&self, is_needed: bool) -> bool {
        let is_younger = |age: Duration| {
            let slow = self.slow.as_ref();
            slow.is_some_and(|(asked, _)| asked.elapsed() < age)
        };
        let age = if is_needed {
            Duration::from_secs(30)
        } else {
            SLOW_AGE_MAX
        };
        !is_younger(age)
    }

    /// Takes what changes rarely.
    pub(super) fn put_slow(&mut self, slow: Slow) {
        if self.slow.as_ref().is_none_or(|(_, before)| *before != slow) {
            self.reading = None;
        }
        self.slow = Some((Instant::now(), slow));
    }

    /// Takes the rules of every project.
    pub(super) fn put_rules(&mut self, rules: BTreeMap<String, Vec<FirewallRule>>) {
        if self.rules != rules {
            self.rules = rules;
            self.reading = None;
        }
    }

    /// When every machine was last asked for.
    pub(super) fn inventory(&self) -> Option<Instant> {
        self.inventory
    }

    /// Takes a reading of every machine that was asked for at `asked`. What was read of single machines since
    /// then is younger and stays. A zone that cannot say keeps what it had.
    ///
    /// # Errors
    ///
    /// The zone that cannot say and never did, and why: that is no reading.
    pub(super) fn put_inventory(
        &mut self,
        found: Inventory,
        asked: Instant,
    ) -> Result<(), (Scope, String)> {
        let mut nics: BTreeMap<Scope, Vec<Nic>> = BTreeMap::new();
        for nic in found.nics {
            nics.entry(nic.scope.clone()).or_default().push(nic);
        }
        for (scope, why) in &found.silent {
            if self.inventory.is_none() {
                return Err((scope.clone(), why.clone()));
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
        self.fresh.retain(|_, at| *at >= asked);
        let younger = self.fresh.keys().map(|machine| {
            let known = self.nics.get(&machine.0).into_iter().flatten();
            let own = known.filter(|nic| nic.instance == machine.1).cloned();
            (machine.clone(), own.collect())
        });
        replace(&mut nics, younger.collect());
        if self.nics != nics {
            self.nics = nics;
            self.reading = None;
        }
        self.silent = found.silent;
        self.inventory = Some(asked);
        Ok(())
    }

    /// Takes single machines that were asked for at `asked`, each with all its interfaces; one without any is
    /// gone. What was read of a machine later than that stays.
    pub(super) fn put_machines(&mut self, mut found: BTreeMap<Machine, Vec<Nic>>, asked: Instant) {
        found.retain(|machine, _| self.fresh.get(machine).is_none_or(|at| *at <= asked));
        if found.is_empty() {
            return;
        }
        let names = found.keys().cloned().map(|machine| (machine, asked));
        self.fresh.extend(names.collect::<Vec<_>>());
        replace(&mut self.nics, found);
        self.reading = None;
    }

    /// Names of the machines of a zone.
    pub(super) fn machines_of(&self, scope: &Scope) -> BTreeSet<String> {
        let nics = self.nics.get(scope).into_iter().flatten();
        nics.map(|nic| nic.instance.clone()).collect()
    }

    /// Zones with machines on a served network, by project and region, whose projects list their operations.
    pub(super) fn zones(&self) -> BTreeMap<(String, String), Vec<Scope>> {
        let mut zones: BTreeMap<(String, String), Vec<Scope>> = BTreeMap::new();
        for (scope, nics) in &self.nics {
            let is_served = nics.iter().any(|nic| self.networks.contains(&nic.network));
            if is_served && !self.is_resting(scope) {
                let region = (scope.project.clone(), scope.region().to_owned());
                zones.entry(region).or_default().push(scope.clone());
            }
        }
        zones
    }

    /// Whether the project of a zone is left alone.
    pub(super) fn is_resting(&self, scope: &Scope) -> bool {
        let until = self.resting.get(&scope.project);
        until.is_some_and(|until| *until > Instant::now())
    }

    /// Whether the operations of every zone with machines were ever listed.
    pub(super) fn is_followed(&self) -> bool {
        let zones = self.zones();
        let mut scopes = zones.values().flatten();
        scopes.all(|scope| self.journals.contains_key(scope))
    }

    /// What was seen of a zone's operations.
    pub(super) fn journal(&self, scope: &Scope) -> Journal {
        self.journals.get(scope).cloned().unwrap_or_default()
    }

    /// Takes note of a zone's newest operations.
    pub(super) fn note(&mut self, scope: &Scope, newest: super::changes::Newest) {
        if self.resting.remove(&scope.project).is_some() {
            tracing::info!(project = scope.project, "its operations are listed again");
        }
        let journal = self.journals.entry(scope.clone()).or_default();
        if let Some(changed) = journal.note(newest) {
            self.reread(scope, changed);
        }
    }

    /// Has a part of a zone read again.
    pub(super) fn reread(&mut self, scope: &Scope, changed: Changed) {
        let before = self.stale.remove(scope);
        self.stale.insert(scope.clone(), changed.and(before));
    }

    /// Takes what is to be read again.
    pub(super) fn take_stale(&mut self) -> BTreeMap<Scope, Changed> {
        std::mem::take(&mut self.stale)
    }

    /// Leaves a project alone for a while that does not list its operations; says whether that is news.
    pub(super) fn rest(&mut self, project: &str) -> bool {
        let until = Instant::now() + REST;
        self.resting.insert(project.to_owned(), until).is_none()
    }

    /// What is known, as one reading.
    pub(super) fn reading(&mut self) -> &Reading {
        let is_qualified = self.network_projects().len() > 1;
        let Self {
            networks,
            listed,
            served,
            rules,
            nics,
            slow,
            reading,
            ..
        } = self;
        reading.get_or_insert_with(|| {
            let subnets = slow.as_ref().map(|(_, slow)| slow.subnets.as_slice());
            assign::reading(&Parts {
                rules: &rules.values().flatten().collect::<Vec<_>>(),
                nics: &nics.values().flatten().collect::<Vec<_>>(),
                subnets: subnets.unwrap_or_default(),
                listed,
                networks,
                served,
                is_qualified,
            })
        })
    }

    /// Whether an address is outside every subnet known: one may be new.
    pub(super) fn is_outside(&mut self) -> bool {
        let reading = self.reading();
        let mut nets = reading.interfaces.iter().flat_map(|found| &found.nets);
        nets.any(|net| !reading.served.iter().any(|served| served.contains(net)))
    }
}

/// Puts machines in place of what was known of them and of the addresses that are new to them.
fn replace(nics: &mut BTreeMap<Scope, Vec<Nic>>, found: BTreeMap<Machine, Vec<Nic>>) {
    let mut before: BTreeSet<IpNet> = BTreeSet::new();
    for (scope, known) in nics.iter_mut() {
        known.retain(|nic| {
            let is_replaced = found.contains_key(&(scope.clone(), nic.instance.clone()));
            if is_replaced {
                before.extend(&nic.nets);
            }
            !is_replaced
        });
    }
    let own = found.values().flatten().flat_map(|nic| &nic.nets);
    let taken: BTreeSet<IpNet> = own.filter(|net| !before.contains(net)).copied().collect();
    for known in nics.values_mut().flatten() {
        known.nets.retain(|net| !taken.contains(net));
    }
    for ((scope, _), own) in found {
        nics.entry(scope).or_default().extend(own);
    }
    nics.retain(|_, known| !known.is_empty());
    for known in nics.values_mut() {
        known.sort_unstable();
    }
}

#[cfg(test)]
mod tests;
