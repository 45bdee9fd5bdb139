//! Time a processor was not idle.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Above this share of all processors, before a round begins, something else is running.
pub const DISTURBED: f64 = 0.15;

/// A reading of one processor's idle time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    at: Instant,
    idle: Duration,
}

impl Reading {
    /// Reads `/proc/stat`; `processor` is `cpu1`, say.
    pub fn of(processor: &str) -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(processor))
            .with_context(|| format!("no {processor} in /proc/stat: two processors are needed"))?;
        let fields: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|f| f.parse().ok())
            .collect();
        // user nice system idle iowait …, in hundredths of a second whatever the kernel's own tick.
        let idle = fields
            .get(3)
            .zip(fields.get(4))
            .map(|(idle, wait)| idle + wait)
            .context("idle time")?;
        Ok(Self {
            at: Instant::now(),
            idle: Duration::from_millis(idle * 10),
        })
    }

    /// Time the processor was busy since.
    pub fn busy_since(self, processor: &str) -> Result<Duration> {
        let now = Self::of(processor)?;
        let wall = now.at.duration_since(self.at);
        Ok(wall.saturating_sub(now.idle.saturating_sub(self.idle)))
    }
}

/// Share of both processors in use by whatever else runs here, over a short while.
pub fn idle_machine_load() -> Result<f64> {
    let readings = [Reading::of("cpu0")?, Reading::of("cpu1")?];
    let while_ = Duration::from_millis(500);
    std::thread::sleep(while_);
    let [first, second] = readings;
    let busy = first.busy_since("cpu0")? + second.busy_since("cpu1")?;
    Ok(busy.as_secs_f64() / (2.0 * while_.as_secs_f64()))
}
