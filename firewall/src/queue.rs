//! One thread per packet queue: receives packets, lets `inspect` judge them, answers.
//!
//! The thread takes no lock and waits for nothing but packets, answers and time. What it
//! hands to other threads goes into bounded mailboxes; a full one costs a look-up or a log
//! line, never a packet.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use inspect::{Answer, Counters, Env, FlowKey, Inspector, Limits, Output, Sought, Verdict};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use policy::Snapshot;
use thiserror::Error;

use crate::bindings::{BindingStore, Under};
use crate::clock::Clock;
use crate::confine;
use crate::conntrack::Conntrack;
use crate::familiar::Familiarity;
use crate::flowlog::FlowLog;
use crate::flows::FlowEvent;
use crate::marks::{self, QueueClass};
use crate::netlink::NetlinkError;
use crate::nfqueue::{Action, Batch, Event, Packet, Queue, QueueError, QueueOptions, VerdictBatch};
use crate::policy_store::CurrentPolicy;
use crate::raw::RawSender;
use crate::tally::Tally;
use crate::wake::{self, Mailbox, Sender};
use crate::witness::Witness;

mod linger;
mod news;
mod ports;
mod translate;

use linger::Linger;
use ports::Ports;
use translate::{action_of, class_of, segment_of, tuple_of};

/// What other threads tell a queue thread.
#[derive(Debug)]
pub enum Order {
    /// A look-up has ended.
    Answer(Sought, Answer),
    /// No inventory knows this address.
    NoSuchClient(IpAddr),
    /// A new policy is in force; also sent to wake the thread for any other reason.
    Wake,
    /// Answer what is held no more and end.
    Stop,
}

/// What every queue thread shares with the rest of the daemon.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The policy in force.
    pub policy: Arc<CurrentPolicy>,
    /// What names resolve to.
    pub bindings: Arc<BindingStore>,
    /// Where look-ups are asked for.
    pub witness: Witness,
    /// Where records go.
    pub log: FlowLog,
    /// Where allowed flows are remembered until they end.
    pub flows: Sender<FlowEvent>,
    /// Where addresses nobody knows are reported.
    pub unknown: tokio::sync::mpsc::Sender<IpAddr>,
    /// Where decisions are counted.
    pub tally: Arc<Tally>,
    /// Whether pairs may become familiar.
    pub familiarity: Arc<Familiarity>,
    /// The time.
    pub clock: Clock,
}

/// The policy a queue thread judges by.
#[derive(Debug)]
struct InUse {
    generation: AtomicU64,
    since_ms: AtomicU64,
}

/// A queue thread as others see it.
#[derive(Debug)]
pub struct QueueHandle {
    orders: Sender<Order>,
    in_use: Arc<InUse>,
    /// When the thread last began to look at its queue, milliseconds of [`Clock::mono_ms`].
    beat: Arc<AtomicU64>,
    clock: Clock,
    thread: Option<JoinHandle<()>>,
}

/// Cheap to clone: how to reach a queue thread.
#[derive(Clone, Debug)]
pub struct QueueAddress {
    orders: Sender<Order>,
    in_use: Arc<InUse>,
}

