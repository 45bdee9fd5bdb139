//! Machines that changed since all of them were read: found through their zones' operations, and read again.
//!
//! Trouble here never holds the rules back: it costs time until all machines are read again, and one line.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::task::JoinSet;

use super::budget::Bucket;
use super::changes::{self, Changed, Journal, Newest};
use super::instances::{self, Nic, Scope};
use super::known::Machine;
use super::{Gcp, by_machine, share};
use crate::cloud::CloudError;

/// Machines asked for by name in one call; for more the zone is read.
const NAMES: usize = 50;

/// What a zone said of its operations.
type Told = (Scope, Result<(Newest, u32), CloudError>);

/// What a zone said of its machines.
type Reread = (Scope, Changed, Instant, Result<(Vec<Nic>, u32), CloudError>);

impl Gcp {
    /// Reads the machines again that changed, as far as the quotas of their regions go.
    pub(super) async fn read_changes(&self) {
        // What is known to have changed comes before what may have.
        self.read_stale().await;
        self.read_operations().await;
        self.read_stale().await;
    }

    /// Whether a call about a zone of this region can be paid for; then it is.
    fn pay(&self, region: &(String, String), cost: u32) -> bool {
        let now = Instant::now();
        let mut spending = self.spending.borrow_mut();
        let share = share(&self.config);
        let bucket = spending.regions.entry(region.clone());
        bucket
            .or_insert_with(|| Bucket::full(share, now))
            .take(cost, now)
    }

    /// Charges calls that were made beyond what was paid for.
    fn owe(&self, scope: &Scope, calls: u32) {
        let region = (scope.project.clone(), scope.region().to_owned());
        if let Some(bucket) = self.spending.borrow_mut().regions.get_mut(&region) {
            bucket.owe(calls);
        }
    }

    /// Asks each region's zones for their newest operations, all zones of a region or none.
    async fn read_operations(&self) {
        let zones = self.known.borrow().zones();
        let mut asked: JoinSet<Told> = JoinSet::new();
        for (region, scopes) in zones {
            if !self.pay(&region, u32::try_from(scopes.len()).unwrap_or(u32::MAX)) {
                continue;
            }
            for scope in scopes {
                let (client, journal) = (self.operations.clone(), self.journal(&scope));
                asked.spawn(async move {
                    let newest = changes::newest(&client, &scope, &journal).await;
                    (scope, newest)
                });
            }
        }
        while let Some(told) = asked.join_next().await {
            match told {
                Ok((scope, Ok((newest, pages)))) => {
                    self.owe(&scope, pages.saturating_sub(1));
                    self.known.borrow_mut().note(&scope, newest);
                }
                Ok((scope, Err(error))) => self.rest(&scope, &error),
                Err(error) => tracing::error!(%error, "asking for operations"),
            }
        }
    }

    fn journal(&self, scope: &Scope) -> Journal {
        self.known.borrow().journal(scope)
    }

    /// Reads what its zones' operations say has changed.
    async fn read_stale(&self) {
        let stale = self.known.borrow_mut().take_stale();
        let mut asked: JoinSet<Reread> = JoinSet::new();
        for (scope, changed) in stale {
            let region = (scope.project.clone(), scope.region().to_owned());
            let is_resting = self.known.borrow().is_resting(&scope);
            if is_resting || !self.pay(&region, 1) {
                self.known.borrow_mut().reread(&scope, changed);
                continue;
            }
            let client = self.instances.clone();
            asked.spawn(async move {
                let names = match &changed {
                    Changed::Machines(names) if names.len() <= NAMES => Some(names),
                    Changed::Machines(_) | Changed::Everything => None,
                };
                let at = Instant::now();
                let found = instances::of_zone(&client, &scope, names).await;
                (scope, changed, at, found)
            });
        }
        while let Some(read) = asked.join_next().await {
            match read {
                Ok((scope, changed, at, Ok((nics, pages)))) => {
                    self.owe(&scope, pages.saturating_sub(1));
                    self.put(&scope, &changed, nics, at);
                }
                Ok((scope, changed, _, Err(error))) => {
                    self.known.borrow_mut().reread(&scope, changed);
                    self.rest(&scope, &error);
                }
                Err(error) => tracing::error!(%error, "reading machines again"),
            }
        }
    }

    /// Takes machines that were read again. Those asked for and not found are gone.
    fn put(&self, scope: &Scope, changed: &Changed, nics: Vec<Nic>, at: Instant) {
        let mut known = self.known.borrow_mut();
        let mut names = known.machines_of(scope);
        if let Changed::Machines(asked) = changed
            && asked.len() <= NAMES
        {
            names.clone_from(asked);
        }
        let mut machines: BTreeMap<Machine, Vec<Nic>> = names
            .into_iter()
            .map(|name| ((scope.clone(), name), Vec::new()))
            .collect();
        machines.extend(by_machine(nics));
        known.put_machines(machines, at);
    }

    fn rest(&self, scope: &Scope, error: &CloudError) {
        if self.known.borrow_mut().rest(&scope.project) {
            let seconds = self.inventory_interval().as_secs();
            tracing::warn!(
                project = scope.project,
                %error,
                seconds,
                "changes of machines are found only by reading all of them"
            );
        }
    }
}
