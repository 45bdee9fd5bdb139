//! What Postern is held to: each figure beside the value it must hold and the value it aims at.

use serde_json::{Value, json};

use super::datapath::Kind;
use super::measure::Figures;
use super::memory::Weight;
use super::results::{RATIOS, Results, Spread};

/// One figure and what is wanted of it.
#[derive(Debug, Clone)]
pub struct Target {
    /// What was measured, in which unit, against what.
    pub title: &'static str,
    /// The median.
    pub value: f64,
    /// A release must not be worse.
    pub hold: f64,
    /// What is hoped for.
    pub aim: Option<f64>,
    /// Less is better.
    pub at_most: bool,
}

impl Target {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.meets(self.hold)
    }

    fn meets(&self, wanted: f64) -> bool {
        if self.at_most {
            self.value <= wanted
        } else {
            self.value >= wanted
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.holds(), self.aim.is_some_and(|aim| self.meets(aim))) {
            (_, true) => "aim reached",
            (true, false) => "holds",
            (false, false) => "**missed**",
        }
    }

    fn row(&self) -> String {
        let sign = if self.at_most { "≤" } else { "≥" };
        let aim = self
            .aim
            .map_or_else(String::new, |aim| format!("{sign} {}", number(aim)));
        format!(
            "| {} | {} | {sign} {} | {aim} | {} |\n",
            self.title,
            number(self.value),
            number(self.hold),
            self.verdict()
        )
    }
}

/// Two decimals for ratios, none for what is large.
fn number(value: f64) -> String {
    if value.abs() >= 10.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// All that this race has a figure for.
pub fn all(results: &Results) -> Vec<Target> {
    let mut targets: Vec<Target> = against_nat(results).collect();
    targets.extend(against_haproxy(results));
    targets.extend(added(results));
    targets.extend(alone(results));
    targets
}

fn at_most(title: &'static str, value: Option<f64>, hold: f64, aim: Option<f64>) -> Option<Target> {
    value.map(|value| Target {
        title,
        value,
        hold,
        aim,
        at_most: true,
    })
}

fn at_least(
    title: &'static str,
    value: Option<f64>,
    hold: f64,
    aim: Option<f64>,
) -> Option<Target> {
    at_most(title, value, hold, aim).map(|target| Target {
        at_most: false,
        ..target
    })
}

fn median(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.median)
}

fn against_nat(results: &Results) -> impl Iterator<Item = Target> {
    let ratio = |key: &str| {
        let metric = RATIOS.iter().find(|metric| metric.key == key)?;
        median(results.ratio(Kind::Postern, metric.value))
    };
    let rows = [
        at_most(
            "firewall CPU per new connection, × NAT",
            ratio("cpu_per_connection"),
            1.6,
            Some(1.3),
        ),
        at_most(
            "the same, post-quantum hello, × NAT",
            ratio("cpu_per_connection_pq"),
            1.6,
            Some(1.3),
        ),
        at_least(
            "new connections/s, shared processors, × NAT",
            ratio("new_connections"),
            0.85,
            Some(0.95),
        ),
        at_least(
            "download, 8 flows, × NAT",
            ratio("bulk_8"),
            0.90,
            Some(0.97),
        ),
        at_most(
            "firewall CPU per GB, 8 flows, × NAT",
            ratio("cpu_per_gigabyte"),
            1.10,
            Some(1.03),
        ),
    ];
    rows.into_iter().flatten()
}

fn against_haproxy(results: &Results) -> impl Iterator<Item = Target> {
    let against = |value: fn(&Figures) -> f64| {
        let both = |round: &super::measure::Round| {
            Some(value(round.of(Kind::Postern)?) / value(round.of(Kind::Haproxy)?))
        };
        median(Spread::of(results.rounds.iter().filter_map(both).collect()))
    };
    let rows = [
        at_most(
            "firewall CPU per new connection, × HAProxy",
            against(Figures::cpu_per_connection),
            0.45,
            None,
        ),
        at_least(
            "new connections/s, shared processors, × HAProxy",
            against(Figures::new_connections),
            1.25,
            None,
        ),
    ];
    rows.into_iter().flatten()
}

fn added(results: &Results) -> impl Iterator<Item = Target> {
    let added = |value: fn(&Figures) -> f64| median(results.added(Kind::Postern, value));
    let own = |value: fn(&Figures) -> f64| median(results.absolute(Kind::Postern, value));
    let rows = [
        at_most(
            "added latency at 500/s, p50, µs",
            added(|f| f.paced.p50_us),
            120.0,
            Some(60.0),
        ),
        at_most(
            "added latency at 500/s, p99, µs",
            added(|f| f.paced.p99_us),
            300.0,
            Some(150.0),
        ),
        at_most(
            "refusal at 300/s, hello to close, p50, µs",
            own(|f| f.refused.p50_us),
            150.0,
            Some(80.0),
        ),
        at_most(
            "the same, p99, µs",
            own(|f| f.refused.p99_us),
            2_000.0,
            Some(500.0),
        ),
        at_most(
            "failed exchanges, all loads, worst round",
            results
                .absolute(Kind::Postern, |f| f.errors() as f64)
                .map(|spread| spread.max),
            0.0,
            Some(0.0),
        ),
    ];
    rows.into_iter().flatten()
}

fn alone(results: &Results) -> impl Iterator<Item = Target> {
    let weight = |kind: Kind| results.memory.iter().find(|weight| weight.kind == kind);
    let (ours, nat) = (weight(Kind::Postern), weight(Kind::Nat));
    let over_nat = |(ours, nat): (&Weight, &Weight)| (ours.idle_kernel - nat.idle_kernel).round();
    let rows = [
        at_most(
            "user memory per idle judged flow, bytes",
            ours.map(|weight| weight.idle_user),
            512.0,
            Some(128.0),
        ),
        // Slab is counted for the whole machine, in pages: less than this is noise.
        at_most(
            "kernel memory per idle flow over NAT, bytes (noise ± 200)",
            ours.zip(nat).map(over_nat),
            200.0,
            Some(200.0),
        ),
        at_most(
            "memory before the first flow, MB",
            ours.map(|weight| weight.base as f64 / 1e6),
            30.0,
            Some(15.0),
        ),
    ];
    rows.into_iter().flatten()
}

/// The table.
pub fn markdown(results: &Results) -> String {
    let rows: String = all(results).iter().map(Target::row).collect();
    format!("| Postern | measured | must hold | aim | |\n|---|---|---|---|---|\n{rows}")
}

/// The same for `results.json`.
pub fn to_json(results: &Results) -> Value {
    let one = |target: &Target| {
        json!({
            "what": target.title, "value": target.value, "hold": target.hold, "aim": target.aim, "holds": target.holds(),
        })
    };
    all(results).iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_is_said_so() {
        let target = |value, at_most| Target {
            title: "t",
            value,
            hold: 1.6,
            aim: Some(if at_most { 1.3 } else { 1.9 }),
            at_most,
        };
        assert_eq!(target(1.61, true).verdict(), "**missed**");
        assert_eq!(target(1.6, true).verdict(), "holds");
        assert_eq!(target(1.3, true).verdict(), "aim reached");
        assert_eq!(target(1.5, false).verdict(), "**missed**");
        assert_eq!(target(1.7, false).verdict(), "holds");
        assert_eq!(
            target(2.5, true).row(),
            "| t | 2.5 | ≤ 1.6 | ≤ 1.3 | **missed** |\n"
        );
    }
}
