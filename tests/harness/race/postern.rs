//! Postern as a contestant: the release build, in its default configuration but for the budget of
//! look-ups, which is widened so that every name is known before anything is measured.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::proxy::descendants;
use super::stage::{NAMES, OUTSIDE, RESOLVER, Stage, release};
use crate::{daemon, wait};

/// A running `postern run`.
#[derive(Debug)]
pub struct Postern {
    child: Child,
}

/// How it is started.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// As [`release`] knows it.
    pub program: &'static str,
    /// One queue, for a processor of its own.
    pub one_core: bool,
    /// What the last one learnt is there, and next to nothing is asked for again.
    pub learnt: bool,
    /// Names that must be bound before it counts as started.
    pub bound: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            program: "postern",
            one_core: false,
            learnt: false,
            bound: NAMES,
        }
    }
}

impl Postern {
    /// Starts it on an inventory and waits until it is healthy and the names are bound. Its state folder is new unless
    /// `setup` says otherwise.
    pub fn start(stage: &Stage, inventory: &str, setup: &Setup) -> Result<Self> {
        let state = stage.file("state");
        if state.exists() && !setup.learnt {
            std::fs::remove_dir_all(&state).context("removing the last state")?;
        }
        std::fs::create_dir_all(&state).context("making the state folder")?;
        let queues = if setup.one_core { "queues = 1\n" } else { "" };
        // A thousand names within two seconds instead of forty: what is measured comes after that.
        let max_qps = if setup.learnt { 10 } else { 10_000 };
        let config = stage.file("postern.toml");
        let text = format!(
            "{queues}appliance = \"race\"\nwan = \"{OUTSIDE}\"\nstate_dir = \"{}\"\ncontrol_socket = \"{}\"\n\
             [dns]\nupstreams = [\"{RESOLVER}\"]\nmax_qps = {max_qps}\n",
            state.display(),
            stage.file("control.sock").display()
        );
        std::fs::write(&config, text).context("writing postern.toml")?;
        let path = stage.file("inventory.toml");
        std::fs::write(&path, inventory).context("writing the inventory")?;
        let log = std::fs::File::create(stage.file("postern.log")).context("its log")?;
        let child = stage
            .firewall
            .command(release(setup.program)?)
            .args(["run", "--config"])
            .arg(&config)
            .arg("--inventory")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("its log")?)
            .stderr(log)
            .spawn()
            .context("starting postern")?;
        let this = Self { child };
        let healthy = wait::holds(Duration::from_secs(30), || {
            daemon::get(&stage.firewall, 1042, "/healthz").is_ok()
        });
        if !healthy {
            let text = std::fs::read_to_string(stage.file("postern.log")).unwrap_or_default();
            bail!("postern is not healthy:\n{text}");
        }
        let names = || bound(stage).unwrap_or_default();
        if !wait::holds(Duration::from_secs(90), || names() >= setup.bound) {
            bail!("{} of {} names are bound", names(), setup.bound);
        }
        // Nor is it measured while it still asks for what it does not need at once.
        let asked = || gauge(stage, "postern_dns_lookups_total");
        let mut before = asked()?;
        let quiet = wait::holds(Duration::from_secs(30), || {
            std::thread::sleep(Duration::from_millis(300));
            let now = asked().unwrap_or_default();
            std::mem::replace(&mut before, now) == now
        });
        if !quiet {
            bail!("its resolver is asked without an end");
        }
        Ok(this)
    }

    /// What it has refused, for a load of which nothing should have been: some lines of its flow log.
    pub fn refusals(stage: &Stage) -> Vec<String> {
        let folder = stage.file("state").join("spool/flow");
        let segments = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let texts = segments.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        let mut refused: Vec<String> = texts
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.contains("\"disallowed\""))
            .collect();
        refused.truncate(3);
        refused
    }

    /// Ends it in order, so that what it has learnt is kept.
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).context("stopping postern")?;
        self.child.wait().context("waiting for postern").map(drop)
    }

    /// It and its witness.
    pub fn pids(&self) -> Vec<u32> {
        descendants(self.child.id())
    }
}

/// How many names have an address.
fn bound(stage: &Stage) -> Result<u32> {
    gauge(stage, "postern_names_bound")
}

/// The number of the policy in force.
pub fn generation(stage: &Stage) -> Result<u32> {
    gauge(stage, "postern_generation")
}

fn gauge(stage: &Stage, name: &'static str) -> Result<u32> {
    let page = daemon::get(&stage.firewall, 9642, "/metrics")?;
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .context(name)?;
    value.trim().parse().context(name)
}

impl Drop for Postern {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
