//! Who waits for which name.

use std::collections::{BTreeSet, HashMap};

use policy::Name;

use crate::env::Answer;
use crate::flow::FlowKey;

/// The look-ups one flow waits for.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    names: Vec<(Name, Progress)>,
}

/// How far one of them is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Pending,
    /// It has brought addresses and goes on.
    Going,
    Ended(Answer),
}

impl Lookups {
    pub(crate) fn new(names: impl IntoIterator<Item = Name>) -> Self {
        Self {
            names: names
                .into_iter()
                .map(|name| (name, Progress::Pending))
                .collect(),
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().map(|(name, _)| name)
    }

    /// Notes how far the look-up of `name` is.
    pub(crate) fn note(&mut self, name: &Name, answer: Answer) {
        for (asked, progress) in &mut self.names {
            if asked == name {
                *progress = if answer == Answer::Partial {
                    Progress::Going
                } else {
                    Progress::Ended(answer)
                };
            }
        }
    }

    /// The names whose look-up has brought nothing yet, and has not ended.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Name> {
        self.names
            .iter()
            .filter(|(_, progress)| *progress == Progress::Pending)
            .map(|(name, _)| name)
    }

    /// Whether every look-up has ended.
    pub(crate) fn are_over(&self) -> bool {
        self.names
            .iter()
            .all(|(_, progress)| matches!(progress, Progress::Ended(_)))
    }

    /// Whether some look-up was not made for want of budget.
    pub(crate) fn lack_budget(&self) -> bool {
        self.any(Progress::Ended(Answer::OverBudget))
    }

    /// Whether some name has more addresses than its look-up has brought so far: what it may
    /// still allow is not refused.
    pub(crate) fn are_unsettled(&self) -> bool {
        self.any(Progress::Going) || self.any(Progress::Ended(Answer::Unsettled))
    }

    /// Whether no look-up has brought an address, and there was at least one.
    pub(crate) fn brought_nothing(&self) -> bool {
        let nothing = |(_, progress): &(Name, Progress)| {
            matches!(
                progress,
                Progress::Pending | Progress::Ended(Answer::Failed | Answer::OverBudget)
            )
        };
        !self.names.is_empty() && self.names.iter().all(nothing)
    }

    fn any(&self, wanted: Progress) -> bool {
        self.names.iter().any(|(_, progress)| *progress == wanted)
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
