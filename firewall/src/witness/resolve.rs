//! One look-up of one name: what is asked, and which addresses in an answer count.
//!
//! Asks resolvers through hickory's name server pool, which has no cache and chases no CNAME:
//! an alias counts only inside the answer that holds it, so that nobody can graft one name's
//! addresses onto another across two answers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use ipc::witness::{AnswerOutcome, SightingV1};

/// Asks the configured resolvers.
#[derive(Clone)]
pub(super) struct Upstreams {
    /// One pool per concurrent sample: a pool answers equal questions that overlap with one
    /// query, which is what samples are there to avoid.
    pools: Arc<[NameServerPool<TokioRuntimeProvider>]>,
    ipv6: bool,
}

/// What one question about one record type brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How it ended; `NoAddress` also for an HTTPS record without hints.
    pub(super) outcome: AnswerOutcome,
    /// Addresses, each with its time to live.
    pub(super) addresses: Vec<SightingV1>,
    /// Seconds until the answer is stale.
    pub(super) ttl_s: u32,
    /// Aliases followed inside the answer.
    pub(super) chain: Vec<String>,
}

impl Upstreams {
    /// Resolvers at `servers`, or those of `/etc/resolv.conf` when there are none.
    pub(super) fn new(servers: &[SocketAddr], ipv6: bool) -> Result<Self, NetError> {
        let configs = if servers.is_empty() {
            hickory_resolver::system_conf::read_system_conf()?
                .0
                .name_servers()
                .to_vec()
        } else {
            servers.iter().copied().map(name_server).collect()
        };
        let pools = (0..SAMPLES_MAX)
            .map(|_| {
                let context = Arc::new(PoolContext::new(options(), TlsConfig::new()?));
                Ok(NameServerPool::from_config(
                    configs.clone(),
                    context,
                    TokioRuntimeProvider::default(),
                ))
            })
            .collect::<Result<Vec<_>, NetError>>()?;
        Ok(Self {
            pools: pools.into(),
            ipv6,
        })
    }

    /// The record types that make up one look-up.
    pub(super) fn record_types(&self) -> &'static [RecordType] {
        if self.ipv6 {
            &[RecordType::A, RecordType::AAAA, RecordType::HTTPS]
        } else {
            &[RecordType::A, RecordType::HTTPS]
        }
    }

    /// Asks for one record type, twice if nobody answers within `patience`.
    pub(super) async fn ask(
        &self,
        name: Name,
        record_type: RecordType,
        sample: usize,
        patience: Duration,
    ) -> Finding {
        let Some(pool) = self.pools.get(sample).or_else(|| self.pools.first()) else {
            return Finding::failed(AnswerOutcome::ServerFailure);
        };
        for _ in 0..ATTEMPTS {
            let mut options = DnsRequestOptions::default();
            options.use_edns = true;
            options.recursion_desired = true;
            let query = Query::query(name.clone(), record_type);
            let response = pool.lookup(query, options).first_answer();
            match tokio::time::timeout(patience, response).await {
                Ok(Ok(response)) => return Finding::of_message(&response, &name, record_type),
                Ok(Err(NetError::Timeout)) | Err(_) => {}
                Ok(Err(error)) => return Finding::of_error(&error),
            }
        }
        Finding::failed(AnswerOutcome::TimedOut)
    }
}

impl Finding {
    fn failed(outcome: AnswerOutcome) -> Self {
        Self {
            outcome,
            addresses: Vec::new(),
            ttl_s: 1,
            chain: Vec::new(),
        }
    }

    fn of_error(error: &NetError) -> Self {
        let NetError::Dns(DnsError::NoRecordsFound(negative)) = error else {
            return Self::failed(AnswerOutcome::ServerFailure);
        };
        let outcome = if negative.response_code == ResponseCode::NXDomain {
            AnswerOutcome::NoSuchName
        } else {
            AnswerOutcome::NoAddress
        };
        let ttl_s = negative
            .negative_ttl
            .unwrap_or(NEGATIVE_TTL_S)
            .clamp(1, NEGATIVE_TTL_MAX_S);
        Self {
            outcome,
            addresses: Vec::new(),
            ttl_s,
            chain: Vec::new(),
        }
    }

