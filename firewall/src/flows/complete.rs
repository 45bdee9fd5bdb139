//! When every flow the kernel carries is known here.
//!
//! Looking for others means a pass over the kernel's whole table, during which a processor takes no packets: not for
//! every change of policy. After one such pass a flow can only be missed where a record of it was lost, which is
//! counted, or where the calendar was set back, by which records and ends of the same ends are told apart.

use super::FlowSettings;

/// What held when the last pass began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Complete {
    /// Flows whose end nobody will log, as counted.
    forgotten: u64,
    /// The calendar less the monotonic clock, milliseconds.
    calendar_ms: i128,
}

impl Complete {
    pub(super) fn now(settings: &FlowSettings) -> Self {
        let now = settings.clock.now();
        Self {
            forgotten: settings.tally.flows_forgotten(),
            calendar_ms: i128::from(now.unix_ms).saturating_sub(i128::from(now.mono_ms)),
        }
    }

    /// Whether nothing has happened up to `now` by which a flow could have been missed.
    pub(super) fn still_holds(&self, now: &Self) -> bool {
        let stepped_ms = now.calendar_ms.saturating_sub(self.calendar_ms);
        self.forgotten == now.forgotten && stepped_ms.unsigned_abs() <= READ_APART_MS
    }
}

/// The two clocks are read one after the other, each cut to a millisecond, by a thread that may have to wait between.
const READ_APART_MS: u128 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_record_or_a_clock_set_back_calls_for_a_new_look() {
        let then = Complete {
            forgotten: 3,
            calendar_ms: 1_800_000_000_000,
        };
        let after = |forgotten, step_ms| Complete {
            forgotten: then.forgotten + forgotten,
            calendar_ms: then.calendar_ms + step_ms,
        };
        assert!(then.still_holds(&then));
        assert!(then.still_holds(&after(0, -1)), "read a millisecond apart");
        assert!(!then.still_holds(&after(1, 0)));
        for step_ms in [-3_600_000, -1_000, 1_000] {
            assert!(!then.still_holds(&after(0, step_ms)), "{step_ms}");
        }
    }
}
