//! The thread that writes bindings down, apart from the one that learns them: a disk that is slow
//! delays no look-up.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{BindingStore, saved};
use crate::clock::Clock;

/// A running keeper.
#[derive(Debug)]
pub struct BindingKeeper {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl BindingKeeper {
    /// Writes the bindings of `store` to `path` every ten seconds, and less often the longer it
    /// takes.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(path: PathBuf, store: Arc<BindingStore>, clock: Clock) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let keep = move || {
            let mut pause = EVERY;
            let mut failing = false;
            loop {
                let last = match stopped.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => false,
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
                };
                let begun = Instant::now();
                match saved::save(&path, &store, clock.now()) {
                    Ok(()) => failing = false,
                    // Said once: the disk does not get better by being complained about.
                    Err(error) if !failing => {
                        failing = true;
                        tracing::warn!(%error, path = %path.display(), "keeping the bindings");
                    }
                    Err(_) => {}
                }
                if last {
                    return;
                }
                pause = EVERY.max(begun.elapsed().saturating_mul(SHARE));
            }
        };
        let thread = std::thread::Builder::new()
            .name("bindings".to_owned())
            .spawn(keep)?;
        Ok(Self { stop, thread })
    }

    /// Writes them once more and ends.
    pub fn stop(self) {
        if self.stop.send(()).is_err() {
            return;
        }
        // A thread that panicked has aborted the process already.
        drop(self.thread.join());
    }
}

const EVERY: Duration = Duration::from_secs(10);
/// At most one part in this many of the time is spent writing.
const SHARE: u32 = 100;
