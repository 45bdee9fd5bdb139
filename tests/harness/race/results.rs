//! Rounds become medians, and medians become `results.json`.

use serde_json::{Map, Value, json};

use super::datapath::Kind;
use super::extra::Extra;
use super::measure::{Figures, Round, gigabits};
use super::memory::Weight;

/// The middle of some rounds and how far they were apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; none of none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            f64::midpoint(*values.get(middle - 1)?, *values.get(middle)?)
        };
        Some(Self { median, min, max })
    }
}

/// Something measured, by the name results call it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its key in `results.json`.
    pub key: &'static str,
    /// As a table heads it.
    pub title: &'static str,
    /// Its value in one round, in the unit the title names.
    pub value: fn(&Figures) -> f64,
}

/// Those that are compared as ratios to plain NAT.
pub const RATIOS: [Metric; 9] = [
    Metric {
        key: "cpu_per_connection",
        title: "firewall CPU per new connection",
        value: Figures::cpu_per_connection,
    },
    Metric {
        key: "cpu_per_connection_pq",
        title: "the same, post-quantum hello",
        value: Figures::cpu_per_connection_pq,
    },
    Metric {
        key: "new_connections",
        title: "new connections/s, shared processors",
        value: Figures::new_connections,
    },
    Metric {
        key: "latency_p50",
        title: "connect to answer at 500/s, p50",
        value: |f| f.paced.p50_us,
    },
    Metric {
        key: "latency_p99",
        title: "connect to answer at 500/s, p99",
        value: |f| f.paced.p99_us,
    },
    Metric {
        key: "bulk_1",
        title: "download, 1 flow",
        value: |f| gigabits(f.bulk_1),
    },
    Metric {
        key: "bulk_8",
        title: "download, 8 flows",
        value: |f| gigabits(f.bulk_8),
    },
    Metric {
        key: "cpu_per_gigabyte",
        title: "firewall CPU per GB, 8 flows",
        value: Figures::cpu_per_gigabyte,
    },
    Metric {
        key: "errors",
        title: "failed exchanges",
        value: |f| f.errors() as f64,
    },
];

/// All that a race found.
#[derive(Debug, Clone)]
pub struct Results {
    /// Every round.
    pub rounds: Vec<Round>,
    /// Memory per flow.
    pub memory: Vec<Weight>,
    /// Postern alone.
    pub extra: Extra,
    /// Peers that did not start, or stopped.
    pub left_out: Vec<Kind>,
}

impl Results {
    /// Keeps all rounds, or only the undisturbed ones when there are enough of those.
    pub fn of(rounds: Vec<Round>, memory: Vec<Weight>, extra: Extra) -> Self {
        let calm: Vec<Round> = rounds
            .iter()
            .filter(|round| !round.disturbed)
            .cloned()
            .collect();
        let rounds = if calm.len() * 2 > rounds.len() {
            calm
        } else {
            rounds
        };
        Self {
            rounds,
            memory,
            extra,
            left_out: Vec::new(),
        }
    }

    /// The same, and who was left out.
    pub fn without(mut self, left_out: Vec<Kind>) -> Self {
        // What it did before it stopped was not in every round, and is not compared.
        for round in &mut self.rounds {
            round.figures.retain(|(kind, _)| !left_out.contains(kind));
        }
        self.left_out = left_out;
        self
    }

    /// Values of one datapath, round by round.
    pub fn absolute(&self, kind: Kind, value: fn(&Figures) -> f64) -> Option<Spread> {
        Spread::of(
            self.rounds
                .iter()
                .filter_map(|round| round.of(kind).map(value))
                .collect(),
        )
    }

    /// Ratios to plain NAT in the same round.
    pub fn ratio(&self, kind: Kind, value: fn(&Figures) -> f64) -> Option<Spread> {
        self.against_nat(kind, value, |ours, nat| ours / nat)
    }

    /// Differences from plain NAT in the same round.
    pub fn added(&self, kind: Kind, value: fn(&Figures) -> f64) -> Option<Spread> {
        self.against_nat(kind, value, |ours, nat| ours - nat)
    }

    fn against_nat(
        &self,
        kind: Kind,
        value: fn(&Figures) -> f64,
        how: fn(f64, f64) -> f64,
    ) -> Option<Spread> {
        let values = self
            .rounds
            .iter()
            .filter_map(|round| Some(how(value(round.of(kind)?), value(round.of(Kind::Nat)?))));
        Spread::of(values.collect())
    }

