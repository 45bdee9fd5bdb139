//! Where what the witness says goes: to queue threads, to the logs, to publishers, to the thread that follows flows.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inspect::{Answer, Sought};
use ipc::control::Event;
use ipc::record::DnsLineV1;
use policy::Name;
use tokio::sync::{broadcast, mpsc};

use crate::bindings;
use crate::clock::unix_ms;
use crate::configlog::Stamp;
use crate::flowlog::FlowLog;
use crate::flows::FlowEvent;
use crate::policy_store::CurrentPolicy;
use crate::queue::{Order, QueueAddress};
use crate::wake::Sender;
use crate::witness::Audience;

/// Carries what the witness says to whom it concerns.
pub(super) struct Listeners {
    pub(super) queues: Vec<QueueAddress>,
    pub(super) unknown: mpsc::Sender<IpAddr>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) primed: Arc<AtomicU64>,
    pub(super) log: FlowLog,
    pub(super) appliance: String,
    pub(super) policy: Arc<CurrentPolicy>,
    pub(super) flows: Sender<FlowEvent>,
}

impl Audience for Listeners {
    fn answer(&self, queue: usize, sought: Sought, answer: Answer) {
        if let Some(queue) = self.queues.get(queue) {
            // A full mailbox leaves the packet to its own deadline.
            queue.send(Order::Answer(sought, answer));
        }
    }

    fn primed(&self, generation: u64) {
        tracing::info!(generation, "primed");
        self.primed.store(generation, Ordering::Relaxed);
        // Nobody may be listening.
        drop(self.events.send(Event::Primed { generation }));
    }

    fn alarm(&self, name: &Name) {
        let policy = self.policy.load();
        let stamp = Stamp::new(&policy, &self.appliance, unix_ms());
        let limit = bindings::NEW_ADDRESSES_ALARM;
        let message = format!("{name} resolved to more than {limit} new addresses in 10 minutes");
        self.log.config(stamp.fault(name.as_str(), &message));
    }

    fn log(&self, line: Box<DnsLineV1>) {
        self.log.dns(line);
    }

    fn unknown(&self, address: IpAddr) {
        if let Err(error) = self.unknown.try_send(address) {
            // It asks again, and is reported again.
            tracing::debug!(%error, "reporting an unknown client");
        }
    }

    fn bad_certificate(&self, name: &Name, server: SocketAddr, detail: &str) {
        let policy = self.policy.load();
        let stamp = Stamp::new(&policy, &self.appliance, unix_ms());
        let message = format!("{name} at {server}: {detail}");
        self.log.config(stamp.fault(name.as_str(), &message));
    }

    fn distrust(&self, name: Name, server: SocketAddr) {
        if !self.flows.send(FlowEvent::Distrust(name, server)) {
            // New ones are refused all the same.
            tracing::warn!(%server, "too much waits, flows go on to a server with a bad certificate");
        }
    }
}
