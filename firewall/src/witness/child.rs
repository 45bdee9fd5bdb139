//! The witness process: reads what to watch from the daemon, asks resolvers, answers.
//!
//! Runs as its own user, without capabilities, with nothing open but its socket pair and
//! standard error. It ends when the daemon does.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};
use ipc::framing::{self, Decoder, FramingError};
use ipc::witness::{
    AnswerOutcome, AnswerV1, Configure, FromWitness, FrontStateV1, FrontV1, HealthV1, Lookup,
    MESSAGE_BYTES_MAX, Sample, ToWitness,
};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::certify::Certifier;
use super::front::{self, Event, Front, Sought};
use super::resolve::{
    Asked, Done, Finding, Merge, Part, Question, SAMPLES_MAX, SystemResolvers, Tally, Upstreams,
    look_up, price, tell_part, types_of,
};
use super::schedule::{Budget, Purpose, Schedule};

/// Why the witness ended other than by the daemon's leaving.
#[derive(Debug, Error)]
pub enum ChildError {
    /// Standard input is not the daemon's socket.
    #[error("taking over the daemon's socket")]
    Socket(#[source] io::Error),
    /// Rights could not be given up.
    #[error("giving up rights")]
    Rights(#[source] crate::confine::ConfineError),
    /// The daemon said something that is no message.
    #[error("reading from the daemon")]
    Read(#[source] FramingError),
    /// The daemon does not listen.
    #[error("writing to the daemon")]
    Write(#[source] io::Error),
}

/// Serves the daemon on standard input until it closes. `listens` is whether it may have a DNS front.
///
/// # Errors
/// When rights cannot be given up or the conversation breaks.
pub fn run(listens: bool) -> Result<(), ChildError> {
    crate::confine::witness(listens).map_err(ChildError::Rights)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ChildError::Socket)?;
    runtime.block_on(async {
        let socket = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(ChildError::Socket)?;
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true).map_err(ChildError::Socket)?;
        let stream = UnixStream::from_std(socket).map_err(ChildError::Socket)?;
        Witness::new(stream).serve().await
    })
}

/// Why a question is asked.
enum Wanted {
    /// A packet waits for it.
    Asked(Asked),
    /// The name is watched; such a question takes one of the places for them.
    Watched(OwnedSemaphorePermit),
}

struct Witness {
    stream: UnixStream,
    decoder: Decoder,
    started: Instant,
    upstreams: Option<Upstreams>,
    settings: Configure,
    budget: Budget,
    schedule: Schedule,
    /// Look-ups under way that a packet waits for.
    asked: HashSet<(String, Asked)>,
    questions: JoinSet<Done>,
    /// What watched names may take up of them.
    refreshes: Arc<Semaphore>,
    system: SystemResolvers,
    /// Answers of look-ups that go on; the sending end is for every look-up.
    parts: (mpsc::Sender<Part>, mpsc::Receiver<Part>),
    front: Option<Front>,
    /// How the front is to be run; tried again while it cannot be.
    front_wanted: Option<FrontV1>,
    certifier: Certifier,
    health: HealthV1,
    reported: HealthV1,
}

impl Witness {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(MESSAGE_BYTES_MAX),
            started: Instant::now(),
            upstreams: None,
            settings: Configure {
                upstreams: Vec::new(),
                max_qps: 400,
                ipv6: true,
                anchors: None,
                authorities: String::new(),
            },
            budget: Budget::new(400, 0),
            schedule: Schedule::default(),
            asked: HashSet::new(),
            questions: JoinSet::new(),
            refreshes: Arc::new(Semaphore::new(REFRESHES_MAX)),
            system: SystemResolvers::new(),
            parts: mpsc::channel(PARTS_MAX),
            front: None,
            front_wanted: None,
            certifier: Certifier::default(),
            health: HealthV1::default(),
            reported: HealthV1::default(),
        }
    }

    async fn serve(mut self) -> Result<(), ChildError> {
        self.send(&FromWitness::Ready).await?;
        let mut buffer = vec![0; 64 << 10];
        let mut next_health = Instant::now() + HEALTH_EVERY;
        loop {
            self.ask_due().await?;
            let wake = self.next_wake().min(next_health);
            tokio::select! {
                read = self.stream.read(&mut buffer) => {
                    let length = read.map_err(|error| ChildError::Read(FramingError::Io(error)))?;
                    if length == 0 {
                        return Ok(());
                    }
                    self.decoder.push(buffer.get(..length).unwrap_or_default());
                    self.read_messages().await?;
                }
                Some(part) = self.parts.1.recv() => self.tell(part).await?,
                Some(done) = self.questions.join_next() => {
                    // Its end comes after its parts.
                    while let Ok(part) = self.parts.1.try_recv() {
                        self.tell(part).await?;
                    }
                    // An error here is a question that panicked: the daemon gives up on it by
                    // its own deadline.
                    if let Ok(done) = done {
                        self.answer(done).await?;
                    }
                }
                certified = self.certifier.next() => {
                    self.send(&FromWitness::Certified(certified)).await?;
                }
                event = front::next(&mut self.front) => self.handle_front(event).await?,
                () = sleep_until(wake) => {}
            }
            if Instant::now() >= next_health {
                next_health = Instant::now() + HEALTH_EVERY;
                self.connect();
                self.open_front().await?;
                if let Some(front) = &mut self.front {
                    front.tick(self.upstreams.as_ref());
                }
                self.report_health().await?;
            }
        }
    }

