//! The poll loop: reads the cloud, publishes what changed, looks up clients nobody knows.
//!
//! A look-up runs beside the reading under way and joins whatever that reading finds. Whatever
//! fails, the policy published last stays published; one line says what failed and where, another
//! when it works again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ipc::control::{PollState, Request, SourceState};
use policy::annotation::{self, ListReference, Standing};
use policy::{Draft, Fault};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::assemble::{Publication, assemble};
use crate::cloud::{Answer, Cloud, CloudError, Found};
use crate::config::Config;
use crate::documents::Kept;
use crate::schedule::{self, Backoff};

/// How long a report of an unknown client waits for others, so that a fleet that starts together
/// is one call.
const GATHER: Duration = Duration::from_millis(50);

/// Addresses looked up with one call.
const ADDRESSES_MAX: usize = 100;

/// Look-ups under way at a time.
const LOOK_UPS_MAX: usize = 2;

/// What else the reader is connected to.
#[derive(Debug)]
pub(crate) struct Wires {
    /// Where policy is published.
    pub(crate) policy: watch::Sender<Option<Rc<Publication>>>,
    /// What the daemon should know beside.
    pub(crate) requests: mpsc::Sender<Request>,
    /// Lists that descriptions refer to.
    pub(crate) wanted: watch::Sender<BTreeSet<ListReference>>,
    /// Preferences and lists as they are in force; `None` before they were read.
    pub(crate) kept: watch::Receiver<Option<Rc<Kept>>>,
}

/// From what a publication was made.
#[derive(Debug)]
struct Assembled {
    answer: Answer,
    with: Rc<Kept>,
    /// Lists that the answer refers to.
    references: Rc<BTreeSet<ListReference>>,
}

/// The task that reads.
#[derive(Debug)]
pub(crate) struct Sync<C> {
    cloud: Rc<C>,
    config: Rc<Config>,
    wires: Wires,
    /// The newest reading, with what was looked up since.
    latest: Option<Answer>,
    /// From what the publication in force was made.
    assembled: Option<Assembled>,
    /// When each look-up was asked and what it found, while a reading begun before it is under way.
    found: Vec<(Instant, Found)>,
    /// Addresses that a look-up did not find and a reading begun later may.
    doubtful: Vec<(Instant, IpAddr)>,
    under_way: JoinSet<Done>,
    is_reading: bool,
    look_ups: usize,
    failing: Option<String>,
    backoff: Backoff,
}

/// What ended.
#[derive(Debug)]
enum Done {
    Reading(Instant, Result<Answer, CloudError>),
    LookUp(Instant, Vec<IpAddr>, Result<Option<Found>, CloudError>),
}

