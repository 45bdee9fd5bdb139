//! The policy in force: validated, kept on disk, swapped in whole.
//!
//! `snapshot.json` is the last good policy and `snapshot.prev.json` the one before. A change
//! is on disk before it is in force, so what was acknowledged survives a crash. Without any
//! policy an empty one is in force, under which nothing leaves.

mod file;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipc::snapshot::SnapshotV1;
use policy::{CanonicalDraft, Draft, Index, RejectedDraft, Snapshot};
use thiserror::Error;

use crate::queue::QueueAddress;

pub use file::Writing;
use file::{StoredError, read, replace, stored_generation};

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
    /// Policies not in force any more, that somebody may still hold. Freeing a large one takes milliseconds, which no
    /// packet is to wait for: whoever lets go of one last must not be a queue thread.
    retired: Vec<Arc<Snapshot>>,
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
            retired: Vec::new(),
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
        let document = SnapshotV1::from(&draft).to_json().map_err(io::Error::other);
        let writing = document.and_then(|json| self.begin(json.into_bytes().into(), unix_ms));
        self.adopt_writing(draft, overlay, writing)
    }

    /// Begins to write a document down, for [`PolicyStore::adopt_published`].
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn begin(&self, document: Arc<[u8]>, unix_ms: u64) -> io::Result<Writing> {
        let generation = self.generation.saturating_add(1);
        Writing::begin(&self.path(), document, (generation, unix_ms))
    }

    /// As [`PolicyStore::adopt`], of a policy whose document is being written.
    ///
    /// # Errors
    /// As there.
    pub fn adopt_published(
        &mut self,
        draft: Draft,
        writing: io::Result<Writing>,
    ) -> Result<Adoption, AdoptError> {
        self.adopt_writing(draft, None, writing)
    }

    fn adopt_writing(
        &mut self,
        draft: Draft,
        overlay: Option<&Overlaid>,
        writing: io::Result<Writing>,
    ) -> Result<Adoption, AdoptError> {
        let previous = self.current.load();
        let (content, index) = CanonicalDraft::with_index(draft)?;
        let known = self.adopted_unix_ms.is_some();
        if known && content.policy_id() == previous.policy_id() {
            return Ok(self.replace_faults(content, index, previous));
        }
        let (generation, unix_ms) = self.keep(&content, overlay, writing)?;
        let next = Arc::new(Snapshot::new(content, index, generation));
        self.generation = generation;
        self.adopted_unix_ms = Some(unix_ms);
        self.bring_into_force(&next, &previous);
        for queue in &self.queues {
            queue.wake();
        }
        Ok(Adoption {
            snapshot: next,
            previous,
            changed: true,
        })
    }

    fn bring_into_force(&mut self, next: &Arc<Snapshot>, previous: &Arc<Snapshot>) {
        self.retired.push(Arc::clone(previous));
        self.current.snapshot.store(Arc::clone(next));
    }

    /// Frees policies that nobody holds any more.
    pub fn free_retired(&mut self) {
        self.retired.retain(|policy| Arc::strong_count(policy) > 1);
    }

    /// The same policy with other faults: not a change, but status should say them.
    fn replace_faults(
        &mut self,
        next: CanonicalDraft,
        index: Index,
        previous: Arc<Snapshot>,
    ) -> Adoption {
        let snapshot = if next.draft().faults == previous.draft().faults {
            Arc::clone(&previous)
        } else {
            let snapshot = Arc::new(Snapshot::new(next, index, previous.generation()));
            self.bring_into_force(&snapshot, &previous);
            snapshot
        };
        Adoption {
            snapshot,
            previous,
            changed: false,
        }
    }

    /// Sees a policy safely on disk; the generation and the time it is there as.
    fn keep(
        &mut self,
        content: &CanonicalDraft,
        overlay: Option<&Overlaid>,
        writing: io::Result<Writing>,
    ) -> Result<(u64, u64), AdoptError> {
        let (path, previous) = (self.path(), self.previous_path());
        let kept = writing.and_then(|writing| {
            let stamp = writing.stamp;
            let new = writing.finish(content.policy_id(), overlay)?;
            replace(&path, &previous, self.newest_is_good, &new)?;
            Ok(stamp)
        });
        // After a failure between the moves nobody knows; the next start reads both.
        self.newest_is_good = kept.is_ok();
        kept.map_err(|source| AdoptError::Write { path, source })
    }

    fn path(&self) -> PathBuf {
        self.dir.join("snapshot.json")
    }

    fn previous_path(&self) -> PathBuf {
        self.dir.join("snapshot.prev.json")
    }
}

#[cfg(test)]
mod tests;
