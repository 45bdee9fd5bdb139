//! What the daemon wants resolved, and who waits for it. No I/O: messages in, messages out.
//!
//! A name outside policy never leaves this desk towards the witness. Look-ups are
//! single-flight, at most one per name and second, and charged to the client that caused
//! them, so that one client's scan does not starve another's names.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use inspect::{Answer, Bindings, Known, Query};
use ipc::witness::{AnswerOutcome, AnswerV1, Configure, Lookup, NAMES_PER_MESSAGE_MAX, ToWitness};
use policy::{Entry, Name, Pattern, Snapshot};

use crate::bindings::{BindingStore, BindingWriter};

/// Keeps the watched names and the waiting look-ups.
#[derive(Debug)]
pub(super) struct Desk {
    settings: Configure,
    store: Arc<BindingStore>,
    writer: BindingWriter,
    policy: Option<Arc<Snapshot>>,
    patterns: Vec<Pattern>,
    exact: HashSet<Name>,
    learnt: HashMap<Name, LearntName>,
    waiting: HashMap<Name, Waiting>,
    recent: HashMap<Name, (u64, Answer)>,
    clients: HashMap<IpAddr, ClientSpending>,
    priming: Option<Priming>,
    swept_ms: u64,
}

/// A name learnt because a pattern covers it and a client claimed it.
#[derive(Debug)]
struct LearntName {
    client: IpAddr,
    pattern: usize,
    used_ms: u64,
}

#[derive(Debug)]
struct Waiting {
    queues: Vec<usize>,
    until_ms: u64,
}

/// One client's look-ups of the current second.
#[derive(Debug, Default)]
struct ClientSpending {
    second: u64,
    names: u32,
    misses: u32,
    learnt: u32,
}

#[derive(Debug)]
struct Priming {
    generation: u64,
    names: HashSet<Name>,
    until_ms: u64,
}

/// What the desk wants done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Tell the witness.
    Tell(ToWitness),
    /// Tell a queue thread that a look-up has ended.
    Answer {
        queue: usize,
        name: Name,
        answer: Answer,
    },
    /// Every new exact name of this generation has an answer or a failure, or had 2 s.
    Primed { generation: u64 },
    /// A name resolves to suspiciously many new addresses.
    Alarm { name: Name },
}

impl Desk {
    pub(super) fn new(settings: Configure, store: Arc<BindingStore>) -> Self {
        Self {
            settings,
            writer: BindingWriter::new(Arc::clone(&store)),
            store,
            policy: None,
            patterns: Vec::new(),
            exact: HashSet::new(),
            learnt: HashMap::new(),
            waiting: HashMap::new(),
            recent: HashMap::new(),
            clients: HashMap::new(),
            priming: None,
            swept_ms: 0,
        }
    }

    /// Says everything again to a witness that has just started.
    pub(super) fn greet(&self, actions: &mut Vec<Action>) {
        actions.push(Action::Tell(ToWitness::Configure(self.settings.clone())));
        let names = self.exact.iter().chain(self.learnt.keys());
        tell_names(names.cloned().collect(), true, actions);
        for name in self.waiting.keys() {
            actions.push(Action::Tell(ToWitness::Lookup(lookup(name))));
        }
    }

    /// Takes over the names of a new policy.
    pub(super) fn adopt(&mut self, policy: Arc<Snapshot>, now_ms: u64, actions: &mut Vec<Action>) {
        let exact: HashSet<Name> = policy.exact_names().cloned().collect();
        let added: Vec<Name> = exact.difference(&self.exact).cloned().collect();
        let mut removed: Vec<Name> = self.exact.difference(&exact).cloned().collect();
        self.patterns = patterns(&policy);
        for name in &added {
            self.writer.prime(name);
            self.learnt.remove(name);
        }
        // What a pattern index meant is gone; a name still covered is learnt again when used.
        removed.extend(self.learnt.drain().map(|(name, _)| name));
        removed.retain(|name| !exact.contains(name));
        for name in &removed {
            self.writer.forget(name);
        }
        let unanswered = |name: &&Name| self.store.is_known(name) == Known::Priming;
        self.priming = Some(Priming {
            generation: policy.generation(),
            names: added.iter().filter(unanswered).cloned().collect(),
            until_ms: now_ms.saturating_add(PRIMING_MS),
        });
        self.exact = exact;
        self.policy = Some(policy);
        tell_names(removed, false, actions);
        tell_names(added, true, actions);
        self.check_priming(now_ms, actions);
    }

