//! The one reader of the clocks.
//!
//! `inspect` and the scheduler take the time as an argument; this is where it comes from.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

mod kernel;

pub use kernel::is_synchronised;

use inspect::Time;

/// Pairs the monotonic clock with the calendar.
///
/// Copies made from one `Clock` share its origin, so that monotonic times taken on
/// different threads compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts the monotonic count at two days, so that "a day ago" is never before zero: what was
    /// learnt before a restart has a place on it.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// The time now, in milliseconds on both clocks.
    pub fn now(&self) -> Time {
        Time {
            mono_ms: self.mono_ms(),
            unix_ms: unix_ms(),
        }
    }

    /// Milliseconds of monotonic time; only differences mean anything.
    pub fn mono_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        elapsed.saturating_add(ORIGIN_MS)
    }
}

/// Milliseconds since 1970-01-01 00:00:00 UTC; 0 for a clock set before that.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| {
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
        })
}

/// Where the monotonic count starts.
const ORIGIN_MS: u64 = 2 * 86_400_000;
