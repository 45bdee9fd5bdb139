//! When to ask for which name, and whether there is budget left. Pure: takes the time,
//! returns names.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

/// The watched names and when each is due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: BTreeSet<(u64, String)>,
    /// Of names that have had no answer and no failure yet: paid for otherwise, so neither kind
    /// waits for the other.
    first: BTreeSet<(u64, String)>,
    /// Until when there is no budget for those, and for these.
    broke_until_ms: [u64; 2],
    names: HashMap<String, Watched>,
    jitter: RandomState,
    drawn: u64,
}

#[derive(Debug)]
struct Watched {
    /// When it is due; `None` while a look-up is under way.
    due_ms: Option<u64>,
    failures: u32,
    primed: bool,
}

impl Schedule {
    /// Starts watching a name; it is due at once. Watching it again changes nothing.
    pub(super) fn watch(&mut self, name: String, now_ms: u64) {
        if self.names.contains_key(&name) {
            return;
        }
        self.first.insert((now_ms, name.clone()));
        let watched = Watched {
            due_ms: Some(now_ms),
            failures: 0,
            primed: false,
        };
        self.names.insert(name, watched);
    }

    /// Stops watching a name.
    pub(super) fn unwatch(&mut self, name: &str) {
        if let Some(watched) = self.names.remove(name)
            && let Some(due_ms) = watched.due_ms
        {
            self.queue(watched.primed)
                .remove(&(due_ms, name.to_owned()));
        }
    }

    /// The name that is due longest at `now_ms`, if any; it stays under way until
    /// [`Schedule::answered`] or [`Schedule::put_off`].
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<Due> {
        let [refresh_ms, first_ms] = self.next_ms();
        let first = first_ms.is_some_and(|due_ms| due_ms <= now_ms);
        if !first && refresh_ms.is_none_or(|due_ms| due_ms > now_ms) {
            return None;
        }
        let (due_ms, name) = self.queue(!first).pop_first()?;
        let watched = self.names.get_mut(&name)?;
        watched.due_ms = None;
        Some(Due {
            name,
            first,
            due_ms,
        })
    }

    /// Returns a name that there is no budget for: it stays the one of its kind that is due
    /// longest, and none of these is due before `until_ms`.
    pub(super) fn put_off(&mut self, due: &Due, until_ms: u64) {
        let [refresh_ms, first_ms] = &mut self.broke_until_ms;
        let broke_until_ms = if due.first { first_ms } else { refresh_ms };
        *broke_until_ms = until_ms;
        self.put_back(&due.name, due.due_ms);
    }

    /// Makes a name due at `due_ms`.
    fn put_back(&mut self, name: &str, due_ms: u64) {
        let Some(watched) = self.names.get_mut(name) else {
            return;
        };
        let (previous, primed) = (watched.due_ms.replace(due_ms), watched.primed);
        let queue = self.queue(primed);
        if let Some(previous) = previous {
            queue.remove(&(previous, name.to_owned()));
        }
        queue.insert((due_ms, name.to_owned()));
    }

    /// The names that have had an answer, or those that have not.
    const fn queue(&mut self, primed: bool) -> &mut BTreeSet<(u64, String)> {
        if primed {
            &mut self.due
        } else {
            &mut self.first
        }
    }

    /// When the next refresh is due, and the next first look-up.
    fn next_ms(&self) -> [Option<u64>; 2] {
        let [refresh_ms, first_ms] = self.broke_until_ms;
        let next = |queue: &BTreeSet<(u64, String)>, broke_until_ms: u64| {
            queue.first().map(|(due_ms, _)| broke_until_ms.max(*due_ms))
        };
        [next(&self.due, refresh_ms), next(&self.first, first_ms)]
    }

    /// Notes an answer that goes stale after `ttl_s`, or a failure.
    ///
    /// A good answer is asked for again shortly before it goes stale, a tenth of its time at
    /// most, so that names learnt together do not stay together. A failure is retried after
    /// 1 s, 2 s, 4 s and so on up to a minute, or its negative time to live if longer.
    pub(super) fn answered(&mut self, name: &str, good: bool, ttl_s: u32, now_ms: u64) {
        let spread = self.draw(1_000);
        let Some(watched) = self.names.get_mut(name) else {
            return;
        };
        watched.primed = true;
        watched.failures = if good {
            0
        } else {
            watched.failures.saturating_add(1)
        };
        let ttl_ms = u64::from(ttl_s.max(1)).saturating_mul(1_000);
        let wait_ms = if good {
            // spread is 0..1000: a tenth of the time to live, in thousandths.
            let early = ttl_ms.saturating_mul(spread) / 10_000;
            ttl_ms.saturating_sub(early).max(REFRESH_MIN_MS)
        } else {
            let doublings = watched.failures.saturating_sub(1).min(6);
            REFRESH_MIN_MS
                .saturating_mul(1 << doublings)
                .min(RETRY_MAX_MS)
                .max(ttl_ms)
        };
        self.put_back(name, now_ms.saturating_add(wait_ms));
    }

