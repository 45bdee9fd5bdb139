//! What the daemon wants resolved, and who waits for it. No I/O: messages in, messages out.
//!
//! A name outside policy never leaves this desk towards the witness. Look-ups are
//! single-flight, at most one per name and second, and charged to the client that caused
//! them, so that one client's scan does not starve another's names. A name is asked about at
//! its time to live while flows use it, and when a packet needs it otherwise.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use inspect::{Answer, Bindings, Known, Sought};
use ipc::record::DnsLineV1;
use ipc::witness::{AnswerOutcome, AnswerV1, Configure, NAMES_PER_MESSAGE_MAX, ToWitness};
use policy::{Name, Snapshot};

use super::learnt::{Learning, LearntNames, PER_CLIENT_AND_PATTERN};
use super::rotation::{Rotations, Shown};
use super::spending::Spending;
use crate::bindings::{BindingStore, BindingWriter, Saved, Seen};

mod asking;
mod certificates;
mod front;

use asking::{ONCE_MS, Waiting};
pub(super) use certificates::CertificateCounts;
use certificates::CertificateDesk;
pub use certificates::CertificateSettings;
pub(super) use front::FrontCounts;
use front::FrontDesk;

/// Keeps the watched names and the waiting look-ups.
#[derive(Debug)]
pub(super) struct Desk {
    settings: Configure,
    store: Arc<BindingStore>,
    writer: BindingWriter,
    policy: Option<Arc<Snapshot>>,
    exact: HashSet<Name>,
    learnt: LearntNames,
    /// Names the witness asks about at their time to live.
    watched: HashSet<Name>,
    /// Of these, names whose first look-up has not ended.
    unanswered: HashSet<Name>,
    /// Names that have an answer and no use.
    idle: Vec<Name>,
    waiting: HashMap<Sought, Waiting>,
    recent: HashMap<Sought, (u64, Answer)>,
    spending: Spending,
    rotations: Rotations,
    priming: Option<Priming>,
    saved: Option<Saved>,
    front: FrontDesk,
    certificates: CertificateDesk,
    not_global: usize,
    swept_ms: u64,
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
    /// Tell a queue thread that a look-up has ended, or how far it is.
    Answer {
        queue: usize,
        sought: Sought,
        answer: Answer,
    },
    /// Every new exact name of this generation has an answer or a failure, or had 2 s.
    Primed { generation: u64 },
    /// A name resolves to suspiciously many new addresses.
    Alarm { name: Name },
    /// A line of the DNS log.
    Log(Box<DnsLineV1>),
    /// An address that no inventory knows asks the DNS front.
    Unknown(IpAddr),
    /// A server's certificate is not of a name.
    BadCertificate {
        name: Name,
        server: SocketAddr,
        detail: String,
    },
    /// Flows to this server under this name are to end.
    Distrust { name: Name, server: SocketAddr },
}

impl Desk {
    /// A desk that knows no policy; `saved` is what was bound before a restart.
    pub(super) fn new(settings: Configure, store: Arc<BindingStore>, saved: Option<Saved>) -> Self {
        Self {
            rotations: Rotations::new(settings.max_qps),
            settings,
            writer: BindingWriter::new(Arc::clone(&store)),
            store,
            policy: None,
            exact: HashSet::new(),
            learnt: LearntNames::default(),
            watched: HashSet::new(),
            unanswered: HashSet::new(),
            idle: Vec::new(),
            waiting: HashMap::new(),
            recent: HashMap::new(),
            spending: Spending::default(),
            priming: None,
            saved,
            front: FrontDesk::default(),
            certificates: CertificateDesk::default(),
            not_global: 0,
            swept_ms: 0,
        }
    }

    /// Says everything again to a witness that has just started.
    pub(super) fn greet(&mut self, actions: &mut Vec<Action>) {
        // Its questions are numbered from the start again.
        self.forget_questions();
        actions.push(Action::Tell(ToWitness::Configure(self.settings.clone())));
        if self.listens() {
            actions.push(self.tell_front());
        }
        tell_names(self.watched.iter().cloned().collect(), true, actions);
        let lookups = self.waiting.values().filter_map(Waiting::under_way);
        actions.extend(lookups.map(|lookup| Action::Tell(ToWitness::Lookup(lookup))));
    }

