//! Names whose answers differ from each other: how much of them is still unknown, and how often
//! to ask for more. Pure: takes the time, returns samples.
//!
//! A name with a thousand addresses, eight in an answer, is not learnt by asking at its time to
//! live: its clients ask on their own and get eight others. The share of new addresses in the
//! newest answers estimates how many a client may still meet that we have not: while it is high
//! the name is *unsettled*, sampled fast, and who dials an address of it waits instead of being
//! refused; afterwards a sample now and then keeps up with it.

use std::collections::HashMap;

use ipc::witness::Sample;
use policy::Name;

/// Every name that rotates.
#[derive(Debug)]
pub(super) struct Rotations {
    names: HashMap<Name, Rotation>,
    /// Samples a second that all settled names share.
    upkeep_per_s: u64,
}

#[derive(Debug)]
struct Rotation {
    /// Of the newest addresses of A and of AAAA answers, the share that was new.
    novelty: [f32; 2],
    /// Addresses since the last new one, of both.
    barren: [usize; 2],
    /// How many answers it takes to name as many addresses as it has, of both.
    answers: [u64; 2],
    /// When there was last a new address.
    new_ms: u64,
    /// Packets wait for it until then.
    urgent_until_ms: u64,
    /// More new addresses than an honest name has.
    suspicious: bool,
    /// When to sample each family next.
    next_ms: [u64; 2],
}

/// What an answer said of one family.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// Addresses in the answer.
    pub(super) seen: usize,
    /// Of these, not known before.
    pub(super) new: usize,
    /// Whether the name had addresses of this family before.
    pub(super) before: bool,
    /// Addresses the name has now.
    pub(super) known: usize,
}

impl Rotations {
    /// `max_qps` is the budget of questions; upkeep takes a quarter of the refresh share.
    pub(super) fn new(max_qps: u32) -> Self {
        Self {
            names: HashMap::new(),
            upkeep_per_s: u64::from(max_qps / 20).max(1),
        }
    }

    /// Takes in what an answer made of `samples` questions showed, A first and then AAAA.
    pub(super) fn note(&mut self, name: &Name, shown: [Shown; 2], samples: u8, now_ms: u64) {
        let differs = shown.iter().any(|it| it.new > 0 && it.before);
        if differs {
            if !self.names.contains_key(name) && self.names.len() >= NAMES_MAX {
                return;
            }
            let rotation = self.names.entry(name.clone()).or_insert(Rotation {
                novelty: [0.0; 2],
                barren: [0; 2],
                answers: [1; 2],
                new_ms: now_ms,
                urgent_until_ms: 0,
                suspicious: false,
                next_ms: [now_ms; 2],
            });
            rotation.new_ms = now_ms;
        }
        let Some(rotation) = self.names.get_mut(name) else {
            return;
        };
        let weight = 1.0 - (1.0 - PER_SAMPLE).powi(i32::from(samples.max(1)));
        let novelties = rotation.novelty.iter_mut().zip(&mut rotation.barren);
        let families = novelties.zip(&mut rotation.answers);
        for (((novelty, barren), answers), it) in families.zip(shown) {
            if it.seen == 0 {
                continue;
            }
            let per_answer = it.seen.div_ceil(usize::from(samples.max(1)));
            *answers = u64::try_from(it.known.div_ceil(per_answer)).unwrap_or(u64::MAX);
            let share = ratio(it.new, it.seen);
            let first_sight = *novelty == 0.0 && share > 0.0;
            *novelty = if first_sight {
                share
            } else {
                (share - *novelty).mul_add(weight, *novelty)
            };
            *barren = if it.new > 0 {
                0
            } else {
                barren.saturating_add(it.seen.max(samples.into()))
            };
            if *barren >= it.known.saturating_mul(COVERED) {
                // Each has come up several times since the last new one: there are no more.
                *novelty = novelty.min(SETTLED);
            }
        }
    }

    /// Notes that a client dialled an address we do not know: there may be more of them than
    /// the answers made us think. Nothing for a name that does not rotate.
    pub(super) fn missed(&mut self, name: &Name) {
        if let Some(rotation) = self.names.get_mut(name) {
            rotation.barren = [0; 2];
            for novelty in &mut rotation.novelty {
                if *novelty > 0.0 {
                    *novelty = novelty.max(MISSED);
                }
            }
        }
    }

    /// Has a name sampled at full speed until a packet's patience ends.
    pub(super) fn hurry(&mut self, name: &Name, until_ms: u64, now_ms: u64) {
        if let Some(rotation) = self.names.get_mut(name) {
            rotation.urgent_until_ms = rotation.urgent_until_ms.max(until_ms);
            rotation.next_ms = rotation.next_ms.map(|next_ms| next_ms.min(now_ms));
        }
    }

    /// Notes that a name has more new addresses than an honest one: nobody waits for more of
    /// them.
    pub(super) fn suspect(&mut self, name: &Name) {
        if let Some(rotation) = self.names.get_mut(name) {
            rotation.suspicious = true;
        }
    }

