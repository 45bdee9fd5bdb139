//! `cargo suite`: passes the test tiers.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line's output"
)]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use e2e::suite::tiers::{TIERS, Tier};
use e2e::suite::{Runner, target_dir};

/// Passes the test tiers, each with its own set-up, and prints a line per step.
///
/// Exit status: 0 when all passed, 1 when something failed, 2 for a usage error. What steps said is kept under
/// `target/suite`. Example: `cargo suite --only wire`.
#[derive(Debug, Parser)]
#[command(name = "suite")]
struct Arguments {
    /// Runs this tier alone.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Adds what takes long: fuzzing every target for a minute, property tests with twenty thousand cases.
    #[arg(long)]
    long: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Unit,
    Wire,
    Boot,
    Cloud,
    Image,
    Terraform,
}

impl Only {
    fn tier(self) -> Option<Tier> {
        match self {
            Self::Unit => Some(Tier::Unit),
            Self::Wire => Some(Tier::Wire),
            Self::Boot => Some(Tier::Boot),
            Self::Cloud => Some(Tier::Cloud),
            Self::Terraform => Some(Tier::Terraform),
            Self::Image => Some(Tier::Image),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let tiers: Vec<Tier> = match arguments.only {
        None => TIERS.into_iter().filter(|tier| tier.exists()).collect(),
        Some(only) => match only.tier().filter(|tier| tier.exists()) {
            Some(tier) => vec![tier],
            None => {
                let name = only.to_possible_value();
                let name = name.as_ref().map_or("that", |value| value.get_name());
                eprintln!("suite: the tier `{name}` is not in this version yet; it arrives later");
                return ExitCode::from(2);
            }
        },
    };
    match run(&tiers, arguments.long) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("suite: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(tiers: &[Tier], long: bool) -> Result<bool> {
    let started = Instant::now();
    let mut runner = Runner::new(&target_dir()?.join("suite"))?;
    for tier in tiers {
        tier.run(&mut runner, long)?;
    }
    let total = runner.total();
    println!("{:.1} s", started.elapsed().as_secs_f64());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}
