//! The poll loop: reads the cloud, publishes what changed, looks up clients nobody knows.
//!
//! Whatever fails, the policy published last stays published; one line says what failed and
//! where, another when it works again.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ipc::control::{Request, SourceState};
use policy::{Fault, Preferences};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::assemble::{Publication, assemble};
use crate::cloud::{Answer, Cloud, CloudError};
use crate::config::Config;
use crate::schedule::{self, Backoff};

/// How long a report of an unknown client waits for others, so that a fleet that starts together
/// is one call.
const GATHER: Duration = Duration::from_millis(50);

/// Addresses looked up with one call.
const ADDRESSES_MAX: usize = 100;

/// The task that reads.
#[derive(Debug)]
pub(crate) struct Sync<C> {
    cloud: C,
    config: Rc<Config>,
    preferences: Preferences,
    faults: Vec<Fault>,
    policy: watch::Sender<Option<Rc<Publication>>>,
    requests: mpsc::Sender<Request>,
    last: Option<Answer>,
    failing: Option<String>,
    backoff: Backoff,
}

impl<C: Cloud> Sync<C> {
    /// Reads `cloud` and publishes to `policy`; what the daemon should know beside goes to
    /// `requests`.
    pub(crate) fn new(
        cloud: C,
        config: Rc<Config>,
        policy: watch::Sender<Option<Rc<Publication>>>,
        requests: mpsc::Sender<Request>,
    ) -> Self {
        let (preferences, faults) = config.preferences();
        let backoff = Backoff::new(config.poll.max_backoff());
        Self {
            cloud,
            config,
            preferences,
            faults,
            policy,
            requests,
            last: None,
            failing: None,
            backoff,
        }
    }

    /// Reads for ever.
    pub(crate) async fn run(mut self, mut unknown: mpsc::Receiver<IpAddr>) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(next) => {
                    let started = Instant::now();
                    let pause = match self.poll().await {
                        Ok(()) => schedule::jittered(self.interval()),
                        Err(error) => self.failed(&error),
                    };
                    // A reading that takes long does not make the next one late.
                    next = started.checked_add(pause).unwrap_or(started).max(Instant::now());
                }
                Some(address) = unknown.recv() => {
                    tokio::time::sleep(GATHER).await;
                    let mut addresses = vec![address];
                    while let (true, Ok(address)) = (addresses.len() < ADDRESSES_MAX, unknown.try_recv()) {
                        addresses.push(address);
                    }
                    self.look_up(&addresses).await;
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

    /// One reading.
    async fn poll(&mut self) -> Result<(), CloudError> {
        let answer = self.cloud.read().await?;
        self.backoff.reset();
        if let Some(before) = self.failing.take() {
            tracing::info!(before, "the source of policy is readable again");
        }
        if !self.publish(answer) {
            self.say(Request::Source(SourceState::Current)).await;
        }
        Ok(())
    }

    /// Publishes what an answer says, unless that is published; says whether it did.
    fn publish(&mut self, answer: Answer) -> bool {
        if self.last.as_ref() == Some(&answer) {
            return false;
        }
        let draft = match &answer {
            Answer::Reading(reading) => assemble(reading, &self.preferences, &self.faults),
            Answer::Draft(draft) => draft.as_ref().clone(),
        };
        self.last = Some(answer);
        let publication = match Publication::new(draft) {
            Ok(publication) => publication,
            Err(rejected) => {
                tracing::error!(%rejected, "not published; the last policy stays");
                return false;
            }
        };
        let known = self.policy.borrow().clone();
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
        self.policy.send_if_modified(|current| {
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
            if let Err(unsaid) = self.requests.try_send(said) {
                tracing::debug!(error = %unsaid, "the daemon is not told");
            }
            self.failing = Some(trouble);
        }
        pause
    }

    /// Looks clients up that the daemon does not know.
    async fn look_up(&mut self, addresses: &[IpAddr]) {
        let answer = match self.cloud.look_up(addresses).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "looking up new clients");
                return;
            }
        };
        if let Some(answer) = answer {
            self.publish(answer);
        }
        for address in addresses {
            if !self.is_client(*address) {
                tracing::info!(%address, "no client has this address");
                self.say(Request::NotAClient { address: *address }).await;
            }
        }
    }

    fn is_client(&self, address: IpAddr) -> bool {
        self.policy.borrow().as_ref().is_some_and(|policy| {
            policy
                .draft
                .clients
                .iter()
                .any(|client| client.net.contains(&address))
        })
    }

    /// Tells the daemon, when there is room to; none of this is worth waiting for.
    async fn say(&self, request: Request) {
        if let Err(error) = self.requests.try_send(request) {
            tracing::debug!(%error, "the daemon is not told");
        }
    }
}