    /// When the next name is due.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.next_ms().into_iter().flatten().min()
    }

    /// How many names are watched.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// A number below `bound` that an outsider cannot foresee.
    fn draw(&mut self, bound: u64) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.jitter
            .hash_one(self.drawn)
            .checked_rem(bound)
            .unwrap_or(0)
    }
}

/// A name to ask for now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The name.
    pub(super) name: String,
    /// Whether it has never had an answer or a failure.
    pub(super) first: bool,
    /// When it was due.
    pub(super) due_ms: u64,
}

/// Questions a second, divided by purpose as DESIGN section 3 says.
#[derive(Debug)]
pub(super) struct Budget {
    front: Bucket,
    misses: Bucket,
    refresh: Bucket,
}

/// What a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A client asked the DNS front.
    Front {
        /// It has not asked much of late.
        modest: bool,
    },
    /// A packet waits for it.
    Miss,
    /// A name has just entered the policy.
    Priming,
    /// An answer has gone stale.
    Refresh,
    /// A name rotates, and more of its addresses are wanted.
    Sample {
        /// A packet waits for one of them.
        urgent: bool,
    },
}

impl Budget {
    /// `max_qps` questions a second: half for the DNS front, 30 % for misses, 20 % for refresh.
    pub(super) fn new(max_qps: u32, now_ms: u64) -> Self {
        let share = |percent: u32| {
            Bucket::full(
                u64::from(max_qps.saturating_mul(percent) / 100).max(MIN_QPS),
                now_ms,
            )
        };
        Self {
            front: share(50),
            misses: share(30),
            refresh: share(20),
        }
    }

    /// What one client may ask through the front in a second before it leaves half of that share to the others.
    pub(super) const fn modest_qps(&self) -> u64 {
        self.front.per_second / 4
    }

    /// Takes `questions` from a purpose's share. What the front leaves over is for misses, for
    /// new names and for samples that a packet waits for; but nothing else ever eats into the
    /// share of misses, and samples leave half of the refresh share to names gone stale, as clients
    /// that ask much leave half of the front's to the others.
    pub(super) fn take(&mut self, purpose: Purpose, questions: u64, now_ms: u64) -> bool {
        match purpose {
            Purpose::Front { modest: true } => self.front.take(questions, now_ms),
            Purpose::Front { modest: false } => self.front.take_spare(questions, now_ms),
            Purpose::Miss => {
                self.misses.take(questions, now_ms) || self.front.take(questions, now_ms)
            }
            Purpose::Priming => {
                self.front.take(questions, now_ms) || self.refresh.take(questions, now_ms)
            }
            Purpose::Refresh => self.refresh.take(questions, now_ms),
            Purpose::Sample { urgent } => {
                (urgent && self.front.take(questions, now_ms))
                    || self.refresh.take_spare(questions, now_ms)
            }
        }
    }

    /// Pays for questions that were sent again for want of an answer, out of every share alike: a
    /// resolver in trouble gets fewer packets, not four times as many.
    pub(super) fn owe(&mut self, questions: u64) {
        // Thousandths of a question per percent.
        let part = |percent: u64| questions.saturating_mul(percent).saturating_mul(10);
        self.front.owe(part(50));
        self.misses.owe(part(30));
        self.refresh.owe(part(20));
    }
}

/// A token bucket that holds one second's worth.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    /// Thousandths of a question.
    level: u64,
    /// Thousandths of a question sent without asking; filled before anything else.
    owed: u64,
    filled_ms: u64,
}

impl Bucket {
    fn full(per_second: u64, now_ms: u64) -> Self {
        Self {
            per_second,
            level: per_second.saturating_mul(1_000),
            owed: 0,
            filled_ms: now_ms,
        }
    }

    /// Owes thousandths of a question, ten seconds' worth at most.
    fn owe(&mut self, thousandths: u64) {
        let most = self.per_second.saturating_mul(10_000);
        self.owed = self.owed.saturating_add(thousandths).min(most);
        self.settle();
    }

    fn settle(&mut self) {
        let paid = self.owed.min(self.level);
        self.owed = self.owed.saturating_sub(paid);
        self.level = self.level.saturating_sub(paid);
    }

    /// Takes `questions` unless less than half of a second's worth would be left.
    fn take_spare(&mut self, questions: u64, now_ms: u64) -> bool {
        let half = self.per_second.saturating_mul(500);
        self.fill(now_ms);
        let price = questions.saturating_mul(1_000);
        self.level.saturating_sub(price) >= half && self.take(questions, now_ms)
    }

