//! What a run is summed up to.

use std::time::Duration;

use serde::Serialize;

/// One run, as it is printed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Exchanges that ended well.
    pub(crate) connections: u64,
    /// Those that did not: timed out, reset too early, or answered when they should have been refused.
    pub(crate) errors: u64,
    /// Seconds measured.
    pub(crate) seconds: f64,
    /// Bytes received, for bulk.
    pub(crate) bytes: u64,
    /// Microseconds, of the exchanges that ended well.
    pub(crate) p50_us: f64,
    /// As above.
    pub(crate) p99_us: f64,
    /// As above.
    pub(crate) max_us: f64,
}

impl Report {
    /// Sums up latencies.
    pub(crate) fn of(mut latencies: Vec<Duration>, errors: u64, seconds: f64) -> Self {
        latencies.sort_unstable();
        Self {
            connections: latencies.len() as u64,
            errors,
            seconds,
            bytes: 0,
            p50_us: quantile(&latencies, 50),
            p99_us: quantile(&latencies, 99),
            max_us: quantile(&latencies, 100),
        }
    }

    /// Prints it as one line.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// The nearest-rank quantile of sorted values, in microseconds; 0 of none.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = sorted.len().saturating_mul(percent).div_ceil(100).max(1);
    sorted
        .get(rank.saturating_sub(1))
        .map_or(0.0, |value| value.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        let report = Report::of(values, 0, 1.0);
        let rounded = [report.p50_us, report.p99_us, report.max_us].map(f64::round);
        assert_eq!(rounded.map(|value| format!("{value}")), ["50", "99", "100"]);
        assert!(Report::of(Vec::new(), 3, 1.0).p50_us.abs() < f64::EPSILON);
    }
}
