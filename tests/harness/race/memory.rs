//! What a flow costs while nothing happens on it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::datapath::Kind;
use super::generator::{self, Held, Hello};
use super::measure::Effort;
use super::stage::{Layout, Stage};
use crate::wait;

/// Bytes per flow of one datapath.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    /// Which.
    pub kind: Kind,
    /// Resident memory of all of its processes before any flow, in bytes.
    pub base: u64,
    /// User memory per idle flow whose exchange is done, in bytes.
    pub idle_user: f64,
    /// Kernel slab per such flow, whole machine, in bytes.
    pub idle_kernel: f64,
    /// User memory per flow that has sent half a hello, in bytes; Postern only.
    pub undecided_user: Option<f64>,
}

/// Weighs those that run.
pub fn all(stage: &Stage, effort: &Effort, runs: &dyn Fn(&Kind) -> bool) -> Result<Vec<Weight>> {
    Kind::ALL
        .into_iter()
        .filter(runs)
        .map(|kind| weigh(stage, kind, effort.held))
        .collect()
}

fn weigh(stage: &Stage, kind: Kind, flows: usize) -> Result<Weight> {
    super::with(stage, kind, false, |datapath| {
        let settle = || std::thread::sleep(Duration::from_millis(700));
        settle();
        // Pools and tables grow with their first flows, and that is part of what those cost.
        let base = resident(&datapath.pids())?;
        // Every name once: the questions to the resolver that follow a name's first use are no flow's.
        let every_name = ["paced", "--per-second", "1000"];
        generator::run(stage, Layout::Shared, Hello::Usual, 1.2, &every_name)?;
        stage.firewall.output("conntrack", &["-F"])?;
        settle();
        let slab = slab()?;
        let held = Held::open(stage, flows, false)?;
        settle();
        let idle_user = resident(&datapath.pids())?.saturating_sub(base) as f64 / flows as f64;
        let idle_kernel = self::slab()?.saturating_sub(slab) as f64 / flows as f64;
        close(stage, kind, held)?;
        let undecided_user = match kind {
            Kind::Postern | Kind::Before => {
                let few = flows.min(2_000);
                let before = resident(&datapath.pids())?;
                let held = Held::open(stage, few, true)?;
                let after = resident(&datapath.pids())?;
                close(stage, kind, held)?;
                Some(after.saturating_sub(before) as f64 / few as f64)
            }
            Kind::Nat | Kind::Haproxy | Kind::Nginx | Kind::Squid => None,
        };
        Ok(Weight {
            kind,
            base,
            idle_user,
            idle_kernel,
            undecided_user,
        })
    })
}

/// Ends connections, and waits until the servers know.
///
/// Whoever stands between is stopped next. A connection its server had not heard the end of by then it would keep for
/// good, and a later one of the same ports would fail.
fn close(stage: &Stage, kind: Kind, held: Held) -> Result<()> {
    drop(held);
    let open = || {
        let filter = ["-Htn", "state", "established"];
        stage.server.run("ss", &filter).unwrap_or_default()
    };
    let none_left = wait::holds(Duration::from_secs(20), || open().is_empty());
    anyhow::ensure!(
        none_left || kind.is_peer(),
        "{}: servers still have {} connections that their clients have left",
        kind.name(),
        open().lines().count()
    );
    Ok(())
}

/// Resident bytes of some processes together; a page that several share is counted once among them.
pub fn resident(pids: &[u32]) -> Result<u64> {
    let mut kilobytes = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let size = line.and_then(|line| line.trim().strip_suffix("kB"));
        kilobytes += size.context("a resident size")?.trim().parse::<u64>()?;
    }
    Ok(kilobytes * 1024)
}

/// Bytes of the kernel's own objects, on the whole machine, but for those it counts as reclaimable: caches of files, and
/// the inodes of sockets, a kilobyte each, of which it keeps as many as there were at the last flood. Of the contestants
/// only the proxies hold sockets, so this errs for them.
fn slab() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"))
        .context("SUnreclaim")?;
    let kilobytes: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .context("SUnreclaim")?;
    Ok(kilobytes * 1024)
}
