//! moto, in a Python environment of its own under the target folder.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::wait;

/// The version the double's corrections were measured against.
const REQUIREMENT: &str = "moto[server,ec2,logs]==5.2.5";

/// A running `moto_server`; killed when dropped, or when this process dies.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    address: SocketAddr,
}

impl Moto {
    /// Starts it on a free port of loopback, installing it first where need be.
    pub fn start() -> Result<Self> {
        let program = environment()?.join("bin/moto_server");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
        let address = free.local_addr().context("its address")?;
        drop(free);
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut this = Self { child, address };
        // Importing boto takes its time on a busy machine.
        let limit = Duration::from_secs(60);
        if !wait::holds(limit, || TcpStream::connect(address).is_ok()) {
            let status = this.child.try_wait().context("asking after moto_server")?;
            bail!("moto_server does not listen on {address}: {status:?}");
        }
        Ok(this)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Ended already is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The Python environment with moto in it; one process at a time makes it.
///
/// # Errors
/// When it cannot be installed; the error says which command would.
pub fn environment() -> Result<PathBuf> {
    let target = target()?;
    let folder = target.join("moto");
    let lock = File::create(target.join("moto.lock")).context("making moto.lock")?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive);
    let lock = lock
        .map_err(|(_, error)| error)
        .context("locking moto.lock")?;
    let stamp = folder.join("requirement");
    if !std::fs::read_to_string(&stamp).is_ok_and(|text| text == REQUIREMENT) {
        install(&folder)?;
        std::fs::write(&stamp, REQUIREMENT).context("noting what is installed")?;
    }
    drop(lock);
    Ok(folder)
}

fn install(folder: &Path) -> Result<()> {
    let venv = || {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder))
    };
    if let Err(error) = venv() {
        // Debian keeps the part of Python that makes environments in a package of its own.
        let root = nix::unistd::geteuid().is_root();
        if !root || crate::prerequisites::find("apt-get").is_none() {
            return Err(error.context("run: apt-get install python3 python3-venv"));
        }
        run(Command::new("apt-get")
            .args([
                "-o",
                "DPkg::Lock::Timeout=300",
                "install",
                "-y",
                "-qq",
                "--no-install-recommends",
            ])
            .args(["python3", "python3-venv"])
            .env("DEBIAN_FRONTEND", "noninteractive"))?;
        venv()?;
    }
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", REQUIREMENT]))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Where cargo builds: this program is in `<target>/<profile>/deps`.
fn target() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding this program")?;
    let folder = me
        .ancestors()
        .nth(3)
        .context("a target folder above this program")?;
    Ok(folder.to_owned())
}
