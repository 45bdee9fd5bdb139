//! The servers of the lab: real ones (openssl, OpenSSH, dnsmasq), and a small one that remembers every byte it got.
//!
//! Each is ready when its constructor returns, because the constructor asked it, and ends when dropped.

mod dns;
mod http;
mod recorder;
mod ssh;
mod tls;

use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

pub use dns::{Dns, zone};
pub use http::HttpServer;
pub use recorder::{Conversation, Recorder, Script};
pub use ssh::SshServer;
pub use tls::{Authority, PatientTlsServer, TlsServer};

use crate::netns::Namespace;
use crate::wait;

/// A server process, killed when dropped.
#[derive(Debug)]
struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` and waits until `ready` says so.
    fn start(command: &mut Command, what: &str, mut ready: impl FnMut() -> bool) -> Result<Self> {
        let mut errors = tempfile::tempfile().context("making a file for its messages")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors.try_clone().context("sharing that file")?)
            .spawn()
            .with_context(|| format!("starting {what}"))?;
        let mut this = Self { child };
        let up = wait::until(wait::PATIENCE, || {
            let ended = this.child.try_wait().ok().flatten();
            if ended.is_some() || ready() {
                Some(ended)
            } else {
                None
            }
        });
        match up {
            Some(None) => Ok(this),
            Some(Some(status)) => {
                let mut text = String::new();
                errors.rewind().context("reading its messages")?;
                errors
                    .read_to_string(&mut text)
                    .context("reading its messages")?;
                bail!("{what} ended at once: {status}\n{text}")
            }
            None => bail!("{what} did not get ready"),
        }
    }

    /// As `start`, ready when `address` accepts connections inside `namespace`.
    fn listening(
        command: &mut Command,
        what: &str,
        namespace: &Namespace,
        address: SocketAddr,
    ) -> Result<Self> {
        Self::start(command, what, || namespace.accepts(address))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
