//! A running `postern-cloudsync`: started, killed at any moment, started again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::api::REGION;
use crate::{program, wait};

/// The program: `POSTERN_CLOUDSYNC_BIN`, or what cargo built beside this program.
pub fn binary() -> Result<PathBuf> {
    program::find("POSTERN_CLOUDSYNC_BIN", "postern-cloudsync", "cloudsync")
}

/// A running `postern-cloudsync run`; killed when dropped.
#[derive(Debug)]
pub struct Sidecar {
    folder: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Sidecar {
    /// Sets one up in `folder`, with this configuration, against this endpoint; does not start it.
    pub fn new(folder: &Path, endpoint: &str, config: &str) -> Result<Self> {
        std::fs::create_dir_all(folder).context("making its folder")?;
        let text = format!(
            "control_socket = \"{0}/control.sock\"\nspool = \"{0}/spool\"\nstate_dir = \"{0}/sync\"\n{config}",
            folder.display()
        );
        std::fs::write(folder.join("cloudsync.toml"), text).context("writing cloudsync.toml")?;
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        let environment = variables
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        Ok(Self {
            folder: folder.to_owned(),
            environment,
            child: None,
        })
    }

    /// Sets or replaces a variable of its environment.
    pub fn set(&mut self, key: &str, value: &str) {
        self.environment.retain(|(known, _)| known != key);
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Starts `run`.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(binary()?)
            .args(["run", "--config"]);
        self.dress(&mut command).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().context("starting postern-cloudsync")?);
        Ok(())
    }

    /// Processor time it has used, and the most memory it ever had.
    pub fn usage(&self) -> Result<(Duration, usize)> {
        let child = self.child.as_ref().context("it does not run")?;
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).context("its usage")
        };
        // proc(5): fields 14 and 15, after the name in brackets; a tick is a hundredth of a second.
        let stat = read("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let status = read("status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        Ok((
            Duration::from_millis(ticks * 10),
            peak.context("VmHWM")? * 1024,
        ))
    }

    /// Runs `once` to its end.
    pub fn once(&self, arguments: &[&str]) -> Result<Output> {
        self.command("once", arguments)
    }

    /// Runs another of its commands to its end.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command.arg(name).args(arguments).arg("--config");
        self.dress(&mut command)
            .output()
            .with_context(|| format!("running postern-cloudsync {name}"))
    }

    fn dress<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let variables = self.environment.iter().map(|(key, value)| (key, value));
        command
            .arg(self.folder.join("cloudsync.toml"))
            .envs(variables)
            .env("POSTERN_LOG", LEVELS)
            .stdin(Stdio::null())
    }

    /// Kills it, as the kernel's out-of-memory killer would.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            bail!("it does not run")
        };
        child.kill().context("killing postern-cloudsync")?;
        child
            .wait()
            .map(drop)
            .context("waiting for postern-cloudsync")
    }

    /// Everything it wrote so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Waits until it has written this.
    pub fn wait_line(&self, text: &str) -> Result<()> {
        if wait::holds(wait::PATIENCE, || self.output().contains(text)) {
            return Ok(());
        }
        bail!("postern-cloudsync never wrote {text:?}:\n{}", self.output())
    }

    /// How often it has written this.
    pub fn count(&self, text: &str) -> usize {
        self.output().matches(text).count()
    }

    fn log(&self) -> PathBuf {
        self.folder.join("cloudsync.log")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if self.child.is_some() {
            drop(self.kill());
        }
        if std::thread::panicking() {
            let text = format!("--- postern-cloudsync\n{}\n", self.output());
            // The test has failed already; its reader gets what can be had.
            drop(std::io::stderr().write_all(text.as_bytes()));
        }
    }
}

/// What it writes: its own lines, and warnings of everybody else.
const LEVELS: &str = "warn,postern_cloudsync=info";
