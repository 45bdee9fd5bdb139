//! Who waits for which name.

use std::collections::{BTreeSet, HashMap};

use policy::Name;

use crate::flow::FlowKey;

/// The look-ups one flow waits for.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    names: Vec<(Name, Option<bool>)>,
}

impl Lookups {
    pub(crate) fn new(names: impl IntoIterator<Item = Name>) -> Self {
        Self {
            names: names.into_iter().map(|name| (name, None)).collect(),
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().map(|(name, _)| name)
    }

    /// Notes that the look-up of `name` has ended, with addresses or without.
    pub(crate) fn note(&mut self, name: &Name, resolved: bool) {
        for (asked, ended) in &mut self.names {
            if asked == name {
                *ended = Some(resolved);
            }
        }
    }

    /// The names whose look-up has not ended.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Name> {
        self.names
            .iter()
            .filter(|(_, ended)| ended.is_none())
            .map(|(name, _)| name)
    }

    /// Whether every look-up has ended.
    pub(crate) fn are_over(&self) -> bool {
        self.names.iter().all(|(_, ended)| ended.is_some())
    }

    /// Whether no look-up has brought an address, and there was at least one.
    pub(crate) fn brought_nothing(&self) -> bool {
        !self.names.is_empty() && self.names.iter().all(|(_, ended)| *ended != Some(true))
    }
}

#[derive(Debug)]
struct Asked {
    at_ms: u64,
    flows: BTreeSet<FlowKey>,
}

/// From names to the flows that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    names: HashMap<Name, Asked>,
}

impl Waiting {
    /// Lets `flow` wait for `name`; says whether the name must be asked for. A question that
    /// is `patience_ms` old counts as lost.
    pub(crate) fn add(
        &mut self,
        name: &Name,
        flow: FlowKey,
        now_ms: u64,
        patience_ms: u64,
    ) -> bool {
        if let Some(asked) = self.names.get_mut(name) {
            asked.flows.insert(flow);
            let lost = now_ms.saturating_sub(asked.at_ms) >= patience_ms;
            if lost {
                asked.at_ms = now_ms;
            }
            return lost;
        }
        let asked = Asked {
            at_ms: now_ms,
            flows: BTreeSet::from([flow]),
        };
        self.names.insert(name.clone(), asked);
        true
    }

    /// Lets `flow` wait no longer.
    pub(crate) fn remove(&mut self, lookups: &Lookups, flow: &FlowKey) {
        for name in lookups.names() {
            let Some(asked) = self.names.get_mut(name) else {
                continue;
            };
            asked.flows.remove(flow);
            if asked.flows.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Everyone who waits for `name`, and goes on waiting.
    pub(crate) fn for_name(&self, name: &Name) -> BTreeSet<FlowKey> {
        self.names
            .get(name)
            .map(|asked| asked.flows.clone())
            .unwrap_or_default()
    }

    /// Everyone who waits for `name`; nobody does afterwards.
    pub(crate) fn answered(&mut self, name: &Name) -> BTreeSet<FlowKey> {
        self.names
            .remove(name)
            .map(|asked| asked.flows)
            .unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}
