//! moto, in a Python environment of its own under the target folder.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{python, wait};

/// The version the double's corrections were measured against.
const REQUIREMENT: &str = "moto[server,ec2,logs,ssm,secretsmanager,autoscaling]==5.2.5";

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

/// The Python environment with moto in it.
///
/// # Errors
/// When it cannot be installed; the error says which command would.
pub fn environment() -> Result<PathBuf> {
    python::environment("moto", &[REQUIREMENT])
}
