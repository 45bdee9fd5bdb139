//! A running Postern: started inside the firewall namespace with a state folder of its own, killed, restarted, asked.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::evidence;
use crate::flowlog::Logs;
use crate::netns::{self, Namespace};
use crate::program;
use crate::publisher::Publisher;
use crate::topology::{Family, RESOLVER, Topology};
use crate::wait;

/// The policy most tests run under. Port 443 has a pattern, so any address may be dialled and the hello decides; on
/// 8443 there are exact names only, so the SYN decides.
pub const INVENTORY: &str = r#"
served = ["10.77.0.0/16", "fd77::/16"]

[preferences]
allow_private_answers = ["203.0.113.0/24", "2001:db8:77::/64"]

[[group]]
id = "web"
  [[group.rule]]
  description = "postern:tls:api.allowed.example,tls12.allowed.example,mirror.allowed.example"
  protocol = "tcp"
  ports = "443"
  [[group.rule]]
  description = "postern:tls:old.allowed.example,recorder.allowed.example,puppet.allowed.example,rebound.allowed.example"
  protocol = "tcp"
  ports = "443"
  [[group.rule]]
  description = "postern:tls:*.wild.example"
  protocol = "tcp"
  ports = "443"
  [[group.rule]]
  description = "postern:tls:recorder.allowed.example,puppet.allowed.example"
  protocol = "tcp"
  ports = "8443"

[[group]]
id = "git"
  [[group.rule]]
  description = "postern:ssh:git.allowed.example,recorder.allowed.example,puppet.allowed.example"
  protocol = "tcp"
  ports = "22"

[[client]]
address = "10.77.1.10"
instance = "workload"
groups = ["web", "git"]

[[client]]
address = "fd77:1::10"
instance = "workload"
groups = ["web", "git"]

[[client]]
address = "10.77.1.66"
instance = "attacker"
groups = ["web", "git"]

[[client]]
address = "fd77:1::66"
instance = "attacker"
groups = ["web", "git"]
"#;

const ONE_USER: &str = "[users]\nwitness = \"root\"\nipc_group = \"root\"\noperators = \"root\"\n";

/// A running `postern run`; killed when dropped.
#[derive(Debug)]
pub struct Daemon<'t> {
    topology: &'t Topology,
    child: Child,
    config: PathBuf,
    inventory: Option<PathBuf>,
    logs: Logs,
    /// What it is started by, and the program itself.
    launcher: Vec<String>,
}

impl<'t> Daemon<'t> {
    /// Starts it on an inventory and waits until it is healthy.
    pub fn start(topology: &'t Topology, inventory: &str) -> Result<Self> {
        Self::with_config(topology, inventory, "")
    }

    /// As [`Daemon::start`], with more lines of `postern.toml` before its tables.
    pub fn with_config(topology: &'t Topology, inventory: &str, extra: &str) -> Result<Self> {
        let path = topology.file("inventory.toml");
        std::fs::write(&path, inventory).context("writing the inventory")?;
        let upstreams = [RESOLVER.at(Family::V4, 53)];
        Self::configured(topology, Some(path), extra, &upstreams, "")
    }

    /// Starts it with other resolvers than the lab's, none for those of `/etc/resolv.conf`, and with more lines in the
    /// table `[dns]` of `postern.toml`.
    pub fn asking(
        topology: &'t Topology,
        inventory: &str,
        upstreams: &[SocketAddr],
        dns: &str,
    ) -> Result<Self> {
        let path = topology.file("inventory.toml");
        std::fs::write(&path, inventory).context("writing the inventory")?;
        Self::configured(topology, Some(path), "", upstreams, dns)
    }

    /// Starts it with these lines in the table `[certificates]` of `postern.toml`: otherwise it shakes hands with nobody,
    /// so that servers hear of nothing but what a test does.
    pub fn certifying(topology: &'t Topology, inventory: &str, certificates: &str) -> Result<Self> {
        let upstreams = [RESOLVER.at(Family::V4, 53)];
        let table = format!("[certificates]\n{certificates}");
        Self::asking(topology, inventory, &upstreams, &table)
    }

    /// Starts it with nobody to tell it a policy: no inventory, no snapshot, a control socket nobody uses.
    pub fn without_policy(topology: &'t Topology) -> Result<Self> {
        Self::configured(topology, None, "", &[RESOLVER.at(Family::V4, 53)], "")
    }

    /// Starts it through another program: `env` with variables, say, or `setpriv` with rights. What it writes may be
    /// written by anybody then, for it need not be root.
    pub fn started_by(topology: &'t Topology, inventory: &str, by: &[&str]) -> Result<Self> {
        let path = topology.file("inventory.toml");
        std::fs::write(&path, inventory).context("writing the inventory")?;
        // Where this was built other users may not walk.
        let program = topology.file("postern");
        std::fs::copy(binary()?, &program).context("copying postern")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(topology.file("."), mode).context("opening the folder")?;
        let mut launcher: Vec<String> = by.iter().map(|&word| word.to_owned()).collect();
        launcher.push(program.display().to_string());
        let upstreams = [RESOLVER.at(Family::V4, 53)];
        Self::launched(topology, Some(path), "", &upstreams, "", launcher)
    }

