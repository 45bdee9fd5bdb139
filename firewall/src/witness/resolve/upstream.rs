//! One resolver: its connections, and how it has been lately.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequestOptions, Query};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use ipc::witness::{AnswerOutcome, SourceV1};
use tokio::time::Instant;

use super::{Finding, Heard, SAMPLES_MAX};

/// One resolver.
pub(super) struct Upstream {
    address: SocketAddr,
    /// One pool per concurrent sample: a pool answers equal questions that overlap with one
    /// query, which is what samples are there to avoid.
    pools: Vec<NameServerPool<TokioRuntimeProvider>>,
    started: Instant,
    health: Health,
}

/// What is remembered of a resolver that did not answer.
#[derive(Debug, Default)]
struct Health {
    /// Questions in a row that met silence.
    silences: AtomicU32,
    /// Suspensions in a row.
    suspensions: AtomicU32,
    /// When it may be probed, in milliseconds after the start; 0 while it is in good health.
    until_ms: AtomicU64,
    probing: AtomicBool,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Result<Self, NetError> {
        let pools = (0..SAMPLES_MAX)
            .map(|_| {
                let context = Arc::new(PoolContext::new(options(), TlsConfig::new()?));
                Ok(NameServerPool::from_config(
                    [name_server(address)],
                    context,
                    TokioRuntimeProvider::default(),
                ))
            })
            .collect::<Result<Vec<_>, NetError>>()?;
        Ok(Self {
            address,
            pools,
            started: Instant::now(),
            health: Health::default(),
        })
    }

    /// Where it is.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks one question, over TCP when the answer does not fit a datagram or when its question
    /// came back in another case than it was sent.
    pub(super) async fn ask(&self, name: &Name, record_type: RecordType, sample: usize) -> Heard {
        let Some(pool) = self.pools.get(sample).or_else(|| self.pools.first()) else {
            return Heard::failed(AnswerOutcome::ServerFailure);
        };
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.recursion_desired = true;
        let query = Query::query(name.clone(), record_type);
        let result = pool.lookup(query, options).first_answer().await;
        let mut finding = match &result {
            Ok(response) => Finding::of_message(response, name, record_type),
            Err(error) => Finding::of_error(error),
        };
        if finding.outcome == AnswerOutcome::TimedOut {
            self.note_silence();
        } else {
            self.health.note_answer();
        }
        finding.sources = vec![SourceV1 {
            upstream: self.address.to_string(),
            record_type: record_type.to_string(),
        }];
        Heard { finding, result }
    }

    /// Notes that a question met silence.
    pub(super) fn note_silence(&self) {
        self.health.note_silence(self.now_ms());
    }

    /// Whether it is to be asked last.
    pub(super) fn is_suspended(&self) -> bool {
        self.health.until_ms.load(Ordering::Relaxed) > 0
    }

    /// Whether to find out if it answers again; true for one caller until [`Upstream::probed`].
    pub(super) fn wants_probe(&self) -> bool {
        let until_ms = self.health.until_ms.load(Ordering::Relaxed);
        until_ms > 0
            && self.now_ms() >= until_ms
            && !self.health.probing.swap(true, Ordering::Relaxed)
    }

    /// The probe has ended.
    pub(super) fn probed(&self) {
        self.health.probing.store(false, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("address", &self.address)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl Health {
    fn note_answer(&self) {
        self.silences.store(0, Ordering::Relaxed);
        self.suspensions.store(0, Ordering::Relaxed);
        self.until_ms.store(0, Ordering::Relaxed);
    }

    /// The second silence in a row suspends, for a second first, then for twice as long each
    /// time up to half a minute.
    fn note_silence(&self, now_ms: u64) {
        let silences = self.silences.fetch_add(1, Ordering::Relaxed);
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        // Questions under way together say the same thing once.
        if silences.saturating_add(1) < SILENCES || now_ms < until_ms {
            return;
        }
        let before = self.suspensions.fetch_add(1, Ordering::Relaxed);
        let pause_ms = SUSPEND_MIN_MS << before.min(5);
        let until_ms = now_ms.saturating_add(pause_ms.min(SUSPEND_MAX_MS));
        self.until_ms.store(until_ms.max(1), Ordering::Relaxed);
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut config.connections {
        connection.port = address.port();
    }
    config
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.edns0 = true;
    options.case_randomization = true;
    options.cache_size = 0;
    options.try_tcp_on_error = true;
    options.timeout = UPSTREAM_TIMEOUT;
    options.num_concurrent_reqs = 1;
    options.max_active_requests = 1_024;
    options
}

/// Longer than anybody waits: whoever asks has a deadline of its own.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions in a row without an answer before a resolver is asked last.
const SILENCES: u32 = 2;
const SUSPEND_MIN_MS: u64 = 1_000;
const SUSPEND_MAX_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_silence_in_a_row_suspends_ever_longer_until_an_answer() {
        let health = Health::default();
        let until_ms = || health.until_ms.load(Ordering::Relaxed);
        let mut now_ms = 1_000;
        health.note_silence(now_ms);
        assert_eq!(until_ms(), 0);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            // The seven questions of one look-up.
            (0..7).for_each(|_| health.note_silence(now_ms));
            pauses.push(until_ms() - now_ms);
            now_ms = until_ms();
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        health.note_answer();
        assert_eq!(until_ms(), 0);
        health.note_silence(now_ms);
        assert_eq!(until_ms(), 0, "one is no proof");
    }
}
