//! AWS: a security group is a group, its egress rules are rules, interfaces are clients.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::cloud::{
    Answer, Cloud, CloudError, CloudErrorKind, DescribedRule, Found, Reading, Trouble,
};
use crate::config::{Config, Logs};
use crate::link::LinkState;
use crate::preflight::Finding;

mod accounts;
mod address;
mod call;
mod cloudwatch;
mod credentials;
mod error;
mod health;
mod instance;
mod inventory;
mod metadata;
mod pages;
mod preflight;
mod reader;
mod security_groups;
mod service;
mod store;
mod whole;
mod xml;

use accounts::Account;
use call::Caller;
pub(crate) use cloudwatch::CloudWatch;
use inventory::Owned;
use pages::are_same;
use security_groups::Groups;
pub(crate) use store::AwsStore;

/// How often one reading starts over when its pages contradict each other.
const READINGS_MAX: u32 = 3;

/// How long the networks of the VPCs are taken for granted.
const NETWORKS_AGE_MAX: Duration = Duration::from_secs(300);

/// Region, credentials and end points, from where every AWS program finds them.
#[derive(Debug)]
pub(crate) struct Session {
    sdk: SdkConfig,
    caller: Caller,
}

impl Session {
    /// Finds them.
    pub(crate) async fn load(config: &Config) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &config.aws.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(url) = &config.aws.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let sdk = loader.load().await;
        let caller = Caller::new(&sdk);
        Self { sdk, caller }
    }

    /// The source of policy.
    pub(crate) async fn cloud(&self, config: &Config) -> Aws {
        Aws::new(self, config).await
    }

    /// The store of documents.
    pub(crate) fn store(&self) -> AwsStore {
        AwsStore::new(self.caller.clone())
    }

    /// What the appliance does as an instance.
    pub(crate) fn duties(
        &self,
        config: &Rc<Config>,
        link: watch::Receiver<LinkState>,
    ) -> impl Future<Output = ()> + use<> {
        let (caller, config) = (self.caller.clone(), Rc::clone(config));
        async move { instance::serve(caller, &config, link).await }
    }

    /// What `preflight` looks at.
    pub(crate) async fn checks(&self, config: &Config, cloud: &Aws) -> Vec<Finding> {
        preflight::checks(&self.caller, config, cloud).await
    }

    /// The log service.
    pub(crate) fn sink(&self, logs: &Logs) -> CloudWatch {
        CloudWatch::new(self.caller.clone(), logs)
    }
}

/// The security groups and interfaces of the served VPCs.
#[derive(Debug)]
pub(crate) struct Aws {
    /// The deployment's own first.
    accounts: Vec<Account>,
    /// Networks served beside those of the VPCs.
    served: Vec<IpNet>,
    networks: RefCell<Option<(Instant, Vec<IpNet>)>>,
    /// Groups in use that were not there the last time either.
    absent: RefCell<BTreeSet<String>>,
    calls: Cell<u32>,
    last: RefCell<Option<Made>>,
}

/// Interfaces of all accounts, and the groups they are in.
#[derive(Debug)]
struct InUse {
    listed: Vec<Rc<Vec<Owned>>>,
    found: Rc<Vec<Owned>>,
    groups: BTreeSet<String>,
}

/// A reading, and from what it was made.
#[derive(Debug)]
struct Made {
    in_use: Rc<InUse>,
    rules: Vec<Rc<Vec<DescribedRule>>>,
    reading: Rc<Reading>,
}

impl Aws {
    /// Finds out which VPCs are served: those configured, else the instance's own, else all.
    async fn new(session: &Session, config: &Config) -> Self {
        let mut vpcs = config.aws.vpcs.clone();
        if vpcs.is_empty() {
            vpcs.extend(metadata::Own::read().await.map(|own| own.vpc));
        }
        if vpcs.is_empty() {
            tracing::info!(
                "serving every VPC these credentials can see: none is configured and there is no instance metadata"
            );
        } else {
            tracing::info!(vpcs = vpcs.join(","), "serving");
        }
        let mut accounts = vec![Account::own(session.caller.clone(), vpcs.clone())];
        for account in &config.aws.accounts {
            let other = Account::other(&session.sdk, &session.caller, &vpcs, account).await;
            accounts.push(other);
        }
        Self {
            accounts,
            served: config.served.clone(),
            networks: RefCell::default(),
            absent: RefCell::default(),
            calls: Cell::new(1),
            last: RefCell::default(),
        }
    }

