//! The load generator, as a process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::stage::{
    CLIENT, CLIENTS, Layout, NAME, NAMES, OTHER_NAME, SERVER, SERVERS, Stage, release,
};
use crate::netns::Namespace;

/// What a run of the generator prints.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Report {
    /// Exchanges that ended well.
    pub connections: u64,
    /// Exchanges that did not.
    pub errors: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Bytes received, for bulk.
    pub bytes: u64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
    /// The longest, in microseconds.
    pub max_us: f64,
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello {
    /// An allowed name, about 320 bytes.
    Usual,
    /// An allowed name with a post-quantum key share, about 1,800 bytes.
    PostQuantum,
    /// A name nobody allows.
    NotAllowed,
}

impl Hello {
    fn file(self) -> &'static str {
        match self {
            Self::Usual => "hello",
            Self::PostQuantum => "hello-pq",
            Self::NotAllowed => "hello-other",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Usual | Self::PostQuantum => NAME,
            Self::NotAllowed => OTHER_NAME,
        }
    }
}

/// One run: `args` is the command and its own options.
pub fn run(
    stage: &Stage,
    layout: Layout,
    hello: Hello,
    seconds: f64,
    args: &[&str],
) -> Result<Report> {
    let output = command(stage, layout, hello, args)?
        .args(["--seconds", &seconds.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("running the load generator")?;
    if !output.status.success() {
        bail!(
            "load {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "load {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stdout)
        )
    })
}

fn command(
    stage: &Stage,
    layout: Layout,
    hello: Hello,
    args: &[&str],
) -> Result<std::process::Command> {
    let cores = match layout {
        Layout::Shared => "0-1",
        Layout::Split => "0",
    };
    let mut command = stage.client.command("taskset");
    command.args(["-c", cores]).arg(release("load")?).args(args);
    command
        .arg("--hello")
        .arg(stage.file(hello.file()))
        .args(["--name", hello.name()]);
    if !args.contains(&"--names") {
        command.args(["--names", &NAMES.to_string()]);
    }
    command
        .args(["--source", &CLIENT.to_string()])
        .args(["--sources", &CLIENTS.to_string()])
        .args(["--server", &SERVER.to_string()])
        .args(["--servers", &SERVERS.to_string()]);
    Ok(command)
}

/// Connections that stay open until this is dropped.
#[derive(Debug)]
pub struct Held {
    child: Child,
}

impl Held {
    /// Opens so many; with `half`, each stops in the middle of its hello.
    pub fn open(stage: &Stage, flows: usize, half: bool) -> Result<Self> {
        let count = flows.to_string();
        let mut args = vec!["hold", "--flows", &count];
        if half {
            args.push("--half");
        }
        let mut child = command(stage, Layout::Shared, Hello::Usual, &args)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running the load generator")?;
        let mut line = String::new();
        let out = child.stdout.take().context("its output")?;
        BufReader::new(out)
            .read_line(&mut line)
            .context("reading its output")?;
        if !line.contains("ready") {
            let output = child.wait_with_output().context("waiting for it")?;
            bail!("load hold: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { child })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The end of its standard input ends it; killing it makes sure.
        drop(self.child.stdin.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The server side of the generator.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(namespace: &Namespace, flight: &Path) -> Result<Self> {
        let mut child = namespace
            .command(release("load")?)
            .args(["serve", "--flight"])
            .arg(flight)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the server")?;
        let mut line = String::new();
        let out = child.stdout.take().context("its output")?;
        BufReader::new(out)
            .read_line(&mut line)
            .context("reading its output")?;
        if !line.contains("ready") {
            bail!("the server ended at once");
        }
        Ok(Self { child })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
