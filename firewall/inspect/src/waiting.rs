//! Who waits for which name.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use policy::Name;

use crate::env::{Answer, Sought};
use crate::flow::FlowKey;

/// The look-ups one flow waits for.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    names: Vec<(Name, Progress)>,
    /// What is asked for later, unless its client scans.
    later: Vec<Name>,
    /// Whether there are names that nobody is asked about this time.
    partial: bool,
    /// The policy whose names these are.
    generation: u64,
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
    pub(crate) fn new(generation: u64, names: impl IntoIterator<Item = Name>) -> Self {
        let names = names.into_iter().map(|name| (name, Progress::Pending));
        Self {
            names: names.collect(),
            later: Vec::new(),
            partial: false,
            generation,
        }
    }

    /// The policy whose names these are: another may have more.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Leaves names to be asked for later, and notes whether even these are not all.
    pub(crate) fn leave(&mut self, later: Vec<Name>, partial: bool) {
        self.later = later;
        self.partial = partial;
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().map(|(name, _)| name)
    }

    /// Whether something is left to be asked for later.
    pub(crate) const fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// Begins what was left for later; those names.
    pub(crate) fn begin_later(&mut self) -> Vec<Name> {
        let later = std::mem::take(&mut self.later);
        for name in &later {
            self.names.retain(|(asked, _)| asked != name);
            self.names.push((name.clone(), Progress::Pending));
        }
        later
    }

    /// Gives up what was left for later: whoever waits may come back with its retransmission.
    pub(crate) fn give_up_later(&mut self) {
        for name in std::mem::take(&mut self.later) {
            self.names.retain(|(asked, _)| *asked != name);
            self.names.push((name, Progress::Ended(Answer::OverBudget)));
        }
    }

    /// Notes how far the look-up of `name` is.
    pub(crate) fn note(&mut self, name: &Name, answer: Answer) {
        for (asked, progress) in &mut self.names {
            if asked == name {
                *progress = match answer {
                    Answer::Partial => Progress::Going,
                    // It was asked for by the client of this flow.
                    Answer::Spent(_) => Progress::Ended(Answer::OverBudget),
                    Answer::Resolved | Answer::Unsettled | Answer::Failed | Answer::OverBudget => {
                        Progress::Ended(answer)
                    }
                };
            }
        }
    }

    /// Whether every look-up has ended, and none is left for later.
    pub(crate) fn are_over(&self) -> bool {
        let ended = |(_, progress): &(Name, Progress)| matches!(progress, Progress::Ended(_));
        !self.has_later() && self.names.iter().all(ended)
    }

    /// Whether some look-up was not made for want of budget.
    pub(crate) fn lack_budget(&self) -> bool {
        self.partial || self.any(Progress::Ended(Answer::OverBudget))
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
    /// On whose behalf; each has a budget of its own.
    clients: BTreeSet<IpAddr>,
}

/// From look-ups to the flows that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    names: HashMap<Sought, Asked>,
}

impl Waiting {
    /// Lets `flow` wait for a name; says whether it must be asked for. A question that is
    /// `patience_ms` old counts as lost.
    pub(crate) fn add(
        &mut self,
        sought: &Sought,
        flow: FlowKey,
        now_ms: u64,
        patience_ms: u64,
    ) -> bool {
        let client = flow.client.ip();
        if let Some(asked) = self.names.get_mut(sought) {
            asked.flows.insert(flow);
            let lost = now_ms.saturating_sub(asked.at_ms) >= patience_ms;
            if lost {
                asked.at_ms = now_ms;
                asked.clients.clear();
            }
            return asked.clients.insert(client);
        }
        let asked = Asked {
            at_ms: now_ms,
            flows: BTreeSet::from([flow]),
            clients: BTreeSet::from([client]),
        };
        self.names.insert(sought.clone(), asked);
        true
    }

    /// Lets `flow` wait no longer.
    pub(crate) fn remove(&mut self, lookups: &Lookups, flow: &FlowKey) {
        for name in lookups.names() {
            let sought = sought(name, flow);
            let Some(asked) = self.names.get_mut(&sought) else {
                continue;
            };
            asked.flows.remove(flow);
            if asked.flows.is_empty() {
                self.names.remove(&sought);
            }
        }
    }

    /// Everyone who waits for a name, and goes on waiting.
    pub(crate) fn for_name(&self, sought: &Sought) -> BTreeSet<FlowKey> {
        self.names
            .get(sought)
            .map(|asked| asked.flows.clone())
            .unwrap_or_default()
    }

    /// Everyone who waits for a name; nobody does afterwards.
    pub(crate) fn answered(&mut self, sought: &Sought) -> BTreeSet<FlowKey> {
        self.names
            .remove(sought)
            .map(|asked| asked.flows)
            .unwrap_or_default()
    }

    /// A client's flows that wait for a name; they do not afterwards.
    pub(crate) fn spent(&mut self, sought: &Sought, client: IpAddr) -> BTreeSet<FlowKey> {
        let Some(asked) = self.names.get_mut(sought) else {
            return BTreeSet::new();
        };
        asked.clients.remove(&client);
        let flows = std::mem::take(&mut asked.flows);
        let (ended, others) = flows
            .into_iter()
            .partition(|flow| flow.client.ip() == client);
        asked.flows = others;
        if asked.flows.is_empty() {
            self.names.remove(sought);
        }
        ended
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

/// What a flow wants to know of a name: addresses like the one it dials.
pub(crate) fn sought(name: &Name, flow: &FlowKey) -> Sought {
    Sought {
        name: name.clone(),
        ipv6: flow.server.is_ipv6(),
    }
}
