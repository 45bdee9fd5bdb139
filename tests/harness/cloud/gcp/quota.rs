//! Budgets of reads: tokens a minute, at a cost that differs between methods.
//!
//! "Each group is counted separately", and all are refilled "at the start of the next synchronized interval"
//! (<https://cloud.google.com/compute/api-quota>).

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tokens a minute of each group of Compute Engine's: 1,500 by default, for global lists as for those of a region
/// (<https://cloud.google.com/network-connectivity/docs/router/quotas>: 1500 a minute, "from
/// compute.googleapis.com/list_requests_per_region"). Today's `global_reads` and `reads_per_region` take these groups'
/// place with "higher limits" (<https://cloud.google.com/compute/docs/api/how-tos/use-simplified-quota>), which no page
/// states. Aggregated lists had 10 calls a second of their own; at two tokens a call that is this very number.
pub(super) const PER_MINUTE: u32 = 1_500;

/// `entries:write` calls a minute and project (<https://cloud.google.com/logging/quotas>).
const WRITES_PER_MINUTE: u32 = 120_000;

/// `versions:access` calls a minute and project (<https://cloud.google.com/secret-manager/quotas>).
const ACCESSES_PER_MINUTE: u32 = 90_000;

/// What a method costs (<https://cloud.google.com/compute/docs/api/compute-api-quota-metrics>).
fn cost(method: &str) -> u32 {
    if method.ends_with(".aggregatedList") {
        2
    } else {
        1
    }
}

/// What is counted together: of a project, the global methods, those of a region, or another service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group(String, String);

impl Group {
    /// The group of a method that is called about this place.
    fn of(project: &str, method: &str, place: Option<&String>) -> (Self, u32) {
        let group = |name: &str| Self(project.to_owned(), name.to_owned());
        let is_zonal = ["instances.list", "instances.addAccessConfig"].contains(&method)
            || method.starts_with("zoneOperations.");
        match (method, place) {
            ("entries.write", _) => (group("logging"), WRITES_PER_MINUTE),
            ("secrets.access", _) => (group("secrets"), ACCESSES_PER_MINUTE),
            ("addresses.list", Some(region)) => (group(region), PER_MINUTE),
            (_, Some(zone)) if is_zonal => {
                let region = zone.rsplit_once('-').map_or("", |(region, _)| region);
                (group(region), PER_MINUTE)
            }
            _ => (group(GLOBAL), PER_MINUTE),
        }
    }
}

/// The global methods of a project.
const GLOBAL: &str = "global";

/// What each group has spent in the present minute, and in all.
#[derive(Debug, Default)]
pub(super) struct Quota {
    minutes: HashMap<Group, (u64, u32)>,
    spent: HashMap<Group, u32>,
}

impl Quota {
    /// Takes the cost of a call; says whether there was enough left.
    pub(super) fn take(&mut self, project: &str, method: &str, place: Option<&String>) -> bool {
        let (group, most) = Group::of(project, method, place);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let minute = now.unwrap_or_default().as_secs() / 60;
        let (since, used) = self.minutes.entry(group.clone()).or_default();
        if *since != minute {
            (*since, *used) = (minute, 0);
        }
        *used += cost(method);
        let is_enough = *used <= most;
        *self.spent.entry(group).or_default() += cost(method);
        is_enough
    }

    /// Everything a project has spent on global methods, or in a region.
    pub(super) fn spent(&self, project: &str, region: Option<&str>) -> u32 {
        let group = Group(project.to_owned(), region.unwrap_or(GLOBAL).to_owned());
        self.spent.get(&group).copied().unwrap_or_default()
    }
}
