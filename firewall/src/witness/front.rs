//! The DNS front: answers clients' questions, as far as the daemon lets it.
//!
//! Runs in the witness process, which has the resolvers and no rights. Every question is put to the daemon, and no answer
//! leaves before the daemon has bound its addresses: a client cannot dial an address we have not seen.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RecordType};
use ipc::witness::{
    AskedV1, FoundV1, FromWitness, FrontHealthV1, FrontStateV1, FrontV1, FrontVerdict, PermitV1,
    ReleaseV1,
};
use ipnet::IpNet;
use nix::errno::Errno;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::record_type_name;
use super::resolve::Upstreams;

mod cache;
mod message;
mod probe;
mod socket;
mod sources;
mod stream;
mod waits;

use cache::{Answers, Kept};
use message::{Answer, Question, Read};
use probe::{LoopCheck, Probe};
use socket::{Datagrams, Route};
use sources::Sources;
use waits::{WAITING_MAX, WAITING_PER_SOURCE, Waiting, Waits};

/// The front while it is on.
#[derive(Debug)]
pub(super) struct Front {
    settings: FrontV1,
    resolvers: Vec<IpNet>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// Listeners and questions under way; they end with it.
    tasks: JoinSet<()>,
    waiting: Waits,
    /// What resolvers are being asked, and for whom: however many ask, they are asked once.
    under_way: HashMap<Sought, Vec<u64>>,
    last_id: u64,
    sources: Sources,
    /// What each had resolvers asked of late.
    forwarded: Sources,
    answers: Answers,
    check: LoopCheck,
    checked: Option<Instant>,
    state: FrontStateV1,
    health: FrontHealthV1,
    started: Instant,
}

/// Something that happened to the front.
#[derive(Debug)]
pub(super) enum Event {
    /// Somebody sent a message.
    Message {
        bytes: Vec<u8>,
        from: SocketAddr,
        reply: ReplyTo,
    },
    /// A resolver answered a question, or none did.
    Heard(Sought, Option<Box<Answer>>),
    /// Every resolver has been probed; the one that answered as a front does.
    Probed(Option<String>),
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum ReplyTo {
    /// Back to where a datagram came from.
    Datagram(Arc<Datagrams>, Route),
    /// To a connection.
    Stream(oneshot::Sender<Vec<u8>>),
}

/// A name in lower case and a type of records.
pub(super) type Sought = (Name, RecordType);

impl Front {
    /// Listens; who has resolvers asked more than `modest_qps` times a second asks much.
    ///
    /// # Errors
    /// When a socket cannot be had; on a machine without IPv6 those of IPv4 are enough.
    pub(super) fn open(settings: FrontV1, modest_qps: u64) -> io::Result<Self> {
        let resolvers = settings.resolvers.iter();
        let mut front = Self {
            resolvers: resolvers.filter_map(|text| text.parse().ok()).collect(),
            settings,
            events: mpsc::channel(EVENTS_MAX),
            tasks: JoinSet::new(),
            waiting: Waits::default(),
            under_way: HashMap::new(),
            last_id: 0,
            sources: Sources::new(ASKED_PER_SECOND, ASKED_AT_ONCE),
            forwarded: Sources::new(modest_qps.max(1), modest_qps.max(1)),
            answers: Answers::default(),
            check: LoopCheck::default(),
            checked: None,
            state: FrontStateV1::Checking,
            health: FrontHealthV1::default(),
            started: Instant::now(),
        };
        for ipv6 in [false, true] {
            match front.listen(ipv6) {
                Err(error) if ipv6 && is_absent(&error) => {}
                result => result?,
            }
        }
        Ok(front)
    }

    fn listen(&mut self, ipv6: bool) -> io::Result<()> {
        let datagrams = Arc::new(Datagrams::open(ipv6, self.settings.port)?);
        let listener = socket::listener(ipv6, self.settings.port)?;
        self.tasks.spawn(receive(datagrams, self.events.0.clone()));
        let resolvers = self.resolvers.clone();
        self.tasks
            .spawn(stream::serve(listener, resolvers, self.events.0.clone()));
        Ok(())
    }

    /// How it is run.
    pub(super) const fn settings(&self) -> &FrontV1 {
        &self.settings
    }

    /// How it is.
    pub(super) const fn state(&self) -> &FrontStateV1 {
        &self.state
    }

    /// What it did.
    pub(super) const fn health(&self) -> FrontHealthV1 {
        self.health
    }

    /// Takes in what happened; what the daemon is told of it.
    pub(super) fn handle(&mut self, event: Event) -> Vec<FromWitness> {
        let news = match event {
            Event::Message { bytes, from, reply } => self.receive(&bytes, from, reply),
            Event::Heard(sought, answer) => return self.heard(sought, answer),
            Event::Probed(marked) => self.set_state(self.check.end(marked)),
        };
        news.into_iter().collect()
    }

