//! What this appliance may spend of a quota, call by call, where the poll interval alone does not say.

use std::time::{Duration, Instant};

/// Seconds' worth of tokens that may be saved up for a burst.
const SAVED_S: f64 = 15.0;

/// A share of a quota that fills as time goes by. Pure: the caller tells the time and waits.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    rate: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one of `rate` tokens a second.
    pub(super) fn full(rate: f64, now: Instant) -> Self {
        let rate = rate.max(0.01);
        Self {
            rate,
            level: rate * SAVED_S,
            at: now,
        }
    }

    /// Takes `cost` tokens when they are there. What costs more than the bucket ever holds is let through when
    /// it is full, and paid for afterwards.
    pub(super) fn take(&mut self, cost: u32, now: Instant) -> bool {
        let is_enough = self.wait(cost, now).is_zero();
        if is_enough {
            self.level -= f64::from(cost);
        }
        is_enough
    }

    /// Charges what was spent already.
    pub(super) fn owe(&mut self, cost: u32) {
        self.level -= f64::from(cost);
    }

    /// How long until `cost` tokens can be taken.
    pub(super) fn wait(&mut self, cost: u32, now: Instant) -> Duration {
        let most = self.rate * SAVED_S;
        let gone = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + gone * self.rate).min(most);
        self.at = now;
        let lacking = f64::from(cost).min(most) - self.level;
        if lacking <= 0.0 {
            return Duration::ZERO;
        }
        // Never zero while something lacks, however little.
        Duration::from_secs_f64((lacking / self.rate).max(0.001))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_what_was_saved_and_what_came_since() {
        let start = Instant::now();
        let mut bucket = Bucket::full(2.0, start);
        let taken = (0..100).filter(|_| bucket.take(3, start)).count();
        assert_eq!(taken, 10);
        let minute = (1..=600).filter(|tenth| {
            let now = start + Duration::from_millis(tenth * 100);
            bucket.take(3, now)
        });
        assert_eq!(minute.count(), 40);
    }

    #[test]
    fn what_costs_more_than_the_bucket_holds_waits_until_it_is_full() {
        let start = Instant::now();
        let mut bucket = Bucket::full(1.0, start);
        assert!(bucket.take(20, start));
        // Five tokens in debt, and then fifteen.
        assert_eq!(bucket.wait(20, start), Duration::from_secs(20));
        assert!(!bucket.take(20, start + Duration::from_secs(19)));
        assert!(bucket.take(20, start + Duration::from_secs(20)));
    }
}
