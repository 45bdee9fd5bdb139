//! The resolvers: whom to ask one question, and whom next when nobody answers.
//!
//! Asks through hickory's name server pool, which has no cache and chases no CNAME: an alias
//! counts only inside the answer that holds it, so that nobody can graft one name's addresses
//! onto another across two answers. Each resolver has pools of its own, so that an address can be
//! traced to the resolver that named it, and so that one dead resolver is remembered as dead.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::DnsResponse;
use hickory_resolver::proto::rr::{Name, RecordType};
use ipc::witness::AnswerOutcome;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

mod answer;
mod lookup;
mod system;
mod upstream;

pub(super) use answer::{Finding, Merge};
pub(super) use lookup::{Asked, Done, Part, Question, Tally, look_up, price, tell_part, types_of};
pub(super) use system::SystemResolvers;
use upstream::Upstream;

/// What one question brought.
#[derive(Debug)]
pub(super) struct Heard {
    /// Its addresses, and how it ended.
    pub(super) finding: Finding,
    /// What the resolver sent, or why it sent nothing of use.
    pub(super) result: Result<DnsResponse, NetError>,
}

impl Heard {
    fn failed(outcome: AnswerOutcome) -> Self {
        Self {
            finding: Finding::failed(outcome),
            result: Err(NetError::NoConnections),
        }
    }
}

/// Asks the configured resolvers.
#[derive(Clone, Debug)]
pub(super) struct Upstreams {
    servers: Arc<[Arc<Upstream>]>,
    /// Questions sent again since somebody last looked.
    resent: Arc<AtomicU64>,
}

