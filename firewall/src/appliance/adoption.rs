//! A policy comes into force: what happens, and in which order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use ipc::control::{Adopted, Event, Rejected};
use ipnet::IpNet;
use policy::preferences::DnsFront;
use policy::{Draft, Snapshot};

use super::{Appliance, Parts, adopted, inert};
use crate::bindings::{Scope, own_addresses};
use crate::clock::unix_ms;
use crate::flows::FlowEvent;
use crate::policy_store::{AdoptError, Adoption, Overlaid, Writing};
use crate::queue::QueueAddress;

/// A document that was published.
#[derive(Debug)]
pub struct Arrival {
    /// Its way to disk, if it goes there as it is.
    writing: Option<std::io::Result<Writing>>,
    /// When it was there whole.
    at_ms: u64,
}

impl Appliance {
    /// Brings a policy into force: on disk, swapped, watched, live flows judged again, logged.
    ///
    /// # Errors
    /// When it is past a limit or cannot be kept. The one before stays in force, and the
    /// config log says why.
    pub fn adopt(&mut self, draft: Draft) -> Result<Adopted, Rejected> {
        self.adopt_overlaid(draft, None)
    }

    pub(super) fn adopt_overlaid(
        &mut self,
        draft: Draft,
        of: Option<&Overlaid>,
    ) -> Result<Adopted, Rejected> {
        let (first, began_ms) = (self.policy().is_none(), self.parts.clock.mono_ms());
        let adoption = self.store.adopt_overlaid(draft, of, unix_ms());
        self.after(adoption, first, began_ms)
    }

    /// A document that has arrived whole: on its way to disk from here on, unless an overlay is laid over it.
    pub fn receive(&self, document: &Arc<[u8]>) -> Arrival {
        let as_it_is = !self.has_overlay();
        Arrival {
            writing: as_it_is.then(|| self.store.begin(Arc::clone(document), unix_ms())),
            at_ms: self.parts.clock.mono_ms(),
        }
    }

    /// Brings into force what a document that has arrived states, and nothing beside it.
    pub(super) fn adopt_arrived(
        &mut self,
        draft: Draft,
        arrival: Arrival,
    ) -> Result<Adopted, Rejected> {
        let first = self.policy().is_none();
        let adoption = match arrival.writing {
            Some(writing) => self.store.adopt_published(draft, writing),
            None => self.store.adopt(draft, unix_ms()),
        };
        self.after(adoption, first, arrival.at_ms)
    }

    /// Milliseconds from the last policy being there whole to every queue thread judging by it, a begun one counted; so
    /// far, while some do not. 0 before the first.
    pub fn adoption_ms(&self) -> u64 {
        let (generation, began_ms) = self.adopting;
        if generation == 0 {
            return 0;
        }
        let queues = &self.parts.queues;
        let in_use = |queue: &QueueAddress| {
            (queue.generation_in_use() >= generation).then(|| queue.in_use_since_ms())
        };
        let since: Option<Vec<u64>> = queues.iter().map(in_use).collect();
        let until_ms = since
            .and_then(|since| since.into_iter().max())
            .unwrap_or_else(|| self.parts.clock.mono_ms());
        until_ms.saturating_sub(began_ms).saturating_add(1)
    }

    /// Frees policies that nobody judges by any more, and forgets what a slow queue thread said under one.
    pub fn free_retired_policies(&mut self) {
        self.store.free_retired();
        self.forget_familiar();
    }

    /// Forgets pairs that became familiar under a policy that no queue thread judges by any more.
    fn forget_familiar(&self) {
        let Parts { kernel, queues, .. } = &self.parts;
        kernel.familiarity().go_on(kernel, queues);
    }

