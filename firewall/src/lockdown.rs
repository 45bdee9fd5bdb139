//! The ruleset that forwards nothing new.
//!
//! One static file, loaded at boot before any interface is up, and again by a daemon that cannot
//! start. It lives in the daemon's table, so that the daemon's first transaction takes its place
//! without a moment in between. Flows judged before a crash go on.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The file, as installed at `/usr/lib/postern/lockdown.nft`.
pub const RULESET: &str = include_str!("../packaging/nft/lockdown.nft");

/// Where a kernel is told not to forward at all.
const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// How forwarding was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockdown {
    /// The lockdown ruleset is in force: judged flows go on, nothing new leaves.
    Ruleset,
    /// No ruleset could be loaded, so forwarding is switched off altogether.
    NoForwarding,
}

/// Nothing could be stopped; the message names both attempts.
#[derive(Debug, thiserror::Error)]
#[error("forwarding could not be stopped: {ruleset}; {forwarding}")]
pub struct LockdownError {
    /// Why the ruleset was not loaded.
    pub ruleset: String,
    /// Why forwarding could not be switched off.
    pub forwarding: String,
}

/// Stops everything new in the calling thread's network namespace: for a daemon that cannot start
/// or that found its ruleset changed and cannot repair it.
///
/// # Errors
/// When neither the ruleset nor the kernel's own switch could be set; whoever calls this has no
/// privilege to open a path either.
pub fn engage() -> Result<Lockdown, LockdownError> {
    let Err(ruleset) = load() else {
        return Ok(Lockdown::Ruleset);
    };
    match stop_forwarding(Path::new("/proc/sys")) {
        Ok(()) => Ok(Lockdown::NoForwarding),
        Err(error) => Err(LockdownError {
            ruleset,
            forwarding: error.to_string(),
        }),
    }
}

fn load() -> Result<(), String> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("running nft: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(RULESET.as_bytes())
            .map_err(|error| format!("writing to nft: {error}"))?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| format!("waiting for nft: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("nft: {}", message.trim().replace('\n', "; ")))
}

fn stop_forwarding(root: &Path) -> std::io::Result<()> {
    for key in FORWARDING {
        match std::fs::write(root.join(key), "0") {
            // A kernel without IPv6 forwards none.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marks::{CT_KILL, VERDICT_JUDGED, VERDICT_MASK};

    #[test]
    fn file_uses_the_marks_of_the_daemon() {
        let mask = VERDICT_MASK | CT_KILL;
        let judged = format!("ct mark & {mask:#x} == {VERDICT_JUDGED:#x} accept");
        assert!(RULESET.contains(&judged), "{judged}");
    }

    #[test]
    fn forwarding_is_switched_off_for_both_families() {
        let root = tempfile::tempdir().unwrap();
        for key in FORWARDING {
            let file = root.path().join(key);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "1").unwrap();
        }
        stop_forwarding(root.path()).unwrap();
        for key in FORWARDING {
            assert_eq!(std::fs::read_to_string(root.path().join(key)).unwrap(), "0");
        }
    }
}
