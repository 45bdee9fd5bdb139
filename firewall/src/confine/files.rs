//! Which files may be opened, and which programs run: Landlock (Linux 5.13).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use super::{ConfineError, resolved};
use crate::config::Config;

/// Newest version this was written for; an older kernel enforces what it has of it.
const VERSION: ABI = ABI::V6;

/// What is read: programs and libraries, names of users and protocols, resolver settings, root certificates, kernel
/// parameters and tables.
const READ: [&str; 10] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/proc",
    "/sys/devices/system/cpu",
    "/run/systemd/resolve",
    "/dev/urandom",
];

/// Programs the daemon runs, by name in `PATH`.
const PROGRAMS: [&str; 3] = ["nft", "iptables-nft", "ip6tables-nft"];

/// What those programs are loaded by.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/// Paths that stay open, each with what may be done below it.
pub(super) struct Rules(Vec<(PathFd, BitFlags<AccessFs>)>);

impl Rules {
    /// Opens what the configuration names. What does not exist cannot be reached later either.
    pub(super) fn of(config: &Config) -> Self {
        let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        let run = make_bitflags!(AccessFs::{ReadFile | Execute});
        let write = AccessFs::from_all(VERSION) & !AccessFs::Execute;
        let change = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate});
        let mut paths: Vec<(PathBuf, BitFlags<AccessFs>)> = Vec::new();
        paths.extend(READ.iter().map(|path| (PathBuf::from(path), read)));
        paths.extend(programs().map(|path| (path, run)));
        paths.push((PathBuf::from("/dev/null"), change));
        paths.push((PathBuf::from("/proc/sys/net"), change | read));
        paths.push((config.state_dir.clone(), write));
        paths.push((config.spool_dir(), write));
        // The socket is made, and one that was left is removed.
        paths.extend(folder(&config.control_socket).map(|path| (path, write)));
        // A file that is replaced is another file: its folder is watched and read.
        let inventory = config.inventory.as_deref();
        paths.extend(inventory.and_then(folder).map(|path| (path, read)));
        paths.extend(folder(&config.overlay).map(|path| (path, read)));
        let anchors = config.certificates.anchors.as_deref();
        paths.extend(anchors.and_then(folder).map(|path| (path, read)));
        let resolver = resolved(Path::new("/etc/resolv.conf"));
        paths.extend(folder(&resolver).map(|path| (path, read)));
        let opened = paths.into_iter().filter_map(|(path, access)| {
            let is_folder = path.is_dir();
            let opened = PathFd::new(path).ok()?;
            let access = if is_folder {
                access
            } else {
                access & AccessFs::from_file(VERSION)
            };
            Some((opened, access))
        });
        Self(opened.collect())
    }

    /// Enforces them for this process and its children; false where the kernel does not know how.
    pub(super) fn enforce(self) -> Result<bool, ConfineError> {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(VERSION))
            .and_then(|ruleset| ruleset.scope(Scope::Signal))
            .and_then(Ruleset::create)
            .map_err(ConfineError::Files)?;
        let rules = self
            .0
            .into_iter()
            .map(|(path, access)| Ok::<_, landlock::RulesetError>(PathBeneath::new(path, access)));
        let status = ruleset
            .add_rules(rules)
            .and_then(landlock::RulesetCreated::restrict_self)
            .map_err(ConfineError::Files)?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }
}

/// The folder a file is in.
fn folder(file: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(file).ok()?;
    absolute.parent().map(Path::to_owned)
}

/// What may be run: our helpers, what loads them, and ourselves as the witness.
fn programs() -> impl Iterator<Item = PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&search).collect();
    let helpers = PROGRAMS.into_iter().filter_map(move |name| {
        let mut candidates = folders.iter().map(|folder| folder.join(name));
        candidates.find(|path| path.is_file())
    });
    helpers
        .chain(LOADERS.map(PathBuf::from))
        .chain(std::env::current_exe())
        .map(|path| resolved(&path))
}
