//! The end of live flows to a server whose certificate turned out not to be of the name they claimed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use inspect::FlowRecord;
use policy::{AppProto, Ask, Date, Name, Reason, Snapshot, Transport};

use super::Follower;
use super::table::{Key, TCP};
use crate::clock::unix_ms;

/// A server that flows under a name are to end to.
#[derive(Debug)]
pub(super) struct Distrusted {
    name: Name,
    server: SocketAddr,
    /// When to look again: a flow may have been on its way from a queue thread to the kernel.
    pub(super) again: Instant,
}

impl Follower {
    /// Ends the flows to `server` under `name`, now and once more.
    pub(super) fn distrust(&mut self, name: Name, server: SocketAddr) {
        self.end_distrusted(&name, server);
        if self.distrusted.len() < DISTRUSTED_MAX {
            let again = Instant::now() + AGAIN;
            self.distrusted.push_back(Distrusted {
                name,
                server,
                again,
            });
        }
    }

    /// Looks once more where it is time to.
    pub(super) fn go_on_distrusting(&mut self) {
        let now = Instant::now();
        while self.distrusted.front().is_some_and(|it| it.again <= now) {
            if let Some(it) = self.distrusted.pop_front() {
                self.end_distrusted(&it.name, it.server);
            }
        }
    }

    fn end_distrusted(&mut self, name: &Name, server: SocketAddr) {
        let policy = self.settings.policy.load();
        let date = Date::from_unix_ms(unix_ms());
        let of_it: Vec<Key> = self
            .flows
            .iter()
            .filter(|(key, flow)| {
                let to_it = key.protocol == TCP && key.server == server && !flow.is_ending();
                to_it
                    && flow.record(key).is_some_and(|record| {
                        is_by_name(&record, name) && !passes_blind(&policy, key, date)
                    })
            })
            .map(|(key, _)| key)
            .collect();
        for key in &of_it {
            self.kill(key, &policy, Reason::CertificateInvalid);
        }
        if !of_it.is_empty() {
            tracing::info!(%name, %server, flows = of_it.len(), "ended, the certificate is of another");
        }
    }
}

fn is_by_name(record: &FlowRecord, name: &Name) -> bool {
    let is_exerted = record.see_thru.as_ref().is_some_and(|it| it.exerted);
    record.proto == AppProto::Tls && !is_exerted && record.dhost.as_deref() == Some(name.as_str())
}

/// Whether an `address` rule or see-thru lets any bytes pass between these ends.
fn passes_blind(policy: &Snapshot, key: &Key, date: Date) -> bool {
    if policy.deployment_see_thru(date).is_some() {
        return true;
    }
    let Some(client) = policy.client(key.client.ip()) else {
        return false;
    };
    policy
        .decide(&Ask {
            client,
            transport: Transport::Tcp,
            proto: AppProto::Unknown,
            name: None,
            bound: false,
            dst: key.server.ip(),
            port: key.server.port(),
            date,
        })
        .is_allowed()
}

/// Far longer than a verdict takes to reach the kernel.
const AGAIN: Duration = Duration::from_secs(1);
const DISTRUSTED_MAX: usize = 4_096;
