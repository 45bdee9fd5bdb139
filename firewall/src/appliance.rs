//! Everything that happens when a policy changes, and how the appliance is.
//!
//! Owned by the control thread. Packets never wait for anything in here.

mod adoption;
mod overlay;

pub use adoption::Arrival;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipc::control::{
    Adopted, Event, Explanation, LossCounts, PollState, Question, SourceState, StatusReply,
    StreamStatus,
};
use ipc::record::Stream;
use ipc::witness::FrontStateV1;
use policy::Snapshot;
use policy::preferences::{DnsFront, Preferences, Quic, X509Crls};
use tokio::sync::broadcast;

use crate::bindings::BindingStore;
use crate::clock::{Clock, unix_ms};
use crate::config::Config;
use crate::configlog::{Stamp, mode};
use crate::explain::Live;
use crate::flowlog::FlowLog;
use crate::flows::FlowEvent;
use crate::kernel::Kernel;
use crate::policy_store::{Overlaid, PolicyStore};
use crate::queue::{Order, QueueAddress};
use crate::tally::Tally;
use crate::wake::Sender;
use crate::witness::Witness;

/// The running parts, as far as a change of policy concerns them.
#[derive(Debug)]
pub struct Appliance {
    config: Config,
    boot: String,
    started_unix_ms: u64,
    store: PolicyStore,
    parts: Parts,
    source: Option<(SourceState, u64)>,
    poll: Option<PollState>,
    degraded: BTreeMap<&'static str, String>,
    data_plane_fault: Option<String>,
    /// Where policy is published: the file that is laid over it.
    overlay: Option<overlay::Overlay>,
    clock_synchronised: bool,
    /// The last adoption: its generation, and when the policy was there whole.
    adopting: (u64, u64),
}

/// Handles on the other threads.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The queue threads.
    pub queues: Vec<QueueAddress>,
    /// The ruleset.
    pub kernel: Arc<Kernel>,
    /// What names resolve to.
    pub bindings: Arc<BindingStore>,
    /// Who resolves them.
    pub witness: Witness,
    /// Flows the kernel carries.
    pub flows: Sender<FlowEvent>,
    /// How many.
    pub live_flows: Arc<AtomicU64>,
    /// Both logs.
    pub log: FlowLog,
    /// The time that bindings are dated by.
    pub clock: Clock,
    /// Totals.
    pub tally: Arc<Tally>,
    /// What clients of the control socket are told unasked.
    pub events: broadcast::Sender<Event>,
    /// The newest generation whose names all have an answer or a failure.
    pub primed: Arc<AtomicU64>,
}

impl Appliance {
    /// Takes over the parts; the policy found in the store is in force from here on.
    pub fn new(config: Config, store: PolicyStore, parts: Parts, kept: Option<Overlaid>) -> Self {
        let started_unix_ms = unix_ms();
        let boot = format!("{started_unix_ms:x}-{:x}", std::process::id());
        let overlay = config
            .inventory
            .is_none()
            .then(|| overlay::Overlay::new(&config.overlay, kept));
        let this = Self {
            config,
            boot,
            started_unix_ms,
            store,
            parts,
            source: None,
            poll: None,
            degraded: BTreeMap::new(),
            data_plane_fault: None,
            overlay,
            clock_synchronised: true,
            adopting: (0, 0),
        };
        if let Some(policy) = this.policy() {
            this.spread(&policy);
            this.log_status();
        }
        this
    }

    /// The queue threads, once they serve: a policy counts when all of them are on it.
    pub fn set_queues(&mut self, queues: Vec<QueueAddress>) {
        self.store.set_queues(queues.clone());
        self.parts.queues = queues;
    }

    /// The policy in force, if there is one.
    pub fn policy(&self) -> Option<Arc<Snapshot>> {
        self.store
            .adopted_unix_ms()
            .map(|_| self.store.current().load())
    }

    /// The policy in force, as an answer.
    pub fn adopted(&self) -> Option<Adopted> {
        self.policy().map(|policy| adopted(&policy))
    }

    /// Says a fault of our surroundings in the config log.
    pub fn fault(&self, object: &str, why: &str) {
        tracing::warn!(object, why, "fault");
        let stamp = self.stamp(&self.store.current().load());
        self.parts.log.config(stamp.fault(object, why));
    }

