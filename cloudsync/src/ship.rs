//! From the spool to the log service, at least once and in order.
//!
//! Each stream goes its own way, one batch at a time. A batch counts once the service has
//! acknowledged it and the cursor that says so is on disk; a segment is reported to the daemon,
//! which deletes it, once all of it counts. Killed anywhere in between, the next start sends
//! the last batch again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ipc::control::{Request, Segment};
use ipc::record::Stream;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::cloud::{CloudError, CloudErrorKind, LogEvent, LogSink};
use crate::link::LinkState;
use crate::schedule::Backoff;

mod batch;
mod cursor;
mod spool;
mod turns;

pub(crate) use cursor::{Cursor, CursorError};
use spool::Batch;
pub(crate) use turns::Turns;

/// The task that ships one stream.
#[derive(Debug)]
pub(crate) struct Shipper<S> {
    /// Which log.
    pub(crate) stream: Stream,
    /// Where it goes.
    pub(crate) sink: Rc<S>,
    /// The spool's root.
    pub(crate) spool: PathBuf,
    /// How far each stream is.
    pub(crate) cursor: Rc<RefCell<Cursor>>,
    /// How often the spool is looked at.
    pub(crate) linger: Duration,
    /// The longest pause after failures.
    pub(crate) max_backoff: Duration,
    /// What it shares with the other streams while the service throttles.
    pub(crate) turns: Rc<Turns>,
    /// To the daemon.
    pub(crate) requests: mpsc::Sender<Request>,
    /// How the conversation with the daemon stands.
    pub(crate) link: watch::Receiver<LinkState>,
}

impl<S: LogSink> Shipper<S> {
    /// Ships for ever.
    pub(crate) async fn run(self) {
        let mut reports = Reports::default();
        let mut backoff = Backoff::new(self.max_backoff);
        let mut failing = None;
        loop {
            let pause = match self.step(&mut reports).await {
                Ok(Step::More) => Duration::ZERO,
                Ok(Step::Idle) => self.linger,
                Err(error) => {
                    let trouble = error.to_string();
                    if failing.as_ref() != Some(&trouble) {
                        tracing::warn!(stream = %self.stream, error = trouble, "logs wait in the spool");
                        failing = Some(trouble);
                    }
                    // Who is throttled waits for a turn before the next call.
                    if !error.is_throttling() {
                        sleep(backoff.after_failure()).await;
                    }
                    continue;
                }
            };
            backoff.reset();
            if failing.take().is_some() {
                tracing::info!(stream = %self.stream, "logs are shipped again");
            }
            // Also without a pause, others get their turn.
            sleep(pause).await;
        }
    }

    /// Ships one batch, if there is one.
    async fn step(&self, reports: &mut Reports) -> Result<Step, ShipError> {
        let Some(appliance) = self.appliance()? else {
            return Ok(Step::Idle);
        };
        let from = self.cursor.borrow().position(self.stream);
        let batch =
            Batch::read(&self.spool, self.stream, from, self.sink.limits()).map_err(|source| {
                ShipError::Spool {
                    stream: self.stream,
                    source,
                }
            })?;
        if !batch.events.is_empty() {
            let turn = self.turns.take().await;
            let answer = self.put(&appliance, &batch.events).await;
            self.turns.note(&answer);
            drop(turn);
            answer?;
        }
        if batch.end != from {
            self.cursor.borrow_mut().advance(self.stream, batch.end)?;
        }
        self.report(reports)?;
        Ok(if batch.is_full {
            Step::More
        } else {
            Step::Idle
        })
    }

    /// The name under which these logs are kept: the daemon's word for itself, now or last time.
    fn appliance(&self) -> Result<Option<String>, CursorError> {
        let said = self.link.borrow().appliance.clone();
        let mut cursor = self.cursor.borrow_mut();
        if let Some(name) = said {
            cursor.name_appliance(&name)?;
        }
        Ok(cursor.appliance().map(ToOwned::to_owned))
    }

    /// Sends events, in halves where the service refuses the whole, until what it refuses is a
    /// single event. That one is given up: it would be in the way of all that follow.
    async fn put(&self, appliance: &str, events: &[LogEvent]) -> Result<(), CloudError> {
        let mut parts = vec![events];
        while let Some(part) = parts.pop() {
            match self.sink.put(self.stream, appliance, part).await {
                Ok(acknowledged) if acknowledged.rejected == 0 => {}
                Ok(acknowledged) => tracing::warn!(
                    stream = %self.stream,
                    lines = acknowledged.rejected,
                    "lost: the log service does not take these lines"
                ),
                Err(error) if error.kind == CloudErrorKind::Refused && part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) if error.kind == CloudErrorKind::Refused => {
                    tracing::warn!(stream = %self.stream, %error, "lost: the log service refuses one line");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the daemon of every segment behind the cursor, once for each connection.
    fn report(&self, reports: &mut Reports) -> Result<(), ShipError> {
        let (connection, connected) = {
            let link = self.link.borrow();
            (link.connection, link.connected)
        };
        if reports.connection != connection {
            *reports = Reports {
                connection,
                made: HashSet::new(),
            };
        }
        if !connected {
            return Ok(());
        }
        let done = self.cursor.borrow().position(self.stream).segment;
        let there =
            spool::segments(&self.spool, self.stream).map_err(|source| ShipError::Spool {
                stream: self.stream,
                source,
            })?;
        reports.made.retain(|segment| there.contains(segment));
        for segment in there.into_iter().filter(|segment| *segment < done) {
            if reports.made.contains(&segment) {
                continue;
            }
            let shipped = Request::Shipped(Segment {
                stream: self.stream,
                segment,
            });
            if self.requests.try_send(shipped).is_err() {
                // The queue is full: the rest is for the next time.
                break;
            }
            reports.made.insert(segment);
        }
        Ok(())
    }
}

/// Whether there was a full batch, and so probably more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    More,
    Idle,
}

/// Segments the daemon was told of through one connection.
#[derive(Debug, Default)]
struct Reports {
    connection: u64,
    made: HashSet<u64>,
}

/// Why a stream does not get on.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error("reading the spool of {stream}: {source}")]
    Spool {
        stream: Stream,
        source: std::io::Error,
    },
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

impl ShipError {
    fn is_throttling(&self) -> bool {
        matches!(self, Self::Cloud(error) if error.kind == CloudErrorKind::Throttled)
    }
}

#[cfg(test)]
mod tests;
