//! Whose turn it is while the log service throttles.
//!
//! What is throttled is an account (CloudWatch Logs: quotas of `PutLogEvents` are of account and region; Cloud Logging: of a project), not
//! a stream. So from the first refusal on, streams with something to send ask one after the other, each after a pause that grows, until
//! one gets through: a service that is asked too often is not asked four times as often.

use std::cell::{Cell, RefCell};

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use crate::cloud::{CloudError, CloudErrorKind};
use crate::schedule::Backoff;

/// Shared by the streams of one account.
#[derive(Debug)]
pub(crate) struct Turns {
    backoff: RefCell<Backoff>,
    is_throttled: Cell<bool>,
    one: Mutex<()>,
}

impl Turns {
    /// Nothing is throttled yet; `backoff` says how long the pauses are when it is.
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            backoff: RefCell::new(backoff),
            is_throttled: Cell::new(false),
            one: Mutex::new(()),
        }
    }

    /// Waits until the service may be asked. While it throttles, nobody else asks before what is returned is dropped.
    pub(super) async fn take(&self) -> Option<MutexGuard<'_, ()>> {
        if !self.is_throttled.get() {
            return None;
        }
        let turn = self.one.lock().await;
        // Another stream got through meanwhile.
        if !self.is_throttled.get() {
            return None;
        }
        let pause = self.backoff.borrow_mut().after_failure();
        sleep(pause).await;
        Some(turn)
    }

    /// Takes note of what the service answered.
    pub(super) fn note(&self, answer: &Result<(), CloudError>) {
        match answer {
            Ok(()) if self.is_throttled.replace(false) => self.backoff.borrow_mut().reset(),
            Err(error) if error.kind == CloudErrorKind::Throttled => self.is_throttled.set(true),
            Ok(()) | Err(_) => {}
        }
    }
}