    async fn read_messages(&mut self) -> Result<(), ChildError> {
        while let Some(message) = self
            .decoder
            .next_message::<ToWitness>()
            .map_err(ChildError::Read)?
        {
            let now_ms = self.now_ms();
            match message {
                ToWitness::Configure(settings) => self.configure(settings),
                ToWitness::Watch { names } => {
                    names
                        .into_iter()
                        .for_each(|name| self.schedule.watch(name, now_ms));
                }
                ToWitness::Unwatch { names } => {
                    names.iter().for_each(|name| self.schedule.unwatch(name));
                }
                ToWitness::Lookup(lookup) => self.look_up(lookup).await?,
                ToWitness::Sample(sample) => self.sample(&sample),
                ToWitness::Front(wanted) => self.set_front(wanted).await?,
                ToWitness::Permit(permit) => {
                    if let Some(front) = &mut self.front {
                        let (sought, news) = front.permit(&permit);
                        if let Some(sought) = sought {
                            self.forward(sought);
                        }
                        if let Some(news) = news {
                            self.send(&news).await?;
                        }
                    }
                }
                ToWitness::Certify(wanted) => self.certifier.begin(wanted),
                ToWitness::Release(release) => {
                    if let Some(front) = &mut self.front {
                        front.release(&release);
                    }
                }
            }
        }
        Ok(())
    }

    fn configure(&mut self, settings: Configure) {
        self.budget = Budget::new(settings.max_qps, self.now_ms());
        self.certifier.configure(&settings);
        self.settings = settings;
        self.system = SystemResolvers::new();
        self.upstreams = None;
        self.connect();
    }

    /// Takes over resolvers that are new: those configured, or the system's as they are now. Without
    /// any, every question fails until the next attempt.
    fn connect(&mut self) {
        let configured = self.settings.upstreams.iter();
        let configured: Vec<SocketAddr> = configured.filter_map(|text| text.parse().ok()).collect();
        let servers = if self.settings.upstreams.is_empty() {
            self.system.changed()
        } else {
            self.upstreams.is_none().then_some(configured)
        };
        let Some(servers) = servers else { return };
        match Upstreams::new(&servers) {
            Ok(upstreams) => {
                tracing::info!(?servers, "resolvers");
                self.upstreams = Some(upstreams);
            }
            Err(error) => tracing::warn!(%error, "no resolver to ask"),
        }
    }

    async fn set_front(&mut self, wanted: Option<FrontV1>) -> Result<(), ChildError> {
        if self.front.as_ref().map(Front::settings) == wanted.as_ref() {
            return Ok(());
        }
        // Its sockets close before others open.
        self.front = None;
        self.front_wanted = wanted;
        self.open_front().await
    }

    async fn open_front(&mut self) -> Result<(), ChildError> {
        let Some(wanted) = self.front_wanted.clone().filter(|_| self.front.is_none()) else {
            return Ok(());
        };
        let state = match Front::open(wanted, self.budget.modest_qps()) {
            Ok(mut front) => {
                front.tick(self.upstreams.as_ref());
                let state = front.state().clone();
                self.front = Some(front);
                state
            }
            Err(error) => FrontStateV1::Failed(error.to_string()),
        };
        self.send(&FromWitness::Front(state)).await
    }

    async fn handle_front(&mut self, event: Event) -> Result<(), ChildError> {
        let news = self.front.as_mut().map(|front| front.handle(event));
        for message in news.unwrap_or_default() {
            self.send(&message).await?;
        }
        Ok(())
    }

    /// Puts a client's question to the resolvers, within the front's share.
    fn forward(&mut self, sought: Sought) {
        let now_ms = self.now_ms();
        let Some(front) = &mut self.front else { return };
        let upstreams = self.upstreams.clone();
        let modest = front.is_modest(&sought);
        let purpose = Purpose::Front { modest };
        match upstreams.filter(|_| self.budget.take(purpose, 1, now_ms)) {
            Some(upstreams) => front.forward(sought, upstreams),
            None => front.give_up(&sought),
        }
    }