    /// What `results.json` holds.
    pub fn to_json(&self) -> Value {
        let contestants = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Nat);
        let mut ratios = Map::new();
        let mut spreads = Map::new();
        for kind in contestants {
            let mut row = Map::new();
            let mut spread = Map::new();
            for metric in RATIOS.iter().filter(|metric| metric.key != "errors") {
                if let Some(ratio) = self.ratio(kind, metric.value) {
                    row.insert(metric.key.into(), rounded(ratio.median));
                    spread.insert(
                        metric.key.into(),
                        json!([rounded(ratio.min), rounded(ratio.max)]),
                    );
                }
            }
            ratios.insert(kind.name().into(), row.into());
            spreads.insert(kind.name().into(), spread.into());
        }
        let mut absolute = Map::new();
        for kind in Kind::ALL {
            let mut row = Map::new();
            for metric in RATIOS {
                if let Some(value) = self.absolute(kind, metric.value) {
                    row.insert(metric.key.into(), rounded(value.median));
                }
            }
            row.insert(
                "refused_p50_us".into(),
                self.absolute(kind, |f| f.refused.p50_us)
                    .map_or(Value::Null, |s| rounded(s.median)),
            );
            row.insert(
                "refused_p99_us".into(),
                self.absolute(kind, |f| f.refused.p99_us)
                    .map_or(Value::Null, |s| rounded(s.median)),
            );
            absolute.insert(kind.name().into(), row.into());
        }
        json!({
            "rounds": self.rounds.len(),
            "left_out": self.left_out.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
            "disturbed": self.rounds.iter().any(|round| round.disturbed),
            "targets": super::targets::to_json(self),
            "ratio_to_nat": ratios,
            "ratio_to_nat_min_max": spreads,
            "absolute_of_this_machine": absolute,
            "memory": self.memory.iter().map(weight).collect::<Map<_, _>>(),
            "policy_size": self.extra.sizes.iter().map(|size| json!({
                "names": size.names, "clients": size.clients, "cpu_per_connection_us": rounded(size.cpu_per_connection),
                "p50_us": rounded(size.p50_us), "resident_bytes": size.resident, "errors": size.errors,
            })).collect::<Vec<_>>(),
            "reload": self.extra.reload.map(|(calm, changed)| json!({
                "calm": { "p50_us": rounded(calm.p50_us), "p99_us": rounded(calm.p99_us), "max_us": rounded(calm.max_us), "errors": calm.errors },
                "changed": { "p50_us": rounded(changed.p50_us), "p99_us": rounded(changed.p99_us), "max_us": rounded(changed.max_us), "errors": changed.errors },
            })),
        })
    }
}

fn weight(weight: &Weight) -> (String, Value) {
    let value = json!({
        "base_bytes": weight.base,
        "user_bytes_per_idle_flow": rounded(weight.idle_user),
        "kernel_bytes_per_idle_flow": rounded(weight.idle_kernel),
        "user_bytes_per_undecided_flow": weight.undecided_user.map(rounded),
    });
    (weight.kind.name().to_owned(), value)
}

/// Three digits say all that these figures know.
fn rounded(value: f64) -> Value {
    let scale = if value.abs() >= 100.0 { 1.0 } else { 1_000.0 };
    ((value * scale).round() / scale).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(nat: f64, ours: f64, disturbed: bool) -> Round {
        let figures = |us| Figures {
            paced: crate::race::generator::Report {
                p50_us: us,
                ..Default::default()
            },
            ..Figures::default()
        };
        Round {
            disturbed,
            figures: vec![(Kind::Nat, figures(nat)), (Kind::Postern, figures(ours))],
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The host became twice as slow between the rounds; the ratio did not change.
        let results = Results::of(
            vec![round(100.0, 150.0, false), round(200.0, 300.0, false)],
            Vec::new(),
            Extra::default(),
        );
        let spread = results.ratio(Kind::Postern, |f| f.paced.p50_us).unwrap();
        assert!((spread.min - 1.5).abs() < 1e-9 && (spread.max - 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_disturbed_round_is_left_out_when_most_were_calm() {
        let rounds = vec![
            round(1.0, 1.0, false),
            round(1.0, 9.0, true),
            round(1.0, 1.0, false),
        ];
        let results = Results::of(rounds, Vec::new(), Extra::default());
        assert_eq!(results.rounds.len(), 2);
    }

    #[test]
    fn a_peer_that_did_not_start_is_missing_and_said_so() {
        let mut both = round(1.0, 2.0, false);
        let haproxy = both.figures[1].1;
        both.figures.push((Kind::Haproxy, haproxy));
        let results =
            Results::of(vec![both], Vec::new(), Extra::default()).without(vec![Kind::Haproxy]);
        let json = results.to_json();
        assert_eq!(json["left_out"][0], "haproxy");
        assert!(json["ratio_to_nat"]["haproxy"]["latency_p50"].is_null());
        assert_eq!(json["ratio_to_nat"]["postern"]["latency_p50"], 2.0);
        let table = crate::race::table::markdown(&results);
        assert!(table.contains("did not start"), "{table}");
    }

    #[test]
    fn the_keys_others_rely_on_are_there() {
        let results = Results::of(vec![round(1.0, 2.0, false)], Vec::new(), Extra::default());
        let json = results.to_json();
        assert_eq!(json["ratio_to_nat"]["postern"]["latency_p50"], 2.0);
    }
}
