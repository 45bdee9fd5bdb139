//! Network namespaces that cannot outlive the process that made them.
//!
//! A namespace is held by a child (`sleep`) that the kernel kills when its parent dies, however it dies; everything
//! started inside has the same leash. There is no name in `/run/netns` to collide with or to clean up: two runs at the
//! same time never meet, and a crash leaves nothing behind. `nsenter --net --mount --target PID` enters one by hand.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// A network namespace with a mount namespace of its own (for `/etc/resolv.conf` and `/run`).
#[derive(Debug)]
pub struct Namespace {
    name: String,
    holder: Child,
}

impl Namespace {
    /// Makes an empty namespace, its loopback up. `name` is what messages call it.
    pub fn new(name: &str) -> Result<Self> {
        let script =
            "ip link set lo up && mount -t tmpfs tmpfs /run && echo ready && exec sleep infinity";
        let mut holder = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "sh",
                "-c",
                script,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting setpriv unshare")?;
        let mut line = String::new();
        let out = holder.stdout.take().context("stdout of the holder")?;
        BufReader::new(out)
            .read_line(&mut line)
            .context("reading from the holder")?;
        if line.trim() != "ready" {
            bail!(
                "making namespace {name}: `unshare --net --mount` was refused (root or user namespaces needed)"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            holder,
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that holds it open; `nsenter --target` takes this.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that will run inside, killed with the thread that starts it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "nsenter",
                "--net",
                "--mount",
                "--target",
            ])
            .arg(self.pid().to_string())
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command inside to its end; its output, or an error that quotes what it wrote.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.output(program, args)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{program} {} in {}: {}{}",
                args.join(" "),
                self.name,
                error,
                text
            );
        }
        Ok(text)
    }

    /// Runs a command inside to its end, whatever its exit status.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<Output> {
        self.command(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {program} in {}", self.name))
    }

    /// Runs a command inside with `input` on its standard input.
    pub fn feed(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {program} in {}", self.name))?;
        child
            .stdin
            .take()
            .context("stdin")?
            .write_all(input.as_bytes())
            .context("writing to it")?;
        let output = child.wait_with_output().context("waiting for it")?;
        if !output.status.success() {
            bail!(
                "{program} in {}: {}",
                self.name,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `ip` commands, one a line, in one process.
    pub fn ip(&self, commands: &str) -> Result<()> {
        self.feed("ip", &["-force", "-batch", "-"], commands)
            .map(drop)
    }

    /// Writes a sysctl of this namespace, `net.ipv4.ip_forward` style.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.feed("tee", &[&path], value).map(drop)
    }

    /// Shows `file` as `path` inside, and nowhere else.
    pub fn bind_mount(&self, file: &Path, path: &str) -> Result<()> {
        let file = file.to_str().context("a path in UTF-8")?;
        self.run("mount", &["--bind", file, path]).map(drop)
    }

    /// Calls `work` on a thread inside. Sockets it makes stay inside when they come back.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/proc/{}/ns/net", self.pid());
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
                Ok(work())
            });
            inside
                .join()
                .map_err(|_| anyhow::anyhow!("a thread inside {} panicked", self.name))?
        })
    }

    /// Runs `work` to its end on a thread inside.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<std::thread::JoinHandle<T>> {
        let path = format!("/proc/{}/ns/net", self.pid());
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        let (entered, inside) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            match entered.send(setns(namespace, CloneFlags::CLONE_NEWNET)) {
                // The receiver waits for this word.
                Ok(()) | Err(_) => {}
            }
            work()
        });
        inside
            .recv()
            .context("a thread that has not entered")?
            .context("entering the namespace")?;
        Ok(thread)
    }

    /// Whether something inside accepts TCP connections at `address`.
    pub fn accepts(&self, address: SocketAddr) -> bool {
        let limit = std::time::Duration::from_millis(500);
        self.enter(|| std::net::TcpStream::connect_timeout(&address, limit).is_ok())
            .unwrap_or(false)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Already dead is as good as killed, and there is nobody to tell in a destructor.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// Who started this, when this is root only of a user namespace that has no other user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outsider {
    /// The name.
    pub name: String,
    /// The number outside.
    pub uid: u32,
}

/// Whether this runs in a user namespace with a single user, and on whose behalf.
///
/// Servers that give up root cannot there: nobody else exists. They run as the outsider, one namespace further in.
pub fn outsider() -> Option<Outsider> {
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let numbers: Vec<u32> = map
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [0, uid, 1] = numbers[..] else {
        return None;
    };
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let name = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields[0].to_owned())
    });
    Some(Outsider {
        name: name.unwrap_or_else(|| uid.to_string()),
        uid,
    })
}

/// Ends this process after replacing it: the program runs again as root of a user namespace of its own.
///
/// Returns at once for root. Otherwise it comes back only when user namespaces are not to be had.
pub fn become_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let me = std::env::current_exe().context("finding this program")?;
    let error = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount"])
        // Where nft, sshd and dnsmasq are, and a user's shell does not look.
        .env(
            "PATH",
            format!(
                "{}:/usr/sbin:/sbin",
                std::env::var("PATH").unwrap_or_default()
            ),
        )
        .arg(me)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("running unshare: run this as root, or enable user namespaces")
}