    /// Writes the status line.
    pub fn log_status(&self) {
        let policy = self.store.current().load();
        let mode = mode(&policy, self.policy().is_some(), unix_ms());
        let losses = Stream::ALL
            .into_iter()
            .map(|stream| self.parts.log.counts().lost(stream));
        let line = self.stamp(&policy).status(
            mode,
            &policy,
            losses.sum(),
            self.losses().packets_queue_full,
            self.source_age_s(),
        );
        self.parts.log.config(line);
    }

    /// Packets that found a queue full, since the start.
    pub fn packets_queue_full(&self) -> u64 {
        self.losses().packets_queue_full
    }

    /// Seconds since whoever publishes last said the policy is current; nothing while it cannot be read.
    fn source_age_s(&self) -> Option<u64> {
        match self.source.as_ref()? {
            (SourceState::Current, at_ms) => Some(unix_ms().saturating_sub(*at_ms) / 1_000),
            (SourceState::Failing { .. }, _) => None,
        }
    }

    /// Notes whether whoever publishes can read its source.
    pub fn note_source(&mut self, state: SourceState) {
        if let SourceState::Failing { why } = &state {
            self.fault("source", why);
        }
        self.source = Some((state, unix_ms()));
    }

    /// Notes how often whoever publishes asks its source.
    pub const fn note_poll(&mut self, state: PollState) {
        self.poll = Some(state);
    }

    /// Notes that no inventory knows an address.
    pub fn refuse_client(&self, address: IpAddr) {
        for queue in &self.parts.queues {
            queue.send(Order::NoSuchClient(address));
        }
    }

    /// Looks at our own addresses again; they are never bound to a name.
    pub fn refresh_scope(&self) {
        self.set_scope(&self.store.current().load());
    }

    /// Sets or clears one sentence of what is not as it should be.
    pub fn set_degraded(&mut self, part: &'static str, what: Option<String>) {
        match what {
            Some(what) => drop(self.degraded.insert(part, what)),
            None => drop(self.degraded.remove(part)),
        }
    }

    /// Notes that the data plane is not as it must be; health turns red.
    pub fn set_data_plane_fault(&mut self, fault: Option<String>) {
        self.data_plane_fault = fault;
    }

    /// What is wrong with the data plane, if anything.
    pub fn data_plane_fault(&self) -> Option<&str> {
        let ours = self.parts.kernel.is_ours();
        let fault = self.data_plane_fault.as_deref();
        fault.or_else(|| (!ours).then_some("the ruleset in the kernel is not ours"))
    }

    /// Notes whether something keeps the clock right.
    pub fn set_clock_synchronised(&mut self, synchronised: bool) {
        self.clock_synchronised = synchronised;
    }

    /// Whether something keeps the clock right, as far as the kernel says.
    pub const fn clock_synchronised(&self) -> bool {
        self.clock_synchronised
    }

    /// How long whoever publishes has said nothing; `None` when nobody ever did.
    pub fn publisher_silence(&self) -> Option<Duration> {
        let (_, at_ms) = self.source.as_ref()?;
        Some(Duration::from_millis(unix_ms().saturating_sub(*at_ms)))
    }

    /// Says to whoever listens that an address is unknown.
    pub fn report_unknown(&self, address: IpAddr) {
        // Without a listener the engine refuses by itself after a while.
        drop(self.parts.events.send(Event::UnknownClient { address }));
    }

