//! Waiting for a condition by probing it, so that no test sleeps for a guessed time.

use std::time::{Duration, Instant};

/// How long a condition may take before a test gives up, when nothing better is known.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Probes `condition` every two milliseconds until it yields a value; `None` after `limit`.
pub fn until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// As [`until`], for a plain yes or no.
pub fn holds(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    until(limit, || condition().then_some(())).is_some()
}