    /// Whether a name rotates at all.
    pub(super) fn contains(&self, name: &Name) -> bool {
        self.names.contains_key(name)
    }

    /// Whether its answers still bring enough new addresses for a packet to wait for more.
    pub(super) fn is_unsettled(&self, name: &Name) -> bool {
        self.names.get(name).is_some_and(Rotation::is_unsettled)
    }

    /// Stops sampling a name.
    pub(super) fn forget(&mut self, name: &Name) {
        self.names.remove(name);
    }

    /// The samples that are due; `in_use` says of a name whether anybody wants it.
    pub(super) fn due(&mut self, now_ms: u64, in_use: impl Fn(&Name) -> bool) -> Vec<Sample> {
        let settled = self.names.values().filter(|it| !it.is_unsettled()).count();
        let share_ms = u64::try_from(settled)
            .unwrap_or(u64::MAX)
            .saturating_mul(1_000)
            / self.upkeep_per_s;
        let mut samples = Vec::new();
        for (name, rotation) in &mut self.names {
            let urgent = rotation.urgent_until_ms > now_ms;
            let unsettled = rotation.is_unsettled();
            let wanted = urgent || in_use(name);
            let families = [false, true].into_iter().zip(rotation.answers);
            for ((ipv6, answers), next_ms) in families.zip(&mut rotation.next_ms) {
                let novelty = rotation.novelty.get(usize::from(ipv6)).copied();
                if *next_ms > now_ms || novelty.is_none_or(|novelty| novelty == 0.0) {
                    continue;
                }
                let (count, wait_ms) = if unsettled && urgent {
                    (BATCH, URGENT_MS)
                } else if unsettled {
                    (BATCH, UNSETTLED_MS)
                } else {
                    // The longer nothing is new, the less there is to keep up with; but each
                    // address is to be seen again and again.
                    let calm_ms = now_ms.saturating_sub(rotation.new_ms) / 120;
                    let all_ms = SEEN_AGAIN_MS
                        .checked_div(answers.saturating_mul(TIMES_SEEN))
                        .unwrap_or(u64::MAX);
                    let wait_ms = calm_ms.min(all_ms).saturating_add(UPKEEP_MS);
                    (1, wait_ms.max(share_ms))
                };
                *next_ms = now_ms.saturating_add(wait_ms);
                if wanted {
                    samples.push(Sample {
                        name: name.to_string(),
                        ipv6,
                        count,
                        urgent,
                    });
                }
            }
        }
        samples
    }

