//! Giving up every right a process does not need.

use caps::CapSet;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use thiserror::Error;

/// Why rights could not be given up.
#[derive(Debug, Error)]
pub enum RightsError {
    /// A process control flag was refused.
    #[error("setting {0}")]
    Flag(&'static str, #[source] nix::Error),
    /// Capabilities could not be dropped.
    #[error("dropping capabilities")]
    Capabilities(#[source] caps::errors::CapsError),
}

/// Drops every capability, forbids gaining any, and ties this process to its parent's life.
///
/// # Errors
/// When the kernel refuses; the caller must not go on.
pub(super) fn give_up() -> Result<(), RightsError> {
    prctl::set_no_new_privs().map_err(|error| RightsError::Flag("no_new_privs", error))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| RightsError::Flag("pdeathsig", error))?;
    prctl::set_dumpable(false).map_err(|error| RightsError::Flag("dumpable", error))?;
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)
        .map_err(RightsError::Capabilities)?
    {
        caps::clear(None, CapSet::Bounding).map_err(RightsError::Capabilities)?;
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(RightsError::Capabilities)?;
    }
    Ok(())
}
