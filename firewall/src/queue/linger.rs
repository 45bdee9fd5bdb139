//! Whether a queue thread looks for more packets before it sleeps.
//!
//! The packets of a handshake follow each other by less than [`LINGER`], and waking a sleeping processor for each takes
//! longer than all that is done with it. Where many connections are under way there is always a packet soon, and looking
//! in vain would only take time from those that forward: then the thread sleeps at once.

use std::time::{Duration, Instant};

/// One thread's.
#[derive(Debug)]
pub(super) struct Linger {
    /// Until when to look for more.
    until: Option<Instant>,
    /// Packets since then, to tell how many there are.
    counted_since: Instant,
    packets: usize,
    busy: bool,
}

impl Linger {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            until: None,
            counted_since: now,
            packets: 0,
            busy: false,
        }
    }

    /// Notes that so many packets were taken.
    pub(super) fn after(&mut self, packets: usize, now: Instant) {
        self.packets = self.packets.saturating_add(packets);
        let counted = now.saturating_duration_since(self.counted_since);
        if counted >= WINDOW {
            let milliseconds = counted.as_secs_f32() * 1_000.0;
            self.busy = f32_of(self.packets) > BUSY * milliseconds;
            self.packets = 0;
            self.counted_since = now;
        }
        self.until = (!self.busy).then(|| now + LINGER);
    }

    /// Whether to look again instead of sleeping.
    pub(super) fn goes_on(&mut self) -> bool {
        let goes_on = self.until.is_some_and(|until| Instant::now() < until);
        if !goes_on {
            self.until = None;
        }
        goes_on
    }
}

fn f32_of(count: usize) -> f32 {
    u16::try_from(count).map_or(f32::MAX, f32::from)
}

/// How long the thread looks for more after the last packet.
const LINGER: Duration = Duration::from_micros(120);
/// How long packets are counted before it is said how many come.
const WINDOW: Duration = Duration::from_millis(4);
/// Packets a millisecond from which on nobody lingers: some 4,000 new connections a second and thread.
const BUSY: f32 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one packet each so many microseconds, a tenth of a second long.
    fn at_every(linger: &mut Linger, start: Instant, step_us: u64) -> Instant {
        let mut now = start;
        for _ in 0..(100_000 / step_us) {
            now += Duration::from_micros(step_us);
            linger.after(1, now);
        }
        now
    }

    #[test]
    fn a_thread_lingers_until_packets_are_many_and_again_when_they_are_few() {
        let start = Instant::now();
        let mut linger = Linger::new(start);
        let now = at_every(&mut linger, start, 400);
        assert_eq!(linger.until, Some(now + LINGER));
        let now = at_every(&mut linger, now, 10);
        assert_eq!(linger.until, None);
        assert!(!linger.goes_on());
        let now = at_every(&mut linger, now, 400);
        assert_eq!(linger.until, Some(now + LINGER));
        // One burst after a long silence is not many.
        let later = now + Duration::from_secs(1);
        linger.after(64, later);
        assert_eq!(linger.until, Some(later + LINGER));
    }
}