    /// Other accounts whose role cannot be used, for `preflight`.
    async fn unreadable_accounts(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for account in self
            .accounts
            .iter()
            .filter(|account| !account.id.is_empty())
        {
            let check = format!("account {}", account.id);
            findings.push(match inventory::networks(&account.caller, &account.vpcs).await {
                Ok(_) => Finding::good(check, "its role can be used"),
                Err(error) => Finding::bad(
                    check,
                    error.to_string(),
                    "let the role there trust this instance's role, with the external id configured here",
                ),
            });
        }
        findings
    }

    /// One reading, from the first page of interfaces to the last page of rules.
    async fn read_once(&self, is_last_try: bool) -> Result<Rc<Reading>, CloudError> {
        let mut troubles = Vec::new();
        let (mut listed, mut calls) = (Vec::new(), 1);
        for account in &self.accounts {
            let read = account.interfaces(&mut troubles).await?;
            // Each account has buckets of its own.
            calls = calls.max(read.calls());
            listed.push(read.interfaces);
        }
        let in_use = self.in_use(listed)?;
        let mut missing = in_use.groups.clone();
        let mut rules = Vec::new();
        for account in &self.accounts {
            let wanted = missing
                .iter()
                .filter(|gid| account.may_own(gid, &in_use.found));
            let wanted: BTreeSet<String> = wanted.cloned().collect();
            if wanted.is_empty() {
                continue;
            }
            let read = match account.groups.read(&account.caller, &wanted).await {
                Ok(read) => read,
                Err(error) if account.id.is_empty() => return Err(error),
                Err(error) => {
                    troubles.push(account.trouble(&error));
                    account.groups.last(&wanted)
                }
            };
            missing.retain(|gid| !wanted.contains(gid) || read.missing.contains(gid));
            rules.extend(read.rules);
            calls = calls.max(read.calls);
        }
        self.check_missing(&missing, is_last_try)?;
        troubles.extend(
            missing
                .iter()
                .map(|gid| accounts::unreadable(gid, &in_use.found, &self.accounts)),
        );
        self.calls.set(calls);
        self.reading(in_use, rules, troubles).await
    }

    /// What these interfaces use; what was found out about the very same ones, if they are.
    fn in_use(&self, listed: Vec<Rc<Vec<Owned>>>) -> Result<Rc<InUse>, CloudError> {
        let last = self.last.borrow();
        let last = last.as_ref().map(|made| &made.in_use);
        if let Some(last) = last.filter(|last| are_same(&last.listed, &listed)) {
            return Ok(Rc::clone(last));
        }
        let found = match listed.as_slice() {
            [one] => Rc::clone(one),
            several => {
                let all = several.iter().flat_map(|listed| listed.iter().cloned());
                Rc::new(inventory::consistent(all)?)
            }
        };
        let groups = groups_of(&found).cloned().collect();
        Ok(Rc::new(InUse {
            listed,
            found,
            groups,
        }))
    }

    /// A group that is used and not there is one deleted while we read, or one of another account.
    /// The latter is missing every time; only a new one is worth another look.
    fn check_missing(
        &self,
        missing: &BTreeSet<String>,
        is_last_try: bool,
    ) -> Result<(), CloudError> {
        let mut absent = self.absent.borrow_mut();
        let news = missing.iter().find(|gid| !absent.contains(*gid));
        if let Some(gid) = news.filter(|_| !is_last_try) {
            return Err(CloudError {
                call: "DescribeSecurityGroups".to_owned(),
                kind: CloudErrorKind::Inconsistent,
                detail: format!("{gid} is in use by an interface and does not exist"),
            });
        }
        absent.clone_from(missing);
        Ok(())
    }

    /// What was read; the last reading itself when this one says the same.
    async fn reading(
        &self,
        in_use: Rc<InUse>,
        rules: Vec<Rc<Vec<DescribedRule>>>,
        mut troubles: Vec<Trouble>,
    ) -> Result<Rc<Reading>, CloudError> {
        let served = self.served(&in_use.found, &mut troubles).await?;
        troubles.sort_unstable();
        troubles.dedup();
        let last = self.last.borrow().as_ref().and_then(|made| {
            let is_same = Rc::ptr_eq(&made.in_use, &in_use)
                && are_same(&made.rules, &rules)
                && made.reading.troubles == troubles
                && made.reading.served == served;
            is_same.then(|| Rc::clone(&made.reading))
        });
        if let Some(last) = last {
            return Ok(last);
        }
        let interfaces = in_use.found.iter().map(|found| found.interface.clone());
        let mut described: Vec<DescribedRule> = rules
            .iter()
            .flat_map(|rules| rules.iter().cloned())
            .collect();
        described.sort_unstable();
        let reading = Rc::new(Reading {
            served,
            troubles,
            interfaces: interfaces.collect(),
            rules: described,
            groups: in_use.groups.clone(),
        });
        *self.last.borrow_mut() = Some(Made {
            in_use,
            rules,
            reading: Rc::clone(&reading),
        });
        Ok(reading)
    }