    fn configured(
        topology: &'t Topology,
        inventory: Option<PathBuf>,
        extra: &str,
        upstreams: &[SocketAddr],
        dns: &str,
    ) -> Result<Self> {
        let launcher = vec![binary()?.display().to_string()];
        Self::launched(topology, inventory, extra, upstreams, dns, launcher)
    }

    fn launched(
        topology: &'t Topology,
        inventory: Option<PathBuf>,
        extra: &str,
        upstreams: &[SocketAddr],
        dns: &str,
        launcher: Vec<String>,
    ) -> Result<Self> {
        let config = topology.file("postern.toml");
        let state = topology.file("state");
        let text = format!(
            "{extra}\nappliance = \"lab\"\nwan = \"{}\"\noverlay = \"{}\"\nstate_dir = \"{}\"\ncontrol_socket = \"{}\"\n\
             \n[dns]\nupstreams = {:?}\n{dns}\n",
            crate::topology::OUTSIDE,
            topology.file("overlay.toml").display(),
            state.display(),
            topology.file("control.sock").display(),
            upstreams
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
        );
        let certificates = if dns.contains("[certificates]") {
            ""
        } else {
            "[certificates]\nper_second = 0\n"
        };
        // Where root is the only user, it is also the witness.
        let users = if netns::outsider().is_some() {
            ONE_USER
        } else {
            ""
        };
        std::fs::write(&config, text + certificates + users).context("writing postern.toml")?;
        std::fs::create_dir_all(&state).context("making the state folder")?;
        let child = launch(topology, &launcher, &config, inventory.as_deref())?;
        let logs = Logs::new(&state.join("spool"));
        let mut this = Self {
            topology,
            child,
            config,
            inventory,
            logs,
            launcher,
        };
        this.wait_healthy()?;
        Ok(this)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its logs.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Kills it as the kernel's out-of-memory killer would.
    pub fn kill(&mut self) -> Result<()> {
        // Its witness must not outlive it as an orphan; that is its own affair, so only the daemon is killed here.
        self.child.kill().context("killing postern")?;
        self.child.wait().map(drop).context("waiting for postern")
    }

    /// Stops it where it is, as a machine that is out of processor time does, until [`Daemon::resume`].
    pub fn pause(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on after [`Daemon::pause`].
    pub fn resume(&self) -> Result<()> {
        self.signal("-CONT")
    }

    /// Asks it to end, as systemd does, and waits; how it did.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal("-TERM")?;
        self.ended()
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.child.id().to_string();
        self.topology
            .firewall
            .run("kill", &[signal, &pid])
            .map(drop)
    }

    /// Waits for it to end by itself; how it did.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let limit = Duration::from_secs(40);
        match wait::until(limit, || self.child.try_wait().transpose()) {
            Some(status) => status.context("waiting for postern"),
            None => bail!("postern still runs after {limit:?}\n{}", self.output()),
        }
    }

    /// Starts it again after [`Daemon::kill`].
    pub fn restart(&mut self) -> Result<()> {
        let inventory = self.inventory.as_deref();
        self.child = launch(self.topology, &self.launcher, &self.config, inventory)?;
        self.wait_healthy()
    }

    /// Puts a new inventory in place by atomic rename and waits until its generation is in force.
    pub fn reload(&self, inventory: &str) -> Result<()> {
        let before = self.generation()?;
        self.replace(inventory)?;
        let changed = || self.generation().is_ok_and(|now| now > before);
        if wait::holds(Duration::from_secs(5), changed) {
            return Ok(());
        }
        bail!("generation {before} stayed in force\n{}", self.output())
    }

    /// Puts a new inventory in place by atomic rename, and does not wait.
    pub fn replace(&self, inventory: &str) -> Result<()> {
        let fresh = self.topology.file("inventory.toml.new");
        std::fs::write(&fresh, inventory).context("writing the inventory")?;
        let inventory = self.inventory.as_ref().context("it has no inventory")?;
        std::fs::rename(&fresh, inventory).context("putting it in place")
    }

    /// Who publishes to it.
    pub fn publisher(&self) -> Result<Publisher> {
        Publisher::connect(&self.topology.file("control.sock"))
    }

    /// The generation in force, from `postern status --json`.
    pub fn generation(&self) -> Result<u64> {
        let status = self.status()?;
        status["generation"]
            .as_u64()
            .with_context(|| format!("no generation in {status}"))
    }

