//! The files a policy is kept in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use ipc::record::Timestamp;
use ipc::snapshot::{
    InvalidSnapshot, ReadSnapshotError, SnapshotV1, StoredOverlayV1, read_stored, stored_head,
    stored_tail,
};
use policy::{Draft, RejectedDraft, Snapshot};
use thiserror::Error;

use super::Overlaid;

/// A policy on its way to disk, beside the one in force: the disk takes its time, and needs nothing of what the policy
/// is compiled to. Dropped before its end it leaves nothing behind.
#[derive(Debug)]
pub struct Writing {
    path: PathBuf,
    /// The generation and the time it is put down as.
    pub(super) stamp: (u64, u64),
    thread: Option<JoinHandle<io::Result<File>>>,
}

impl Writing {
    /// Begins to write a document, as the policy that will be at `path`.
    pub(super) fn begin(path: &Path, document: Arc<[u8]>, stamp: (u64, u64)) -> io::Result<Self> {
        let path = path.with_extension("json.new");
        let new = path.clone();
        let thread = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || put_down(&new, &document, stamp))?;
        Ok(Self {
            path,
            stamp,
            thread: Some(thread),
        })
    }

    /// Waits until the document is on disk, with the identity it turned out to have; where it is.
    pub(super) fn finish(
        mut self,
        policy_id: &str,
        overlay: Option<&Overlaid>,
    ) -> io::Result<PathBuf> {
        let overlay = overlay.map(|overlaid| StoredOverlayV1 {
            published: SnapshotV1::from(&overlaid.published),
            text: overlaid.text.clone(),
        });
        let tail = stored_tail(policy_id, overlay.as_ref()).map_err(io::Error::other)?;
        let mut file = self.join()?;
        file.write_all(&tail)?;
        file.sync_all()?;
        Ok(std::mem::take(&mut self.path))
    }

    fn join(&mut self) -> io::Result<File> {
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(written)) => written,
            Some(Err(_)) | None => Err(io::Error::other("the writer panicked")),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // It never was a policy; the next one would be written over it.
            drop(self.join());
            drop(fs::remove_file(&self.path));
        }
    }
}

fn put_down(new: &Path, document: &[u8], (generation, unix_ms): (u64, u64)) -> io::Result<File> {
    let head = stored_head(generation, Timestamp::from_unix_ms(unix_ms));
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(SNAPSHOT_MODE);
    let mut file = options.open(new)?;
    file.write_all(&head.map_err(io::Error::other)?)?;
    file.write_all(document)?;
    file.sync_data()?;
    Ok(file)
}

/// Moves what is at `path` to `previous` and a new file into its place. A crash between the two moves leaves
/// `previous` as the newest readable file.
pub(super) fn replace(path: &Path, previous: &Path, is_good: bool, new: &Path) -> io::Result<()> {
    // A file that cannot be read must not push out the one that can.
    if is_good || (path.exists() && !previous.exists()) {
        fs::rename(path, previous)?;
    }
    fs::rename(new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Why a stored snapshot was passed over.
#[derive(Debug, Error)]
pub(super) enum StoredError {
    #[error("there is none")]
    Missing,
    #[error("reading it")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Format(#[from] ReadSnapshotError),
    #[error("{place}: {why}")]
    Content { place: String, why: String },
    #[error(transparent)]
    Rejected(#[from] RejectedDraft),
    #[error("its policy_id does not agree with its content")]
    Identity,
}

/// The policy at `path`, what it was made of, and when it was adopted.
pub(super) fn read(path: &Path) -> Result<(Snapshot, Option<Overlaid>, u64), StoredError> {
    let json = match fs::read(path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoredError::Missing),
        Err(error) => return Err(StoredError::Read(error)),
    };
    let stored = read_stored(&json)?;
    let content = |invalid: InvalidSnapshot| StoredError::Content {
        place: invalid.place,
        why: invalid.why,
    };
    let draft = Draft::try_from(stored.snapshot).map_err(content)?;
    let overlay = match stored.overlay {
        Some(overlay) => Some(Overlaid {
            published: Draft::try_from(overlay.published).map_err(content)?,
            text: overlay.text,
        }),
        None => None,
    };
    let snapshot = Snapshot::compile(draft, stored.generation)?;
    if snapshot.policy_id() != stored.policy_id {
        return Err(StoredError::Identity);
    }
    Ok((snapshot, overlay, stored.adopted.unix_ms()))
}

/// The generation a file states, whatever else it holds, so that numbers are never used twice
/// even after a rollback to a build that cannot read it.
pub(super) fn stored_generation(path: &Path) -> u64 {
    #[derive(serde::Deserialize)]
    struct Header {
        generation: u64,
    }
    fs::read(path)
        .ok()
        .and_then(|json| serde_json::from_slice::<Header>(&json).ok())
        .map_or(0, |header| header.generation)
}

const SNAPSHOT_MODE: u32 = 0o640;