    async fn look_up(&mut self, lookup: Lookup) -> Result<(), ChildError> {
        let asked = Asked { ipv6: lookup.ipv6 };
        if !self.asked.insert((lookup.name.clone(), asked)) {
            return Ok(());
        }
        let types = types_of(&lookup);
        let now_ms = self.now_ms();
        let mut samples = usize::from(lookup.samples).clamp(1, SAMPLES_MAX);
        while samples > 0
            && !self
                .budget
                .take(Purpose::Miss, price(&types, samples), now_ms)
        {
            samples = samples.saturating_sub(1);
        }
        if samples == 0 {
            self.health.over_budget = self.health.over_budget.saturating_add(1);
            return self
                .fail(lookup.name, Some(asked), AnswerOutcome::OverBudget)
                .await;
        }
        let budget = Duration::from_millis(u64::from(lookup.budget_ms)).max(LOOKUP_MIN);
        self.start((lookup.name, &types), samples, Wanted::Asked(asked), budget)
            .await
    }

    /// Asks some more times about a name that rotates, as often as the refresh share allows.
    fn sample(&mut self, sample: &Sample) {
        let now_ms = self.now_ms();
        let purpose = Purpose::Sample {
            urgent: sample.urgent,
        };
        let affordable = (0..sample.count).take_while(|_| self.budget.take(purpose, 1, now_ms));
        let count = affordable.count();
        let (Some(upstreams), Ok(mut wire_name)) =
            (self.upstreams.clone(), Name::from_ascii(&sample.name))
        else {
            return;
        };
        if count == 0 || self.questions.len() >= QUESTIONS_MAX {
            return;
        }
        wire_name.set_fqdn(true);
        let record_type = if sample.ipv6 {
            RecordType::AAAA
        } else {
            RecordType::A
        };
        self.health.asked = self.health.asked.saturating_add(1);
        let name = sample.name.clone();
        let parts = sample.urgent.then(|| self.parts.0.clone());
        self.questions.spawn(async move {
            let mut merge = Merge::default();
            let mut tally = Tally::default();
            // One after the other: equal questions that overlap are sent once.
            for turn in 0..count {
                let finding = upstreams
                    .ask(&wire_name, record_type, turn, SAMPLE_PATIENCE)
                    .await;
                tally.count(&finding);
                merge.add(finding);
                if let Some(parts) = &parts {
                    tell_part(&name, None, &mut merge, parts).await;
                }
            }
            Done {
                name,
                finding: merge.take(),
                asked: None,
                sampled: true,
                tally,
            }
        });
    }

    /// Asks for every watched name that is due and affordable.
    async fn ask_due(&mut self) -> Result<(), ChildError> {
        if let Some(upstreams) = &self.upstreams {
            self.budget.owe(upstreams.take_resent());
        }
        while self.questions.len() < QUESTIONS_MAX {
            let Ok(place) = Arc::clone(&self.refreshes).try_acquire_owned() else {
                return Ok(());
            };
            let now_ms = self.now_ms();
            let Some(due) = self.schedule.take_due(now_ms) else {
                return Ok(());
            };
            let purpose = if due.first {
                Purpose::Priming
            } else {
                Purpose::Refresh
            };
            let types = self.refresh_types();
            if !self.budget.take(purpose, price(types, 1), now_ms) {
                self.schedule
                    .put_off(&due, now_ms.saturating_add(BUDGET_WAIT_MS));
                continue;
            }
            self.start((due.name, types), 1, Wanted::Watched(place), REFRESH_BUDGET)
                .await?;
        }
        Ok(())
    }

    async fn start(
        &mut self,
        (name, types): (String, &[RecordType]),
        samples: usize,
        wanted: Wanted,
        budget: Duration,
    ) -> Result<(), ChildError> {
        let (asked, place) = match wanted {
            Wanted::Asked(asked) => (Some(asked), None),
            Wanted::Watched(place) => (None, Some(place)),
        };
        if self.upstreams.is_none() {
            self.connect();
        }
        let Some(upstreams) = self.upstreams.clone() else {
            return self.fail(name, asked, AnswerOutcome::ServerFailure).await;
        };
        let Ok(mut wire_name) = Name::from_ascii(&name) else {
            return self.fail(name, asked, AnswerOutcome::ServerFailure).await;
        };
        wire_name.set_fqdn(true);
        self.health.asked = self.health.asked.saturating_add(1);
        self.questions.spawn(look_up(
            upstreams,
            Question {
                name,
                wire_name,
                samples,
                types: types.to_vec(),
                asked,
                budget,
                place,
            },
            self.parts.0.clone(),
        ));
        Ok(())
    }

