//! One batch within the limits of a log service.

use ipc::record::Timestamp;

use super::cursor::Position;
use crate::cloud::{BatchLimits, LogEvent};

/// Events that go out together, collected in the order of the spool.
#[derive(Debug)]
pub(super) struct Builder {
    limits: BatchLimits,
    events: Vec<LogEvent>,
    bytes: usize,
    earliest: u64,
    latest: u64,
}

impl Builder {
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            events: Vec::new(),
            bytes: 0,
            earliest: u64::MAX,
            latest: 0,
        }
    }

    /// Takes a line, unless the batch is complete without it. The first line always fits.
    ///
    /// A line without a time is as old as the one before it.
    pub(super) fn push(&mut self, time: Option<Timestamp>, place: Position, line: &[u8]) -> bool {
        let unix_ms = time.map_or(self.latest, Timestamp::unix_ms);
        let mut message = String::from_utf8_lossy(line).into_owned();
        let most = self
            .limits
            .event_bytes
            .saturating_sub(self.limits.event_overhead);
        message.truncate(message.floor_char_boundary(most));
        let bytes = self
            .bytes
            .saturating_add(message.len())
            .saturating_add(self.limits.event_overhead);
        let earliest = self.earliest.min(unix_ms);
        let latest = self.latest.max(unix_ms);
        let span_ms = u128::from(latest.saturating_sub(earliest));
        let fits = self.events.len() < self.limits.events
            && bytes <= self.limits.bytes
            && span_ms < self.limits.span.as_millis();
        if !fits && !self.events.is_empty() {
            return false;
        }
        let Position { segment, offset } = place;
        self.events.push(LogEvent {
            unix_ms,
            place: format!("{segment:08}-{offset:012}"),
            message,
        });
        (self.bytes, self.earliest, self.latest) = (bytes, earliest, latest);
        true
    }

    /// The batch, sorted by time. Lines of the same millisecond stay in the order of the spool.
    pub(super) fn finish(mut self) -> Vec<LogEvent> {
        self.events.sort_by_key(|event| event.unix_ms);
        self.events
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: BatchLimits = BatchLimits {
        events: 3,
        bytes: 200,
        event_overhead: 26,
        event_bytes: 100,
        span: Duration::from_secs(60),
    };

    const HERE: Position = Position {
        segment: 1,
        offset: 0,
    };

    fn at(ms: u64) -> Option<Timestamp> {
        Some(Timestamp::from_unix_ms(ms))
    }

    #[test]
    fn a_batch_ends_at_each_limit() {
        let mut by_count = Builder::new(LIMITS);
        assert!((0..3).all(|_| by_count.push(at(1_000), HERE, b"x")));
        assert!(!by_count.push(at(1_000), HERE, b"x"));

        let mut by_bytes = Builder::new(LIMITS);
        assert!(by_bytes.push(at(1_000), HERE, &[b'x'; 74]));
        assert!(by_bytes.push(at(1_000), HERE, &[b'x'; 74]));
        assert!(!by_bytes.push(at(1_000), HERE, b"x"));

        let mut by_span = Builder::new(LIMITS);
        assert!(by_span.push(at(100_000), HERE, b"x"));
        assert!(!by_span.push(at(160_000), HERE, b"x"));
        assert!(by_span.push(at(40_001), HERE, b"x"));
        assert!(!by_span.push(at(100_001), HERE, b"x"));
    }

    #[test]
    fn lines_of_a_batch_are_sorted_by_time_and_otherwise_stay_in_order() {
        let mut builder = Builder::new(LIMITS);
        for (time, line) in [(at(2_000), "b"), (at(1_000), "a"), (None, "c")] {
            assert!(builder.push(time, HERE, line.as_bytes()));
        }
        let lines: Vec<String> = builder
            .finish()
            .into_iter()
            .map(|event| event.message)
            .collect();
        assert_eq!(lines, ["a", "b", "c"]);
    }

    proptest! {
        #[test]
        fn a_batch_is_never_over_a_limit_and_never_empty(
            lines in prop::collection::vec((0..200_000u64, 1..300usize), 1..20),
        ) {
            let mut left = lines.as_slice();
            while !left.is_empty() {
                let mut builder = Builder::new(LIMITS);
                let count = left.iter()
                    .take_while(|(time, len)| builder.push(at(*time), HERE, &vec![b'x'; *len]))
                    .count();
                let events = builder.finish();
                prop_assert_eq!(events.len(), count);
                prop_assert!((1..=LIMITS.events).contains(&count));
                let bytes: usize = events.iter().map(|event| event.message.len() + 26).sum();
                prop_assert!(bytes <= LIMITS.bytes);
                prop_assert!(events.is_sorted_by_key(|event| event.unix_ms));
                prop_assert!(events.last().unwrap().unix_ms - events[0].unix_ms < 60_000);
                left = &left[count..];
            }
        }
    }
}
