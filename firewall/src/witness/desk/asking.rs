//! Look-ups that packets wait for: begun, paid for, joined, and ended in time.

use std::net::IpAddr;

use inspect::{Answer, Bindings, Known, Query, Sought, Why};
use ipc::witness::{Lookup, ToWitness};

use super::{Action, Desk};
use crate::witness::learnt::{Learning, PER_CLIENT_AND_PATTERN};
use crate::witness::spending::Charge;

/// A look-up that packets wait for.
#[derive(Debug)]
pub(super) struct Waiting {
    queues: Vec<usize>,
    until_ms: u64,
    /// Who pays, out of what, and how many questions.
    client: IpAddr,
    charge: Charge,
    price: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The name was asked about less than a second ago: to be asked then.
    Due(u64, Lookup),
    /// The witness has been told.
    Asked(Lookup),
    /// The look-up itself has ended like this, and the name is sampled on.
    Sampled(Answer),
}

impl Waiting {
    /// The look-up, when the witness is at it.
    pub(super) fn under_way(&self) -> Option<Lookup> {
        match &self.state {
            State::Asked(lookup) => Some(lookup.clone()),
            State::Due(..) | State::Sampled(_) => None,
        }
    }

    /// When it is looked at next.
    pub(super) fn due_ms(&self) -> u64 {
        match &self.state {
            State::Due(due_ms, _) => self.until_ms.min(*due_ms),
            State::Asked(_) | State::Sampled(_) => self.until_ms,
        }
    }
}

impl Desk {
    /// Starts the look-up a queue asks for, or answers at once.
    pub(in crate::witness) fn ask(
        &mut self,
        queue: usize,
        query: &Query,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        let sought = &query.sought;
        if let Some(waiting) = self.waiting.get_mut(sought) {
            if !waiting.queues.contains(&queue) {
                waiting.queues.push(queue);
            }
            return;
        }
        let wait_ms = match query.why {
            Why::Gate | Why::Claim => WAIT_MS,
            Why::Search => SEARCH_WAIT_MS,
        };
        let until_ms = now_ms.saturating_add(wait_ms);
        let begun = self.begin(query, until_ms, now_ms);
        let (charge, price, state) = match begun {
            Ok(begun) => begun,
            Err(answer) => {
                return actions.push(Action::Answer {
                    queue,
                    sought: sought.clone(),
                    answer,
                });
            }
        };
        if let State::Asked(lookup) = &state {
            actions.push(Action::Tell(ToWitness::Lookup(lookup.clone())));
        }
        let waiting = Waiting {
            queues: vec![queue],
            until_ms,
            client: query.client,
            charge,
            price,
            state,
        };
        self.waiting.insert(sought.clone(), waiting);
    }

    /// How a look-up begins, and what it costs; or the answer for which nobody is asked.
    fn begin(
        &mut self,
        query: &Query,
        until_ms: u64,
        now_ms: u64,
    ) -> Result<(Charge, u64, State), Answer> {
        let name = &query.sought.name;
        let policy = self.policy.as_ref();
        if !policy.is_some_and(|policy| policy.mentions(name)) {
            return Err(Answer::Failed);
        }
        let rotates = self.rotations.contains(name);
        let charge = self.charge_for(query);
        if rotates && query.why != Why::Gate && !self.rotations.is_unsettled(name) {
            // There may be more of its addresses than its answers made us think.
            self.pay(query, charge, MISSED_PRICE, now_ms)?;
            self.rotations.missed(name);
        }
        let fresh = |(at_ms, _): &&(u64, Answer)| now_ms.saturating_sub(*at_ms) < ONCE_MS;
        let recent = self.recent.get(&query.sought).filter(fresh).copied();
        if self.rotations.is_unsettled(name) {
            // It is being sampled anyway, as far as there is budget for that.
            self.rotations.hurry(name, until_ms, now_ms);
            let lookup = lookup(query, 1, budget_ms(now_ms, until_ms));
            let paid = recent.is_none() && self.pay(query, charge, 1, now_ms).is_ok();
            return Ok(if paid {
                self.recent
                    .insert(query.sought.clone(), (now_ms, Answer::Resolved));
                (charge, 1, State::Asked(lookup))
            } else {
                (charge, 0, State::Sampled(Answer::Resolved))
            });
        }
        if let Some((at_ms, answer)) = recent
            && (answer != Answer::Resolved || now_ms.saturating_sub(at_ms) < SAME_MOMENT_MS)
        {
            return Err(answer);
        }
        let due_ms = recent.map_or(now_ms, |(at_ms, _)| at_ms.saturating_add(ONCE_MS));
        let settled = self.store.is_known(name) == Known::Answered && !rotates;
        let samples = if settled { 1 } else { SAMPLES };
        let price = u64::from(samples).saturating_add(u64::from(query.why == Why::Claim));
        let lookup = lookup(query, samples, budget_ms(due_ms, until_ms));
        if lookup.budget_ms == 0 {
            // Its turn comes too late for this packet, and in time for its retransmission.
            return Ok((charge, 0, State::Due(u64::MAX, lookup)));
        }
        self.pay(query, charge, price, now_ms)?;
        let state = if recent.is_some() {
            // The last answer may be older than what this client has been told.
            State::Due(due_ms, lookup)
        } else {
            State::Asked(lookup)
        };
        Ok((charge, price, state))
    }