    fn receive(&mut self, bytes: &[u8], from: SocketAddr, reply: ReplyTo) -> Option<FromWitness> {
        self.health.questions = self.health.questions.saturating_add(1);
        let serving = self.state == FrontStateV1::Serving;
        let question = match message::read(bytes) {
            Read::Question(question) => question,
            Read::Unanswerable(answer) => {
                self.health.malformed = self.health.malformed.saturating_add(1);
                if serving && self.may_ask(from) {
                    reply.send(answer);
                }
                return None;
            }
            Read::Nothing => {
                self.health.malformed = self.health.malformed.saturating_add(1);
                return None;
            }
        };
        let name = question.name();
        match self.check.note(&name) {
            Probe::Other => {}
            Probe::Foreign => {
                if self.may_ask(from) {
                    send(&question, &question.marked(), reply);
                }
                return None;
            }
            Probe::Own => {
                // Answered, so that no resolver remembers a failure in place of the next probe.
                send(&question, &question.marked(), reply);
                let upstream = self.check.returned().unwrap_or_default().to_owned();
                return self.set_state(FrontStateV1::Looping(upstream));
            }
        }
        if !serving {
            return None;
        }
        let most = if self.is_resolver(from.ip()) {
            WAITING_MAX
        } else {
            WAITING_PER_SOURCE
        };
        if !self.may_ask(from) || !self.waiting.has_room(from.ip(), most) {
            self.health.limited = self.health.limited.saturating_add(1);
            return None;
        }
        self.last_id = self.last_id.wrapping_add(1);
        let asked = AskedV1 {
            id: self.last_id,
            from,
            name,
            record_type: record_type_name(question.sought().1),
        };
        let waiting = Waiting {
            source: from.ip(),
            question,
            reply,
            since: Instant::now(),
            kept: None,
        };
        self.waiting.add(asked.id, waiting);
        Some(FromWitness::Asked(asked))
    }

    fn may_ask(&mut self, from: SocketAddr) -> bool {
        let now_ms = self.now_ms();
        self.is_resolver(from.ip()) || self.sources.take(from.ip(), now_ms)
    }

    /// Whether many clients may be behind a source.
    fn is_resolver(&self, source: IpAddr) -> bool {
        self.resolvers.iter().any(|net| net.contains(&source))
    }

    /// Whether whoever asks first for this has not had resolvers asked much of late; notes that they are asked again.
    pub(super) fn is_modest(&mut self, sought: &Sought) -> bool {
        let now_ms = self.now_ms();
        let first = self.under_way.get(sought).and_then(|ids| ids.first());
        let source = first.and_then(|id| self.waiting.source(*id));
        source.is_none_or(|source| self.is_resolver(source) || self.forwarded.take(source, now_ms))
    }

    /// Does what the daemon decided: what resolvers are to be asked, or what the daemon is told at once.
    pub(super) fn permit(&mut self, permit: &PermitV1) -> (Option<Sought>, Option<FromWitness>) {
        if permit.verdict != FrontVerdict::Forward {
            if let Some(waiting) = self.waiting.remove(permit.id)
                && permit.verdict != FrontVerdict::Ignore
            {
                let answer = waiting.question.refusal(permit.verdict);
                send(&waiting.question, &answer, waiting.reply);
            }
            return (None, None);
        }
        let Some(waiting) = self.waiting.get_mut(permit.id) else {
            return (None, None);
        };
        let sought = waiting.question.sought();
        if let Some(kept) = self.answers.get(&sought) {
            self.health.cached = self.health.cached.saturating_add(1);
            let found = found(permit.id, Some((kept.answer.as_ref(), Some(kept.age_s()))));
            waiting.kept = Some(kept);
            return (None, Some(found));
        }
        let others = self.under_way.entry(sought.clone()).or_default();
        others.push(permit.id);
        ((others.len() == 1).then_some(sought), None)
    }

    /// Gives up a question that cannot be put to anybody now: whoever asked asks again.
    pub(super) fn give_up(&mut self, sought: &Sought) {
        let ids = self.under_way.remove(sought).unwrap_or_default();
        for id in ids {
            self.waiting.remove(id);
            self.health.over_budget = self.health.over_budget.saturating_add(1);
        }
    }

    /// Puts a question to the resolvers.
    pub(super) fn forward(&mut self, sought: Sought, upstreams: Upstreams) {
        let events = self.events.0.clone();
        self.tasks.spawn(async move {
            let (name, record_type) = (&sought.0, sought.1);
            let heard = upstreams.hear(name, record_type, 0, PATIENCE).await;
            let answer = Answer::of((name, record_type), heard).map(Box::new);
            // Nobody listens any more when the front is off.
            drop(events.send(Event::Heard(sought, answer)).await);
        });
    }

    fn heard(&mut self, sought: Sought, answer: Option<Box<Answer>>) -> Vec<FromWitness> {
        let ids = self.under_way.remove(&sought).unwrap_or_default();
        let kept = answer.map(|answer| Kept::new(*answer));
        if let Some(kept) = &kept {
            self.answers.keep(sought, kept.clone());
        }
        let mut news = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(waiting) = self.waiting.get_mut(id) {
                waiting.kept.clone_from(&kept);
                let age_s = (!news.is_empty()).then_some(0);
                let answer = kept.as_ref().map(|kept| (kept.answer.as_ref(), age_s));
                news.push(found(id, answer));
            }
        }
        news
    }

