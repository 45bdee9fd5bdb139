//! When to ask next. Pure: the caller waits.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Part of an interval by which it varies, so that appliances started together drift apart.
const JITTER: f64 = 0.1;

/// The first pause after a failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The pause between two readings that take `calls` calls each: `floor`, or what keeps all
/// `appliances` together under `calls_per_second`, whichever is longer.
pub(crate) fn interval(
    floor: Duration,
    calls: u32,
    appliances: u32,
    calls_per_second: f64,
) -> Duration {
    let together = f64::from(calls) * f64::from(appliances.max(1));
    let fair = together / calls_per_second.max(0.01);
    floor.max(Duration::from_secs_f64(fair.min(3_600.0)))
}

/// `interval`, a little shorter. Never longer: what was promised within an interval is kept.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - JITTER * fastrand::f64())
}

/// Pauses after failures: 1 s, 2 s, 4 s, … up to `longest`, each with up to as much again of
/// jitter, for ever; from the beginning after a success.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Starts at a second.
    pub(crate) fn new(longest: Duration) -> Self {
        Self::starting_at(FIRST_BACKOFF, longest)
    }

    /// Starts at `first`.
    pub(crate) fn starting_at(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(longest.max(first))
            .without_max_times()
            .with_jitter();
        Self {
            builder,
            pauses: builder.build(),
        }
    }

    /// How long to pause after one more failure.
    pub(crate) fn after_failure(&mut self) -> Duration {
        self.pauses.next().unwrap_or(FIRST_BACKOFF)
    }

    /// Things work again.
    pub(crate) fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_deployment_asks_less_often_and_stays_within_its_share() {
        let floor = Duration::from_secs(5);
        assert_eq!(interval(floor, 2, 1, 2.0), floor);
        // 27 pages, three appliances, two calls a second for all of them.
        assert_eq!(interval(floor, 27, 3, 2.0), Duration::from_millis(40_500));
        assert_eq!(interval(floor, 1, 0, 2.0), floor);
    }

    #[test]
    fn jitter_only_ever_shortens() {
        let interval = Duration::from_secs(10);
        for _ in 0..1_000 {
            let pause = jittered(interval);
            assert!(
                pause <= interval && pause >= Duration::from_secs(9),
                "{pause:?}"
            );
        }
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(8));
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.after_failure()).collect();
        assert!(pauses[0] < Duration::from_secs(2), "{pauses:?}");
        assert!(pauses[10] >= Duration::from_secs(8), "{pauses:?}");
        assert!(
            pauses.iter().all(|pause| *pause <= Duration::from_secs(16)),
            "{pauses:?}"
        );
        backoff.reset();
        assert!(backoff.after_failure() < Duration::from_secs(2));
    }
}