    /// When [`Rotations::due`] is next wanted.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let next = |rotation: &Rotation| {
            let families = rotation.next_ms.into_iter().zip(rotation.novelty);
            families
                .filter(|(_, novelty)| *novelty > 0.0)
                .map(|(next_ms, _)| next_ms)
                .min()
        };
        self.names.values().filter_map(next).min()
    }

    /// Lets go of names that have had no new address for an hour, unless somebody uses them and an
    /// answer names only some of their addresses; those.
    pub(super) fn sweep(&mut self, now_ms: u64, in_use: impl Fn(&Name) -> bool) -> Vec<Name> {
        let calm = |rotation: &Rotation| now_ms.saturating_sub(rotation.new_ms) >= CALM_MS;
        let rotates = |rotation: &Rotation| rotation.answers.iter().any(|answers| *answers > 1);
        let gone: Vec<Name> = self
            .names
            .iter()
            .filter(|(name, rotation)| calm(rotation) && !(rotates(rotation) && in_use(name)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &gone {
            self.names.remove(name);
        }
        gone
    }

    /// How many names rotate.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

impl Rotation {
    fn is_unsettled(&self) -> bool {
        !self.suspicious && self.novelty.iter().any(|novelty| *novelty > SETTLED)
    }
}

fn ratio(part: usize, whole: usize) -> f32 {
    let float = |number: usize| f32::from(u16::try_from(number).unwrap_or(u16::MAX));
    float(part) / float(whole.max(1))
}

/// How much one sample weighs against those before it.
const PER_SAMPLE: f32 = 0.03;
/// Below this share of new addresses nobody waits for more of them.
const SETTLED: f32 = 0.004;
/// The share of unknown addresses that a miss makes us believe in.
const MISSED: f32 = 0.008;
/// How often each known address must have come up without a new one.
const COVERED: usize = 3;
/// Questions of one batch.
const BATCH: u8 = 8;
/// Between batches while a packet waits, while one might, and between samples afterwards.
const URGENT_MS: u64 = 25;
const UNSETTLED_MS: u64 = 100;
const UPKEEP_MS: u64 = 1_000;
const CALM_MS: u64 = 3_600_000;
/// Within this time every address of a name in use is to be in an answer, and so often on average
/// that hardly one is not.
const SEEN_AGAIN_MS: u64 = 600_000;
const TIMES_SEEN: u64 = 5;
/// Names sampled at once; more rotate as their time to live allows.
const NAMES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        "cdn.example.org".parse().unwrap()
    }

    fn shown(seen: usize, new: usize, before: bool) -> [Shown; 2] {
        [
            Shown {
                seen,
                new,
                before,
                known: seen,
            },
            Shown::default(),
        ]
    }

    #[test]
    fn equal_answers_never_make_a_name_rotate() {
        let mut rotations = Rotations::new(400);
        rotations.note(&name(), shown(8, 8, false), 1, 0);
        for turn in 1..10 {
            rotations.note(&name(), shown(8, 0, true), 1, turn);
        }
        assert!(!rotations.contains(&name()));
        assert_eq!(rotations.due(1_000, |_| true), []);
    }

    #[test]
    fn a_name_settles_when_its_samples_bring_nothing_new_and_a_miss_unsettles_it() {
        let mut rotations = Rotations::new(400);
        rotations.note(&name(), shown(24, 24, true), 3, 0);
        assert!(rotations.is_unsettled(&name()));
        let batch = rotations.due(0, |_| true);
        assert_eq!((batch.len(), batch[0].count, batch[0].ipv6), (1, 8, false));
        for _ in 0..3 {
            rotations.note(&name(), shown(60, 0, true), 8, 0);
        }
        assert!(!rotations.is_unsettled(&name()));
        assert_eq!(rotations.due(100, |_| true)[0].count, 1, "upkeep");
        assert_eq!(rotations.due(1_000, |_| true), [], "once a second");
        rotations.missed(&name());
        assert!(rotations.is_unsettled(&name()));
    }

    #[test]
    fn names_that_rotate_are_bounded_and_one_more_is_asked_for_like_any_other() {
        let mut rotations = Rotations::new(400);
        for index in 0..=NAMES_MAX {
            let name: Name = format!("n{index}.example.org").parse().unwrap();
            rotations.note(&name, shown(8, 8, true), 1, 0);
        }
        assert_eq!(rotations.names.len(), NAMES_MAX);
        let last: Name = format!("n{NAMES_MAX}.example.org").parse().unwrap();
        assert!(!rotations.contains(&last) && !rotations.is_unsettled(&last));
    }

    #[test]
    fn a_name_nobody_uses_is_not_sampled() {
        let mut rotations = Rotations::new(400);
        rotations.note(&name(), shown(8, 8, true), 1, 0);
        assert_eq!(rotations.due(0, |_| false), []);
        rotations.hurry(&name(), 900, 10);
        assert!(
            rotations.due(10, |_| false)[0].urgent,
            "a packet waits for it"
        );
    }

    #[test]
    fn a_name_that_still_rotates_is_kept_up_with_and_one_that_moved_once_is_let_go() {
        let mut rotations = Rotations::new(400);
        let moved: Name = "moved.example.org".parse().unwrap();
        rotations.note(&name(), shown(8, 8, true), 1, 0);
        rotations.note(&moved, shown(1, 1, true), 1, 0);
        let again = |known| {
            let mut shown = shown(8, 0, true);
            shown[0].known = known;
            shown
        };
        for _ in 0..400 {
            rotations.note(&name(), again(1_000), 1, 1);
            rotations.note(&moved, shown(1, 0, true), 1, 1);
        }
        rotations.due(CALM_MS, |_| true);
        // 125 answers hold as many addresses, five times in ten minutes.
        let next_ms = rotations.next_due_ms().unwrap();
        assert!(
            (CALM_MS + 1_000..=CALM_MS + 2_000).contains(&next_ms),
            "{next_ms}"
        );
        assert_eq!(rotations.sweep(CALM_MS, |_| true), [moved]);
        assert_eq!(
            rotations.sweep(CALM_MS, |_| false),
            [name()],
            "nobody uses it"
        );
    }

    #[test]
    fn endless_new_addresses_make_nobody_wait() {
        let mut rotations = Rotations::new(400);
        rotations.note(&name(), shown(64, 64, true), 8, 0);
        rotations.suspect(&name());
        rotations.note(&name(), shown(64, 64, true), 8, 1);
        assert!(!rotations.is_unsettled(&name()));
        assert_eq!(rotations.due(1, |_| true)[0].count, 1);
    }

    #[test]
    fn many_rotating_names_share_the_upkeep() {
        let mut rotations = Rotations::new(400);
        for index in 0..400 {
            let name: Name = format!("n{index}.example.org").parse().unwrap();
            rotations.note(&name, shown(8, 8, true), 1, 0);
            for _ in 0..6 {
                rotations.note(&name, shown(8, 0, true), 8, 0);
            }
        }
        let asked: usize = (0..600)
            .map(|tenth| rotations.due(tenth * 100, |_| true).len())
            .sum();
        assert!(
            (1_000..=1_700).contains(&asked),
            "{asked} samples in a minute"
        );
    }
}
