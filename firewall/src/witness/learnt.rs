//! Names that only a pattern covers: learnt when a client claims them, few per client and pattern,
//! forgotten soon.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use policy::{Entry, Name, Pattern, Snapshot};

/// The learnt names of the policy in force.
#[derive(Debug, Default)]
pub(super) struct LearntNames {
    patterns: Vec<Pattern>,
    names: HashMap<Name, Learnt>,
    held: HashMap<(IpAddr, usize), usize>,
}

#[derive(Debug)]
struct Learnt {
    client: IpAddr,
    pattern: usize,
    used_ms: u64,
}

/// What became of a name that was to be learnt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Learning {
    /// It is; another had to go.
    Learnt(Option<Name>),
    /// No pattern covers it, or there are too many of all clients together.
    Refused,
}

impl LearntNames {
    /// Takes over the patterns of a new policy; gives up the names that none of them covers, and those that `exact`
    /// has by themselves. The others stay: a client may have been told their addresses a moment ago.
    pub(super) fn adopt(&mut self, policy: &Snapshot, exact: &HashSet<Name>) -> Vec<Name> {
        self.patterns = patterns(policy);
        self.held.clear();
        let mut gone = Vec::new();
        for (name, mut learnt) in std::mem::take(&mut self.names) {
            let covers = |pattern: &Pattern| pattern.matches(&name);
            let is_ours = !exact.contains(&name) && policy.mentions(&name);
            let pattern = is_ours
                .then(|| self.patterns.iter().position(covers))
                .flatten();
            let Some(pattern) = pattern else {
                gone.push(name);
                continue;
            };
            learnt.pattern = pattern;
            let held = self.held.entry((learnt.client, pattern)).or_default();
            *held = held.saturating_add(1);
            self.names.insert(name, learnt);
        }
        gone
    }

    pub(super) fn contains(&self, name: &Name) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Notes a use of a name; false when it is not learnt.
    pub(super) fn touch(&mut self, name: &Name, now_ms: u64) -> bool {
        let Some(learnt) = self.names.get_mut(name) else {
            return false;
        };
        learnt.used_ms = learnt.used_ms.max(now_ms);
        true
    }

    /// Learns a name that a client brought up; beyond what it may have of one pattern the one of the same client and
    /// pattern that was used longest ago goes. `used_ms` tells when a flow last used a name.
    pub(super) fn learn(
        &mut self,
        name: &Name,
        (client, most): (IpAddr, usize),
        now_ms: u64,
        used_ms: impl Fn(&Name) -> u64,
    ) -> Learning {
        let covers = |pattern: &Pattern| pattern.matches(name);
        let Some(pattern) = self.patterns.iter().position(covers) else {
            return Learning::Refused;
        };
        let of_client = |learnt: &Learnt| learnt.client == client && learnt.pattern == pattern;
        let mut gone = None;
        if self.held.get(&(client, pattern)).copied().unwrap_or(0) >= most {
            let oldest = self
                .names
                .iter()
                .filter(|(_, learnt)| of_client(learnt))
                .min_by_key(|(name, learnt)| (learnt.used_ms.max(used_ms(name)), (*name).clone()));
            gone = oldest.map(|(name, _)| name.clone());
            if let Some(oldest) = &gone {
                self.forget(oldest);
            }
        }
        if self.names.len() >= NAMES_MAX {
            return Learning::Refused;
        }
        let learnt = Learnt {
            client,
            pattern,
            used_ms: now_ms,
        };
        self.names.insert(name.clone(), learnt);
        let held = self.held.entry((client, pattern)).or_default();
        *held = held.saturating_add(1);
        Learning::Learnt(gone)
    }

    /// Gives up the names unused for ten minutes; those.
    pub(super) fn sweep(&mut self, now_ms: u64, used_ms: impl Fn(&Name) -> u64) -> Vec<Name> {
        let unused: Vec<Name> = self
            .names
            .iter()
            .filter(|(name, learnt)| {
                now_ms.saturating_sub(learnt.used_ms.max(used_ms(name))) >= UNUSED_MS
            })
            .map(|(name, _)| name.clone())
            .collect();
        unused.iter().for_each(|name| self.forget(name));
        unused
    }

    fn forget(&mut self, name: &Name) {
        let Some(learnt) = self.names.remove(name) else {
            return;
        };
        let key = (learnt.client, learnt.pattern);
        if let Some(held) = self.held.get_mut(&key) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(&key);
            }
        }
    }
}

/// Every pattern of the policy, the one with the longest literal part first.
fn patterns(policy: &Snapshot) -> Vec<Pattern> {
    let rules = policy.draft().groups.iter().flat_map(|group| &group.rules);
    let mut patterns: Vec<Pattern> = rules
        .flat_map(|rule| &rule.entries)
        .filter_map(|entry| match entry {
            Entry::Pattern { pattern, .. } => Some(pattern.clone()),
            Entry::Name { .. } | Entry::Address { .. } | Entry::SeeThru { .. } => None,
        })
        .collect();
    patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.literal_len()));
    patterns.dedup();
    patterns
}

/// Learnt names of one client under one pattern.
pub(super) const PER_CLIENT_AND_PATTERN: usize = 64;
/// Learnt names of all clients together: what they take of memory and of the refresh share stays
/// small whoever owns the zones.
const NAMES_MAX: usize = 16_384;
/// A learnt name is forgotten this long after its last use.
const UNUSED_MS: u64 = 600_000;
