//! When pairs may be familiar, and when each has to be a stranger again.
//!
//! A SYN that the kernel lets through by itself is not seen by the daemon. That takes away its answer to one question:
//! whether the SYN found a source port to be translated to. Where the kernel counts that it could not insert an entry, no
//! pair is familiar for a while, and the client's next SYN brings the refusal.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::conntrack::Conntrack;
use crate::kernel::Kernel;
use crate::queue::QueueAddress;

/// What the queue threads and the control thread share.
#[derive(Debug, Default)]
pub struct Familiarity {
    /// No pair may become familiar.
    is_suspended: AtomicBool,
    /// The generation whose adoption still has to make strangers of those of the one before; 0 when there is none.
    forgets_for: AtomicU64,
}

impl Familiarity {
    /// Whether a pair may become familiar.
    pub fn is_granted(&self) -> bool {
        !self.is_suspended.load(Ordering::Relaxed)
    }

    /// A policy has come into force: what was said under the one before is said no more. Pairs that a queue thread makes
    /// familiar before it turns to the policy are forgotten when all have ([`Familiarity::go_on`]).
    pub fn adopt(&self, kernel: &Kernel, queues: &[QueueAddress], generation: u64) {
        self.forgets_for.store(generation, Ordering::Relaxed);
        if !self.go_on(kernel, queues) {
            kernel.forget_familiar();
        }
    }

    /// Forgets what is still to be forgotten, if every queue thread is on the policy it is forgotten for; false when some
    /// are not.
    pub fn go_on(&self, kernel: &Kernel, queues: &[QueueAddress]) -> bool {
        let generation = self.forgets_for.load(Ordering::Relaxed);
        if generation == 0 {
            return true;
        }
        let is_on_it = |queue: &QueueAddress| queue.generation_in_use() >= generation;
        if !queues.iter().all(is_on_it) {
            return false;
        }
        self.forgets_for.store(0, Ordering::Relaxed);
        kernel.forget_familiar();
        true
    }
}

/// Looks for connections that the kernel could not insert.
#[derive(Debug)]
pub struct PortWatch {
    conntrack: Option<Conntrack>,
    failures: u64,
    granted_from: Option<Instant>,
}

impl PortWatch {
    /// Begins to watch. A kernel that does not say never suspends anything.
    pub fn begin() -> Self {
        let mut conntrack = Conntrack::open().ok();
        let failures = conntrack.as_mut().and_then(|it| it.insert_failures().ok());
        Self {
            conntrack,
            failures: failures.unwrap_or(u64::MAX),
            granted_from: None,
        }
    }

    /// Looks at the count.
    pub fn look(&mut self, kernel: &Kernel, now: Instant) {
        let familiarity = kernel.familiarity();
        let count = self
            .conntrack
            .as_mut()
            .and_then(|it| it.insert_failures().ok());
        let count = count.unwrap_or(self.failures);
        if count > self.failures {
            self.granted_from = Some(now + SUSPENDED_FOR);
            familiarity.is_suspended.store(true, Ordering::Relaxed);
            kernel.forget_familiar();
        } else if self.granted_from.is_some_and(|at| at <= now) {
            self.granted_from = None;
            familiarity.is_suspended.store(false, Ordering::Relaxed);
        }
        self.failures = count;
    }
}

/// How long no pair is familiar after the kernel could not insert a connection. Ports that ran out come back with
/// connections that end.
const SUSPENDED_FOR: Duration = Duration::from_secs(60);
