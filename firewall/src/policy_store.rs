//! The policy in force: validated, kept on disk, swapped in whole.
//!
//! `snapshot.json` is the last good policy and `snapshot.prev.json` the one before. A change
//! is on disk before it is in force, so what was acknowledged survives a crash. Without any
//! policy an empty one is in force, under which nothing leaves.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipc::record::Timestamp;
use ipc::snapshot::{
    InvalidSnapshot, ReadSnapshotError, SnapshotV1, StoredOverlayV1, StoredV1, read_stored,
};
use policy::{CanonicalDraft, Draft, RejectedDraft, Snapshot};
use thiserror::Error;

use crate::queue::QueueAddress;

/// The policy in force, read by every queue thread without a lock.
#[derive(Debug)]
pub struct CurrentPolicy {
    snapshot: ArcSwap<Snapshot>,
}

/// The one writer of a [`CurrentPolicy`].
#[derive(Debug)]
pub struct PolicyStore {
    dir: PathBuf,
    current: Arc<CurrentPolicy>,
    /// The highest generation ever given, on disk or not.
    generation: u64,
    adopted_unix_ms: Option<u64>,
    /// Whether `snapshot.json` is one that can be read again.
    newest_is_good: bool,
    queues: Vec<QueueAddress>,
}

/// What was found on disk at the start.
#[derive(Debug, Default)]
pub struct Found {
    /// Whether a policy is in force.
    pub in_force: bool,
    /// What the policy was made of, when an overlay is part of it.
    pub overlay: Option<Overlaid>,
    /// Why the newest file was not used, if it was not.
    pub faults: Vec<String>,
}

/// The two parts of a policy with an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlaid {
    /// The policy as it was published.
    pub published: Draft,
    /// The text of the overlay.
    pub text: String,
}

/// A policy that has come into force.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// The policy in force now.
    pub snapshot: Arc<Snapshot>,
    /// The one before.
    pub previous: Arc<Snapshot>,
    /// Whether its content differs from the one before; if not, the generation stays.
    pub changed: bool,
}