impl<C: Cloud + 'static> Sync<C> {
    /// Reads `cloud`.
    pub(crate) fn new(cloud: C, config: Rc<Config>, wires: Wires) -> Self {
        let backoff = Backoff::new(config.poll.max_backoff());
        Self {
            cloud: Rc::new(cloud),
            config,
            wires,
            latest: None,
            assembled: None,
            found: Vec::new(),
            doubtful: Vec::new(),
            under_way: JoinSet::new(),
            is_reading: false,
            look_ups: 0,
            failing: None,
            backoff,
        }
    }

    /// Reads for ever.
    pub(crate) async fn run(mut self, mut unknown: mpsc::Receiver<IpAddr>) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(next), if !self.is_reading => self.begin_reading(),
                Some(address) = unknown.recv(), if self.look_ups < LOOK_UPS_MAX => {
                    tokio::time::sleep(GATHER).await;
                    let mut addresses = vec![address];
                    while let (true, Ok(address)) = (addresses.len() < ADDRESSES_MAX, unknown.try_recv()) {
                        addresses.push(address);
                    }
                    self.begin_look_up(addresses);
                }
                Some(Ok(done)) = self.under_way.join_next() => match done {
                    Done::Reading(started, read) => next = self.have_read(started, read),
                    Done::LookUp(asked, addresses, found) => self.have_found(asked, &addresses, found),
                },
                Ok(()) = self.wires.kept.changed() => {
                    self.publish();
                }
            }
        }
    }

    fn interval(&self) -> Duration {
        let poll = &self.config.poll;
        let calls = self.cloud.calls_per_reading();
        schedule::interval(
            poll.interval(),
            calls,
            poll.appliances,
            poll.calls_per_second,
        )
    }

    fn begin_reading(&mut self) {
        self.is_reading = true;
        let cloud = Rc::clone(&self.cloud);
        self.under_way.spawn_local(async move {
            let started = Instant::now();
            Done::Reading(started, cloud.read().await)
        });
    }

    /// Takes note of a reading, and says when the next one is due.
    fn have_read(&mut self, started: Instant, read: Result<Answer, CloudError>) -> Instant {
        self.is_reading = false;
        let found = std::mem::take(&mut self.found);
        let pause = match read {
            Ok(answer) => {
                self.backoff.reset();
                if let Some(before) = self.failing.take() {
                    tracing::info!(before, "the source of policy is readable again");
                }
                self.latest = Some(answer);
                // What was looked up while the reading was under way may be missing in it.
                for (_, found) in found.into_iter().filter(|(asked, _)| *asked >= started) {
                    self.join(found);
                }
                if !self.publish() {
                    self.say(Request::Source(SourceState::Current));
                }
                self.say(Request::Poll(PollState {
                    interval_s: self.interval().as_secs_f64(),
                    calls: self.cloud.calls_per_reading(),
                    appliances: self.config.poll.appliances,
                }));
                let (settled, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.doubtful)
                    .into_iter()
                    .partition(|(asked, _)| *asked <= started);
                self.doubtful = later;
                self.disown(settled.into_iter().map(|(_, address)| address));
                schedule::jittered(self.interval())
            }
            Err(error) => self.failed(&error),
        };
        // A reading that takes long does not make the next one late.
        started
            .checked_add(pause)
            .unwrap_or(started)
            .max(Instant::now())
    }

    /// Puts what was looked up into the newest reading.
    fn join(&mut self, found: Found) {
        if let Some(Answer::Reading(reading)) = &mut self.latest {
            Rc::make_mut(reading).join(found);
        }
    }

    /// Publishes what the newest answer says, unless that is published; says whether it did.
    fn publish(&mut self) -> bool {
        let Some(answer) = &self.latest else {
            return false;
        };
        let before = self.assembled.as_ref();
        let before = before.filter(|before| before.answer == *answer);
        let references = match before {
            Some(before) => Rc::clone(&before.references),
            None => Rc::new(references(answer)),
        };
        self.wires.wanted.send_if_modified(|wanted| {
            let is_news = *wanted != *references;
            if is_news {
                wanted.clone_from(&references);
            }
            is_news
        });
        let kept = self.wires.kept.borrow_and_update().clone();
        // A list nobody has asked for yet is not an empty one: its reader is on the way.
        let Some(kept) = kept.filter(|kept| kept.covers(&references)) else {
            return false;
        };
        if before.is_some_and(|before| before.with == kept) {
            return false;
        }
        let draft = draft(answer, &kept);
        self.assembled = Some(Assembled {
            answer: answer.clone(),
            with: kept,
            references,
        });
        match Publication::new(draft) {
            Ok(publication) => self.offer(publication),
            Err(rejected) => {
                tracing::error!(%rejected, "not published; the last policy stays");
                false
            }
        }
    }

    /// Makes this the policy, unless it is; says whether it did.
    fn offer(&self, publication: Publication) -> bool {
        let known = self.wires.policy.borrow().clone();
        let is_known = |fault: &Fault| {
            known
                .as_ref()
                .is_some_and(|known| known.draft.faults.contains(fault))
        };
        for fault in publication
            .draft
            .faults
            .iter()
            .filter(|fault| !is_known(fault))
        {
            tracing::warn!(%fault, "fault");
        }
        self.wires.policy.send_if_modified(|current| {
            let is_news = current
                .as_ref()
                .is_none_or(|now| now.json != publication.json);
            if is_news {
                *current = Some(Rc::new(publication));
            }
            is_news
        })
    }

    /// Says once what failed, and how long to wait.
    fn failed(&mut self, error: &CloudError) -> Duration {
        let pause = self
            .backoff
            .after_failure()
            .max(self.config.poll.interval().mul_f64(0.5));
        // The detail of one trouble varies with each request; its kind and place do not.
        let trouble = format!("{}: {}", error.call, error.kind);
        if self.failing.as_deref() != Some(&trouble) {
            tracing::warn!(%error, "the source of policy cannot be read; the last policy stays");
            let why = error.to_string();
            let said = Request::Source(SourceState::Failing { why });
            if let Err(unsaid) = self.wires.requests.try_send(said) {
                tracing::debug!(error = %unsaid, "the daemon is not told");
            }
            self.failing = Some(trouble);
        }
        pause
    }

    /// Looks clients up that the daemon does not know.
    fn begin_look_up(&mut self, addresses: Vec<IpAddr>) {
        let Some(Answer::Reading(known)) = &self.latest else {
            return;
        };
        self.look_ups = self.look_ups.saturating_add(1);
        let (cloud, known) = (Rc::clone(&self.cloud), Rc::clone(known));
        self.under_way.spawn_local(async move {
            let asked = Instant::now();
            let found = cloud.look_up(&addresses, &known).await;
            Done::LookUp(asked, addresses, found)
        });
    }

    /// Takes note of a look-up, and tells the daemon of addresses that nobody has.
    fn have_found(
        &mut self,
        asked: Instant,
        addresses: &[IpAddr],
        found: Result<Option<Found>, CloudError>,
    ) {
        self.look_ups = self.look_ups.saturating_sub(1);
        match found {
            Ok(Some(found)) => {
                if self.is_reading {
                    self.found.push((asked, found.clone()));
                }
                self.join(found);
                self.publish();
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "looking up new clients");
                return;
            }
        }
        let Some(Answer::Reading(reading)) = &self.latest else {
            return;
        };
        if self.cloud.finds_every_address(reading) {
            self.disown(addresses.iter().copied());
        } else {
            self.doubtful
                .extend(addresses.iter().map(|address| (asked, *address)));
        }
    }

    /// Tells the daemon of those that nobody has.
    fn disown(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if !self.is_client(address) {
                tracing::info!(%address, "no client has this address");
                self.say(Request::NotAClient { address });
            }
        }
    }

    fn is_client(&self, address: IpAddr) -> bool {
        self.wires.policy.borrow().as_ref().is_some_and(|policy| {
            policy
                .draft
                .clients
                .iter()
                .any(|client| client.net.contains(&address))
        })
    }

    /// Tells the daemon, when there is room to; none of this is worth waiting for.
    fn say(&self, request: Request) {
        if let Err(error) = self.wires.requests.try_send(request) {
            tracing::debug!(%error, "the daemon is not told");
        }
    }
}

/// The policy an answer and the documents make.
pub(crate) fn draft(answer: &Answer, kept: &Kept) -> Draft {
    match answer {
        Answer::Reading(reading) => assemble(reading, kept),
        Answer::Draft(draft) => draft.as_ref().clone(),
    }
}

/// External lists that the descriptions of an answer refer to.
pub(crate) fn references(answer: &Answer) -> BTreeSet<ListReference> {
    match answer {
        Answer::Reading(reading) => reading
            .rules
            .iter()
            .filter(|rule| rule.standing == Standing::Active && rule.description.contains('@'))
            .flat_map(|rule| annotation::references(&rule.description))
            .collect(),
        Answer::Draft(_) => BTreeSet::new(),
    }
}
