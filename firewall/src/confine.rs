//! What the process can no longer do once it has set itself up, whatever its code is made to do.
//!
//! Four layers, each of which holds without the others: capabilities (only those the data plane needs), a system call
//! filter for the whole process (no tracing, mounting, module loading, no user but the witness's), Landlock (files: its
//! own state, its socket's folder and `/proc/sys/net`; programs: `nft`, `iptables-nft` and itself) and, for the threads
//! and the child that read hostile bytes, a much shorter list of system calls. `no_new_privs` is set for good. The unit
//! file repeats what systemd can: see `firewall/packaging/systemd`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User, geteuid, getgroups, setgroups};
use thiserror::Error;

use crate::config::Config;

mod capabilities;
mod files;
mod filter;
mod trial;

pub use trial::{Attempt, Role, run as run_trial};

/// Why rights could not be given up.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// A process control flag was refused.
    #[error("setting {0}")]
    Flag(&'static str, #[source] nix::Error),
    /// The groups could not be set.
    #[error("leaving supplementary groups")]
    Groups(#[source] nix::Error),
    /// Capabilities could not be dropped.
    #[error("dropping capabilities")]
    Capabilities(#[source] caps::errors::CapsError),
    /// The system call filter was refused.
    #[error("filtering system calls")]
    Filter(#[source] seccompiler::Error),
    /// The file restrictions were refused by a kernel that has them.
    #[error("restricting files")]
    Files(#[source] landlock::RulesetError),
}

/// What this kernel could not give; the daemon runs without it and says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// Whether Landlock restricts files and programs.
    pub files: bool,
}

/// Gives up what the daemon does not need. Before any other thread is started and after the kernel was taken over.
///
/// # Errors
/// When the kernel refuses; the daemon must not go on.
pub fn daemon(config: &Config) -> Result<Confinement, ConfineError> {
    if geteuid().is_root() {
        join_group(&config.users.ipc_group)?;
    }
    make_folders(config);
    // Before the capabilities go: folders that only their owner may walk are opened here.
    let rules = files::Rules::of(config);
    capabilities::keep_for_daemon(config.inventory.is_some())?;
    let files = rules.enforce()?;
    filter::process(&filter::Identities::of(&config.users.witness))?;
    if !files {
        tracing::warn!("this kernel has no Landlock: files are guarded by their permissions only");
    }
    Ok(Confinement { files })
}

/// Leaves a queue thread the system calls that judging packets takes. Inherited by nobody: it starts no thread.
///
/// # Errors
/// When the kernel refuses; the thread must not go on.
pub fn queue_thread() -> Result<(), ConfineError> {
    filter::queue_thread()
}

/// Gives up everything a witness does not need: every capability and group, programs, files to write, sockets that are
/// not for the internet; and listening, unless it has the DNS front.
///
/// # Errors
/// When the kernel refuses; the witness must not go on.
pub fn witness(listens: bool) -> Result<(), ConfineError> {
    capabilities::drop_all()?;
    filter::witness(listens)
}

/// What is written later must exist by now. What cannot be made is said by whoever needs it.
fn make_folders(config: &Config) {
    let socket = config.control_socket.parent().map(Path::to_owned);
    for folder in [config.state_dir.clone(), config.spool_dir()]
        .into_iter()
        .chain(socket)
    {
        if let Err(error) = DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&folder)
        {
            tracing::debug!(%error, folder = %folder.display(), "making a folder");
        }
    }
}

/// Lets root hand the spool and the control socket to the group without the right to hand over anything else.
fn join_group(name: &str) -> Result<(), ConfineError> {
    let Ok(Some(group)) = Group::from_name(name) else {
        return Ok(());
    };
    let held = getgroups().map_err(ConfineError::Groups)?;
    if held.contains(&group.gid) {
        return Ok(());
    }
    // A user namespace that does not know the group, or whose groups are fixed, has nobody in it to share with.
    if let Err(error) = setgroups(&[group.gid]) {
        tracing::info!(%error, group = name, "not joining the group: its members will not reach the control socket");
    }
    Ok(())
}

/// The witness's user, where there is one that this process may become.
pub fn user_to_become(name: &str) -> Option<User> {
    let user = User::from_name(name).ok().flatten()?;
    is_mapped("/proc/self/uid_map", user.uid.as_raw()).then_some(())?;
    is_mapped("/proc/self/gid_map", user.gid.as_raw()).then_some(user)
}

/// Whether a user namespace knows an id: becoming one that it does not know is `EINVAL`.
fn is_mapped(map: &str, id: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(map) else {
        return true;
    };
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(id))
    })
}

/// Whether this process's user namespace knows a group.
pub fn knows_group(gid: nix::unistd::Gid) -> bool {
    is_mapped("/proc/self/gid_map", gid.as_raw())
}

/// The file a path leads to in the end, or the path itself.
fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Walked by everybody who knows the way to the spool or the socket, listed by nobody else.
const FOLDER_MODE: u32 = 0o751;
