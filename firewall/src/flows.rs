//! Flows the kernel carries: remembered from their verdict to their end.
//!
//! One thread. It writes the `end` line when conntrack says a flow is over, and ends the
//! flows that a new policy no longer allows. What it remembers is kept in a [`ledger`] as well,
//! so that a flow judged by an earlier process is known by name, ends with its line and is judged
//! again like any other.

mod complete;
mod distrust;
mod end;
mod ledger;
mod rejudge;
mod shared;
mod sweep;
mod table;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use inspect::FlowRecord;
use ipc::record::Stream;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use policy::{Name, Snapshot};
use thiserror::Error;

use crate::background;
use crate::bindings::BindingStore;
use crate::clock::{Clock, unix_ms};
use crate::conntrack::{Conntrack, DestroyListener, Entry};
use crate::flowlog::FlowLog;
use crate::marks;
use crate::netlink::NetlinkError;
use crate::policy_store::CurrentPolicy;
use crate::queue::QueueAddress;
use crate::raw::{RawError, RawSender};
use crate::tally::Tally;
use crate::wake::{self, Mailbox, Sender};

use complete::Complete;
use distrust::Distrusted;
use end::TimeOuts;
use ledger::Ledger;
use rejudge::{Ending, Rejudging};
use sweep::Sweep;
use table::{FlowTable, Key};

/// What this thread is told.
#[derive(Debug)]
pub enum FlowEvent {
    /// A flow was allowed; its `client` record.
    Allowed(Arc<FlowRecord>),
    /// A new policy is published: as soon as no queue thread judges by an older one, end what it
    /// refuses, then say how many.
    Rejudge(Arc<Snapshot>, SyncSender<usize>),
    /// The certificate of this server is not of this name: end the flows to it that claimed it.
    Distrust(Name, SocketAddr),
    /// End.
    Stop,
}

