//! Which capabilities stay.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{geteuid, setgroups};

use super::ConfineError;

/// What the data plane takes.
const DATA_PLANE: [Capability; 2] = [
    // The ruleset, conntrack, queues, kernel parameters, large receive buffers.
    Capability::CAP_NET_ADMIN,
    // Resets from raw sockets.
    Capability::CAP_NET_RAW,
];

/// What starting, and ending, a witness under its own user takes. The system call filter leaves of the first two: this
/// one user and group; Landlock, where it scopes signals, of the third: our own children.
const WITNESS: [Capability; 3] = [
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_KILL,
];

/// Drops all but what the daemon needs. Root that follows an inventory may go on reading it in a folder of somebody else;
/// Landlock bounds where.
pub(super) fn keep_for_daemon(follows_inventory: bool) -> Result<(), ConfineError> {
    let mut keep: CapsHashSet = DATA_PLANE.into_iter().chain(WITNESS).collect();
    if follows_inventory && geteuid().is_root() {
        keep.insert(Capability::CAP_DAC_READ_SEARCH);
    }
    no_new_privileges()?;
    drop_bounding(&keep)?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        let held = caps::read(None, set).map_err(ConfineError::Capabilities)?;
        let kept = held.intersection(&keep).copied().collect();
        caps::set(None, set, &kept).map_err(ConfineError::Capabilities)?;
    }
    Ok(())
}

/// Drops every capability and group, and ties this process to its parent's life.
pub(super) fn drop_all() -> Result<(), ConfineError> {
    no_new_privileges()?;
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| ConfineError::Flag("pdeathsig", error))?;
    prctl::set_dumpable(false).map_err(|error| ConfineError::Flag("dumpable", error))?;
    let may = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    // Started by a daemon that is not root, the groups are still the daemon's. In a user namespace with one user there
    // is nothing to leave, and no way to.
    if may(Capability::CAP_SETGID) && !geteuid().is_root() {
        setgroups(&[]).map_err(ConfineError::Groups)?;
    }
    drop_bounding(&CapsHashSet::new())?;
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(ConfineError::Capabilities)?;
    }
    Ok(())
}

fn no_new_privileges() -> Result<(), ConfineError> {
    prctl::set_no_new_privs().map_err(|error| ConfineError::Flag("no_new_privs", error))
}

/// What no program started from here can get. Under systemd the unit has done it: then there is no right to, nor need.
fn drop_bounding(keep: &CapsHashSet) -> Result<(), ConfineError> {
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .map_err(ConfineError::Capabilities)?;
    if !may {
        return Ok(());
    }
    let bounding = caps::read(None, CapSet::Bounding).map_err(ConfineError::Capabilities)?;
    for capability in bounding.difference(keep) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(ConfineError::Capabilities)?;
    }
    Ok(())
}
