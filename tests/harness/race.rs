//! `cargo race`: Postern, plain kernel NAT and the peers on the same wires, in the same run.
//!
//! client —veth— firewall —veth— servers. Between two rounds only the middle changes. Every figure is a ratio to, or a
//! difference from, plain NAT in the same round: absolute numbers drift with the host and belong in no goal. Rounds are
//! interleaved, and what is published is the median with the smallest and the largest round.

pub mod cpu;
pub mod datapath;
pub mod extra;
pub mod generator;
pub mod measure;
pub mod memory;
pub mod plot;
pub mod postern;
pub mod proxy;
pub mod results;
pub mod stage;
pub mod table;
pub mod targets;

use anyhow::Result;

use self::datapath::{Datapath, Kind};
use self::measure::{Effort, Round};
use self::results::Results;
use self::stage::Stage;

/// Runs the race between plain NAT and `contestants`; `say` hears one line per step.
pub fn run(effort: &Effort, contestants: &[Kind], say: &mut dyn FnMut(&str)) -> Result<Results> {
    let runs = |kind: &Kind| *kind == Kind::Nat || contestants.contains(kind);
    let order = Kind::ALL.into_iter().chain([Kind::Before]);
    let stage = Stage::new()?;
    if effort.only_policy {
        let extra = extra::all(&stage, effort, say)?;
        return Ok(Results::of(Vec::new(), Vec::new(), extra));
    }
    let mut rounds: Vec<Round> = Vec::new();
    let mut left_out: Vec<Kind> = Vec::new();
    for number in 1..=effort.rounds {
        let busy = cpu::idle_machine_load()?;
        if busy > cpu::DISTURBED {
            say(&format!(
                "round {number}: something else uses {:.0} % of this machine; expect wide spreads",
                busy * 100.0
            ));
        }
        let mut round = Round {
            disturbed: busy > cpu::DISTURBED,
            ..Round::default()
        };
        for kind in order.clone().filter(runs) {
            if left_out.contains(&kind) {
                continue;
            }
            let figures = match measure::one(&stage, kind, effort) {
                Ok(figures) => figures,
                // The race is about Postern and plain NAT: a peer that does not start is missing and no more.
                Err(error) if kind.is_peer() => {
                    say(&format!("{} is left out: {error:#}", kind.name()));
                    left_out.push(kind);
                    continue;
                }
                Err(error) => return Err(error),
            };
            say(&format!(
                "round {number} {:<8} {}",
                kind.name(),
                figures.line()
            ));
            round.figures.push((kind, figures));
        }
        rounds.push(round);
    }
    if effort.only_connections || effort.only_shared {
        return Ok(Results::of(rounds, Vec::new(), extra::Extra::default()).without(left_out));
    }
    say("memory of flows");
    let memory = memory::all(&stage, effort, &|kind| {
        runs(kind) && !left_out.contains(kind)
    })?;
    let mut extra = extra::Extra::default();
    if runs(&Kind::Postern) {
        say("policy size, and a reload under load");
        extra = extra::all(&stage, effort, say)?;
    }
    Ok(Results::of(rounds, memory, extra).without(left_out))
}

/// Starts a datapath, calls `work`, stops it.
pub(crate) fn with<T>(
    stage: &Stage,
    kind: Kind,
    one_core: bool,
    work: impl FnOnce(&Datapath<'_>) -> Result<T>,
) -> Result<T> {
    let datapath = Datapath::start(stage, kind, one_core)?;
    datapath.warm_up()?;
    work(&datapath)
}
