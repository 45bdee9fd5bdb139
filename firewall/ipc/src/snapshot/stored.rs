//! The snapshot as the daemon keeps it: `snapshot.json` and `snapshot.prev.json`.

use serde::{Deserialize, Serialize};

use super::{ReadSnapshotError, SnapshotV1, read_versioned};
use crate::record::Timestamp;

/// A policy that was in force, and which one it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredV1 {
    /// Always 1.
    pub version: u32,
    /// Its number on this appliance; numbering goes on from here after a restart.
    pub generation: u64,
    /// Its identity. A reader computes it anew and refuses a file that does not agree.
    pub policy_id: String,
    /// When it was adopted.
    pub adopted: Timestamp,
    /// The policy.
    pub snapshot: SnapshotV1,
    /// What it was made of, when an overlay is part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<StoredOverlayV1>,
}

/// The two parts of a policy with an overlay: either may change without the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOverlayV1 {
    /// The policy as it was published.
    pub published: SnapshotV1,
    /// The text of the overlay, the last that could be read.
    pub text: String,
}

impl StoredV1 {
    /// The file's content.
    ///
    /// # Errors
    ///
    /// Never in fact: nothing in it fails to be JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// The file's content before a policy that is put down as it was published: the document's own bytes follow, then
/// [`stored_tail`]. In this order the bytes can be on their way to the disk before the policy's identity is known.
///
/// # Errors
///
/// Never in fact: a number and a time are JSON.
pub fn stored_head(generation: u64, adopted: Timestamp) -> Result<Vec<u8>, serde_json::Error> {
    let version = crate::VERSION;
    let adopted = serde_json::to_string(&adopted)?;
    let text = format!(
        "{{\"version\":{version},\"generation\":{generation},\"adopted\":{adopted},\"snapshot\":"
    );
    Ok(text.into_bytes())
}

/// What ends a file that [`stored_head`] began.
///
/// # Errors
///
/// Never in fact: nothing in it fails to be JSON.
pub fn stored_tail(
    policy_id: &str,
    overlay: Option<&StoredOverlayV1>,
) -> Result<Vec<u8>, serde_json::Error> {
    let policy_id = serde_json::to_string(policy_id)?;
    let mut tail = format!(",\"policy_id\":{policy_id}").into_bytes();
    if let Some(overlay) = overlay {
        tail.extend_from_slice(b",\"overlay\":");
        serde_json::to_writer(&mut tail, overlay)?;
    }
    tail.push(b'}');
    Ok(tail)
}

/// Reads a stored snapshot of any version this build knows.
///
/// # Errors
///
/// See [`ReadSnapshotError`]; a file of a later build is [`ReadSnapshotError::Newer`].
pub fn read_stored(json: &[u8]) -> Result<StoredV1, ReadSnapshotError> {
    let stored = read_versioned(json, |stored: &StoredV1| stored.version)?;
    if stored.snapshot.version > crate::VERSION {
        return Err(ReadSnapshotError::Newer {
            found: stored.snapshot.version,
        });
    }
    Ok(stored)
}
