//! One datapath's figures in one round.

use std::time::Duration;

use anyhow::Result;

use super::cpu::Reading;
use super::datapath::Kind;
use super::generator::{self, Hello, Report};
use super::stage::{Layout, Stage};

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds of all contestants.
    pub rounds: u32,
    /// Seconds of each load.
    pub seconds: f64,
    /// Connections held open to weigh them.
    pub held: usize,
    /// Names of the largest policy.
    pub names: u32,
    /// Clients of the largest policy.
    pub clients: u32,
    /// New connections and nothing else, for work on them.
    pub only_connections: bool,
    /// Latency and what else everything on every processor shows, and nothing else.
    pub only_shared: bool,
    /// Sizes of policy and a reload, and nothing else.
    pub only_policy: bool,
}

impl Effort {
    /// What is published.
    pub const FULL: Self = Self {
        rounds: 5,
        seconds: 1.5,
        held: 6_000,
        names: 100_000,
        clients: 50_000,
        only_connections: false,
        only_shared: false,
        only_policy: false,
    };
    /// What work on the packet path is measured by.
    pub const CONNECTIONS: Self = Self {
        rounds: 7,
        seconds: 1.0,
        only_connections: true,
        ..Self::FULL
    };
    /// What fits into four minutes.
    pub const QUICK: Self = Self {
        rounds: 2,
        seconds: 1.0,
        held: 4_000,
        ..Self::FULL
    };
}

/// What was measured of one datapath in one round.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Saturated, everything on every processor.
    pub shared: Report,
    /// 500 connections a second.
    pub paced: Report,
    /// 300 refusals a second.
    pub refused: Report,
    /// One download.
    pub bulk_1: Report,
    /// Eight downloads.
    pub bulk_8: Report,
    /// Saturated, the firewall alone on the second processor.
    pub split: Report,
    /// That processor's busy time for it.
    pub split_busy: Duration,
    /// As `split`, with post-quantum hellos.
    pub split_pq: Report,
    /// That processor's busy time for it.
    pub split_pq_busy: Duration,
    /// Eight downloads, the firewall alone on the second processor.
    pub split_bulk: Report,
    /// That processor's busy time for it.
    pub split_bulk_busy: Duration,
}

impl Figures {
    /// Connections a second, everything shared.
    pub fn new_connections(&self) -> f64 {
        per_second(self.shared)
    }

    /// Microseconds of the firewall's processor per connection.
    pub fn cpu_per_connection(&self) -> f64 {
        cost(self.split, self.split_busy)
    }

    /// As [`Figures::cpu_per_connection`], with post-quantum hellos.
    pub fn cpu_per_connection_pq(&self) -> f64 {
        cost(self.split_pq, self.split_pq_busy)
    }

    /// Seconds of the firewall's processor per gigabyte.
    pub fn cpu_per_gigabyte(&self) -> f64 {
        self.split_bulk_busy.as_secs_f64() / (self.split_bulk.bytes.max(1) as f64 / 1e9)
    }

    /// Exchanges that failed, in all loads.
    pub fn errors(&self) -> u64 {
        [
            self.shared,
            self.paced,
            self.refused,
            self.bulk_1,
            self.bulk_8,
            self.split,
            self.split_pq,
            self.split_bulk,
        ]
        .iter()
        .map(|report| report.errors)
        .sum()
    }

    /// Everything in a line.
    pub fn line(&self) -> String {
        format!(
            "{:>6.0} conn/s  {:>5.1} us CPU/conn ({:>5.1} pq)  p50 {:>4.0} p99 {:>5.0} us  \
             bulk {:>4.1} and {:>4.1} Gbit/s, {:.2} s/GB  refused p50 {:>4.0} us  errors {}",
            self.new_connections(),
            self.cpu_per_connection(),
            self.cpu_per_connection_pq(),
            self.paced.p50_us,
            self.paced.p99_us,
            gigabits(self.bulk_1),
            gigabits(self.bulk_8),
            self.cpu_per_gigabyte(),
            self.refused.p50_us,
            self.errors()
        )
    }
}

/// What all datapaths did in one round.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Whether something else was running when it began.
    pub disturbed: bool,
    /// In the order they ran.
    pub figures: Vec<(Kind, Figures)>,
}

impl Round {
    /// One datapath's.
    pub fn of(&self, kind: Kind) -> Option<&Figures> {
        self.figures
            .iter()
            .find(|(each, _)| *each == kind)
            .map(|(_, figures)| figures)
    }
}

/// Gigabits a second of a bulk run.
pub fn gigabits(report: Report) -> f64 {
    report.bytes as f64 * 8.0 / 1e9 / report.seconds.max(f64::MIN_POSITIVE)
}

fn per_second(report: Report) -> f64 {
    report.connections as f64 / report.seconds.max(f64::MIN_POSITIVE)
}

fn cost(report: Report, busy: Duration) -> f64 {
    busy.as_secs_f64() * 1e6 / report.connections.max(1) as f64
}

/// All of one datapath's figures.
pub fn one(stage: &Stage, kind: Kind, effort: &Effort) -> Result<Figures> {
    let seconds = effort.seconds;
    let mut figures = Figures::default();
    if !effort.only_connections {
        figures = shared(stage, kind, seconds)?;
    }
    if !effort.only_shared {
        split(stage, kind, effort, &mut figures)?;
    }
    Ok(figures)
}

/// Everything on every processor.
fn shared(stage: &Stage, kind: Kind, seconds: f64) -> Result<Figures> {
    super::with(stage, kind, false, |_| {
        let run = |hello, seconds, args: &[&str]| {
            generator::run(stage, Layout::Shared, hello, seconds, args)
        };
        Ok(Figures {
            shared: run(Hello::Usual, seconds, &["saturate"])?,
            paced: run(Hello::Usual, seconds, &["paced"])?,
            refused: match kind {
                // Nobody refuses there.
                Kind::Nat => Report::default(),
                Kind::Postern | Kind::Haproxy | Kind::Nginx | Kind::Squid | Kind::Before => {
                    run(Hello::NotAllowed, seconds / 2.0, &["refused"])?
                }
            },
            bulk_1: run(Hello::Usual, seconds * 0.7, &["bulk", "--streams", "1"])?,
            bulk_8: run(Hello::Usual, seconds * 0.7, &["bulk", "--streams", "8"])?,
            ..Figures::default()
        })
    })
}

/// The firewall alone on the second processor.
fn split(stage: &Stage, kind: Kind, effort: &Effort, figures: &mut Figures) -> Result<()> {
    super::with(stage, kind, true, |_| {
        let run = |hello, args: &[&str]| -> Result<(Report, Duration)> {
            let before = Reading::of("cpu1")?;
            // Without a warm-up what is counted and what is timed are the same exchanges.
            let args: Vec<&str> = args.iter().copied().chain(["--warm-up", "0"]).collect();
            let report = generator::run(stage, Layout::Split, hello, effort.seconds, &args)?;
            Ok((report, before.busy_since("cpu1")?))
        };
        // Once for nothing: tables and pools grow to what the load needs, and are not asked for again.
        run(Hello::Usual, &["saturate"])?;
        (figures.split, figures.split_busy) = run(Hello::Usual, &["saturate"])?;
        (figures.split_pq, figures.split_pq_busy) = run(Hello::PostQuantum, &["saturate"])?;
        if !effort.only_connections {
            (figures.split_bulk, figures.split_bulk_busy) =
                run(Hello::Usual, &["bulk", "--streams", "8"])?;
        }
        Ok(())
    })
}
