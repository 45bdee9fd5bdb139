//! OpenSSH's own server with a throw-away host key and one throw-away client key.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Process;
use crate::netns::{self, Namespace};

/// A running `sshd`.
#[derive(Debug)]
pub struct SshServer {
    _process: Process,
    folder: PathBuf,
}

impl SshServer {
    /// Serves at `address`, keeping keys and configuration in `folder`.
    pub fn start(namespace: &Namespace, folder: &Path, address: SocketAddr) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        for key in ["host", "client"] {
            keygen(&folder.join(key))?;
        }
        std::fs::copy(folder.join("client.pub"), folder.join("authorized"))
            .context("copying the key")?;
        std::fs::set_permissions(
            folder.join("authorized"),
            std::fs::Permissions::from_mode(0o644),
        )
        .context("its mode")?;
        let shown = folder.display();
        let config = format!(
            "ListenAddress {}\nPort {}\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\nForceCommand echo welcome\nPidFile none\nUseDNS no\n",
            address.ip(),
            address.port()
        );
        let file = folder.join("sshd_config");
        std::fs::write(&file, config).context("writing sshd_config")?;
        // Where privileges are separated; the mount is the namespace's own.
        namespace.run("mkdir", &["-p", "-m", "0755", "/run/sshd"])?;
        let mut command = match netns::outsider() {
            None => namespace.command("/usr/sbin/sshd"),
            Some(outsider) => {
                let id = outsider.uid.to_string();
                let mut command = namespace.command("unshare");
                command.args([
                    "--user",
                    "--map-user",
                    &id,
                    "--map-group",
                    &id,
                    "/usr/sbin/sshd",
                ]);
                command
            }
        };
        command.args(["-D", "-e", "-f"]).arg(file);
        let process = Process::listening(&mut command, "sshd", namespace, address)?;
        Ok(Self {
            _process: process,
            folder: folder.to_owned(),
        })
    }

    /// Logs in from `client` with the real ssh; what the server said, nothing when it let nobody in.
    pub fn log_in(&self, client: &Namespace, options: &[&str], host: &str) -> Result<String> {
        let key = self.folder.join("client");
        let key = key.to_str().context("a path in UTF-8")?;
        let user = netns::outsider().map_or_else(|| "root".to_owned(), |outsider| outsider.name);
        let to = format!("{user}@{host}");
        let mut args = options.to_vec();
        args.extend([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
        ]);
        args.extend([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "ConnectTimeout=6",
        ]);
        args.extend([
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ServerAliveInterval=3",
            "-i",
            key,
            &to,
        ]);
        let output = client.output("ssh", &args)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Its host key's fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> Result<String> {
        let output = Command::new("ssh-keygen")
            .args(["-l", "-E", "sha256", "-f"])
            .arg(self.folder.join("host.pub"))
            .output()
            .context("running ssh-keygen")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace()
            .nth(1)
            .map(str::to_owned)
            .context("a fingerprint")
    }
}

fn keygen(path: &Path) -> Result<()> {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "postern-lab", "-f"])
        .arg(path)
        .output()
        .context("running ssh-keygen")?;
    if !output.status.success() {
        bail!("ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
