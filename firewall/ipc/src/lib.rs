//! Every byte between the daemon, its witness and the sidecar, and every byte of the logs.
//!
//! Domain types live in `policy` and `inspect` and know no encoding; the types here are the
//! encodings, versioned, and converted at the edge. Messages are JSON behind a length
//! ([`framing`]). Nothing here decides who may say what: the daemon checks the peer of its
//! socket before it acts on a [`control::Request`].

pub mod control;
pub mod framing;
pub mod record;
pub mod snapshot;
pub mod socket;
pub mod witness;

/// The version of the control protocol and of the snapshot document this build writes.
pub const VERSION: u32 = 1;

/// The oldest version this build still reads: the one before [`VERSION`], where there is one.
pub const OLDEST_VERSION: u32 = 1;

/// The version two programs that read these ranges speak: the newest both know, if any.
///
/// ```
/// // A daemon that reads 1 and 2 meets a sidecar that was updated first and reads 2 and 3.
/// assert_eq!(ipc::common_version((1, 2), (2, 3)), Some(2));
/// assert_eq!(ipc::common_version((1, 1), (2, 3)), None);
/// ```
#[must_use]
pub fn common_version(ours: (u32, u32), theirs: (u32, u32)) -> Option<u32> {
    let newest = ours.1.min(theirs.1);
    (newest >= ours.0.max(theirs.0)).then_some(newest)
}