    fn charge_for(&self, query: &Query) -> Charge {
        if self.store.is_known(&query.sought.name) == Known::Unasked {
            return Charge::Name;
        }
        match query.why {
            Why::Gate => Charge::Miss,
            Why::Search => Charge::Search,
            Why::Claim => Charge::Claim,
        }
    }

    /// Charges a look-up to its client, and learns its name within the limits of patterns; an
    /// error when the client has spent its share.
    fn pay(
        &mut self,
        query: &Query,
        charge: Charge,
        price: u64,
        now_ms: u64,
    ) -> Result<(), Answer> {
        let spent = Answer::Spent(query.client);
        if !self.spending.charge(query.client, charge, price, now_ms) {
            return Err(spent);
        }
        let name = &query.sought.name;
        let is_known = self.exact.contains(name) || self.learnt.touch(name, now_ms);
        if is_known || self.learn_name(query, now_ms) {
            Ok(())
        } else {
            Err(spent)
        }
    }

    /// Learns a name that only a pattern covers, within the pattern's limits.
    pub(super) fn learn_name(&mut self, query: &Query, now_ms: u64) -> bool {
        let charged = self
            .spending
            .charge(query.client, Charge::Learnt, 0, now_ms);
        charged && self.learn_uncharged(query, PER_CLIENT_AND_PATTERN, now_ms)
    }

    /// The same for whoever may have `most` names under each pattern, as fast as it asks.
    pub(super) fn learn_uncharged(&mut self, query: &Query, most: usize, now_ms: u64) -> bool {
        let (name, client) = (&query.sought.name, query.client);
        let used_ms = |name: &policy::Name| self.store.last_used_ms(name);
        match self.learnt.learn(name, (client, most), now_ms, used_ms) {
            Learning::Refused => false,
            Learning::Learnt(gone) => {
                if let Some(gone) = gone {
                    self.rotations.forget(&gone);
                    self.writer.forget(&[gone]);
                }
                self.writer.learn_name(name, query.client);
                true
            }
        }
    }

    /// Tells who waits for a name what an answer about it means to them.
    pub(super) fn progress(
        &mut self,
        sought: &Sought,
        (ended, outcome, brought_new): (bool, Answer, bool),
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        let unsettled = self.rotations.is_unsettled(&sought.name);
        let Some(waiting) = self.waiting.get_mut(sought) else {
            return;
        };
        if brought_new {
            self.spending
                .refund(waiting.client, waiting.charge, waiting.price);
            waiting.price = 0;
        }
        if ended {
            waiting.state = State::Sampled(outcome);
        }
        let until_ms = waiting.until_ms;
        match &waiting.state {
            State::Sampled(Answer::Resolved) if unsettled => {
                self.rotations.hurry(&sought.name, until_ms, now_ms);
                self.tell_waiting(sought, Answer::Partial, actions);
            }
            State::Sampled(outcome) => {
                let outcome = *outcome;
                self.finish(sought, outcome, now_ms, actions);
            }
            // A packet to one of these addresses need not wait for the rest; and a refresh may
            // bring what somebody waits for, and is not the look-up they wait for.
            State::Due(..) | State::Asked(_) if outcome == Answer::Resolved => {
                self.tell_waiting(sought, Answer::Partial, actions);
            }
            State::Due(..) | State::Asked(_) => {}
        }
    }