    /// `postern status --json`.
    pub fn status(&self) -> Result<Value> {
        let config = self.config.to_str().context("a path in UTF-8")?;
        let output = postern(
            &self.topology.firewall,
            &["status", "--json", "--config", config],
        )?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "postern status: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// The sum of a metric over all of its labels; 0 when it has not been seen yet.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let body = get(&self.topology.firewall, 9642, "/metrics")?;
        let values = body
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (key, value) = line.rsplit_once(' ')?;
                let plain = key.split('{').next()?;
                (plain == name).then(|| value.parse::<f64>().ok())?
            });
        let sum = values.sum();
        if sum > 0.0 {
            evidence::metric(name);
        }
        Ok(sum)
    }

    /// The kernel's own numbers about its packet queues.
    pub fn queues(&self) -> Result<Vec<Queue>> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue");
        let text = self
            .topology
            .firewall
            .enter(read)?
            .context("reading nfnetlink_queue")?;
        text.lines().map(Queue::parse).collect()
    }

    /// How many packets have ever been queued.
    pub fn queued_packets(&self) -> Result<u64> {
        Ok(self.queues()?.iter().map(|queue| queue.queued).sum())
    }

    /// Its resident memory, the witness left out.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let pages: u64 = text
            .split_whitespace()
            .nth(1)
            .context("a resident size")?
            .parse()?;
        Ok(pages * 4096)
    }

    /// The process id of its witness, once it has one.
    pub fn witness_pid(&self) -> Option<u32> {
        let me = self.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{me}/task")).ok()?;
        let children = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("children")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        });
        children.into_iter().next()
    }

    /// Everything it wrote so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.topology.file("postern.log")).unwrap_or_default()
    }

    fn wait_healthy(&mut self) -> Result<()> {
        let limit = Duration::from_secs(60);
        let healthy = wait::until(limit, || {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() {
                return Some(ended);
            }
            get(&self.topology.firewall, 1042, "/healthz")
                .is_ok()
                .then_some(None)
        });
        match healthy {
            Some(None) => Ok(()),
            Some(Some(status)) => bail!("postern ended at once: {status}\n{}", self.output()),
            None => bail!("postern is not healthy after {limit:?}\n{}", self.output()),
        }
    }
}

/// One packet queue, as `/proc/net/netfilter/nfnetlink_queue` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Its number.
    pub number: u64,
    /// Packets that have no verdict yet.
    pub waiting: u64,
    /// Packets dropped because the queue was full.
    pub dropped: u64,
    /// Packets dropped because the reader's socket buffer was full.
    pub undelivered: u64,
    /// Packets ever queued.
    pub queued: u64,
}

impl Queue {
    /// Queue number, reader, waiting, copy mode, copy range, dropped by the queue, by the socket, last packet id, 1.
    fn parse(line: &str) -> Result<Self> {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context(line.to_owned())?;
        let [number, _, waiting, _, _, dropped, undelivered, queued, ..] = numbers[..] else {
            bail!("not a queue: {line}");
        };
        Ok(Self {
            number,
            waiting,
            dropped,
            undelivered,
            queued,
        })
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::env::var_os(evidence::FOLDER).is_some()
            && let Ok(page) = get(&self.topology.firewall, 9642, "/metrics")
        {
            evidence::page(&page);
        }
        // Already ended is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
        evidence::reasons(&self.logs);
        if std::thread::panicking() {
            let lines: Vec<String> = self
                .logs
                .lines("flow")
                .into_iter()
                .map(|line| line.0.to_string())
                .collect();
            let text = format!(
                "--- postern\n{}\n--- flow log\n{}\n",
                self.output(),
                lines.join("\n")
            );
            // The test has failed already; its reader gets what can be had.
            drop(std::io::stderr().write_all(text.as_bytes()));
        }
    }
}

/// The program under test: `POSTERN_BIN`, or what cargo built beside this program.
pub fn binary() -> Result<PathBuf> {
    program::find("POSTERN_BIN", "postern", "firewall")
}

/// Runs the program under test inside a namespace to its end.
pub fn postern(namespace: &Namespace, args: &[&str]) -> Result<Output> {
    let path = binary()?;
    namespace.output(path.to_str().context("a path in UTF-8")?, args)
}

fn launch(
    topology: &Topology,
    launcher: &[String],
    config: &Path,
    inventory: Option<&Path>,
) -> Result<Child> {
    let (program, arguments) = launcher.split_first().context("a program")?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(topology.file("postern.log"))
        .context("opening its output")?;
    let mut command = topology.firewall.command(program);
    command
        .args(arguments)
        .args(["run", "--config"])
        .arg(config);
    if let Some(inventory) = inventory {
        command.arg("--inventory").arg(inventory);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing its output")?)
        .stderr(log)
        .spawn()
        .context("starting postern")
}

/// The body of a 200 answer from a port of a namespace's loopback.
pub fn get(namespace: &Namespace, port: u16, path: &str) -> Result<String> {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let limit = Duration::from_secs(2);
    let mut stream = namespace.enter(|| TcpStream::connect_timeout(&address, limit))??;
    stream.set_read_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") && !head.starts_with("HTTP/1.0 200") {
        bail!("{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
