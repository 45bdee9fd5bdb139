//! What became different between two policies, line by line for the config log.

use std::collections::{BTreeMap, BTreeSet};

use crate::snapshot::address_text;
use crate::words::words;
use crate::{Client, Draft, Entry, Fault, Group, Preferences};

words! {
    /// What changed: the config log's `cat`.
    pub enum Category {
        /// A name, a pattern or an `address` rule.
        Addr = "addr",
        /// A client's group.
        Client = "client",
        /// A see-thru, of a group or of the deployment.
        SeeThru = "see-thru",
        /// A preference.
        Preference = "preference",
        /// A list that some group refers to.
        List = "list",
        /// Something wrong with an object.
        Fault = "fault",
    }
}

/// The `outcome` of what is new.
pub const ACCEPTED: &str = "accepted";

/// The `outcome` of what is gone.
pub const REMOVED: &str = "removed";

/// One line of the config log, as far as policy knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigChange {
    /// What changed.
    pub cat: Category,
    /// [`ACCEPTED`], [`REMOVED`], or why refused.
    pub outcome: String,
    /// The group.
    pub gid: Option<String>,
    /// The rule.
    pub rule: Option<String>,
    /// The name, pattern, CIDR, date, or preference with its value.
    pub addr: Option<String>,
    /// The kind of entry.
    pub proto: Option<String>,
    /// The client's address or prefix.
    pub client: Option<String>,
    /// The instance behind it.
    pub instance: Option<String>,
    /// The list the entry came from.
    pub list: Option<String>,
}

impl ConfigChange {
    fn new(cat: Category) -> Self {
        Self {
            cat,
            outcome: String::new(),
            gid: None,
            rule: None,
            addr: None,
            proto: None,
            client: None,
            instance: None,
            list: None,
        }
    }
}

/// What became different from `old` to `new`; everything is new without `old`.
///
/// Removals come first, as revocations do. Nothing changed is no line. A fault that went away is no
/// line of its own: what it kept out appears.
pub fn diff(old: Option<&Draft>, new: &Draft) -> Vec<ConfigChange> {
    let (before, after) = match old {
        Some(old) => differing_lines(old, new),
        None => (BTreeSet::new(), lines(&new.groups, &new.clients)),
    };
    let with = |outcome: &'static str| {
        move |line: &ConfigChange| ConfigChange {
            outcome: outcome.to_owned(),
            ..line.clone()
        }
    };
    let mut changes: Vec<_> = before.difference(&after).map(with(REMOVED)).collect();
    changes.extend(after.difference(&before).map(with(ACCEPTED)));
    changes.extend(preferences(
        old.map(|old| &old.preferences),
        &new.preferences,
    ));
    let known: BTreeSet<&Fault> = old
        .map(|old| old.faults.iter().collect())
        .unwrap_or_default();
    let faults: BTreeSet<&Fault> = new.faults.iter().collect();
    changes.extend(faults.difference(&known).map(|fault| fault_line(fault)));
    changes
}

/// The lines of both, without those of groups and clients that are the same in both: of a large policy
/// little changes at a time.
fn differing_lines(old: &Draft, new: &Draft) -> (BTreeSet<ConfigChange>, BTreeSet<ConfigChange>) {
    let (old_groups, new_groups) = differing(&old.groups, &new.groups, |group| &group.gid);
    let (old_clients, new_clients) = differing(&old.clients, &new.clients, |client| &client.net);
    (
        lines(old_groups, old_clients),
        lines(new_groups, new_clients),
    )
}

/// What is not the same in both. Items under one key stay together: the same item beside another of its key
/// is kept in both, and falls out when lines are compared.
fn differing<'a, T: PartialEq, K: Ord>(
    old: &'a [T],
    new: &'a [T],
    key: impl Fn(&T) -> &K,
) -> (Vec<&'a T>, Vec<&'a T>) {
    // Of policies that were adopted both are in order already.
    let (old, new) = (by_key(old, &key), by_key(new, &key));
    let (mut old, mut new) = (old.as_slice(), new.as_slice());
    let mut differing = (Vec::new(), Vec::new());
    while let Some(next) = old
        .first()
        .into_iter()
        .chain(new.first())
        .map(|item| key(item))
        .min()
    {
        let (before, rest) = old.split_at(old.iter().take_while(|item| key(item) == next).count());
        old = rest;
        let (after, rest) = new.split_at(new.iter().take_while(|item| key(item) == next).count());
        new = rest;
        if before != after {
            differing.0.extend_from_slice(before);
            differing.1.extend_from_slice(after);
        }
    }
    differing
}