/// Why a queue could not be served.
#[derive(Debug, Error)]
pub enum QueueThreadError {
    /// The queue itself.
    #[error("serving packet queue {0}")]
    Queue(u16, #[source] QueueError),
    /// Conntrack entries cannot be deleted.
    #[error("opening the connection table")]
    Conntrack(#[source] NetlinkError),
    /// Resets cannot be sent.
    #[error("opening raw sockets")]
    Raw(#[source] crate::raw::RawError),
    /// No thread or descriptor to be had.
    #[error("starting a queue thread")]
    Thread(#[source] io::Error),
}

/// A queue that is bound and not served yet.
///
/// Every queue is bound before any is served, so that a missing right is found before the
/// first verdict.
#[derive(Debug)]
pub struct BoundQueue {
    index: usize,
    queue: Queue,
    conntrack: Conntrack,
    raw: RawSender,
    orders: Sender<Order>,
    mailbox: Mailbox<Order>,
    in_use: Arc<InUse>,
}

/// Binds queue `number`, the `index`th of this daemon.
///
/// # Errors
/// When the queue, a raw socket or the connection table cannot be had.
pub fn bind(index: usize, number: u16) -> Result<BoundQueue, QueueThreadError> {
    let queue = Queue::bind(number, &QueueOptions::default())
        .map_err(|source| QueueThreadError::Queue(number, source))?;
    let conntrack = Conntrack::open().map_err(QueueThreadError::Conntrack)?;
    let raw = RawSender::open().map_err(QueueThreadError::Raw)?;
    let (orders, mailbox) =
        wake::mailbox(ORDERS_MAX).map_err(|error| QueueThreadError::Thread(error.into()))?;
    // Who judges nothing judges nothing by an older policy.
    let in_use = Arc::new(InUse {
        generation: AtomicU64::new(u64::MAX),
        since_ms: AtomicU64::new(0),
    });
    Ok(BoundQueue {
        index,
        queue,
        conntrack,
        raw,
        orders,
        mailbox,
        in_use,
    })
}

impl BoundQueue {
    /// How to reach the thread that will serve it.
    pub fn address(&self) -> QueueAddress {
        QueueAddress {
            orders: self.orders.clone(),
            in_use: Arc::clone(&self.in_use),
        }
    }

    /// Starts serving.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn serve(
        self,
        surroundings: Surroundings,
        limits: Limits,
    ) -> Result<QueueHandle, QueueThreadError> {
        let (orders, in_use) = (self.orders.clone(), Arc::clone(&self.in_use));
        in_use.generation.store(0, Ordering::Release);
        let clock = surroundings.clock;
        let beat = Arc::new(AtomicU64::new(clock.mono_ms()));
        let number = self.queue.number();
        let mut conntrack = self.conntrack;
        let ports = Ports::watch(&mut conntrack);
        let worker = Worker {
            index: self.index,
            verdicts: VerdictBatch::new(number, 256),
            queue: self.queue,
            conntrack,
            raw: self.raw,
            mailbox: self.mailbox,
            in_use: self.in_use,
            beat: Arc::clone(&beat),
            inspector: Inspector::new(limits),
            ports,
            news: Vec::with_capacity(NEWS_ROOM),
            counted: Counters::default(),
            undecided: 0,
            linger: Linger::new(Instant::now()),
            surroundings,
        };
        let thread = std::thread::Builder::new()
            .name(format!("queue{number}"))
            .spawn(move || worker.run())
            .map_err(QueueThreadError::Thread)?;
        Ok(QueueHandle {
            orders,
            in_use,
            beat,
            clock,
            thread: Some(thread),
        })
    }
}

impl QueueAddress {
    /// Leaves an order; false when the thread has too many waiting.
    pub fn send(&self, order: Order) -> bool {
        self.orders.send(order)
    }

    /// Wakes the thread so that it looks at the policy in force.
    pub fn wake(&self) {
        self.orders.wake();
    }

    /// The generation every verdict of this thread is given under from now on; the highest there is
    /// before it serves.
    pub fn generation_in_use(&self) -> u64 {
        self.in_use.generation.load(Ordering::Acquire)
    }

    /// Since when that is so, milliseconds of [`Clock::mono_ms`].
    pub fn in_use_since_ms(&self) -> u64 {
        self.in_use.since_ms.load(Ordering::Acquire)
    }
}

impl QueueHandle {
    /// Whether the thread is gone, which only an error on its queue can cause.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How long the thread has not come round to its queue, milliseconds. Idle it does twice a second.
    pub fn silent_ms(&self) -> u64 {
        let beat = self.beat.load(Ordering::Relaxed);
        self.clock.mono_ms().saturating_sub(beat)
    }

    /// How to reach the thread.
    pub fn address(&self) -> QueueAddress {
        QueueAddress {
            orders: self.orders.clone(),
            in_use: Arc::clone(&self.in_use),
        }
    }

    /// Ends the thread. Packets it held are dropped by the kernel with the queue.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !self.orders.send(Order::Stop) && !thread.is_finished() {
            std::thread::yield_now();
        }
        // A panic has aborted the process; there is no result to look at.
        drop(thread.join());
    }
}

/// What is to be looked at; neither when time was up.
struct Ready {
    packets: bool,
    orders: bool,
}

struct Worker {
    index: usize,
    queue: Queue,
    conntrack: Conntrack,
    raw: RawSender,
    mailbox: Mailbox<Order>,
    in_use: Arc<InUse>,
    beat: Arc<AtomicU64>,
    inspector: Inspector,
    ports: Ports,
    verdicts: VerdictBatch,
    /// What other threads are told once packets are answered; empty but for its room between two turns.
    news: Vec<Output>,
    counted: Counters,
    undecided: u64,
    linger: Linger,
    surroundings: Surroundings,
}

impl Worker {
    fn run(mut self) {
        if let Err(error) = confine::queue_thread() {
            tracing::error!(error = crate::cli::chain(&error), "a queue thread ends");
            return;
        }
        let mut batch = Batch::new();
        let mut generation = None;
        loop {
            let now_ms = self.surroundings.clock.mono_ms();
            self.beat.store(now_ms, Ordering::Relaxed);
            let policy = self.surroundings.policy.load();
            if generation != Some(policy.generation()) {
                generation = Some(policy.generation());
                self.adopt(&policy);
            }
            if self.inspector.has_backlog() {
                self.rejudge(&policy);
            }
            let ready = self.wait();
            if ready.orders && !self.take_orders(&policy) {
                break;
            }
            if ready.packets {
                match self.take_packets(&policy, &mut batch) {
                    Ok(0) => std::thread::yield_now(),
                    Ok(taken) => self.linger.after(taken, Instant::now()),
                    Err(error) => {
                        // Without its thread a queue drops everything: closed, and seen by health.
                        tracing::error!(%error, "a queue thread ends");
                        break;
                    }
                }
            }
            self.expire(&policy);
            self.count();
        }
    }

