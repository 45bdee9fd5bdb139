//! Flows looked at again without a packet of theirs: an answer came, the policy changed, the
//! time is up.

use policy::{Name, Reason};

use crate::conclude::Facts;
use crate::detect::{Detected, detect};
use crate::env::{Answer, Env, Known, Sought};
use crate::flow::Side;
use crate::gate::is_priming;
use crate::inspector::Inspector;
use crate::judge::{rule_blind, rule_claim};
use crate::record::Category;
use crate::ruling::Ruling;
use crate::stage::{Flow, Stage};
use crate::table::Place;
use crate::waiting::Lookups;

/// Flows of the backlog looked at in one go. The worst of them costs some 20 µs, most of that for its two resets: a
/// packet that comes meanwhile waits less than a millisecond.
pub const REJUDGED_AT_ONCE: usize = 32;

/// A pass over the flows that a new policy has still to judge, in the order of their deadlines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// The policy in force when the pass began.
    generation: u64,
    /// The place of the last flow it has looked at.
    passed: Option<Place>,
}

impl Backlog {
    const fn of(generation: u64) -> Self {
        Self {
            generation,
            passed: None,
        }
    }
}

impl Inspector {
    /// See [`Inspector::handle_answer`].
    pub(crate) fn answered(&mut self, env: &Env<'_>, sought: &Sought, answer: Answer) {
        let flows = match answer {
            Answer::Partial => self.waiting.for_name(sought),
            Answer::Spent(client) => self.waiting.spent(sought, client),
            Answer::Resolved | Answer::Unsettled | Answer::Failed | Answer::OverBudget => {
                self.waiting.answered(sought)
            }
        };
        for key in flows {
            let Some(mut flow) = self.table.take(&key) else {
                continue;
            };
            if let Some(lookups) = flow.lookups_mut() {
                lookups.note(&sought.name, answer);
            }
            self.retry(env, flow, false);
        }
    }

    /// Whether what waits is to be dropped in silence instead of refused: somebody could not be
    /// asked, or has more to say. Counts why.
    pub(crate) fn may_come_back(&mut self, env: &Env<'_>, lookups: &Lookups) -> bool {
        let counter = if lookups.lack_budget() {
            &mut self.counters.dns_budget
        } else if lookups.are_unsettled() {
            &mut self.counters.dns_unsettled
        } else {
            return is_priming(env, lookups);
        };
        *counter = counter.wrapping_add(1);
        true
    }

    /// Why an address is refused whose look-ups have ended: that of a name which has addresses
    /// is the wrong one, whatever became of the last look-up.
    pub(crate) fn mismatch(&mut self, env: &Env<'_>, lookups: &Lookups) -> Reason {
        let has_addresses = |name: &Name| env.bindings.is_known(name) == Known::Answered;
        if lookups.brought_nothing() && !lookups.names().any(has_addresses) {
            self.counters.dns_negative = self.counters.dns_negative.wrapping_add(1);
            Reason::NameUnresolvable
        } else {
            self.counters.dns_mismatch = self.counters.dns_mismatch.wrapping_add(1);
            Reason::AddressNotOfName
        }
    }

    fn retry(&mut self, env: &Env<'_>, mut flow: Box<Flow>, is_due: bool) {
        match &flow.stage {
            Stage::HeldSyn { .. } => {
                flow.generation = env.policy.generation();
                self.retry_syn(env, flow, is_due);
            }
            Stage::AwaitingBinding { .. } => {
                flow.generation = env.policy.generation();
                self.retry_claim(env, flow, is_due);
            }
            Stage::AwaitingSynAck
            | Stage::AwaitingClient
            | Stage::Conversing(_)
            | Stage::Http(_)
            | Stage::Moving => self.table.put(flow),
        }
    }

    /// See [`Inspector::handle_policy`]. A pass that is under way goes on and is followed by
    /// another, so that policies in quick succession keep no flow waiting for ever.
    pub(crate) fn policy_changed(&mut self, env: &Env<'_>) {
        if self.backlog.is_none() {
            self.backlog = Some(Backlog::of(env.policy.generation()));
        }
    }

    /// See [`Inspector::handle_backlog`].
    pub(crate) fn rejudge_some(&mut self, env: &Env<'_>) -> usize {
        let generation = env.policy.generation();
        let mut looked_at = 0;
        while let Some(mut backlog) = self.backlog
            && looked_at < REJUDGED_AT_ONCE
        {
            let Some((place, flow)) = self.table.behind(backlog.passed) else {
                let again = backlog.generation != generation;
                self.backlog = again.then(|| Backlog::of(generation));
                continue;
            };
            looked_at = looked_at.saturating_add(1);
            let old = (flow.generation != generation).then_some(flow.key);
            backlog.passed = Some(place);
            self.backlog = Some(backlog);
            if let Some(flow) = old.and_then(|key| self.table.take(&key))
                && let Some(flow) = self.recheck(env, flow)
            {
                self.retry(env, flow, false);
            }
        }
        looked_at
    }

