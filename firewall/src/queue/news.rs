//! What a queue thread tells others once its packets are answered: records, look-ups, clients nobody knows.

use std::sync::Arc;

use inspect::{Category, FlowRecord, Output};
use ipc::record::Stream;
use policy::preferences::FlowLogVerbosity;
use policy::{Name, Snapshot};

use super::Worker;
use crate::flows::FlowEvent;

impl Worker {
    /// Tells another thread.
    pub(super) fn tell(&self, output: Output, policy: &Snapshot) {
        match output {
            Output::Query(query) => {
                let name = query.sought.name.clone();
                if !self.surroundings.witness.ask(self.index, query) {
                    // The packet's hold ends by itself; nothing is allowed meanwhile.
                    tracing::debug!(%name, "too many look-ups wait");
                }
            }
            // A report lost here is repeated with the client's next SYN.
            Output::UnknownClient(client) => drop(self.surroundings.unknown.try_send(client)),
            // Lost, the name's next flow asks again.
            Output::Certify { name, server } => {
                self.surroundings.witness.certify(name, server);
            }
            Output::Record(record) => {
                self.note(&record);
                self.log(record, policy);
            }
            Output::Claimed(record) => self.note(&record),
            Output::Session(record) => self.log(record, policy),
            Output::Verdict { .. }
            | Output::Reset(_)
            | Output::Ending(_)
            | Output::Forget(_)
            | Output::Unanswered(_) => {}
        }
    }

    /// Counts a decision, and has an allowed flow remembered until it ends.
    fn note(&self, record: &Arc<FlowRecord>) {
        self.surroundings.tally.count(&record.outcome);
        let allowed_claim = record.is_allowed() && record.category == Category::Client;
        if allowed_claim {
            let name = record
                .dhost
                .as_ref()
                .and_then(|name| Name::parse_shared(name).ok());
            if let Some(name) = name {
                let now = self.surroundings.clock.now();
                let addr = record.dst.ip();
                let news = self.surroundings.bindings.note_judged(&name, addr, now);
                if news {
                    // Lost, it costs the name a look-up at its next use.
                    self.surroundings.witness.used(name, addr);
                }
            }
            if !self
                .surroundings
                .flows
                .send(FlowEvent::Allowed(Arc::clone(record)))
            {
                self.surroundings.tally.count_flows_forgotten(1);
                self.surroundings.log.note_unseen(Stream::End, 1);
            }
        }
    }

    fn log(&self, record: Arc<FlowRecord>, policy: &Snapshot) {
        let wanted = match policy.preferences().flow_log_verbosity {
            FlowLogVerbosity::Full => true,
            FlowLogVerbosity::Sessions => {
                !record.is_allowed() || record.category == Category::Client
            }
            FlowLogVerbosity::OnlyDisallowed => !record.is_allowed(),
            FlowLogVerbosity::None => false,
        };
        if wanted {
            self.surroundings.log.flow(record);
        }
    }
}
