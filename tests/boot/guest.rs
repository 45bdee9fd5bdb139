//! The guest's driver: everything the boot tier does inside the emulated machine.
//!
//! `/init` runs it as its only job, with the result port as its argument. It lays the lab's three namespaces, starts
//! servers, runs the daemon in each data path, drives honest and forged clients through it, and reports what
//! happened; judging that is the host's business.

#[path = "guest/application.rs"]
mod application;
#[path = "guest/attempts.rs"]
mod attempts;
#[path = "guest/control.rs"]
mod control;
#[path = "guest/daemon.rs"]
mod daemon;
#[path = "guest/inheritance.rs"]
mod inheritance;
#[path = "guest/reporter.rs"]
mod reporter;
#[path = "guest/statements.rs"]
mod statements;
#[path = "guest/transfer.rs"]
mod transfer;
#[path = "guest/world.rs"]
mod world;

use std::io::Write as _;

use anyhow::{Context as _, Result};
use e2e::boot::report::{Guard, Line, Offload};
use e2e::daemon::Daemon;
use e2e::raw::RawHost;
use e2e::topology::FAMILIES;

use inheritance::{Attack, VARIANTS};
use reporter::Reporter;
use world::World;

fn main() -> Result<()> {
    let port = std::env::args()
        .nth(1)
        .context("usage: boot-guest RESULT-PORT")?;
    let mut reporter = Reporter::open(&port)?;
    if let Err(error) = work(&mut reporter) {
        reporter.fault(&error)?;
    }
    reporter.finish()
}

fn work(reporter: &mut Reporter) -> Result<()> {
    reporter.booted()?;
    statements::probe(reporter)?;
    reporter.stage("statements")?;
    let world = World::new().context("laying the lab")?;
    let attacker = world.topology.attacker()?;
    reporter.stage("world")?;
    for case in [
        (Guard::Control, Offload::None),
        (Guard::Control, Offload::Flowtable),
        (Guard::ForwardRule, Offload::None),
        (Guard::ForwardRule, Offload::Flowtable),
    ] {
        control::run(&world, &attacker, case, reporter).with_context(|| format!("{case:?}"))?;
    }
    reporter.stage("control")?;
    for offload in [Offload::None, Offload::Flowtable] {
        if let Err(error) = judged(&world, &attacker, offload, reporter) {
            reporter.fault(&error.context(format!("with offload {offload:?}")))?;
        }
    }
    Ok(())
}

/// Everything that one daemon is asked, in one data path.
fn judged(
    world: &World,
    attacker: &RawHost,
    offload: Offload,
    reporter: &mut Reporter,
) -> Result<()> {
    let mut daemon = daemon::start(world, offload)?;
    reporter.stage(&format!("daemon {offload:?}"))?;
    world.warm_up()?;
    reporter.stage(&format!("warm {offload:?}"))?;
    if offload == Offload::None {
        for (plan, port) in attempts::PLANS.iter().zip(FIRST_ATTEMPT_PORT..) {
            match plan.run(world, &daemon, port) {
                Ok(attempt) => reporter.say(&Line::Attempt(attempt))?,
                Err(error) => reporter.fault(&error)?,
            }
        }
        reporter.stage("attempts")?;
        reporter.say(&Line::Held(daemon::held(world, &daemon)?))?;
        reporter.stage("held")?;
    }
    for family in FAMILIES {
        for variant in VARIANTS {
            let attack = Attack {
                variant,
                family,
                offload,
                guard: Guard::Postern,
            };
            reporter.inheritance(attack.run(world, attacker))?;
        }
    }
    reporter.stage(&format!("inheritance {offload:?}"))?;
    for family in FAMILIES {
        reporter.transfer(transfer::run(world, family, offload, Guard::Postern))?;
    }
    reporter.stage(&format!("transfers {offload:?}"))?;
    tell(&daemon)?;
    daemon.kill()?;
    if offload == Offload::None {
        reporter.say(&Line::Attempt(attempts::without_daemon(world)?))?;
    }
    Ok(())
}

/// Puts all that the daemon said and logged on the console, for whoever looks into a failure.
fn tell(daemon: &Daemon<'_>) -> Result<()> {
    let mut console = std::io::stderr().lock();
    writeln!(console, "{}", daemon.output())?;
    for line in daemon.logs().lines("flow") {
        writeln!(console, "{}", line.0)?;
    }
    Ok(())
}

const FIRST_ATTEMPT_PORT: u16 = 45_000;