    /// Judges a flow by the policy of now, if it was last judged by another. `None` when that
    /// refuses it. Nothing here waits for priming: a revocation applies at once.
    pub(crate) fn recheck(&mut self, env: &Env<'_>, mut flow: Box<Flow>) -> Option<Box<Flow>> {
        if flow.generation == env.policy.generation() {
            return Some(flow);
        }
        let key = flow.key;
        let allowed = match &mut flow.stage {
            // These are judged again in any case before anything of theirs is let through.
            Stage::HeldSyn { .. } | Stage::AwaitingBinding { .. } | Stage::Moving => {
                return Some(flow);
            }
            // Until the SYN comes again: whether that may leave is another question.
            Stage::AwaitingSynAck if !self.is_shut(env, &key) => return Some(flow),
            Stage::AwaitingSynAck => false,
            Stage::AwaitingClient => !self.is_shut(env, &key),
            Stage::Conversing(talk) => {
                let facts = talk.facts();
                let name = talk.machine.name().cloned();
                // Bound it was when its claim was judged; whether it may be is the policy's to say.
                let bound = env.bindings.is_global(key.server.ip());
                let named = rule_claim(env, &key, facts.proto, name.as_ref(), bound);
                let blind = rule_blind(env, &key);
                talk.is_lenient = blind.is_allowed();
                keep_ruling(&mut talk.ruling, named, blind)
            }
            Stage::Http(http) => {
                let facts = http.facts();
                let name = facts
                    .dhost
                    .as_deref()
                    .and_then(|name| Name::parse(name.as_bytes()).ok());
                let bound = env.bindings.is_global(key.server.ip());
                let named = rule_claim(env, &key, facts.proto, name.as_ref(), bound);
                keep_ruling(&mut http.ruling, named, rule_blind(env, &key))
            }
        };
        flow.generation = env.policy.generation();
        if allowed {
            return Some(flow);
        }
        self.refuse_for(env, flow, Side::Client, Reason::PolicyChanged);
        None
    }

    /// See [`Inspector::handle_timeout`].
    pub(crate) fn timed_out(&mut self, env: &Env<'_>) {
        self.decided.expire(env.now.mono_ms);
        self.carried.expire(env.now.mono_ms);
        while let Some(flow) = self.table.take_due(env.now.mono_ms) {
            self.due(env, flow);
        }
    }

    fn due(&mut self, env: &Env<'_>, flow: Box<Flow>) {
        match &flow.stage {
            Stage::HeldSyn { .. } | Stage::AwaitingBinding { .. } => self.retry(env, flow, true),
            // Nobody answered, or nothing has been said for long: there is nothing to undo.
            Stage::AwaitingSynAck | Stage::Http(_) => self.close(env, flow),
            Stage::AwaitingClient => {
                let spoke = !flow.client.stream.contiguous().is_empty();
                if flow.client.closed && !spoke {
                    return self.close(env, flow);
                }
                let blind = rule_blind(env, &flow.key);
                let unrecognised = detect(flow.client.stream.contiguous()) == Detected::NeedMore;
                if spoke && unrecognised && blind.is_allowed() {
                    // No protocol we know, and none is asked for.
                    let blind = blind.because(Reason::ProtocolUnknown);
                    self.log(env, &flow.key, Category::Client, &blind, &Facts::default());
                    return self.hand_over(env, flow, Side::Client);
                }
                self.refuse_for(env, flow, Side::Client, Reason::HelloIncomplete);
            }
            Stage::Conversing(talk) => {
                if talk.answered && flow.half(Side::Server).closed {
                    // The server gave up in clear and closed; its client has not said goodbye.
                    return self.close(env, flow);
                }
                let side = if talk.answered {
                    Side::Client
                } else {
                    Side::Server
                };
                self.refuse_for(env, flow, side, Reason::HelloIncomplete);
            }
            Stage::Moving => self.refuse_for(env, flow, Side::Client, Reason::Internal),
        }
    }
}

/// Keeps the better of two rulings; `false` when both refuse.
fn keep_ruling(kept: &mut Ruling, named: Ruling, blind: Ruling) -> bool {
    if kept.instance.is_some() && kept.instance != named.instance {
        // Whoever opened this flow no longer has the address.
        return false;
    }
    if named.is_allowed() {
        *kept = named;
    } else if blind.is_allowed() {
        *kept = blind;
    } else {
        return false;
    }
    true
}