    /// Lets an answer go.
    pub(super) fn release(&mut self, release: &ReleaseV1) {
        let Some(waiting) = self.waiting.remove(release.id) else {
            return;
        };
        let question = &waiting.question;
        let answer = match &waiting.kept {
            Some(kept) => question.answer(&kept.answer, &release.without, kept.age_s()),
            None => question.failure(),
        };
        send(question, &answer, waiting.reply);
    }

    /// Looks after what takes time; called once a second or so.
    pub(super) fn tick(&mut self, upstreams: Option<&Upstreams>) {
        while self.tasks.try_join_next().is_some() {}
        self.waiting.sweep(WAITING_FOR);
        let now_ms = self.now_ms();
        self.sources.sweep(now_ms);
        self.forwarded.sweep(now_ms);
        let every = if self.state == FrontStateV1::Serving {
            CHECK_EVERY
        } else {
            CHECK_AGAIN
        };
        let due = self.checked.is_none_or(|at| at.elapsed() >= every);
        if let (true, Some(upstreams)) = (due, upstreams) {
            self.checked = Some(Instant::now());
            let round = self.check.begin(upstreams);
            let events = self.events.0.clone();
            self.tasks.spawn(async move {
                let marked = round.await;
                drop(events.send(Event::Probed(marked)).await);
            });
        }
    }

    fn set_state(&mut self, state: FrontStateV1) -> Option<FromWitness> {
        if self.state == state {
            return None;
        }
        self.state = state;
        Some(FromWitness::Front(self.state.clone()))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The next event; never, while the front is off.
pub(super) async fn next(front: &mut Option<Front>) -> Event {
    let event = match front {
        Some(front) => front.events.1.recv().await,
        None => None,
    };
    match event {
        Some(event) => event,
        None => pending().await,
    }
}

async fn receive(socket: Arc<Datagrams>, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while !events.is_closed() {
        match socket.receive(&mut buffer).await {
            Ok((length, route)) => {
                let event = Event::Message {
                    bytes: buffer.get(..length).unwrap_or_default().to_vec(),
                    from: route.from,
                    reply: ReplyTo::Datagram(Arc::clone(&socket), route),
                };
                drop(events.send(event).await);
            }
            // About a datagram sent earlier, as a rule; a socket that is gone for good must not burn a processor.
            Err(_) => tokio::time::sleep(ERROR_PAUSE).await,
        }
    }
}

impl ReplyTo {
    fn send(self, bytes: Vec<u8>) {
        match self {
            Self::Datagram(socket, route) => {
                if let Err(error) = socket.send(&bytes, route) {
                    tracing::debug!(%error, "answering a question");
                }
            }
            // Whoever asked has gone.
            Self::Stream(reply) => drop(reply.send(bytes)),
        }
    }
}

fn send(question: &Question, answer: &Message, reply: ReplyTo) {
    let datagram = matches!(reply, ReplyTo::Datagram(..));
    if let Some(bytes) = question.encode(answer, datagram) {
        reply.send(bytes);
    }
}

/// What the daemon is told of an answer; with an age where it has been told before.
fn found(id: u64, answer: Option<(&Answer, Option<u32>)>) -> FromWitness {
    let mut found = FoundV1 {
        id,
        rcode: String::new(),
        addresses: Vec::new(),
        chain: Vec::new(),
        others: Vec::new(),
        upstream: String::new(),
        repeated: false,
    };
    if let Some((answer, age_s)) = answer {
        found.rcode = message::code_name(answer.code);
        found.addresses.clone_from(&answer.addresses);
        found.repeated = age_s.is_some();
        for seen in &mut found.addresses {
            seen.ttl_s = seen.ttl_s.saturating_sub(age_s.unwrap_or(0));
        }
        found.chain.clone_from(&answer.chain);
        found.others = answer.others();
        found.upstream.clone_from(&answer.upstream);
    }
    FromWitness::Found(found)
}

/// Whether the machine has no such family at all.
fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].map(|errno| Some(errno as i32));
    absent.contains(&error.raw_os_error())
}

/// Events that may wait; beyond them the kernel's buffers fill, and then drop.
const EVENTS_MAX: usize = 1_024;
/// Questions a second of one source, and at once on top: a busy node asks some tens.
const ASKED_PER_SECOND: u64 = 200;
const ASKED_AT_ONCE: u64 = 400;
/// How long a question may wait for the daemon and the resolvers together.
const WAITING_FOR: Duration = Duration::from_secs(6);
/// How long resolvers have for an answer: as long as whoever asked has, by custom.
const PATIENCE: Duration = Duration::from_secs(4);
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The same while it loops, or has not been told.
const CHECK_AGAIN: Duration = Duration::from_secs(5);
const ERROR_PAUSE: Duration = Duration::from_millis(10);
const DATAGRAM_BYTES_MAX: usize = 4_096;
