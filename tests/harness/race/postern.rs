//! Postern as a contestant: the release build, in its default configuration.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::proxy::descendants;
use super::stage::{OUTSIDE, RESOLVER, Stage, release};
use crate::{daemon, wait};

/// A running `postern run`.
#[derive(Debug)]
pub struct Postern {
    child: Child,
}

impl Postern {
    /// Starts it on an inventory and waits until it is healthy. Its state folder is new every time.
    pub fn start(stage: &Stage, inventory: &str, one_core: bool) -> Result<Self> {
        let state = stage.file("state");
        if state.exists() {
            std::fs::remove_dir_all(&state).context("removing the last state")?;
        }
        std::fs::create_dir_all(&state).context("making the state folder")?;
        let queues = if one_core { "queues = 1\n" } else { "" };
        let config = stage.file("postern.toml");
        let text = format!(
            "{queues}appliance = \"race\"\nwan = \"{OUTSIDE}\"\nstate_dir = \"{}\"\ncontrol_socket = \"{}\"\n\
             [dns]\nupstreams = [\"{RESOLVER}\"]\n",
            state.display(),
            stage.file("control.sock").display()
        );
        std::fs::write(&config, text).context("writing postern.toml")?;
        let path = stage.file("inventory.toml");
        std::fs::write(&path, inventory).context("writing the inventory")?;
        let log = std::fs::File::create(stage.file("postern.log")).context("its log")?;
        let child = stage
            .firewall
            .command(release("postern")?)
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
        Ok(this)
    }

    /// It and its witness.
    pub fn pids(&self) -> Vec<u32> {
        descendants(self.child.id())
    }
}

impl Drop for Postern {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