    /// Starts the look-up a queue asks for, or answers at once.
    pub(super) fn ask(
        &mut self,
        queue: usize,
        query: &Query,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        let name = &query.name;
        if let Some(waiting) = self.waiting.get_mut(name) {
            if !waiting.queues.contains(&queue) {
                waiting.queues.push(queue);
            }
            return;
        }
        let fresh = |(at_ms, _): &&(u64, Answer)| now_ms.saturating_sub(*at_ms) < ONCE_MS;
        let recent = self
            .recent
            .get(name)
            .filter(fresh)
            .map(|(_, answer)| *answer);
        let answer = if recent.is_some() {
            recent
        } else if !self.is_mentioned(name) {
            Some(Answer::Failed)
        } else if !self.charge(query, now_ms) {
            Some(Answer::OverBudget)
        } else {
            None
        };
        if let Some(answer) = answer {
            actions.push(Action::Answer {
                queue,
                name: name.clone(),
                answer,
            });
            return;
        }
        let until_ms = now_ms.saturating_add(WAIT_MS);
        self.waiting.insert(
            name.clone(),
            Waiting {
                queues: vec![queue],
                until_ms,
            },
        );
        actions.push(Action::Tell(ToWitness::Lookup(lookup(name))));
    }

    /// Takes in an answer of the witness; one about a name nobody wants is dropped.
    pub(super) fn answered(&mut self, answer: &AnswerV1, now_ms: u64, actions: &mut Vec<Action>) {
        let Ok(name) = Name::parse(answer.name.as_bytes()) else {
            return;
        };
        let wanted = self.exact.contains(&name)
            || self.learnt.contains_key(&name)
            || self.waiting.contains_key(&name);
        if !wanted {
            return;
        }
        let outcome = if answer.outcome == AnswerOutcome::Resolved {
            let addresses = answer
                .addresses
                .iter()
                .map(|seen| (seen.address, seen.ttl_s));
            let learning = self.writer.learn(&name, addresses, now_ms);
            if learning.alarm {
                actions.push(Action::Alarm { name: name.clone() });
            }
            Answer::Resolved
        } else if answer.outcome == AnswerOutcome::OverBudget {
            Answer::OverBudget
        } else {
            self.writer.fail(&name);
            Answer::Failed
        };
        if answer.more {
            // A packet to one of these addresses need not wait for the rest.
            return self.tell_waiting(&name, Answer::Partial, actions);
        }
        if let Some(priming) = &mut self.priming {
            priming.names.remove(&name);
        }
        if answer.asked {
            self.finish(&name, outcome, now_ms, actions);
        } else if outcome == Answer::Resolved {
            // A refresh may bring what somebody waits for, and is not the look-up they wait for.
            self.tell_waiting(&name, Answer::Partial, actions);
        }
        self.check_priming(now_ms, actions);
    }

