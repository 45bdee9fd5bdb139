//! `postern run` as on an appliance: no inventory, its policy comes over the control socket.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use e2e::daemon::{binary, get, postern};
use e2e::topology::{Family, OUTSIDE, RESOLVER, Topology};
use e2e::wait;
use serde_json::Value;

/// A running daemon; killed when dropped.
pub(crate) struct CloudDaemon<'t> {
    lab: &'t Topology,
    folder: PathBuf,
    child: Child,
}

impl<'t> CloudDaemon<'t> {
    /// Starts it in the firewall namespace, with everything it keeps in `folder`.
    pub(crate) fn start(lab: &'t Topology, folder: &Path) -> Result<Self> {
        let text = format!(
            "appliance = \"whole\"\nwan = \"{OUTSIDE}\"\nstate_dir = \"{0}/state\"\ncontrol_socket = \"{0}/control.sock\"\n\
             log_stdout = true\n\n[spool]\ndir = \"{0}/spool\"\n\n[dns]\nupstreams = [\"{1}\"]\n",
            folder.display(),
            RESOLVER.address(Family::V4),
        );
        std::fs::write(folder.join("postern.toml"), text).context("writing postern.toml")?;
        std::fs::create_dir_all(folder.join("state")).context("making the state folder")?;
        let mut this = Self {
            lab,
            folder: folder.to_owned(),
            child: launch(lab, folder)?,
        };
        this.wait_healthy()?;
        Ok(this)
    }

    /// Kills it, as the kernel's out-of-memory killer would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing postern")?;
        self.child.wait().map(drop).context("waiting for postern")
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child = launch(self.lab, &self.folder)?;
        self.wait_healthy()
    }

    /// `postern status --json`.
    pub(crate) fn status(&self) -> Result<Value> {
        let config = self.folder.join("postern.toml");
        let config = config.to_str().context("a path in UTF-8")?;
        let output = postern(
            &self.lab.firewall,
            &["status", "--json", "--config", config],
        )?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "postern status: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Every line of every log it ever wrote, from its standard output.
    pub(crate) fn lines(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.folder.join("postern.out")).unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with("{\"time\":"))
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Every whole line in the spool now.
    pub(crate) fn spooled(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for stream in ["flow", "end", "dns", "config"] {
            let entries = std::fs::read_dir(self.folder.join("spool").join(stream));
            for entry in entries.into_iter().flatten().flatten() {
                // One that was shipped and deleted meanwhile is not in the spool now.
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                lines.extend(
                    text.split_inclusive('\n')
                        .filter_map(|line| line.strip_suffix('\n'))
                        .map(ToOwned::to_owned),
                );
            }
        }
        lines
    }

    fn wait_healthy(&mut self) -> Result<()> {
        let limit = Duration::from_secs(20);
        let healthy = wait::until(limit, || match self.child.try_wait() {
            Ok(None) => get(&self.lab.firewall, 1042, "/healthz")
                .is_ok()
                .then_some(true),
            Ok(Some(_)) | Err(_) => Some(false),
        });
        if healthy != Some(true) {
            bail!("postern is not healthy:\n{}", self.complaints());
        }
        Ok(())
    }

    fn complaints(&self) -> String {
        std::fs::read_to_string(self.folder.join("postern.err")).unwrap_or_default()
    }
}

impl Drop for CloudDaemon<'_> {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let lines: Vec<String> = self.lines().into_iter().collect();
            eprintln!(
                "--- postern\n{}\n--- its logs\n{}",
                self.complaints(),
                lines.join("\n")
            );
        }
    }
}

fn launch(lab: &Topology, folder: &Path) -> Result<Child> {
    let append = |name: &str| {
        let file = File::options()
            .create(true)
            .append(true)
            .open(folder.join(name));
        file.with_context(|| format!("opening {name}"))
    };
    lab.firewall
        .command(binary()?)
        .args(["run", "--config"])
        .arg(folder.join("postern.toml"))
        .stdin(Stdio::null())
        .stdout(append("postern.out")?)
        .stderr(append("postern.err")?)
        .spawn()
        .context("starting postern")
}