    /// Takes over the names of a new policy.
    pub(super) fn adopt(&mut self, policy: Arc<Snapshot>, now_ms: u64, actions: &mut Vec<Action>) {
        let exact: HashSet<Name> = policy.exact_names().cloned().collect();
        let added: Vec<Name> = exact.difference(&self.exact).cloned().collect();
        let mut removed: Vec<Name> = self.exact.difference(&exact).cloned().collect();
        removed.extend(self.learnt.adopt(&policy, &exact));
        removed.retain(|name| !exact.contains(name));
        self.writer.forget(&removed);
        for name in &removed {
            self.watched.remove(name);
            self.unanswered.remove(name);
            self.rotations.forget(name);
        }
        for name in &added {
            self.writer.prime(name);
        }
        self.unanswered.extend(added.iter().cloned());
        self.exact = exact;
        self.policy = Some(Arc::clone(&policy));
        self.adopt_front(&policy, actions);
        self.adopt_certificates(now_ms, actions);
        self.restore(now_ms);
        let unanswered = |name: &&Name| self.store.is_known(name) == Known::Priming;
        self.priming = Some(Priming {
            generation: policy.generation(),
            names: added.iter().filter(unanswered).cloned().collect(),
            until_ms: now_ms.saturating_add(PRIMING_MS),
        });
        self.writer.adopt(policy);
        tell_names(removed, false, actions);
        // Also names that were known before a restart: whether they still are what they were.
        self.watched.extend(added.iter().cloned());
        tell_names(added, true, actions);
        self.check_priming(now_ms, actions);
    }

    /// A flow to an address was allowed under a name, for the first time in a while.
    pub(super) fn used(
        &mut self,
        name: &Name,
        addr: IpAddr,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        self.writer.judged(name, addr);
        let wanted = self.learnt.touch(name, now_ms) || self.exact.contains(name);
        if wanted && self.watched.insert(name.clone()) {
            tell_names(vec![name.clone()], true, actions);
        }
    }

    /// Takes in an answer of the witness; one about a name nobody wants is dropped.
    pub(super) fn answered(&mut self, answer: &AnswerV1, now_ms: u64, actions: &mut Vec<Action>) {
        let Ok(name) = Name::parse(answer.name.as_bytes()) else {
            return;
        };
        let sought = |ipv6| Sought {
            name: name.clone(),
            ipv6,
        };
        let families = [false, true].map(sought);
        let wanted = self.exact.contains(&name)
            || self.learnt.contains(&name)
            || families.iter().any(|it| self.waiting.contains_key(it));
        if !wanted {
            return;
        }
        let (mut brought_new, mut failed) = (false, false);
        let outcome = match answer.outcome {
            AnswerOutcome::Resolved => {
                brought_new = self.learn(&name, answer, now_ms, actions);
                Answer::Resolved
            }
            AnswerOutcome::OverBudget => Answer::OverBudget,
            AnswerOutcome::NoAddress
            | AnswerOutcome::NoSuchName
            | AnswerOutcome::ServerFailure
            | AnswerOutcome::TimedOut => {
                failed = true;
                Answer::Failed
            }
        };
        // What a packet had asked for is of one family only.
        let is_whole = !answer.more && !answer.asked;
        if let Some(priming) = self.priming.as_mut().filter(|_| is_whole) {
            priming.names.remove(&name);
        }
        if failed {
            self.fail(&name);
        }
        if is_whole {
            self.unanswered.remove(&name);
        }
        if is_whole && self.watched.contains(&name) && !self.is_in_use(&name, now_ms) {
            self.idle.push(name.clone());
        }
        for sought in families {
            let ended = answer.asked && answer.ipv6 == sought.ipv6 && !answer.more;
            self.progress(&sought, (ended, outcome, brought_new), now_ms, actions);
        }
        self.check_priming(now_ms, actions);
    }

    /// Binds what an answer named; whether any of it is new.
    fn learn(
        &mut self,
        name: &Name,
        answer: &AnswerV1,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) -> bool {
        let resolvers: Vec<Option<Arc<str>>> = answer
            .sources
            .iter()
            .map(|source| SocketAddr::from_str(&source.upstream).ok())
            .map(|resolver| Some(resolver?.to_string().into()))
            .collect();
        let addresses = answer.addresses.iter().map(|seen| Seen {
            addr: seen.address,
            ttl_s: seen.ttl_s,
            hint: seen.hint,
            resolver: resolvers.get(usize::from(seen.source)).cloned().flatten(),
        });
        let chain: Option<Arc<str>> =
            (!answer.chain.is_empty()).then(|| answer.chain.join(" ").into());
        let learning = self.writer.learn(name, addresses, chain.as_ref(), now_ms);
        let [v4, v6] = [0, 1].map(|family: usize| {
            let of = |counts: [usize; 2]| counts.get(family).copied().unwrap_or(0);
            Shown {
                seen: of(learning.seen),
                new: of(learning.new),
                before: learning.before.get(family).copied().unwrap_or(false),
                known: learning.known,
            }
        });
        let samples = u8::try_from(answer.sources.len()).unwrap_or(u8::MAX);
        self.rotations.note(name, [v4, v6], samples, now_ms);
        if self.rotations.contains(name) {
            self.writer.set_varies(name, true);
        }
        self.not_global = self.not_global.saturating_add(learning.not_global);
        if learning.alarm {
            self.rotations.suspect(name);
            actions.push(Action::Alarm { name: name.clone() });
        }
        learning.added > 0
    }