    /// Ends a question that could not be sent.
    async fn fail(
        &mut self,
        name: String,
        asked: Option<Asked>,
        outcome: AnswerOutcome,
    ) -> Result<(), ChildError> {
        self.answer(Done {
            name,
            finding: Finding::failed(outcome),
            asked,
            sampled: false,
            tally: Tally::default(),
        })
        .await
    }

    async fn tell(&mut self, part: Part) -> Result<(), ChildError> {
        self.note_dropped(&part.finding);
        let answer = message(part.name, part.finding, part.asked);
        let answer = AnswerV1 {
            more: true,
            ..answer
        };
        self.send(&FromWitness::Answer(answer)).await
    }

    async fn answer(&mut self, done: Done) -> Result<(), ChildError> {
        let Done {
            name,
            finding,
            asked,
            sampled,
            tally,
        } = done;
        let answered = matches!(
            finding.outcome,
            AnswerOutcome::Resolved | AnswerOutcome::NoAddress | AnswerOutcome::NoSuchName
        );
        let health = &mut self.health;
        health.answered = health.answered.saturating_add(u64::from(answered));
        health.timed_out = health.timed_out.saturating_add(tally.timed_out);
        health.failed = health.failed.saturating_add(tally.failed);
        health.failed_over = health.failed_over.saturating_add(tally.failed_over);
        self.note_dropped(&finding);
        // A look-up for a packet asks for what the packet needs, and says nothing of the rest.
        if let Some(asked) = asked {
            self.asked.remove(&(name.clone(), asked));
        } else if !sampled {
            let resolved = finding.outcome == AnswerOutcome::Resolved;
            self.schedule
                .answered(&name, resolved, finding.ttl_s, self.now_ms());
        }
        self.send(&FromWitness::Answer(message(name, finding, asked)))
            .await
    }

    fn note_dropped(&mut self, finding: &Finding) {
        let health = &mut self.health;
        health.addresses_dropped = health.addresses_dropped.saturating_add(finding.dropped);
    }

    async fn report_health(&mut self) -> Result<(), ChildError> {
        self.health.watched = u64::try_from(self.schedule.len()).unwrap_or(u64::MAX);
        self.health.suspended = self.upstreams.as_ref().map_or(0, Upstreams::suspended);
        if let Some(front) = &self.front {
            self.health.front = front.health();
        }
        if self.health == self.reported {
            return Ok(());
        }
        self.reported = self.health;
        self.send(&FromWitness::Health(self.health)).await
    }

    async fn send(&mut self, message: &FromWitness) -> Result<(), ChildError> {
        let bytes = framing::encode(message, MESSAGE_BYTES_MAX)
            .map_err(|error| ChildError::Write(io::Error::other(error)))?;
        self.stream
            .write_all(&bytes)
            .await
            .map_err(ChildError::Write)
    }

    /// What a refresh asks for.
    const fn refresh_types(&self) -> &'static [RecordType] {
        if self.settings.ipv6 {
            &[RecordType::A, RecordType::AAAA, RecordType::HTTPS]
        } else {
            &[RecordType::A, RecordType::HTTPS]
        }
    }

    fn next_wake(&self) -> Instant {
        let is_full = self.refreshes.available_permits() == 0;
        let due_ms = if is_full || self.questions.len() >= QUESTIONS_MAX {
            // Whatever is due has to wait for the end of a question, and that wakes us.
            None
        } else {
            self.schedule.next_due_ms()
        };
        let due_ms = due_ms.unwrap_or(u64::MAX);
        let wait = Duration::from_millis(due_ms.saturating_sub(self.now_ms()).min(60_000));
        Instant::now() + wait
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A finding in the words of the daemon.
fn message(name: String, finding: Finding, asked: Option<Asked>) -> AnswerV1 {
    AnswerV1 {
        name,
        outcome: finding.outcome,
        addresses: finding.addresses,
        ttl_s: finding.ttl_s,
        asked: asked.is_some(),
        ipv6: asked.is_some_and(|asked| asked.ipv6),
        chain: finding.chain,
        sources: finding.sources,
        more: false,
    }
}

const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Look-ups under way at once.
const QUESTIONS_MAX: usize = 1_024;
/// How many of them may be refreshes. One costs some 45 KB while it is under way; at 20 ms an answer this many are
/// thousands of names a second, far beyond the budget of questions.
const REFRESHES_MAX: usize = 64;
/// How long a due name waits when the budget is spent.
const BUDGET_WAIT_MS: u64 = 50;
const LOOKUP_MIN: Duration = Duration::from_millis(100);
const SAMPLE_PATIENCE: Duration = Duration::from_millis(500);
const REFRESH_BUDGET: Duration = Duration::from_secs(4);
/// Answers that may wait to be told to the daemon.
const PARTS_MAX: usize = 256;