    /// Does something with what the inspector judges by, at this moment.
    fn with<R>(&mut self, policy: &Snapshot, work: impl FnOnce(&mut Self, &Env<'_>) -> R) -> R {
        let store = Arc::clone(&self.surroundings.bindings);
        let bindings = Under {
            store: &store,
            policy,
        };
        let env = Env {
            now: self.surroundings.clock.now(),
            policy,
            bindings: &bindings,
        };
        work(self, &env)
    }

    /// Turns to a new policy: every verdict from here on is given under it.
    fn adopt(&mut self, policy: &Snapshot) {
        self.with(policy, |this, env| this.inspector.handle_policy(env));
        let now_ms = self.surroundings.clock.mono_ms();
        self.in_use.since_ms.store(now_ms, Ordering::Release);
        self.in_use
            .generation
            .store(policy.generation(), Ordering::Release);
    }

    /// Judges a few undecided flows by a new policy, between packets: a full table would keep those waiting for long.
    fn rejudge(&mut self, policy: &Snapshot) {
        self.with(policy, |this, env| this.inspector.handle_backlog(env));
        self.perform(policy);
    }

    fn wait(&mut self) -> Ready {
        if self.inspector.has_backlog() {
            return self.look(PollTimeout::ZERO);
        }
        if self.linger.goes_on() {
            // The queue itself says whether there are packets: asking `poll` first is a system call more.
            return Ready {
                packets: true,
                orders: self.mailbox.is_rung(),
            };
        }
        let timeout = match self.inspector.poll_timeout() {
            None => PollTimeout::from(IDLE_MS),
            Some(at_ms) => {
                let wait_ms = at_ms.saturating_sub(self.surroundings.clock.mono_ms());
                PollTimeout::from(u16::try_from(wait_ms).unwrap_or(IDLE_MS).min(IDLE_MS))
            }
        };
        self.look(timeout)
    }

    fn look(&self, timeout: PollTimeout) -> Ready {
        let mut watched = [
            PollFd::new(self.queue.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.mailbox.as_fd(), PollFlags::POLLIN),
        ];
        wake::wait(&mut watched, timeout);
        let [packets, orders] = watched;
        // An error on the queue is for the receive to find.
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        Ready {
            packets: is_ready(&packets),
            orders: is_ready(&orders),
        }
    }

    fn take_orders(&mut self, policy: &Snapshot) -> bool {
        let mut go_on = true;
        self.with(policy, |this, env| {
            for order in this.mailbox.take() {
                match order {
                    Order::Answer(sought, answer) => {
                        this.inspector.handle_answer(env, &sought, answer);
                    }
                    Order::NoSuchClient(client) => {
                        this.inspector.handle_no_such_client(env, client);
                    }
                    Order::Wake => {}
                    Order::Stop => go_on = false,
                }
            }
        });
        self.perform(policy);
        go_on
    }

    /// Judges what has been queued; how many packets that was.
    fn take_packets(&mut self, policy: &Snapshot, batch: &mut Batch) -> Result<usize, QueueError> {
        let received = self.queue.receive(batch)?;
        if received.datagrams == 0 {
            return Ok(0);
        }
        self.with(policy, |this, env| {
            for event in batch.events() {
                match event {
                    Event::Packet(packet) => this.take_packet(env, &packet),
                    Event::Damaged(id) => this.verdicts.push(id, Action::Drop),
                    Event::Refused(_) | Event::Unreadable(_) | Event::Other => {}
                }
            }
        });
        self.perform(policy);
        Ok(received.datagrams)
    }

    fn take_packet(&mut self, env: &Env<'_>, packet: &Packet<'_>) {
        let is_admitted = packet.mark & marks::ADMITTED != 0;
        let class = QueueClass::from_mark(packet.mark)
            .map(|class| class_of(class, is_admitted, packet.bytes));
        match class {
            // What we cannot see whole we cannot judge.
            Some(class) if !packet.truncated => {
                self.inspector
                    .handle_packet(env, packet.id, class, packet.bytes);
            }
            Some(_) | None => self.verdicts.push(packet.id, Action::Drop),
        }
    }

    fn expire(&mut self, policy: &Snapshot) {
        let now_ms = self.surroundings.clock.mono_ms();
        if self
            .inspector
            .poll_timeout()
            .is_none_or(|at_ms| at_ms > now_ms)
        {
            return;
        }
        self.with(policy, |this, env| this.inspector.handle_timeout(env));
        self.perform(policy);
    }

    /// Does what the inspector wants with packets, in its order; verdicts between two resets go in one send. Then
    /// tells the other threads: a packet does not wait for one of them to be woken.
    fn perform(&mut self, policy: &Snapshot) {
        while let Some(output) = self.inspector.poll_output() {
            match output {
                Output::Verdict { token, verdict } => {
                    let is_granted = || self.surroundings.familiarity.is_granted();
                    let verdict = if verdict == Verdict::Familiar && !is_granted() {
                        Verdict::Judged
                    } else {
                        verdict
                    };
                    self.verdicts
                        .push(token, action_of(verdict, policy.generation()));
                }
                Output::Reset(reset) => {
                    // A hello passed in this batch must arrive first, or the reset's number is
                    // not the server's next one and is answered with a challenge instead.
                    self.answer();
                    if let Err(error) = self.raw.send(&segment_of(&reset)) {
                        tracing::debug!(%error, "sending a reset");
                    }
                }
                Output::Ending(flow) => {
                    let mark = marks::CT_KILL;
                    if let Err(error) = self.conntrack.set_mark(&tuple_of(&flow), mark, mark) {
                        tracing::warn!(%error, "ending a flow");
                    }
                }
                Output::Forget(flow) => {
                    if let Err(error) = self.conntrack.delete(&tuple_of(&flow)) {
                        tracing::warn!(%error, "deleting a connection entry");
                    }
                }
                Output::Unanswered(flow) => self.look_for_port(&flow, policy),
                Output::Query(_)
                | Output::UnknownClient(_)
                | Output::Certify { .. }
                | Output::Record(_)
                | Output::Claimed(_)
                | Output::Session(_) => self.news.push(output),
            }
        }
        self.answer();
        let mut news = std::mem::take(&mut self.news);
        for output in news.drain(..) {
            self.tell(output, policy);
        }
        self.news = news;
    }

    /// Refuses a flow whose SYN the kernel does not carry, if as many SYNs found no port as were refused for that.
    fn look_for_port(&mut self, flow: &FlowKey, policy: &Snapshot) {
        let looked = self.ports.is_without(&mut self.conntrack, &tuple_of(flow));
        match looked {
            Ok(false) => {}
            Ok(true) => {
                self.with(policy, |this, env| this.inspector.handle_no_port(env, flow));
            }
            Err(error) => tracing::debug!(%error, "looking whether a SYN is carried"),
        }
    }

    fn answer(&mut self) {
        if let Err(error) = self.queue.send(&mut self.verdicts) {
            tracing::error!(%error, "answering packets");
        }
    }

    /// Adds what the inspector has counted since last time to the daemon's totals.
    fn count(&mut self) {
        let counters = *self.inspector.counters();
        if counters != self.counted {
            self.surroundings.tally.add(&self.counted, &counters);
            self.counted = counters;
        }
        let undecided = u64::try_from(self.inspector.undecided()).unwrap_or(u64::MAX);
        if undecided != self.undecided {
            self.surroundings
                .tally
                .note_undecided(self.undecided, undecided);
            self.undecided = undecided;
        }
    }
}

/// Records of one turn for which there is room from the start.
const NEWS_ROOM: usize = 256;
/// Answers that may wait for a queue thread.
const ORDERS_MAX: usize = 16_384;
/// Longest sleep, so that counters are never older than this.
const IDLE_MS: u16 = 500;