    /// A listener's end of the events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.parts.events.subscribe()
    }

    /// Which appliance, and which start of it.
    pub fn names(&self) -> (&str, &str) {
        (&self.config.appliance, &self.boot)
    }

    /// The settings it was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The handles on the other threads.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// How the appliance is.
    pub fn status(&self) -> StatusReply {
        let now_ms = unix_ms();
        let policy = self.store.current().load();
        let seconds_since = |ms: u64| now_ms.saturating_sub(ms) / 1_000;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let in_force = self.policy().is_some();
        let tally = &self.parts.tally;
        StatusReply {
            program: crate::cli::PROGRAM.to_owned(),
            appliance: self.config.appliance.clone(),
            uptime_s: seconds_since(self.started_unix_ms),
            mode: mode(&policy, in_force, now_ms).to_owned(),
            degraded: self.degraded(in_force),
            generation: policy.generation(),
            policy_id: if in_force {
                policy.policy_id().to_owned()
            } else {
                String::new()
            },
            policy_age_s: self.store.adopted_unix_ms().map_or(0, seconds_since),
            source_age_s: self.source_age_s(),
            poll: self.poll,
            clients: count(policy.draft().clients.len()),
            groups: count(policy.draft().groups.len()),
            names: count(policy.exact_names().count()),
            names_bound: count(self.parts.bindings.names_bound()),
            faults: count(policy.draft().faults.len()),
            flows_undecided: tally.undecided(),
            flows_judged: self.parts.live_flows.load(Ordering::Relaxed),
            allowed: tally.allowed(),
            refused: tally.refused(),
            queue_form: self.parts.kernel.queue_form(),
            queues: u32::try_from(self.parts.queues.len()).unwrap_or(u32::MAX),
            witness: self.parts.witness.state(),
            spool: self.spool_status(),
            losses: self.losses(),
        }
    }

    /// Answers what would become of one connection.
    pub fn explain(&self, question: &Question) -> Result<Explanation, String> {
        let Some(policy) = self.policy() else {
            return Err("no policy is in force".to_owned());
        };
        let live = Live {
            bindings: &self.parts.bindings,
            now_ms: self.parts.clock.mono_ms(),
        };
        crate::explain::explain(&policy, question, unix_ms(), Some(live))
    }

    /// Why the DNS front does not answer although the policy wants it to.
    pub fn front_fault(&self) -> Option<String> {
        let policy = self.policy()?;
        if policy.preferences().dns_front == DnsFront::Off {
            return None;
        }
        if self.config.dns.upstreams.is_empty() {
            let why = "dns_front: nobody is answered, for `upstreams` of [dns] names no resolver";
            return Some(why.to_owned());
        }
        match self.parts.witness.front_state()? {
            FrontStateV1::Checking | FrontStateV1::Serving => None,
            FrontStateV1::Looping(upstream) => Some(format!(
                "dns_loop: nobody is answered, for resolver {upstream} leads back to the DNS front"
            )),
            FrontStateV1::Failed(why) => Some(format!("dns_front: nobody is answered: {why}")),
        }
    }

    fn degraded(&self, in_force: bool) -> Vec<String> {
        let mut sentences: Vec<String> = self.degraded.values().cloned().collect();
        if !in_force {
            sentences.push("no_policy: nothing leaves".to_owned());
        }
        if let Some((SourceState::Failing { why }, _)) = &self.source {
            sentences.push(format!("the source of policy cannot be read: {why}"));
        }
        if let Some(policy) = self.policy() {
            let inert =
                inert(policy.preferences()).map(|it| format!("this build does not act on {it}"));
            sentences.extend(inert);
        }
        sentences
    }

    fn spool_status(&self) -> BTreeMap<Stream, StreamStatus> {
        let counts = self.parts.log.counts();
        let sizes = self.parts.log.sizes();
        let status = |stream: Stream| {
            let size = sizes.iter().find(|size| size.stream == stream);
            StreamStatus {
                segments: size.map_or(0, |size| size.segments),
                bytes: size.map_or(0, |size| size.bytes),
                lines: counts.written(stream),
                oldest: size.and_then(|size| size.oldest),
                lost: counts.spool_full(stream),
            }
        };
        Stream::ALL
            .into_iter()
            .map(|stream| (stream, status(stream)))
            .collect()
    }

    fn losses(&self) -> LossCounts {
        let counts = self.parts.log.counts();
        let totals: BTreeMap<&str, u64> = self.parts.tally.totals().into_iter().collect();
        let total = |name| totals.get(name).copied().unwrap_or(0);
        LossCounts {
            lines_overrun: Stream::ALL
                .into_iter()
                .map(|stream| counts.overrun(stream))
                .sum(),
            lines_spool_full: Stream::ALL
                .into_iter()
                .map(|stream| counts.spool_full(stream))
                .sum(),
            lines_suppressed: total("suppressed"),
            packets_queue_full: total("queue_overruns").saturating_add(total("queue_drops")),
            conntrack_events: total("conntrack_overruns"),
        }
    }

    fn stamp(&self, policy: &Snapshot) -> Stamp {
        Stamp::new(policy, &self.config.appliance, unix_ms())
    }
}

fn adopted(policy: &Snapshot) -> Adopted {
    Adopted {
        generation: policy.generation(),
        policy_id: policy.policy_id().to_owned(),
    }
}

/// Preferences set to what this build does not do yet. None of them opens anything: the flows
/// they speak of are judged, and refused, as without them. Said aloud, so that nobody relies on
/// a check that is not made.
fn inert(preferences: &Preferences) -> impl Iterator<Item = &'static str> {
    [
        (preferences.quic == Quic::Inspect, "quic: inspect"),
        (preferences.x509_crls == X509Crls::Allow, "x509_crls: allow"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
}