    fn after(
        &mut self,
        adoption: Result<Adoption, AdoptError>,
        first: bool,
        began_ms: u64,
    ) -> Result<Adopted, Rejected> {
        let Adoption {
            snapshot,
            previous,
            changed,
        } = adoption.map_err(|error| self.reject(&error))?;
        let mut ended = None;
        if changed {
            self.adopting = (snapshot.generation(), began_ms);
            let Parts { kernel, queues, .. } = &self.parts;
            let familiarity = kernel.familiarity();
            familiarity.adopt(kernel, queues, snapshot.generation());
            ended = self.rejudge(&snapshot);
            self.spread(&snapshot);
            for preference in inert(snapshot.preferences()) {
                tracing::warn!(preference, "this build does not act on it");
            }
        } else if self.parts.primed.load(Ordering::Relaxed) == snapshot.generation() {
            // Whoever publishes the same again waits for this word as well.
            let generation = snapshot.generation();
            drop(self.parts.events.send(Event::Primed { generation }));
        }
        let old = (!first).then(|| previous.draft());
        let stamp = self.stamp(&snapshot);
        for line in stamp.changes(old, snapshot.draft()) {
            self.parts.log.config(line);
        }
        if first {
            self.log_status();
        }
        // Last, because the flow thread goes on with it meanwhile.
        await_rejudged(ended.as_ref());
        self.forget_familiar();
        if changed {
            let (generation, ms) = (snapshot.generation(), self.adoption_ms());
            tracing::info!(generation, ms, "a policy is in force");
        }
        Ok(adopted(&snapshot))
    }

    fn reject(&self, error: &AdoptError) -> Rejected {
        let place = match error {
            AdoptError::Rejected(_) => "snapshot",
            AdoptError::Write { .. } => "disk",
        };
        let why = crate::cli::chain(error);
        self.fault("policy", &why);
        Rejected {
            place: place.to_owned(),
            why,
        }
    }

    pub(super) fn spread(&self, snapshot: &Arc<Snapshot>) {
        if let Err(error) = self.parts.kernel.set_served(&snapshot.draft().served) {
            tracing::error!(error = crate::cli::chain(&error), "served prefixes");
        }
        if let Err(error) = self.parts.kernel.set_askers(&self.askers(snapshot)) {
            tracing::error!(error = crate::cli::chain(&error), "the DNS front");
        }
        self.set_scope(snapshot);
        if !self.parts.witness.adopt(Arc::clone(snapshot)) {
            tracing::error!("the witness does not take up the policy");
        }
    }

    /// Who may ask the DNS front under a policy.
    fn askers(&self, snapshot: &Snapshot) -> Vec<IpNet> {
        let dns = &self.config.dns;
        if snapshot.preferences().dns_front == DnsFront::Off || dns.upstreams.is_empty() {
            return Vec::new();
        }
        let draft = snapshot.draft();
        let clients = draft.clients.iter().map(|client| client.net);
        let served = draft.served.iter().copied();
        let resolvers = dns.resolver_sources.iter().map(|source| source.0);
        IpNet::aggregate(&clients.chain(served).chain(resolvers).collect())
    }

    pub(super) fn set_scope(&self, snapshot: &Arc<Snapshot>) {
        match own_addresses() {
            Ok(own) => {
                let policy = Some(Arc::clone(snapshot));
                self.parts.bindings.set_scope(Scope { policy, own });
            }
            // The scope before stays: its policy is older, its exclusions hold.
            Err(error) => tracing::error!(%error, "listing our own addresses"),
        }
    }

    /// Has live flows judged again; where the number of those that end will be said.
    fn rejudge(&self, snapshot: &Arc<Snapshot>) -> Option<Receiver<usize>> {
        let (done, answer) = sync_channel(1);
        let order = || FlowEvent::Rejudge(Arc::clone(snapshot), done.clone());
        // A full mailbox is a burst of new flows; losing this order would leave refused flows
        // alive, so it is worth a wait. This is not a packet thread.
        let asked = Instant::now();
        while !self.parts.flows.send(order()) {
            if asked.elapsed() > REJUDGE_SEND_WAIT {
                tracing::error!("live flows are not judged again: the flow thread is stuck");
                return None;
            }
            std::thread::sleep(REJUDGE_SEND_PAUSE);
        }
        Some(answer)
    }
}

/// Waits a moment for live flows to be judged by the policy that was adopted.
fn await_rejudged(ended: Option<&Receiver<usize>>) {
    match ended.map(|ended| ended.recv_timeout(REJUDGE_WAIT)) {
        Some(Ok(0)) | None => {}
        Some(Ok(ended)) => tracing::info!(ended, "flows the policy no longer allows are ended"),
        Some(Err(_)) => tracing::warn!("live flows are still being judged again"),
    }
}

/// How long an adoption waits for live flows to be judged again, of its 200 ms.
const REJUDGE_WAIT: Duration = Duration::from_millis(100);
/// How long the flow thread may be too busy to take the order, and how often it is offered.
const REJUDGE_SEND_WAIT: Duration = Duration::from_secs(5);
const REJUDGE_SEND_PAUSE: Duration = Duration::from_millis(2);