    /// Ends what has waited too long and forgets what nobody uses.
    pub(super) fn tick(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let late: Vec<Name> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.until_ms <= now_ms)
            .map(|(name, _)| name.clone())
            .collect();
        for name in late {
            self.writer.fail(&name);
            self.finish(&name, Answer::Failed, now_ms, actions);
        }
        self.check_priming(now_ms, actions);
        if now_ms.saturating_sub(self.swept_ms) >= SWEEP_MS {
            self.swept_ms = now_ms;
            self.sweep(now_ms, actions);
        }
    }

    /// When [`Desk::tick`] is next wanted.
    pub(super) fn next_tick_ms(&self) -> u64 {
        let waiting = self.waiting.values().map(|waiting| waiting.until_ms);
        let priming = self.priming.as_ref().map(|priming| priming.until_ms);
        let sweep = self.swept_ms.saturating_add(SWEEP_MS);
        waiting
            .chain(priming)
            .min()
            .map_or(sweep, |first| first.min(sweep))
    }

    fn finish(&mut self, name: &Name, answer: Answer, now_ms: u64, actions: &mut Vec<Action>) {
        let Some(waiting) = self.waiting.remove(name) else {
            return;
        };
        if answer != Answer::OverBudget {
            self.recent.insert(name.clone(), (now_ms, answer));
        }
        for queue in waiting.queues {
            actions.push(Action::Answer {
                queue,
                name: name.clone(),
                answer,
            });
        }
    }

    /// Tells everyone who waits for `name`, and goes on waiting.
    fn tell_waiting(&self, name: &Name, answer: Answer, actions: &mut Vec<Action>) {
        let queues = self.waiting.get(name).map(|waiting| &waiting.queues);
        for &queue in queues.into_iter().flatten() {
            actions.push(Action::Answer {
                queue,
                name: name.clone(),
                answer,
            });
        }
    }

    fn is_mentioned(&self, name: &Name) -> bool {
        self.policy
            .as_ref()
            .is_some_and(|policy| policy.mentions(name))
    }

    /// Charges a look-up to its client; false when the client has spent its share.
    fn charge(&mut self, query: &Query, now_ms: u64) -> bool {
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&query.client) {
            self.clients
                .retain(|_, spent| spent.second == now_ms / 1_000);
            if self.clients.len() >= CLIENTS_MAX {
                return false;
            }
        }
        let spent = self.clients.entry(query.client).or_default();
        if spent.second != now_ms / 1_000 {
            *spent = ClientSpending {
                second: now_ms / 1_000,
                ..ClientSpending::default()
            };
        }
        let first_time = self.store.is_known(&query.name) == Known::Unasked;
        let (count, limit) = if first_time {
            (&mut spent.names, NAMES_PER_CLIENT_S)
        } else {
            (&mut spent.misses, MISSES_PER_CLIENT_S)
        };
        if *count >= limit {
            return false;
        }
        *count = count.saturating_add(1);
        self.exact.contains(&query.name) || self.learn_name(query, now_ms)
    }

    /// Starts watching a name that only a pattern covers, within the pattern's limits.
    fn learn_name(&mut self, query: &Query, now_ms: u64) -> bool {
        if let Some(learnt) = self.learnt.get_mut(&query.name) {
            learnt.used_ms = now_ms;
            return true;
        }
        let covers = |pattern: &Pattern| pattern.matches(&query.name);
        let Some(pattern) = self.patterns.iter().position(covers) else {
            return false;
        };
        let mut held: Vec<(u64, &Name)> = self
            .learnt
            .iter()
            .filter(|(_, known)| known.client == query.client && known.pattern == pattern)
            .map(|(name, known)| (known.used_ms.max(self.store.last_used_ms(name)), name))
            .collect();
        let spent = self.clients.entry(query.client).or_default();
        if spent.learnt >= LEARNT_PER_CLIENT_S {
            return false;
        }
        spent.learnt = spent.learnt.saturating_add(1);
        if held.len() >= LEARNT_PER_PATTERN {
            held.sort_unstable();
            if let Some(oldest) = held.first().map(|(_, name)| (*name).clone()) {
                self.learnt.remove(&oldest);
                self.writer.forget(&oldest);
            }
        }
        let learnt = LearntName {
            client: query.client,
            pattern,
            used_ms: now_ms,
        };
        self.learnt.insert(query.name.clone(), learnt);
        true
    }

    fn check_priming(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let done = |priming: &Priming| priming.names.is_empty() || priming.until_ms <= now_ms;
        if !self.priming.as_ref().is_some_and(done) {
            return;
        }
        if let Some(priming) = self.priming.take() {
            // From here on a claim of one of these asks afresh instead of waiting.
            priming.names.iter().for_each(|name| self.writer.fail(name));
            actions.push(Action::Primed {
                generation: priming.generation,
            });
        }
    }

    fn sweep(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.writer.sweep(now_ms);
        self.recent
            .retain(|_, (at_ms, _)| now_ms.saturating_sub(*at_ms) < ONCE_MS);
        self.clients
            .retain(|_, spent| spent.second == now_ms / 1_000);
        let unused: Vec<Name> = self
            .learnt
            .iter()
            .filter(|(name, learnt)| {
                let used_ms = learnt.used_ms.max(self.store.last_used_ms(name));
                now_ms.saturating_sub(used_ms) >= LEARNT_MS
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in &unused {
            self.learnt.remove(name);
            self.writer.forget(name);
        }
        tell_names(unused, false, actions);
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

fn lookup(name: &Name) -> Lookup {
    Lookup {
        name: name.to_string(),
        budget_ms: BUDGET_MS,
        samples: SAMPLES,
    }
}

fn tell_names(names: Vec<Name>, watch: bool, actions: &mut Vec<Action>) {
    for batch in names.chunks(NAMES_PER_MESSAGE_MAX) {
        let names = batch.iter().map(ToString::to_string).collect();
        actions.push(Action::Tell(if watch {
            ToWitness::Watch { names }
        } else {
            ToWitness::Unwatch { names }
        }));
    }
}

/// How long a packet may wait for a look-up (DESIGN, section 3), less the way back.
const BUDGET_MS: u32 = 900;
/// When a look-up that the witness never answered counts as failed.
const WAIT_MS: u64 = 1_000;
/// Questions per look-up of a packet that waits.
const SAMPLES: u8 = 3;
/// A name is looked up once in this time at most.
const ONCE_MS: u64 = 1_000;
const PRIMING_MS: u64 = 2_000;
const SWEEP_MS: u64 = 30_000;
const NAMES_PER_CLIENT_S: u32 = 20;
const MISSES_PER_CLIENT_S: u32 = 10;
const LEARNT_PER_CLIENT_S: u32 = 5;
const LEARNT_PER_PATTERN: usize = 64;
/// A learnt name is forgotten this long after its last use.
const LEARNT_MS: u64 = 600_000;
/// Clients whose look-ups are counted apart in one second.
const CLIENTS_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
