//! The witness process and the socket to it: started, fed, read, and started again.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use caps::{CapSet, Capability};
use ipc::framing::{self, Decoder};
use ipc::witness::{FromWitness, FrontStateV1, HealthV1, MESSAGE_BYTES_MAX, ToWitness};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::desk::{Action, Desk};
use super::{Audience, DnsTotals, Order};
use crate::clock::{self, Clock};
use crate::confine::user_to_become;
use crate::wake::{self, Mailbox};

pub(super) const ABSENT: u8 = 0;
pub(super) const ANSWERING: u8 = 1;
pub(super) const UNANSWERED: u8 = 2;
pub(super) const RESTARTING: u8 = 3;

pub(super) struct Link {
    desk: Desk,
    mailbox: Mailbox<Order>,
    audience: Box<dyn Audience>,
    clock: Clock,
    user: String,
    reports: Reports,
    process: Option<Process>,
    restart_ms: u64,
    failures: u32,
    health: HealthV1,
}

/// What other threads look at.
pub(super) struct Reports {
    /// How the process is.
    pub(super) state: Arc<AtomicU8>,
    /// How the DNS front is.
    pub(super) front: Arc<Mutex<Option<FrontStateV1>>>,
    /// What both have done.
    pub(super) totals: Arc<DnsTotals>,
}

struct Process {
    child: Child,
    /// Whether it may have the DNS front.
    listens: bool,
    socket: UnixStream,
    decoder: Decoder,
    started_ms: u64,
}