    fn take(&mut self, questions: u64, now_ms: u64) -> bool {
        self.fill(now_ms);
        let capacity = self.per_second.saturating_mul(1_000);
        let wanted = questions.saturating_mul(1_000);
        // A look-up dearer than a whole second's share would never be asked.
        let price = wanted.min(capacity);
        if self.level < price {
            return false;
        }
        self.level = self.level.saturating_sub(price);
        true
    }

    fn fill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = now_ms;
        let gained = elapsed_ms.saturating_mul(self.per_second);
        let capacity = self.per_second.saturating_mul(1_000);
        self.level = self.level.saturating_add(gained).min(capacity);
        self.settle();
    }
}

/// No name is asked for more often than once a second.
const REFRESH_MIN_MS: u64 = 1_000;
const RETRY_MAX_MS: u64 = 60_000;
/// A share is never less than one look-up a second.
const MIN_QPS: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_name_is_due_at_once_and_again_before_its_answer_goes_stale() {
        let mut schedule = Schedule::default();
        schedule.watch("a.example".into(), 1_000);
        assert_eq!(
            schedule.take_due(1_000),
            Some(Due {
                name: "a.example".into(),
                first: true,
                due_ms: 1_000
            })
        );
        assert_eq!(schedule.take_due(9_000), None, "under way");
        schedule.answered("a.example", true, 300, 1_000);
        let due = schedule.next_due_ms().unwrap();
        assert!((271_000..=301_000).contains(&due), "{due}");
        assert!(!schedule.take_due(due).unwrap().first);
    }

    #[test]
    fn zero_ttl_is_asked_for_once_a_second_at_most() {
        let mut schedule = Schedule::default();
        schedule.watch("a.example".into(), 0);
        schedule.take_due(0).unwrap();
        schedule.answered("a.example", true, 0, 0);
        assert!(schedule.next_due_ms().unwrap() >= 1_000);
    }

    #[test]
    fn failures_are_retried_ever_more_slowly_up_to_a_minute() {
        let mut schedule = Schedule::default();
        schedule.watch("a.example".into(), 0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let due = schedule.next_due_ms().unwrap();
            schedule.take_due(due).unwrap();
            schedule.answered("a.example", false, 0, due);
            waits.push(schedule.next_due_ms().unwrap() - due);
        }
        assert_eq!(
            waits,
            [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        );
    }

    #[test]
    fn unwatched_name_is_never_due_even_when_its_answer_comes_late() {
        let mut schedule = Schedule::default();
        schedule.watch("a.example".into(), 0);
        schedule.take_due(0).unwrap();
        schedule.unwatch("a.example");
        schedule.answered("a.example", true, 1, 10);
        assert_eq!((schedule.next_due_ms(), schedule.len()), (None, 0));
    }

    #[test]
    fn what_was_sent_again_is_paid_before_anything_else_is_sent() {
        let mut budget = Budget::new(100, 0);
        while budget.take(Purpose::Miss, 1, 0) {}
        budget.owe(100);
        let at_ms = |budget: &mut Budget, now_ms| {
            (0..1_000)
                .filter(|_| budget.take(Purpose::Miss, 1, now_ms))
                .count()
        };
        assert_eq!(at_ms(&mut budget, 1_000), 0, "a second pays the debt");
        assert_eq!(at_ms(&mut budget, 2_000), 80);
    }

    #[test]
    fn refresh_never_eats_into_the_share_of_misses() {
        let mut budget = Budget::new(100, 0);
        let refreshed = (0..1_000)
            .filter(|_| budget.take(Purpose::Refresh, 1, 0))
            .count();
        let missed = (0..1_000)
            .filter(|_| budget.take(Purpose::Miss, 1, 0))
            .count();
        assert_eq!((refreshed, missed), (20, 80));
        assert!(!budget.take(Purpose::Miss, 1, 1));
        assert!(budget.take(Purpose::Miss, 1, 40));
    }

    /// DESIGN, section 7: one client floods, the others are served.
    #[test]
    fn a_client_that_asks_much_leaves_half_of_the_fronts_share_to_the_others() {
        let mut budget = Budget::new(400, 0);
        let mut ask = |modest, now_ms| {
            let asked = (0..1_000).filter(|_| budget.take(Purpose::Front { modest }, 1, now_ms));
            asked.count()
        };
        assert_eq!(ask(false, 0), 100);
        assert_eq!(ask(true, 0), 100);
        assert_eq!(ask(false, 400), 0, "half of it is not there yet");
        assert_eq!(ask(false, 10_000), 100);
        assert_eq!(budget.modest_qps(), 50);
    }
}
