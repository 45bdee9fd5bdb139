//! Postern alone: does a large policy cost packets anything, and does putting one in force?

use anyhow::{Context, Result};

use super::cpu::Reading;
use super::generator::{self, Hello, Report};
use super::measure::Effort;
use super::memory::resident;
use super::postern::{Postern, Setup, generation};
use super::stage::{Layout, NAMES, Stage, pin};

/// One size of policy.
#[derive(Debug, Clone, Copy)]
pub struct Sized {
    /// Exact names.
    pub names: u32,
    /// Clients.
    pub clients: u32,
    /// Microseconds of the firewall's processor per connection.
    pub cpu_per_connection: f64,
    /// Median latency at 500 connections a second, in microseconds.
    pub p50_us: f64,
    /// Resident memory of daemon and witness, in bytes.
    pub resident: u64,
    /// Failed exchanges.
    pub errors: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// From small to large, clients beside those that call.
    pub sizes: Vec<Sized>,
    /// 500 connections a second while nothing changes, and while a policy of the same size is adopted.
    pub reload: Option<(Report, Report)>,
}

/// Measures it.
pub fn all(stage: &Stage, effort: &Effort, say: &mut dyn FnMut(&str)) -> Result<Extra> {
    let mut extra = Extra::default();
    extra.sizes.push(size(stage, (10, 0), false, effort, say)?);
    let sizes = [
        (NAMES, 0),
        (effort.names, 0),
        (NAMES, effort.clients),
        (effort.names, effort.clients),
    ];
    // What the thousand names resolve to is learnt once; the other ninety-nine thousand are only in the policy.
    Postern::start(stage, &Stage::inventory(NAMES, 0), &Setup::default())?.stop()?;
    for policy in sizes {
        extra.sizes.push(size(stage, policy, true, effort, say)?);
    }
    extra.reload = Some(reload(stage, effort)?);
    Ok(extra)
}

/// So many names and so many clients beside those that call; `learnt` as in [`Setup`].
fn size(
    stage: &Stage,
    (names, clients): (u32, u32),
    learnt: bool,
    effort: &Effort,
    say: &mut dyn FnMut(&str),
) -> Result<Sized> {
    let seconds = effort.seconds;
    let postern = start(stage, names, clients, (true, learnt))?;
    let used = names.min(NAMES).to_string();
    let run = |args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(["--names", &used]).collect();
        generator::run(stage, Layout::Split, Hello::Usual, seconds, &args)
    };
    let before = Reading::of("cpu1")?;
    let saturated = run(&["saturate", "--warm-up", "0"])?;
    let busy = before.busy_since("cpu1")?;
    let paced = run(&["paced"])?;
    let resident = resident(&postern.pids())?;
    drop(postern);
    stage.clear()?;
    let sized = Sized {
        names,
        clients,
        cpu_per_connection: busy.as_secs_f64() * 1e6 / saturated.connections.max(1) as f64,
        p50_us: paced.p50_us,
        resident,
        errors: saturated.errors + paced.errors,
    };
    say(&format!(
        "{names} names, {clients} more clients: {:.1} us CPU/conn, p50 {:.0} us, {:.0} MB, {} errors",
        sized.cpu_per_connection,
        sized.p50_us,
        sized.resident as f64 / 1e6,
        sized.errors
    ));
    if sized.errors > 0 {
        let refused = Postern::refusals(stage);
        say(&format!("of these refused by Postern: {refused:?}"));
    }
    Ok(sized)
}

/// The same load twice, and in the second half of the second run a new policy of full size comes in.
fn reload(stage: &Stage, effort: &Effort) -> Result<(Report, Report)> {
    let seconds = effort.seconds.max(RELOAD_SECONDS);
    let postern = start(stage, effort.names, effort.clients, (false, true))?;
    let run = || generator::run(stage, Layout::Shared, Hello::Usual, seconds, &["paced"]);
    let calm = run()?;
    // One client more: everything is read, compiled and swapped, and no flow is touched.
    let text = Stage::inventory(effort.names, effort.clients + 1);
    let fresh = stage.file("inventory.new");
    std::fs::write(&fresh, text).context("writing the inventory")?;
    let before = generation(stage)?;
    let changed = std::thread::scope(|scope| {
        let loaded = scope.spawn(run);
        std::thread::sleep(std::time::Duration::from_secs_f64(seconds / 4.0));
        let renamed = std::fs::rename(&fresh, stage.file("inventory.toml"));
        let report = loaded
            .join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))??;
        renamed.context("putting the inventory in place")?;
        // Adopted within the load, or there is nothing to be said of it.
        let adopted = generation(stage)?;
        anyhow::ensure!(
            adopted > before,
            "the policy was not adopted in {seconds} s"
        );
        Ok::<_, anyhow::Error>(report)
    })?;
    drop(postern);
    stage.clear()?;
    Ok((calm, changed))
}

fn start(
    stage: &Stage,
    names: u32,
    clients: u32,
    (one_core, learnt): (bool, bool),
) -> Result<Postern> {
    stage.clear()?;
    let layout = if one_core {
        Layout::Split
    } else {
        Layout::Shared
    };
    stage.arrange(layout)?;
    let setup = Setup {
        one_core,
        learnt,
        bound: names.min(NAMES),
        ..Setup::default()
    };
    let postern = Postern::start(stage, &Stage::inventory(names, clients), &setup)?;
    if one_core {
        for pid in postern.pids() {
            pin(pid, "1")?;
        }
    }
    let used = names.min(NAMES).to_string();
    let args = ["paced", "--per-second", "250", "--names", &used];
    for _ in 0..40 {
        let report = generator::run(stage, layout, Hello::Usual, 0.4, &args)?;
        if report.errors == 0 && report.connections > 0 {
            return Ok(postern);
        }
    }
    anyhow::bail!("with {names} names and {clients} more clients connections still fail")
}

/// Long enough for a policy of the largest size to be noticed, read, compiled and adopted within it.
const RELOAD_SECONDS: f64 = 6.0;
