//! The programs the lab and the tests call, and how a Debian machine gets them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its name on the path.
    pub program: &'static str,
    /// The package.
    pub package: &'static str,
}

/// All that is needed; of `dnsmasq` only the program, which brings no service.
pub const TOOLS: [Tool; 12] = [
    Tool {
        program: "ip",
        package: "iproute2",
    },
    Tool {
        program: "nft",
        package: "nftables",
    },
    Tool {
        program: "iptables-nft",
        package: "iptables",
    },
    Tool {
        program: "conntrack",
        package: "conntrack",
    },
    Tool {
        program: "nsenter",
        package: "util-linux",
    },
    Tool {
        program: "sysctl",
        package: "procps",
    },
    Tool {
        program: "openssl",
        package: "openssl",
    },
    Tool {
        program: "sshd",
        package: "openssh-server",
    },
    Tool {
        program: "ssh",
        package: "openssh-client",
    },
    Tool {
        program: "dnsmasq",
        package: "dnsmasq-base",
    },
    Tool {
        program: "curl",
        package: "curl",
    },
    // OpenSSL's library as a server of many connections at a time, which its own program is not.
    Tool {
        program: "python3",
        package: "python3",
    },
];

/// The peers of `cargo race`; of nginx the module that reads server names has a package of its own.
pub const PEERS: [Tool; 4] = [
    Tool {
        program: "haproxy",
        package: "haproxy",
    },
    Tool {
        program: "nginx",
        package: "libnginx-mod-stream",
    },
    Tool {
        program: "squid",
        package: "squid-openssl",
    },
    Tool {
        program: "taskset",
        package: "util-linux",
    },
];

/// What counts instructions.
pub const COUNTING: [Tool; 1] = [Tool {
    program: "valgrind",
    package: "valgrind",
}];

/// The tools that are not there.
pub fn missing() -> Vec<Tool> {
    missing_of(&TOOLS)
}

fn missing_of(tools: &[Tool]) -> Vec<Tool> {
    tools
        .iter()
        .copied()
        .filter(|tool| find(tool.program).is_none())
        .collect()
}

/// Fails with the line that installs what is missing.
pub fn check() -> Result<()> {
    check_of(&TOOLS)
}

fn check_of(tools: &[Tool]) -> Result<()> {
    let missing = missing_of(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    bail!(
        "missing {}; run: {}",
        programs.join(", "),
        install_line(&missing)
    )
}

/// Installs what is missing when this is root on Debian, else fails as [`check`] does.
pub fn ensure() -> Result<()> {
    ensure_of(&TOOLS)
}

/// As [`ensure`], with what counts instructions.
pub fn ensure_counting() -> Result<()> {
    let all: Vec<Tool> = TOOLS.into_iter().chain(COUNTING).collect();
    ensure_of(&all)
}

/// As [`ensure`], with the peers of the race.
pub fn ensure_race() -> Result<()> {
    let all: Vec<Tool> = TOOLS.into_iter().chain(PEERS).collect();
    ensure_of(&all)
}

fn ensure_of(tools: &[Tool]) -> Result<()> {
    let missing = missing_of(tools);
    let is_root = nix::unistd::geteuid().is_root();
    if missing.is_empty() || !is_root || find("apt-get").is_none() {
        return check_of(tools);
    }
    let quiet = QuietServices::new()?;
    apt(&["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(missing.iter().map(|tool| tool.package));
    apt(&args)?;
    drop(quiet);
    check_of(tools)
}

/// Looks a program up on the path and in the folders of administrators.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"])
        .map(|folder| Path::new(folder).join(program))
        .find(|candidate| candidate.is_file())
}

fn install_line(tools: &[Tool]) -> String {
    let mut packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    packages.dedup();
    format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

fn apt(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        // Wait for another apt-get rather than fail beside it.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        // Standard output belongs to the caller's own table or JSON.
        .stdout(std::io::stderr())
        .status()
        .context("running apt-get")?;
    if !status.success() {
        bail!("apt-get {}: {status}", args.join(" "));
    }
    Ok(())
}

/// While it lives, packages that are installed start no service (`openssh-server` would).
#[derive(Debug)]
struct QuietServices {
    ours: bool,
}

impl QuietServices {
    fn new() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("writing {POLICY}"))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(POLICY, mode)
            .with_context(|| format!("making {POLICY} executable"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.ours {
            // Left behind it would only keep later packages from starting services; nothing to be done here.
            drop(std::fs::remove_file(POLICY));
        }
    }
}

// invoke-rc.d(8) asks it before it starts anything.
const POLICY: &str = "/usr/sbin/policy-rc.d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_install_line_names_packages() {
        let line = install_line(&[TOOLS[0], TOOLS[9]]);
        assert_eq!(
            line,
            "apt-get install --no-install-recommends iproute2 dnsmasq-base"
        );
    }
}