/// Why a policy was not adopted. The one before stays in force.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// It is past a limit.
    #[error(transparent)]
    Rejected(#[from] RejectedDraft),
    /// It could not be kept.
    #[error("writing snapshot {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why the store could not be opened.
#[derive(Debug, Error)]
pub enum OpenStoreError {
    /// Its folder cannot be made.
    #[error("making folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not even the empty policy compiles.
    #[error("compiling the empty policy")]
    Empty(#[source] RejectedDraft),
}

/// Why a stored snapshot was passed over.
#[derive(Debug, Error)]
enum StoredError {
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

impl CurrentPolicy {
    /// A policy under which nothing leaves, as generation 0.
    ///
    /// # Errors
    /// Never in fact: an empty draft is within every limit.
    pub fn empty() -> Result<Self, RejectedDraft> {
        let snapshot = Snapshot::compile(Draft::default(), 0)?;
        Ok(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
        })
    }

    /// The policy in force.
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}

impl PolicyStore {
    /// Opens the store in `dir` and brings the last good policy into force.
    ///
    /// A file this build cannot read (a later build's, after a rollback, or a broken one) is
    /// passed over for the one before; without either nothing leaves.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(dir: &Path) -> Result<(Self, Found), OpenStoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o751)
            .create(dir)
            .map_err(|source| OpenStoreError::Folder {
                path: dir.to_owned(),
                source,
            })?;
        let current = Arc::new(CurrentPolicy::empty().map_err(OpenStoreError::Empty)?);
        let mut store = Self {
            dir: dir.to_owned(),
            current,
            generation: 0,
            adopted_unix_ms: None,
            newest_is_good: false,
            queues: Vec::new(),
        };
        let mut found = Found::default();
        for path in [store.path(), store.previous_path()] {
            store.generation = store.generation.max(stored_generation(&path));
            if found.in_force {
                continue;
            }
            match read(&path) {
                Ok((snapshot, overlay, adopted_unix_ms)) => {
                    found.in_force = true;
                    found.overlay = overlay;
                    store.newest_is_good = path == store.path();
                    store.generation = store.generation.max(snapshot.generation());
                    store.adopted_unix_ms = Some(adopted_unix_ms);
                    store.current.snapshot.store(Arc::new(snapshot));
                }
                Err(StoredError::Missing) => {}
                Err(error) => {
                    let chain = crate::cli::chain(&error);
                    found
                        .faults
                        .push(format!("snapshot {}: {chain}", path.display()));
                }
            }
        }
        Ok((store, found))
    }

    /// Where the policy in force is read from.
    pub fn current(&self) -> &Arc<CurrentPolicy> {
        &self.current
    }

    /// When the policy in force was adopted; `None` when there is none.
    pub fn adopted_unix_ms(&self) -> Option<u64> {
        self.adopted_unix_ms
    }

    /// The threads that have to be on a new policy before its adoption counts.
    pub fn set_queues(&mut self, queues: Vec<QueueAddress>) {
        self.queues = queues;
    }

    /// Validates a policy, keeps it and brings it into force.
    ///
    /// A queue thread finishes the packets it has in hand under the old one; whoever judges live
    /// flows again waits for that. The same content again changes nothing but the faults reported
    /// with it.
    ///
    /// # Errors
    /// When it is past a limit or cannot be written; the old one stays in force.
    pub fn adopt(&mut self, draft: Draft, unix_ms: u64) -> Result<Adoption, AdoptError> {
        self.adopt_overlaid(draft, None, unix_ms)
    }

    /// As [`PolicyStore::adopt`], of a policy with an overlay in it.
    ///
    /// # Errors
    /// As there.
    pub fn adopt_overlaid(
        &mut self,
        draft: Draft,
        overlay: Option<&Overlaid>,
        unix_ms: u64,
    ) -> Result<Adoption, AdoptError> {
        let previous = self.current.load();
        let content = CanonicalDraft::new(draft)?;
        let known = self.adopted_unix_ms.is_some();
        if known && content.policy_id() == previous.policy_id() {
            return Ok(self.replace_faults(content, previous));
        }
        let next = Arc::new(self.keep(content, overlay, unix_ms)?);
        self.generation = next.generation();
        self.adopted_unix_ms = Some(unix_ms);
        self.current.snapshot.store(Arc::clone(&next));
        for queue in &self.queues {
            queue.wake();
        }
        Ok(Adoption {
            snapshot: next,
            previous,
            changed: true,
        })
    }

    /// The same policy with other faults: not a change, but status should say them.
    fn replace_faults(&self, next: CanonicalDraft, previous: Arc<Snapshot>) -> Adoption {
        let snapshot = if next.draft().faults == previous.draft().faults {
            Arc::clone(&previous)
        } else {
            let index = next.index();
            let snapshot = Arc::new(Snapshot::new(next, index, previous.generation()));
            self.current.snapshot.store(Arc::clone(&snapshot));
            snapshot
        };
        Adoption {
            snapshot,
            previous,
            changed: false,
        }
    }

    /// Puts a policy on disk and compiles it meanwhile: neither needs the other, and the disk takes its time.
    fn keep(
        &mut self,
        content: CanonicalDraft,
        overlay: Option<&Overlaid>,
        unix_ms: u64,
    ) -> Result<Snapshot, AdoptError> {
        let generation = self.generation.saturating_add(1);
        let path = self.path();
        let write = || write_beside(&path, &content, overlay, (generation, unix_ms));
        let (written, index) = std::thread::scope(|scope| {
            let writer = std::thread::Builder::new().name("snapshot".to_owned());
            let writer = writer.spawn_scoped(scope, write);
            let index = content.index();
            let written = writer.and_then(|writer| {
                let ended = writer.join();
                ended.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
            });
            (written, index)
        });
        let previous = self.previous_path();
        let kept = written.and_then(|new| replace(&path, &previous, self.newest_is_good, &new));
        // After a failure between the moves nobody knows; the next start reads both.
        self.newest_is_good = kept.is_ok();
        kept.map_err(|source| AdoptError::Write { path, source })?;
        Ok(Snapshot::new(content, index, generation))
    }

    fn path(&self) -> PathBuf {
        self.dir.join("snapshot.json")
    }

    fn previous_path(&self) -> PathBuf {
        self.dir.join("snapshot.prev.json")
    }
}

/// Writes a policy beside `path`, as one of a generation and a time, and waits until it is on disk; where it is.
fn write_beside(
    path: &Path,
    content: &CanonicalDraft,
    overlay: Option<&Overlaid>,
    (generation, unix_ms): (u64, u64),
) -> io::Result<PathBuf> {
    let stored = StoredV1 {
        version: ipc::VERSION,
        generation,
        policy_id: content.policy_id().to_owned(),
        adopted: Timestamp::from_unix_ms(unix_ms),
        snapshot: SnapshotV1::from(content.draft()),
        overlay: overlay.map(|overlaid| StoredOverlayV1 {
            published: SnapshotV1::from(&overlaid.published),
            text: overlaid.text.clone(),
        }),
    };
    let json = stored.to_json().map_err(io::Error::other)?;
    let new = path.with_extension("json.new");
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(SNAPSHOT_MODE);
    let mut file = options.open(&new)?;
    file.write_all(&json)?;
    file.sync_all()?;
    Ok(new)
}

/// Moves what is at `path` to `previous` and a new file into its place. A crash between the two moves leaves
/// `previous` as the newest readable file.
fn replace(path: &Path, previous: &Path, is_good: bool, new: &Path) -> io::Result<()> {
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

fn read(path: &Path) -> Result<(Snapshot, Option<Overlaid>, u64), StoredError> {
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
fn stored_generation(path: &Path) -> u64 {
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

#[cfg(test)]
mod tests;