impl Link {
    pub(super) fn new(
        desk: Desk,
        mailbox: Mailbox<Order>,
        audience: Box<dyn Audience>,
        clock: Clock,
        user: String,
        reports: Reports,
    ) -> Self {
        Self {
            desk,
            mailbox,
            audience,
            clock,
            user,
            reports,
            process: None,
            restart_ms: 0,
            failures: 0,
            health: HealthV1::default(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.start_if_due();
            self.wait();
            if !self.take_orders() {
                break;
            }
            self.read_answers();
            let mut actions = Vec::new();
            self.desk.tick(self.clock.mono_ms(), &mut actions);
            self.desk.tick_front(self.clock.now(), &mut actions);
            self.perform(actions);
            let certificates = self.desk.take_certificate_counts();
            self.reports.totals.add_certificates(&certificates);
        }
        if let Some(mut process) = self.process.take() {
            end(&mut process.child);
        }
    }

    /// Sleeps until an order, an answer, or the next thing due.
    fn wait(&self) {
        let now_ms = self.clock.mono_ms();
        let mut until_ms = self.desk.next_tick_ms();
        if self.process.is_none() {
            until_ms = until_ms.min(self.restart_ms);
        }
        let wait_ms = u16::try_from(until_ms.saturating_sub(now_ms)).unwrap_or(u16::MAX);
        let mut watched = vec![PollFd::new(self.mailbox.as_fd(), PollFlags::POLLIN)];
        if let Some(process) = &self.process {
            watched.push(PollFd::new(process.socket.as_fd(), PollFlags::POLLIN));
        }
        wake::wait(&mut watched, PollTimeout::from(wait_ms));
    }

    /// Takes what other threads want; false for the order to stop.
    fn take_orders(&mut self) -> bool {
        let orders: Vec<Order> = self.mailbox.take().collect();
        let now_ms = self.clock.mono_ms();
        let mut actions = Vec::new();
        for order in orders {
            match order {
                Order::Ask { queue, query } => self.desk.ask(queue, &query, now_ms, &mut actions),
                Order::Used { name, addr } => {
                    self.desk.used(&name, addr, now_ms, &mut actions);
                }
                Order::Certify { name, server } => {
                    let synchronised = clock::is_synchronised() == Some(true);
                    let now = self.clock.now();
                    self.desk
                        .certify((&name, server), now, synchronised, &mut actions);
                }
                Order::Adopt(policy) => {
                    self.desk.adopt(policy, now_ms, &mut actions);
                    self.exchange(now_ms);
                }
                Order::Stop => return false,
            }
        }
        self.perform(actions);
        true
    }

    fn read_answers(&mut self) {
        match self.read_some() {
            Ok(messages) => {
                let mut actions = Vec::new();
                for message in messages {
                    match message {
                        FromWitness::Ready => self.failures = 0,
                        FromWitness::Answer(answer) => {
                            self.desk
                                .answered(&answer, self.clock.mono_ms(), &mut actions);
                        }
                        FromWitness::Health(health) => self.note_health(health),
                        FromWitness::Asked(asked) => {
                            self.desk.asked(&asked, self.clock.now(), &mut actions);
                        }
                        FromWitness::Found(found) => {
                            self.desk.found(&found, self.clock.now(), &mut actions);
                        }
                        FromWitness::Front(state) => self.note_front(Some(state)),
                        FromWitness::Certified(certified) => {
                            self.desk
                                .certified(&certified, self.clock.now(), &mut actions);
                        }
                    }
                }
                self.perform(actions);
            }
            Err(error) => self.lose(&error),
        }
    }

    fn read_some(&mut self) -> io::Result<Vec<FromWitness>> {
        let mut messages = Vec::new();
        let Some(process) = &mut self.process else {
            return Ok(messages);
        };
        let (mut buffer, mut taken) = ([0; 16 << 10], 0_usize);
        // What it goes on saying waits for the next turn: others wait for this thread too.
        while taken < READ_MAX {
            match process.socket.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    taken = taken.saturating_add(length);
                    let bytes = buffer.get(..length).unwrap_or_default();
                    process.decoder.push(bytes);
                    while let Some(message) =
                        process.decoder.next_message().map_err(io::Error::other)?
                    {
                        messages.push(message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(messages)
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(message) => {
                    if let Err(error) = self.tell(&message) {
                        self.lose(&error);
                    }
                }
                Action::Answer {
                    queue,
                    sought,
                    answer,
                } => {
                    self.audience.answer(queue, sought, answer);
                }
                Action::Primed { generation } => self.audience.primed(generation),
                Action::Alarm { name } => self.audience.alarm(&name),
                Action::Log(line) => self.audience.log(line),
                Action::Unknown(address) => self.audience.unknown(address),
                Action::BadCertificate {
                    name,
                    server,
                    detail,
                } => self.audience.bad_certificate(&name, server, &detail),
                Action::Distrust { name, server } => self.audience.distrust(name, server),
            }
        }
    }

    /// Sends a message; without a process it is said again to the next one.
    fn tell(&mut self, message: &ToWitness) -> io::Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let bytes = framing::encode(message, MESSAGE_BYTES_MAX).map_err(io::Error::other)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match process.socket.write(rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut writable = [PollFd::new(process.socket.as_fd(), PollFlags::POLLOUT)];
                    if poll(&mut writable, PollTimeout::from(WRITE_WAIT_MS))? == 0 {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn start_if_due(&mut self) {
        let now_ms = self.clock.mono_ms();
        if self.process.is_some() || now_ms < self.restart_ms {
            return;
        }
        let listens = self.desk.listens();
        match spawn(&self.user, listens) {
            Ok((child, socket)) => {
                let decoder = Decoder::new(MESSAGE_BYTES_MAX);
                self.process = Some(Process {
                    child,
                    listens,
                    socket,
                    decoder,
                    started_ms: now_ms,
                });
                self.reports.state.store(ANSWERING, Ordering::Relaxed);
                let mut actions = Vec::new();
                self.desk.greet(&mut actions);
                self.perform(actions);
            }
            Err(error) => self.lose(&error),
        }
    }

    /// Ends a process that may listen and need not, or must and may not; the next one is told everything again.
    fn exchange(&mut self, now_ms: u64) {
        let listens = self.desk.listens();
        if !listens {
            self.note_front(None);
        }
        if let Some(mut process) = self.process.take_if(|process| process.listens != listens) {
            end(&mut process.child);
            self.health = HealthV1::default();
            self.restart_ms = now_ms;
        }
    }

    fn note_front(&self, state: Option<FrontStateV1>) {
        let Ok(mut front) = self.reports.front.lock() else {
            return;
        };
        if *front == state {
            return;
        }
        match &state {
            Some(state) => tracing::info!(?state, "the DNS front"),
            None => tracing::info!("the DNS front is off"),
        }
        *front = state;
    }

    /// Ends a process that is of no use and plans the next one: after 100 ms, 200 ms, 400 ms
    /// and so on up to 5 s, starting over once one has lived a minute.
    fn lose(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the witness ended, starting it again");
        let now_ms = self.clock.mono_ms();
        if let Some(mut process) = self.process.take() {
            end(&mut process.child);
            if now_ms.saturating_sub(process.started_ms) >= STEADY_MS {
                self.failures = 0;
            }
        }
        self.reports.state.store(RESTARTING, Ordering::Relaxed);
        self.failures = self.failures.saturating_add(1);
        let wait_ms = RESTART_MIN_MS << self.failures.saturating_sub(1).min(6);
        self.restart_ms = now_ms.saturating_add(wait_ms.min(RESTART_MAX_MS));
        if self.desk.listens() {
            self.note_front(Some(FrontStateV1::Checking));
        }
        self.health = HealthV1::default();
    }

    /// Questions were asked and none answered since the last report: the resolver is away.
    fn note_health(&mut self, health: HealthV1) {
        self.reports.totals.add(&self.health, &health);
        let (learnt, rotating) = self.desk.counts();
        self.reports.totals.set_names(learnt, rotating);
        self.reports
            .totals
            .note_not_global(self.desk.take_not_global());
        self.reports
            .totals
            .add_front(&self.desk.take_front_counts());
        let asked = health.asked.saturating_sub(self.health.asked);
        let answered = health.answered.saturating_sub(self.health.answered);
        if answered > 0 {
            self.reports.state.store(ANSWERING, Ordering::Relaxed);
        } else if asked > 0 {
            self.reports.state.store(UNANSWERED, Ordering::Relaxed);
        }
        self.health = health;
    }
}

fn spawn(user: &str, listens: bool) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    // The running binary itself, even when its path leads to another one by now or cannot be
    // walked by the witness's user.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("postern").arg("witness").env_clear();
    if listens {
        command.arg("--listen");
    }
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    if let Some(filter) = std::env::var_os("RUST_LOG") {
        command.env("RUST_LOG", filter);
    }
    let may_become = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETUID);
    if may_become.unwrap_or(false)
        && let Some(user) = user_to_become(user)
    {
        // The standard library also leaves every supplementary group when we are root; otherwise the
        // child does.
        command.gid(user.gid.as_raw()).uid(user.uid.as_raw());
    }
    Ok((command.spawn()?, ours))
}

fn end(child: &mut Child) {
    // It may have ended by itself; either way it is reaped.
    drop(child.kill());
    drop(child.wait());
}

/// Bytes of the witness taken in one turn.
const READ_MAX: usize = 4 << 20;
const RESTART_MIN_MS: u64 = 100;
const RESTART_MAX_MS: u64 = 5_000;
const STEADY_MS: u64 = 60_000;
/// A witness that reads nothing for this long is started again.
const WRITE_WAIT_MS: u16 = 1_000;