    /// The networks that are served, asked for anew when they are old or an interface is outside
    /// them.
    async fn served(
        &self,
        found: &[Owned],
        troubles: &mut Vec<Trouble>,
    ) -> Result<Vec<IpNet>, CloudError> {
        let nets = || found.iter().flat_map(|found| &found.interface.nets);
        let known = self.networks.borrow().clone();
        let known = known.filter(|(asked, networks)| {
            asked.elapsed() < NETWORKS_AGE_MAX
                && nets().all(|net| networks.iter().any(|network| network.contains(net)))
        });
        let mut served = match known {
            Some((_, networks)) => networks,
            None => {
                let mut networks = Vec::new();
                for account in &self.accounts {
                    match inventory::networks(&account.caller, &account.vpcs).await {
                        Ok(found) => networks.extend(found),
                        Err(error) if account.id.is_empty() => return Err(error),
                        Err(error) => troubles.push(account.trouble(&error)),
                    }
                }
                // A shared VPC tells its networks to its owner and to those it is shared with.
                networks.sort_unstable();
                networks.dedup();
                *self.networks.borrow_mut() = Some((Instant::now(), networks.clone()));
                networks
            }
        };
        served.extend(&self.served);
        served.sort_unstable();
        served.dedup();
        Ok(served)
    }
}

/// Every group of these interfaces.
fn groups_of(found: &[Owned]) -> impl Iterator<Item = &String> {
    found.iter().flat_map(|found| &found.interface.groups)
}

impl Cloud for Aws {
    async fn read(&self) -> Result<Answer, CloudError> {
        let mut tries = 1;
        loop {
            match self.read_once(tries == READINGS_MAX).await {
                // Something moved from one page to the next while we were reading.
                Err(error)
                    if error.kind == CloudErrorKind::Inconsistent && tries < READINGS_MAX =>
                {
                    tracing::info!(%error, "reading again");
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(reading) => return Ok(Answer::Reading(reading)),
            }
        }
    }

    async fn look_up(
        &self,
        addresses: &[IpAddr],
        known: &Reading,
    ) -> Result<Option<Found>, CloudError> {
        let mut found = Vec::new();
        let mut troubles = Vec::new();
        for account in &self.accounts {
            let looked = inventory::interfaces_with(&account.caller, &account.vpcs, addresses);
            match looked.await {
                Ok(interfaces) => found.extend(interfaces),
                Err(error) if account.id.is_empty() => return Err(error),
                Err(error) => troubles.push(account.trouble(&error)),
            }
        }
        let found = inventory::consistent(found.into_iter())?;
        if found.is_empty() {
            return Ok(None);
        }
        let groups: BTreeSet<String> = groups_of(&found)
            .filter(|gid| !known.groups.contains(*gid))
            .cloned()
            .collect();
        let mut missing = groups.clone();
        let mut rules = Vec::new();
        for account in &self.accounts {
            let wanted = missing.iter().filter(|gid| account.may_own(gid, &found));
            let wanted: BTreeSet<String> = wanted.cloned().collect();
            match Groups::look_up(&account.caller, &wanted).await {
                Ok(read) => {
                    missing.retain(|gid| !wanted.contains(gid) || read.missing.contains(gid));
                    rules.extend(read.rules.iter().flat_map(|rules| rules.iter().cloned()));
                }
                Err(error) if account.id.is_empty() => return Err(error),
                Err(error) => troubles.push(account.trouble(&error)),
            }
        }
        let unreadable = missing
            .iter()
            .map(|gid| accounts::unreadable(gid, &found, &self.accounts));
        troubles.extend(unreadable);
        let served = self.served(&found, &mut troubles).await?;
        Ok(Some(Found {
            interfaces: found.into_iter().map(|found| found.interface).collect(),
            rules,
            groups,
            troubles,
            served,
        }))
    }

    /// An address within a delegated prefix cannot be asked for.
    fn finds_every_address(&self, known: &Reading) -> bool {
        let mut nets = known.interfaces.iter().flat_map(|found| &found.nets);
        nets.all(|net| net.prefix_len() == net.max_prefix_len())
    }

    fn calls_per_reading(&self) -> u32 {
        self.calls.get()
    }
}