    /// Ends what has waited too long and forgets what nobody uses.
    pub(super) fn tick(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.ask_again(now_ms, actions);
        self.end_late(now_ms, actions);
        self.check_priming(now_ms, actions);
        self.sample(now_ms, actions);
        self.let_idle_go(now_ms, actions);
        if now_ms.saturating_sub(self.swept_ms) >= SWEEP_MS {
            self.swept_ms = now_ms;
            self.sweep(now_ms, actions);
        }
    }

    /// When [`Desk::tick`] is next wanted.
    pub(super) fn next_tick_ms(&self) -> u64 {
        let waiting = self.waiting.values().map(Waiting::due_ms);
        let priming = self.priming.as_ref().map(|priming| priming.until_ms);
        let sweep = self.swept_ms.saturating_add(SWEEP_MS);
        waiting
            .chain(priming)
            .chain(self.rotations.next_due_ms())
            .chain(self.next_front_ms())
            .min()
            .map_or(sweep, |first| first.min(sweep))
    }

    /// Addresses that may never be bound, in the answers since the last call.
    pub(super) fn take_not_global(&mut self) -> usize {
        std::mem::take(&mut self.not_global)
    }

    /// How many names were learnt under patterns, and how many rotate.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.learnt.len(), self.rotations.len())
    }

    fn sample(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let (store, learnt) = (&self.store, &self.learnt);
        let samples = self.rotations.due(now_ms, |name| {
            learnt.contains(name) || in_use(store.last_used_ms(name), now_ms)
        });
        let tell = |sample| Action::Tell(ToWitness::Sample(sample));
        actions.extend(samples.into_iter().map(tell));
    }

    /// Stops the refresh of names that have their first answer and that no flow uses.
    fn let_idle_go(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let mut idle = std::mem::take(&mut self.idle);
        idle.retain(|name| !self.is_in_use(name, now_ms) && self.watched.remove(name));
        tell_names(idle, false, actions);
    }

    fn is_in_use(&self, name: &Name, now_ms: u64) -> bool {
        self.learnt.contains(name) || in_use(self.store.last_used_ms(name), now_ms)
    }

    /// Binds what was bound before a restart: exact names of the policy, and names under
    /// patterns as if their clients had just brought them up.
    fn restore(&mut self, now_ms: u64) {
        let Some(saved) = self.saved.take() else {
            return;
        };
        for (name, kept) in saved.names {
            let mut wanted = self.exact.contains(&name);
            if let (false, Some(client)) = (wanted, kept.client) {
                let used_ms = |name: &Name| self.store.last_used_ms(name);
                let learning =
                    self.learnt
                        .learn(&name, (client, PER_CLIENT_AND_PATTERN), now_ms, used_ms);
                if let Learning::Learnt(gone) = learning {
                    self.writer.learn_name(&name, client);
                    self.writer.forget(gone.as_slice());
                    wanted = true;
                }
            }
            if wanted {
                self.writer.restore(&name, kept, now_ms);
            }
        }
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
        self.spending.sweep(now_ms);
        self.sweep_front(now_ms);
        self.sweep_certificates(now_ms);
        let (store, learnt) = (&self.store, &self.learnt);
        let is_used =
            |name: &Name| learnt.contains(name) || in_use(store.last_used_ms(name), now_ms);
        for name in self.rotations.sweep(now_ms, is_used) {
            self.writer.set_varies(&name, false);
        }
        let unused = self
            .learnt
            .sweep(now_ms, |name| self.store.last_used_ms(name));
        self.writer.forget(&unused);
        for name in &unused {
            self.watched.remove(name);
            self.rotations.forget(name);
        }
        tell_names(unused, false, actions);
        // A name that has had its answer and is not used any more.
        let idle = self
            .watched
            .iter()
            .filter(|name| !self.is_in_use(name, now_ms) && !self.unanswered.contains(*name));
        self.idle.extend(idle.cloned().collect::<Vec<_>>());
    }
}

const fn in_use(last_used_ms: u64, now_ms: u64) -> bool {
    last_used_ms > 0 && now_ms.saturating_sub(last_used_ms) < IN_USE_MS
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

const PRIMING_MS: u64 = 2_000;
const SWEEP_MS: u64 = 30_000;
/// Names used within this time are asked about at their time to live (DESIGN, section 3).
const IN_USE_MS: u64 = 86_400_000;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