/// The thread, to be stopped in order.
#[derive(Debug)]
pub struct FlowThread {
    events: Sender<FlowEvent>,
    live: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// Why flows could not be followed.
#[derive(Debug, Error)]
pub enum FlowsError {
    /// The connection table cannot be read.
    #[error("opening the connection table")]
    Conntrack(#[from] NetlinkError),
    /// Flows cannot be probed.
    #[error("opening raw sockets")]
    Raw(#[from] RawError),
    /// No thread or descriptor to be had.
    #[error("starting the flow thread")]
    Thread(#[source] io::Error),
}

/// What a flow thread starts from.
#[derive(Clone, Debug)]
pub struct FlowSettings {
    /// Where ends go.
    pub log: FlowLog,
    /// Where losses are counted.
    pub tally: Arc<Tally>,
    /// What names resolve to.
    pub bindings: Arc<BindingStore>,
    /// The time.
    pub clock: Clock,
    /// The threads that judge: a policy counts when all of them are on it.
    pub queues: Vec<QueueAddress>,
    /// The policy in force.
    pub policy: Arc<CurrentPolicy>,
    /// Folder of the file that outlives this process.
    pub state_dir: PathBuf,
}

/// Starts following flows. The mailbox exists before the thread, so that queue threads that
/// start first lose nothing.
///
/// # Errors
/// When the kernel's table cannot be opened or no thread be started.
pub fn start(settings: FlowSettings) -> Result<(Sender<FlowEvent>, FlowThread), FlowsError> {
    let (events, mailbox) =
        wake::mailbox(EVENTS_MAX).map_err(|error| FlowsError::Thread(error.into()))?;
    let live = Arc::new(AtomicU64::new(0));
    let follower = Follower {
        mailbox,
        listener: DestroyListener::open()?,
        conntrack: Conntrack::open()?,
        raw: RawSender::open()?,
        timeouts: TimeOuts::read(),
        ledger: Ledger::new(&settings.state_dir),
        handed: 0,
        settings,
        flows: FlowTable::new(FLOWS_MAX),
        rejudging: None,
        endings: VecDeque::new(),
        distrusted: VecDeque::new(),
        compare_at: None,
        sweep: Sweep::new(),
        complete: None,
        live: Arc::clone(&live),
    };
    let thread = std::thread::Builder::new()
        .name("flows".to_owned())
        .spawn(move || {
            background::step_back();
            follower.run();
        })
        .map_err(FlowsError::Thread)?;
    Ok((
        events.clone(),
        FlowThread {
            events,
            live,
            thread,
        },
    ))
}

impl FlowThread {
    /// Flows the kernel carries now.
    pub fn live(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.live)
    }

    /// Ends the thread; flows go on.
    pub fn stop(self) {
        while !self.events.send(FlowEvent::Stop) && !self.thread.is_finished() {
            std::thread::yield_now();
        }
        // A panic has aborted the process; there is no result to look at.
        drop(self.thread.join());
    }
}

struct Follower {
    mailbox: Mailbox<FlowEvent>,
    listener: DestroyListener,
    conntrack: Conntrack,
    raw: RawSender,
    timeouts: TimeOuts,
    ledger: Ledger,
    /// `end` lines handed to the log.
    handed: u64,
    settings: FlowSettings,
    flows: FlowTable,
    /// A policy that live flows are still to be judged by.
    rejudging: Option<Rejudging>,
    /// Flows that are being ended, in the order in which they are looked at again.
    endings: VecDeque<Ending>,
    /// Servers whose flows are looked for once more.
    distrusted: VecDeque<Distrusted>,
    /// When to look for flows that are gone without an event.
    compare_at: Option<Instant>,
    /// Which flows the kernel is to look at next.
    sweep: Sweep,
    /// Since when every flow the kernel carries is known here; `None` when some may not be.
    complete: Option<Complete>,
    live: Arc<AtomicU64>,
}

impl Follower {
    fn run(mut self) {
        self.recover();
        loop {
            self.wait();
            // What comes meanwhile wakes nobody: one wake-up for some flows, not one for each.
            if self.rejudging.is_none() {
                std::thread::sleep(GATHER);
            }
            if !self.take_events() {
                break;
            }
            // Before anything else: what is written by now survives us.
            self.write_down();
            let quiet = self.take_ends();
            self.go_on_rejudging();
            self.go_on_ending();
            self.go_on_distrusting();
            if quiet && self.compare_at.is_some_and(|at| at <= Instant::now()) {
                self.compare_with_table();
                let again = if self.flows.has_suspects() {
                    SETTLED
                } else {
                    COMPARE_EVERY
                };
                self.compare_at = Some(Instant::now() + again);
            }
            self.sweep();
            self.write_down();
            let live = u64::try_from(self.flows.len()).unwrap_or(u64::MAX);
            self.live.store(live, Ordering::Relaxed);
        }
        // The log is stopped after us, and writes all it has.
        self.ledger.settle(u64::MAX);
        self.ledger.flush(&mut self.flows);
    }

    /// Takes up where the process before this one left off.
    fn recover(&mut self) {
        let known = self.ledger.recover();
        let count = known.len();
        for record in known {
            self.remember(&record, true);
        }
        match self.find_orphans() {
            Ok(orphans) => {
                // Whatever of them is gone by now has had its event, or never will.
                let settled = if count > 0 { SETTLED } else { COMPARE_EVERY };
                self.compare_at = Some(Instant::now() + settled);
                if count > 0 || !orphans.is_empty() {
                    let orphans = orphans.len();
                    tracing::info!(known = count, orphans, "flows from before the start");
                }
            }
            // They are looked for again at the next policy.
            Err(error) => {
                self.compare_at = Some(Instant::now() + SETTLED);
                tracing::error!(%error, "looking for flows from before the start");
            }
        }
    }

    fn wait(&self) {
        let mut watched = [
            PollFd::new(self.mailbox.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let now = Instant::now();
        let due = [
            self.compare_at,
            self.endings.front().map(|next| next.at),
            self.distrusted.front().map(|next| next.again),
            self.sweep.due(self.flows.len()),
        ];
        let next = due.into_iter().flatten().min();
        let idle_ms = match (&self.rejudging, next) {
            (Some(rejudging), _) => rejudging.patience_ms(),
            (None, Some(at)) => {
                let left_ms = at.saturating_duration_since(now).as_millis();
                u16::try_from(left_ms)
                    .unwrap_or(IDLE_MS)
                    .saturating_add(1)
                    .min(IDLE_MS)
            }
            (None, None) => IDLE_MS,
        };
        let idle_ms = if self.ledger.is_unsettled() {
            idle_ms.min(SETTLE_MS)
        } else {
            idle_ms
        };
        wake::wait(&mut watched, PollTimeout::from(idle_ms));
    }

    fn take_events(&mut self) -> bool {
        let events: Vec<FlowEvent> = self.mailbox.take().take(EVENTS_MAX).collect();
        for event in events {
            match event {
                FlowEvent::Allowed(record) => self.remember(&record, false),
                FlowEvent::Rejudge(policy, done) => {
                    self.rejudging = Some(Rejudging::new(policy, done));
                }
                FlowEvent::Distrust(name, server) => self.distrust(name, server),
                FlowEvent::Stop => return false,
            }
        }
        true
    }

    /// Takes in an allowed flow; `kept` when the ledger's file has it.
    fn remember(&mut self, record: &FlowRecord, kept: bool) {
        match self.flows.insert(record) {
            Some(flow) if kept => flow.set_in_file(true),
            Some(flow) => self.ledger.add(flow, record),
            None => self.forget(1),
        }
        let given_up = self.flows.take_given_up();
        self.forget(given_up);
    }

    /// Counts flows whose end nobody will log.
    fn forget(&self, flows: u64) {
        if flows == 0 {
            return;
        }
        self.settings.tally.count_flows_forgotten(flows);
        self.settings.log.note_unseen(Stream::End, flows);
    }

    /// Takes ends in; whether there are no more for now.
    fn take_ends(&mut self) -> bool {
        let mut ended = Vec::new();
        let quiet = match self.listener.receive(|entry| ended.push(entry)) {
            Ok(report) => {
                if report.overrun {
                    self.settings.tally.count_conntrack_overrun();
                    // The kernel offers again what it could not deliver: not yet lost.
                    self.compare_at = Some(Instant::now() + SETTLED);
                }
                report.drained
            }
            Err(error) => {
                tracing::error!(%error, "receiving the ends of flows");
                true
            }
        };
        for entry in ended {
            self.end(&entry);
        }
        quiet
    }

    /// Writes the end line of a flow that had an allowed line.
    fn end(&mut self, entry: &Entry) {
        let key = Key::of(&entry.original);
        let stop_ms = match entry.timestamps.stop_ns / 1_000_000 {
            0 => unix_ms(),
            stop_ms => stop_ms,
        };
        let taken = self.flows.take(&key, stop_ms);
        self.forget(taken.lost);
        let logged = taken.record.filter(|record| record.logged);
        let Some(record) = logged else {
            if taken.was_in_file {
                self.ledger.remove(&key);
            }
            return;
        };
        let end = self.timeouts.end_of(record, entry, stop_ms);
        self.settings.log.end(Box::new(end));
        self.handed = self.handed.saturating_add(1);
        if taken.was_in_file {
            self.ledger.remove_after(&key, self.handed);
        }
    }

    /// Writes down what was taken in, and which ends are in the spool by now.
    fn write_down(&mut self) {
        let counts = self.settings.log.counts();
        // No other thread hands any over; what cannot be written is counted there.
        let written = [
            counts.written(Stream::End),
            counts.overrun(Stream::End),
            counts.spool_full(Stream::End),
        ];
        self.ledger.settle(written.into_iter().sum());
        self.ledger.flush(&mut self.flows);
    }

    /// Has the kernel remove entries whose time is up. By itself it may take a minute longer when
    /// there are few, and the end line would be late; with many it does not.
    fn sweep(&mut self) {
        let some = self.sweep.next(&self.flows);
        if some.is_empty() {
            return;
        }
        if let Err(error) = self.conntrack.meet(&some) {
            tracing::debug!(%error, "removing expired entries");
        }
    }

    /// Finds flows that are gone and whose event never came. Their counters are lost with it.
    fn compare_with_table(&mut self) {
        let mut present = HashSet::new();
        let flows = &mut self.flows;
        let dumped = self.conntrack.dump(None, |entry| {
            let key = Key::of(&entry.original);
            present.insert(key.pack());
            // By now there is none, if nothing is wrong with what is done above.
            if rejudge::JUDGED.passes(entry.mark) && flows.insert_unknown(key) {
                tracing::warn!(?key, "the kernel carries a flow that is not known");
            }
        });
        if dumped.is_err() {
            // A dump that may lack entries proves nothing; the next one will.
            return;
        }
        let old_enough = unix_ms().saturating_sub(SETTLED_MS);
        let gone = self.flows.retain_present(&present, old_enough);
        for (key, was_in_file) in &gone {
            if *was_in_file {
                self.ledger.remove(key);
            }
        }
        let lost = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        self.forget(lost);
        if lost > 0 {
            tracing::warn!(lost, "flows ended unseen");
        }
    }

    /// Takes in the flows that the kernel carries and that are not known here; returns those, with
    /// the part of their mark that says which generation judged them.
    ///
    /// Passes over the kernel's table only if there may be some.
    fn find_orphans(&mut self) -> Result<Vec<(Key, Option<u16>)>, NetlinkError> {
        let mut orphans = Vec::new();
        let now = Complete::now(&self.settings);
        if self.complete.is_some_and(|then| then.still_holds(&now)) {
            return Ok(orphans);
        }
        self.complete = None;
        let flows = &mut self.flows;
        let dumped = self.conntrack.dump(Some(rejudge::JUDGED), |entry| {
            let key = Key::of(&entry.original);
            if flows.insert_unknown(key) {
                orphans.push((key, marks::judged_generation(entry.mark)));
            }
        });
        match dumped {
            Ok(()) => {
                self.complete = Some(now);
                Ok(orphans)
            }
            // What the dump missed is found at the next change, or ends by itself.
            Err(NetlinkError::Interrupted) => Ok(orphans),
            Err(error) => Err(error),
        }
    }
}

/// Allowed flows that may wait to be remembered.
const EVENTS_MAX: usize = 1 << 16;
/// How long a first event waits for company.
const GATHER: Duration = Duration::from_millis(3);
/// Flows remembered; 49 bytes of the table each, of which 7 in 16 at least are in use, and what they share.
const FLOWS_MAX: usize = 1 << 20;
const IDLE_MS: u16 = 1_000;
/// How soon to look whether the lines of ends are in the spool: the log gathers for a few milliseconds.
const SETTLE_MS: u16 = 10;
/// How often flows are compared with the kernel's table for no special reason.
const COMPARE_EVERY: Duration = Duration::from_secs(900);
/// How long after the last overrun, or the start, an event may still come.
const SETTLED: Duration = Duration::from_millis(SETTLED_MS);
const SETTLED_MS: u64 = 3_000;

#[cfg(test)]
mod tests;