    /// Collects what `message` says of `name`, following aliases inside it.
    fn of_message(message: &Message, name: &Name, record_type: RecordType) -> Self {
        let mut owner = name.clone();
        let mut ttl_s = TTL_MAX_S;
        let mut addresses = HashMap::new();
        let mut chain = Vec::new();
        for _ in 0..CHAIN_MAX {
            let mut alias = None;
            for record in &message.answers {
                if !record.name.eq_ignore_root(&owner) {
                    continue;
                }
                if let RData::CNAME(target) = &record.data {
                    alias = Some((target.0.clone(), record.ttl));
                } else if record.record_type() == record_type {
                    let effective = ttl_s.min(record.ttl);
                    each_address(&record.data, |address, hint| {
                        let sighting = SightingV1 {
                            address,
                            ttl_s: effective,
                            hint,
                        };
                        addresses.insert(address, sighting);
                    });
                }
            }
            let Some((target, alias_ttl)) = alias.filter(|_| addresses.is_empty()) else {
                break;
            };
            owner = target;
            chain.push(plain(&owner));
            ttl_s = ttl_s.min(alias_ttl);
        }
        let mut addresses: Vec<SightingV1> = addresses.into_values().collect();
        addresses.sort_by_key(|sighting| sighting.address);
        addresses.truncate(ADDRESSES_MAX);
        let Some(ttl_s) = addresses.iter().map(|sighting| sighting.ttl_s).min() else {
            return Self::failed(AnswerOutcome::NoAddress);
        };
        Self {
            outcome: AnswerOutcome::Resolved,
            addresses,
            ttl_s,
            chain,
        }
    }
}

/// A name in lower case without its last dot.
fn plain(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams")
            .field("ipv6", &self.ipv6)
            .finish_non_exhaustive()
    }
}

/// Several answers about one name as one: addresses add up, one success outweighs failures.
pub(super) fn merge(findings: &[Finding]) -> Finding {
    let mut merged: Option<Finding> = None;
    for finding in findings {
        let Some(so_far) = &mut merged else {
            merged = Some(finding.clone());
            continue;
        };
        if rank(finding.outcome) > rank(so_far.outcome) {
            so_far.outcome = finding.outcome;
            so_far.ttl_s = finding.ttl_s;
        } else if finding.outcome == so_far.outcome {
            so_far.ttl_s = so_far.ttl_s.min(finding.ttl_s);
        }
        if so_far.chain.is_empty() {
            so_far.chain.clone_from(&finding.chain);
        }
        for sighting in &finding.addresses {
            if !so_far
                .addresses
                .iter()
                .any(|known| known.address == sighting.address)
            {
                so_far.addresses.push(*sighting);
            }
        }
    }
    merged.unwrap_or_else(|| Finding::failed(AnswerOutcome::TimedOut))
}

/// How much an outcome says: an address most, silence least.
fn rank(outcome: AnswerOutcome) -> u8 {
    match outcome {
        AnswerOutcome::Resolved => 5,
        AnswerOutcome::NoAddress => 4,
        AnswerOutcome::NoSuchName => 3,
        AnswerOutcome::ServerFailure => 2,
        AnswerOutcome::TimedOut => 1,
        AnswerOutcome::OverBudget => 0,
    }
}

fn each_address(data: &RData, mut each: impl FnMut(IpAddr, bool)) {
    if let RData::A(address) = data {
        each(IpAddr::V4(address.0), false);
    } else if let RData::AAAA(address) = data {
        each(IpAddr::V6(address.0), false);
    } else if let RData::HTTPS(record) = data {
        each_hint(&record.0, |address| each(address, true));
    } else if let RData::SVCB(record) = data {
        each_hint(record, |address| each(address, true));
    }
}

