//! Lines of the config log: what changed with a policy, faults, and the hourly status.
//!
//! A line about a change exists if and only if the change is in force: it is computed as the
//! difference between the policy in force before and the one in force now.

use ipc::record::{ConfigCat, ConfigDetailV1, ConfigLineV1, Text, Timestamp};
use policy::change::{Category, ConfigChange, diff};
use policy::{Draft, Snapshot};

/// What every line of one moment has in common.
#[derive(Clone, Debug)]
pub struct Stamp {
    time: Timestamp,
    generation: u64,
    policy_id: Text,
    appliance: Text,
}

impl Stamp {
    /// Lines about `policy`, of this appliance, at this moment.
    pub fn new(policy: &Snapshot, appliance: &str, unix_ms: u64) -> Self {
        Self {
            time: Timestamp::from_unix_ms(unix_ms),
            generation: policy.generation(),
            policy_id: Text::from(policy.policy_id()),
            appliance: Text::from(appliance),
        }
    }

    fn line(&self, cat: ConfigCat, outcome: &str, detail: ConfigDetailV1) -> Box<ConfigLineV1> {
        Box::new(ConfigLineV1 {
            time: self.time,
            cat,
            outcome: Text::from(outcome),
            detail,
            generation: self.generation,
            policy_id: self.policy_id.clone(),
            appliance: self.appliance.clone(),
        })
    }

    /// One line per effective change from `old`; everything is new without it.
    pub fn changes(&self, old: Option<&Draft>, new: &Draft) -> Vec<Box<ConfigLineV1>> {
        diff(old, new)
            .iter()
            .map(|change| self.change(change))
            .collect()
    }

    /// A fault of our own surroundings: a source that cannot be read, a file that is broken.
    pub fn fault(&self, object: &str, outcome: &str) -> Box<ConfigLineV1> {
        let detail = ConfigDetailV1 {
            object: Some(Text::from(object)),
            message: Some(Text::from(outcome)),
            ..ConfigDetailV1::default()
        };
        self.line(ConfigCat::Fault, outcome, detail)
    }

    /// How the appliance is: besides what the policy says, log lines lost, packets that found a queue full, and how long
    /// ago the policy was last known to be current.
    pub fn status(
        &self,
        mode: &str,
        policy: &Snapshot,
        losses: u64,
        packets_queue_full: u64,
        source_age_s: Option<u64>,
    ) -> Box<ConfigLineV1> {
        let count = |number: usize| Some(u64::try_from(number).unwrap_or(u64::MAX));
        let detail = ConfigDetailV1 {
            mode: Some(Text::from(mode)),
            clients: count(policy.draft().clients.len()),
            names: count(policy.exact_names().count()),
            losses: Some(losses),
            packets_queue_full: Some(packets_queue_full),
            source_age_s,
            ..ConfigDetailV1::default()
        };
        self.line(ConfigCat::Status, mode, detail)
    }

    fn change(&self, change: &ConfigChange) -> Box<ConfigLineV1> {
        let text = |value: &Option<String>| value.as_deref().map(Text::from);
        let mut detail = ConfigDetailV1 {
            gid: text(&change.gid),
            rule: text(&change.rule),
            addr: text(&change.addr),
            proto: text(&change.proto),
            client: text(&change.client),
            instance: text(&change.instance),
            list: text(&change.list),
            ..ConfigDetailV1::default()
        };
        let cat = match change.cat {
            Category::Addr => ConfigCat::Addr,
            Category::Client => ConfigCat::Client,
            Category::SeeThru => {
                detail.until = text(&change.addr);
                ConfigCat::SeeThru
            }
            Category::Preference => ConfigCat::Preference,
            Category::List => ConfigCat::List,
            Category::Fault => ConfigCat::Fault,
        };
        self.line(cat, &change.outcome, detail)
    }
}

/// `enforce`, `see-thru` while the whole deployment sees through, or `lockdown`.
pub fn mode(policy: &Snapshot, in_force: bool, unix_ms: u64) -> &'static str {
    if !in_force {
        "lockdown"
    } else if policy
        .deployment_see_thru(policy::Date::from_unix_ms(unix_ms))
        .is_some()
    {
        "see-thru"
    } else {
        "enforce"
    }
}