impl Upstreams {
    /// Resolvers at `servers`, the preferred one first; of more than 8 only the first 8.
    ///
    /// # Errors
    /// When there is none, or hickory has no means to ask.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let servers = servers
            .iter()
            .take(UPSTREAMS_MAX)
            .map(|&address| Ok(Arc::new(Upstream::new(address)?)))
            .collect::<Result<Vec<_>, NetError>>()?;
        if servers.is_empty() {
            return Err(NetError::NoConnections);
        }
        Ok(Self {
            servers: servers.into(),
            resent: Arc::default(),
        })
    }

    /// How many questions were sent again, for want of an answer, since the last call.
    pub(super) fn take_resent(&self) -> u64 {
        self.resent.swap(0, Ordering::Relaxed)
    }

    /// How many resolvers are asked last because they did not answer lately.
    pub(super) fn suspended(&self) -> u64 {
        let suspended = self.servers.iter().filter(|server| server.is_suspended());
        u64::try_from(suspended.count()).unwrap_or(u64::MAX)
    }

    /// What [`Upstreams::hear`] finds of addresses.
    pub(super) async fn ask(
        &self,
        name: &Name,
        record_type: RecordType,
        sample: usize,
        patience: Duration,
    ) -> Finding {
        let heard = self.hear(name, record_type, sample, patience).await;
        heard.finding
    }

    /// Asks for one record type until somebody gives an answer of use or `patience` ends.
    ///
    /// Sample number n begins with the n-th resolver in good health. One that fails is followed
    /// by the next at once; one that is silent for [`HEDGE`] by the next beside it.
    pub(super) async fn hear(
        &self,
        name: &Name,
        record_type: RecordType,
        sample: usize,
        patience: Duration,
    ) -> Heard {
        let deadline = Instant::now() + patience;
        self.probe(name, record_type);
        let mut rest = self.order(sample).into_iter();
        let mut under_way: Vec<Arc<Upstream>> = Vec::new();
        let mut pending = JoinSet::new();
        let mut failure = Heard::failed(AnswerOutcome::TimedOut);
        let mut next_start = Instant::now();
        let (mut next_resend, mut resends) = (Instant::now() + RESEND, RESENDS_MAX);
        loop {
            let start_next = pending.is_empty() || Instant::now() >= next_start;
            if start_next && let Some(server) = rest.next() {
                under_way.push(Arc::clone(&server));
                let name = name.clone();
                pending.spawn(async move {
                    let heard = server.ask(&name, record_type, sample).await;
                    (server, heard)
                });
                next_start = Instant::now() + HEDGE;
            }
            if pending.is_empty() {
                return failure;
            }
            if resends > 0 && Instant::now() >= next_resend {
                resends = resends.saturating_sub(1);
                next_resend += RESEND;
                let count = u64::try_from(pending.len()).unwrap_or(u64::MAX);
                self.resent.fetch_add(count, Ordering::Relaxed);
            }
            let mut wake = deadline;
            if rest.len() > 0 {
                wake = wake.min(next_start);
            }
            if resends > 0 {
                wake = wake.min(next_resend);
            }
            tokio::select! {
                Some(Ok((server, mut heard))) = pending.join_next() => {
                    under_way.retain(|waiting| !Arc::ptr_eq(waiting, &server));
                    if heard.finding.is_conclusive() {
                        // Overtaken after its time: the next question begins elsewhere.
                        under_way.iter().for_each(|silent| silent.note_silence());
                        heard.finding.failed_over = !self.is_first(&server, sample);
                        return heard;
                    }
                    failure = heard;
                    next_start = Instant::now();
                }
                () = sleep_until(wake) => {}
            }
            if Instant::now() >= deadline {
                under_way.iter().for_each(|silent| silent.note_silence());
                return failure;
            }
        }
    }

    /// Where they are, the preferred one first.
    pub(super) fn addresses(&self) -> Vec<String> {
        let addresses = self.servers.iter().map(|server| server.address());
        addresses.map(|address| address.to_string()).collect()
    }

    /// Asks each resolver for a name of its own; what each named within [`PROBE_PATIENCE`].
    pub(super) async fn ask_each(
        &self,
        names: &[Name],
        record_type: RecordType,
    ) -> Vec<(String, Vec<IpAddr>)> {
        let mut pending = JoinSet::new();
        for (server, name) in self.servers.iter().cloned().zip(names.iter().cloned()) {
            pending.spawn(async move {
                let asked = server.ask(&name, record_type, 0);
                let heard = tokio::time::timeout(PROBE_PATIENCE, asked).await.ok()?;
                let named = heard
                    .finding
                    .addresses
                    .iter()
                    .map(|it| it.address)
                    .collect();
                Some((server.address().to_string(), named))
            });
        }
        let answers = pending.join_all().await;
        answers.into_iter().flatten().collect()
    }

    /// The order in which to ask for sample number `sample`.
    fn order(&self, sample: usize) -> Vec<Arc<Upstream>> {
        let (mut order, suspended): (Vec<_>, Vec<_>) = self
            .servers
            .iter()
            .cloned()
            .partition(|server| !server.is_suspended());
        if let Some(first) = sample.checked_rem(order.len()) {
            order.rotate_left(first);
        }
        order.extend(suspended);
        order
    }

    /// Whether `server` is where sample number `sample` begins when all are in good health.
    fn is_first(&self, server: &Arc<Upstream>, sample: usize) -> bool {
        let first = sample.checked_rem(self.servers.len()).unwrap_or(0);
        self.servers
            .get(first)
            .is_some_and(|first| Arc::ptr_eq(first, server))
    }

    /// Sends a question along to a resolver that has been silent, to learn whether it is back;
    /// nobody waits for it.
    fn probe(&self, name: &Name, record_type: RecordType) {
        for server in self.servers.iter().filter(|server| server.wants_probe()) {
            let (server, name) = (Arc::clone(server), name.clone());
            tokio::spawn(async move {
                let asked = server.ask(&name, record_type, 0);
                if tokio::time::timeout(PROBE_PATIENCE, asked).await.is_err() {
                    server.note_silence();
                }
                server.probed();
            });
        }
    }
}

/// Samples of one look-up asked side by side, at most.
pub(super) const SAMPLES_MAX: usize = 3;
/// Resolvers made use of, at most.
const UPSTREAMS_MAX: usize = 8;
/// How long a resolver may be silent before the next is asked beside it.
const HEDGE: Duration = Duration::from_millis(200);
/// How long hickory waits for an answer before it sends a question again, and how often it does.
const RESEND: Duration = Duration::from_millis(333);
const RESENDS_MAX: u32 = 3;
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