/// Hints of a record in service mode; in alias mode parameters are ignored (RFC 9460,
/// section 2.4.2).
fn each_hint(record: &SVCB, mut each: impl FnMut(IpAddr)) {
    if record.svc_priority == 0 {
        return;
    }
    for (_, value) in &record.svc_params {
        if let SvcParamValue::Ipv4Hint(hints) = value {
            hints.0.iter().for_each(|hint| each(IpAddr::V4(hint.0)));
        } else if let SvcParamValue::Ipv6Hint(hints) = value {
            hints.0.iter().for_each(|hint| each(IpAddr::V6(hint.0)));
        }
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

/// Samples of one look-up asked side by side, at most.
pub(super) const SAMPLES_MAX: usize = 3;
const ATTEMPTS: usize = 2;
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest chain of aliases followed, as common resolvers do.
const CHAIN_MAX: usize = 16;
/// Addresses taken from one answer: more than fit 64 KiB of DNS over TCP would hold of A
/// records is 4,096.
const ADDRESSES_MAX: usize = 4_096;
/// A time to live above this counts as this: we ask again anyway.
const TTL_MAX_S: u32 = 3_600;
/// Time to live of an NXDOMAIN or an empty answer that brought none of its own.
const NEGATIVE_TTL_S: u32 = 10;
const NEGATIVE_TTL_MAX_S: u32 = 60;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::proto::op::{MessageType, OpCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::svcb::{IpHint, SvcParamKey};
    use hickory_resolver::proto::rr::rdata::{A, CNAME, HTTPS};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(
            name(owner),
            ttl,
            RData::A(A(Ipv4Addr::new(198, 51, 100, last))),
        )
    }

    fn cname(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn message(answers: Vec<Record>) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.answers = answers;
        message
    }

    fn found(answers: Vec<Record>) -> (Vec<String>, u32) {
        let finding =
            Finding::of_message(&message(answers), &name("www.example.org."), RecordType::A);
        let addresses = finding
            .addresses
            .iter()
            .map(|seen| seen.address.to_string())
            .collect();
        (addresses, finding.ttl_s)
    }

    #[test]
    fn alias_counts_inside_one_answer_and_lowers_the_ttl() {
        let answers = vec![
            a("edge.example.net.", 300, 7),
            cname("www.example.org.", 20, "EDGE.example.net."),
        ];
        assert_eq!(found(answers), (vec!["198.51.100.7".to_owned()], 20));
    }

    #[test]
    fn address_of_a_stranger_in_the_same_answer_does_not_count() {
        let answers = vec![a("www.example.org.", 60, 1), a("evil.example.net.", 60, 9)];
        assert_eq!(found(answers), (vec!["198.51.100.1".to_owned()], 60));
    }

    #[test]
    fn alias_loop_ends() {
        let answers = vec![
            cname("www.example.org.", 20, "b.example.org."),
            cname("b.example.org.", 20, "www.example.org."),
        ];
        assert_eq!(found(answers).0, Vec::<String>::new());
    }

    #[test]
    fn hints_count_in_service_mode_only() {
        let hints = |priority| {
            let hint = SvcParamValue::Ipv4Hint(IpHint(vec![A(Ipv4Addr::new(198, 51, 100, 3))]));
            let svcb = SVCB::new(priority, Name::root(), vec![(SvcParamKey::Ipv4Hint, hint)]);
            let record =
                Record::from_rdata(name("www.example.org."), 60, RData::HTTPS(HTTPS(svcb)));
            let asked = name("www.example.org.");
            Finding::of_message(&message(vec![record]), &asked, RecordType::HTTPS)
                .addresses
                .len()
        };
        assert_eq!((hints(1), hints(0)), (1, 0));
    }

    #[test]
    fn one_success_outweighs_failures_and_addresses_add_up() {
        let first = found_finding(vec![a("www.example.org.", 60, 1)]);
        let second = found_finding(vec![a("www.example.org.", 30, 2)]);
        let merged = merge(&[Finding::failed(AnswerOutcome::TimedOut), first, second]);
        assert_eq!(merged.outcome, AnswerOutcome::Resolved);
        assert_eq!((merged.addresses.len(), merged.ttl_s), (2, 30));
    }

    fn found_finding(answers: Vec<Record>) -> Finding {
        Finding::of_message(&message(answers), &name("www.example.org."), RecordType::A)
    }
}