    /// Begins the look-ups of names that were asked about a moment ago.
    pub(super) fn ask_again(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        for waiting in self.waiting.values_mut() {
            let State::Due(due_ms, lookup) = &waiting.state else {
                continue;
            };
            if *due_ms > now_ms {
                continue;
            }
            let lookup = lookup.clone();
            actions.push(Action::Tell(ToWitness::Lookup(lookup.clone())));
            waiting.state = State::Asked(lookup);
        }
    }

    /// Ends what has waited too long.
    pub(super) fn end_late(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let late: Vec<(Sought, Answer)> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.until_ms <= now_ms)
            .map(|(sought, waiting)| {
                let outcome = match &waiting.state {
                    State::Sampled(Answer::Resolved)
                        if self.rotations.is_unsettled(&sought.name) =>
                    {
                        Answer::Unsettled
                    }
                    State::Sampled(outcome) => *outcome,
                    // Whoever waited has had less than a whole look-up.
                    State::Due(..) => Answer::OverBudget,
                    State::Asked(lookup) if lookup.budget_ms < BUDGET_MIN_MS => Answer::OverBudget,
                    State::Asked(_) => Answer::Failed,
                };
                (sought.clone(), outcome)
            })
            .collect();
        for (sought, answer) in late {
            if answer == Answer::Failed {
                self.fail(&sought.name);
            }
            self.finish(&sought, answer, now_ms, actions);
        }
    }

    /// Notes that a look-up brought no address. A name that has just entered the policy is waited
    /// for until it is primed, whatever became of a packet's own look-up.
    pub(super) fn fail(&mut self, name: &policy::Name) {
        let primes = |priming: &super::Priming| priming.names.contains(name);
        if !self.priming.as_ref().is_some_and(primes) {
            self.writer.fail(name);
        }
    }

    fn tell_waiting(&self, sought: &Sought, answer: Answer, actions: &mut Vec<Action>) {
        let queues = self.waiting.get(sought).map(|waiting| &waiting.queues);
        for queue in queues.into_iter().flatten() {
            actions.push(Action::Answer {
                queue: *queue,
                sought: sought.clone(),
                answer,
            });
        }
    }

    fn finish(&mut self, sought: &Sought, answer: Answer, now_ms: u64, actions: &mut Vec<Action>) {
        self.tell_waiting(sought, answer, actions);
        self.waiting.remove(sought);
        if matches!(answer, Answer::Resolved | Answer::Failed) {
            self.recent.insert(sought.clone(), (now_ms, answer));
        }
    }
}

fn lookup(query: &Query, samples: u8, budget_ms: u32) -> Lookup {
    let Sought { name, ipv6 } = &query.sought;
    Lookup {
        name: name.to_string(),
        budget_ms,
        samples,
        ipv4: !ipv6,
        ipv6: *ipv6,
        // Whoever claims a name may have its address from there. A SYN has many names asked for.
        hints: query.why == Why::Claim,
    }
}

/// What the witness has for a look-up that begins at one moment and is wanted at another; nothing
/// when that is too little to ask at all.
fn budget_ms(begins_ms: u64, until_ms: u64) -> u32 {
    let left_ms = until_ms
        .saturating_sub(begins_ms)
        .saturating_sub(WAY_BACK_MS);
    let left_ms = u32::try_from(left_ms).unwrap_or(u32::MAX);
    if left_ms < LEAST_MS { 0 } else { left_ms }
}

/// When a look-up that the witness never answered counts as failed: the hold budget of a packet
/// (DESIGN, section 3), less the way back.
const WAIT_MS: u64 = 900;
/// The same for what is asked on behalf of a SYN that has been held for a while.
const SEARCH_WAIT_MS: u64 = 750;
/// What the witness's answer may take to come back.
const WAY_BACK_MS: u64 = 50;
/// A look-up that has less time than this is not begun.
const LEAST_MS: u32 = 100;
/// A look-up that had less time than this and no answer says nothing of its name.
const BUDGET_MIN_MS: u32 = 500;
/// Questions for a packet that waits, about a name of which little is known.
const SAMPLES: u8 = 3;
/// What a miss of a name that rotates is charged: it makes us sample it again.
const MISSED_PRICE: u64 = 30;
/// A name is looked up once in this time at most.
pub(super) const ONCE_MS: u64 = 1_000;
/// An answer is one of this moment for so long.
const SAME_MOMENT_MS: u64 = 50;