/// Items by their keys, those of one key in the order they had.
fn by_key<'a, T, K: Ord>(items: &'a [T], key: &impl Fn(&T) -> &K) -> Vec<&'a T> {
    let mut items: Vec<&T> = items.iter().collect();
    items.sort_by(|a, b| key(a).cmp(key(b)));
    items
}

/// What groups and clients make, each line once, without an outcome.
fn lines<'a>(
    groups: impl IntoIterator<Item = &'a Group>,
    clients: impl IntoIterator<Item = &'a Client>,
) -> BTreeSet<ConfigChange> {
    let mut lines = BTreeSet::new();
    for group in groups {
        group_lines(group, &mut lines);
    }
    for client in clients {
        for gid in &client.groups {
            lines.insert(ConfigChange {
                gid: Some(gid.clone()),
                client: Some(address_text(client.net)),
                instance: Some(client.instance.clone()),
                ..ConfigChange::new(Category::Client)
            });
        }
    }
    lines
}

/// What one group allows, and the lists it refers to.
fn group_lines(group: &Group, lines: &mut BTreeSet<ConfigChange>) {
    for rule in &group.rules {
        for entry in &rule.entries {
            let (cat, proto, addr) = match entry {
                Entry::Name {
                    kind,
                    name,
                    host_key: None,
                    ..
                } => (Category::Addr, kind.as_str(), name.to_string()),
                Entry::Name {
                    kind,
                    name,
                    host_key: Some(pin),
                    ..
                } => (Category::Addr, kind.as_str(), format!("{name}={pin}")),
                Entry::Pattern { kind, pattern, .. } => {
                    (Category::Addr, kind.as_str(), pattern.to_string())
                }
                Entry::Address { .. } => {
                    let cidr = rule.cidr.map(address_text).unwrap_or_default();
                    (Category::Addr, "address", cidr)
                }
                Entry::SeeThru { until } => (
                    Category::SeeThru,
                    rule.transport.as_str(),
                    until.to_string(),
                ),
            };
            if let Some(list) = entry.list() {
                lines.insert(ConfigChange {
                    gid: Some(group.gid.clone()),
                    rule: Some(rule.rule.clone()),
                    list: Some(list.to_owned()),
                    ..ConfigChange::new(Category::List)
                });
            }
            lines.insert(ConfigChange {
                gid: Some(group.gid.clone()),
                rule: Some(rule.rule.clone()),
                addr: Some(addr),
                proto: Some(proto.to_owned()),
                list: entry.list().map(str::to_owned),
                ..ConfigChange::new(cat)
            });
        }
    }
}

/// One line per preference that has another value; without `old`, per one that is not the default.
fn preferences<'a>(
    old: Option<&Preferences>,
    new: &'a Preferences,
) -> impl Iterator<Item = ConfigChange> + 'a {
    let defaults = Preferences::default();
    let before: BTreeMap<_, _> = old.unwrap_or(&defaults).pairs().into_iter().collect();
    let changed = move |(key, value): &(&'static str, String)| before.get(key) != Some(value);
    new.pairs().into_iter().filter(changed).map(|(key, value)| {
        let is_see_thru = key == "see_thru";
        let removed = is_see_thru && value == "null";
        ConfigChange {
            outcome: if removed { REMOVED } else { ACCEPTED }.to_owned(),
            gid: Some(crate::preferences::SCOPE.to_owned()),
            addr: Some(format!("{key}={value}")),
            ..ConfigChange::new(if is_see_thru {
                Category::SeeThru
            } else {
                Category::Preference
            })
        }
    })
}

/// The line of a fault.
fn fault_line(fault: &Fault) -> ConfigChange {
    ConfigChange {
        outcome: fault.detail.clone(),
        gid: Some(fault.object.clone()),
        rule: fault.rule.clone(),
        addr: Some(fault.text.clone()).filter(|text| !text.is_empty()),
        list: fault.list.clone(),
        ..ConfigChange::new(Category::Fault)
    }
}

#[cfg(test)]
mod tests;
