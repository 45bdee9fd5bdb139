//! Which addresses in an answer count, and several answers as one.

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use ipc::witness::{ADDRESSES_PER_ANSWER_MAX, AnswerOutcome, SightingV1, SourceV1};

/// What one question about one record type brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::witness) struct Finding {
    /// How it ended; `NoAddress` also for an HTTPS record without hints.
    pub(in crate::witness) outcome: AnswerOutcome,
    /// Addresses, each with its time to live.
    pub(in crate::witness) addresses: Vec<SightingV1>,
    /// Seconds until the answer is stale.
    pub(in crate::witness) ttl_s: u32,
    /// Aliases followed inside the answer.
    pub(in crate::witness) chain: Vec<String>,
    /// Who said so.
    pub(in crate::witness) sources: Vec<SourceV1>,
    /// Addresses beyond [`ADDRESSES_PER_ANSWER_MAX`].
    pub(in crate::witness) dropped: u64,
    /// Whether another resolver than the preferred one had to answer.
    pub(in crate::witness) failed_over: bool,
}

impl Finding {
    pub(in crate::witness) fn failed(outcome: AnswerOutcome) -> Self {
        Self {
            outcome,
            addresses: Vec::new(),
            ttl_s: 1,
            chain: Vec::new(),
            sources: Vec::new(),
            dropped: 0,
            failed_over: false,
        }
    }

    /// Whether asking another resolver would be asking for another truth.
    pub(super) fn is_conclusive(&self) -> bool {
        matches!(
            self.outcome,
            AnswerOutcome::Resolved | AnswerOutcome::NoAddress | AnswerOutcome::NoSuchName
        )
    }

    pub(super) fn of_error(error: &NetError) -> Self {
        let NetError::Dns(DnsError::NoRecordsFound(negative)) = error else {
            let silent = matches!(
                error,
                NetError::Timeout | NetError::Io(_) | NetError::NoConnections | NetError::Busy
            );
            return Self::failed(if silent {
                AnswerOutcome::TimedOut
            } else {
                AnswerOutcome::ServerFailure
            });
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
            ttl_s,
            ..Self::failed(outcome)
        }
    }

    /// Collects what `message` says of `name`, following aliases inside it.
    pub(in crate::witness) fn of_message(
        message: &Message,
        name: &Name,
        record_type: RecordType,
    ) -> Self {
        if message.truncation {
            return Self::failed(AnswerOutcome::ServerFailure);
        }
        if message.response_code != ResponseCode::NoError {
            let missing = message.response_code == ResponseCode::NXDomain;
            return Self::failed(if missing {
                AnswerOutcome::NoSuchName
            } else {
                AnswerOutcome::ServerFailure
            });
        }
        let mut walk = Walk::new(message, record_type);
        walk.follow(name);
        let mut addresses: Vec<SightingV1> = walk.addresses.into_values().collect();
        addresses.sort_by_key(|sighting| sighting.address);
        let Some(ttl_s) = addresses.iter().map(|sighting| sighting.ttl_s).min() else {
            return Self {
                ttl_s: NEGATIVE_TTL_S,
                ..Self::failed(AnswerOutcome::NoAddress)
            };
        };
        Self {
            addresses,
            ttl_s,
            chain: walk.chain,
            dropped: walk.dropped,
            ..Self::failed(AnswerOutcome::Resolved)
        }
    }
}

/// The way from the name asked for to its addresses, through one message.
struct Walk<'m> {
    message: &'m Message,
    record_type: RecordType,
    addresses: HashMap<IpAddr, SightingV1>,
    chain: Vec<String>,
    dropped: u64,
}

/// A name on the way.
struct Stop {
    name: Name,
    /// The least time to live so far.
    ttl_s: u32,
    /// Whether a service record led here: its target's records may stand in the additional
    /// section (RFC 9460, section 4.2), and its addresses count whatever type was asked for.
    service: bool,
}

impl<'m> Walk<'m> {
    fn new(message: &'m Message, record_type: RecordType) -> Self {
        Self {
            message,
            record_type,
            addresses: HashMap::new(),
            chain: Vec::new(),
            dropped: 0,
        }
    }

    fn follow(&mut self, name: &Name) {
        let mut next = vec![Stop {
            name: name.clone(),
            ttl_s: TTL_MAX_S,
            service: false,
        }];
        for _ in 0..CHAIN_MAX {
            let Some(stop) = next.pop() else { break };
            let found = self.addresses.len();
            let (aliases, services) = self.visit(&stop);
            // An alias beside addresses of its own is no alias.
            if self.addresses.len() == found
                && let Some(alias) = aliases.into_iter().next()
            {
                self.chain.push(plain(&alias.name));
                next.push(alias);
            }
            next.extend(services.into_iter().take(CHAIN_MAX));
        }
    }

    /// Takes the addresses of one name; where its records lead.
    fn visit(&mut self, stop: &Stop) -> (Vec<Stop>, Vec<Stop>) {
        let (mut aliases, mut services) = (Vec::new(), Vec::new());
        let message = self.message;
        let additional = stop.service.then_some(&message.additionals);
        let records = message
            .answers
            .iter()
            .chain(additional.into_iter().flatten());
        for record in records.filter(|record| record.name.eq_ignore_root(&stop.name)) {
            let ttl_s = stop.ttl_s.min(record.ttl);
            let lead = |name: &Name, service: bool| Stop {
                name: name.clone(),
                ttl_s,
                service,
            };
            if let RData::CNAME(target) = &record.data {
                aliases.push(lead(&target.0, stop.service));
            } else if let Some(service) = self.service_of(record) {
                if service.svc_priority != 0 {
                    each_hint(service, |address| self.take(address, ttl_s, true));
                }
                let target = &service.target_name;
                if !target.is_root() && !target.eq_ignore_root(&stop.name) {
                    services.push(lead(target, true));
                }
            } else if self.is_wanted(record, stop)
                && let Some(address) = record.data.ip_addr()
            {
                self.take(address, ttl_s, stop.service);
            }
        }
        (aliases, services)
    }

    fn is_wanted(&self, record: &Record, stop: &Stop) -> bool {
        record.record_type() == self.record_type || stop.service
    }

    fn service_of(&self, record: &'m Record) -> Option<&'m SVCB> {
        if record.record_type() != self.record_type {
            None
        } else if let RData::HTTPS(service) = &record.data {
            Some(&service.0)
        } else if let RData::SVCB(service) = &record.data {
            Some(service)
        } else {
            None
        }
    }

    fn take(&mut self, address: IpAddr, ttl_s: u32, hint: bool) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.ttl_s = known.ttl_s.min(ttl_s);
            known.hint &= hint;
            return;
        }
        if self.addresses.len() >= ADDRESSES_PER_ANSWER_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let sighting = SightingV1 {
            address,
            ttl_s,
            hint,
            source: 0,
        };
        self.addresses.insert(address, sighting);
    }
}

/// The hints of a record in service mode; in alias mode parameters mean nothing (RFC 9460,
/// section 2.4.2).
fn each_hint(record: &SVCB, mut each: impl FnMut(IpAddr)) {
    for (_, value) in &record.svc_params {
        if let SvcParamValue::Ipv4Hint(hints) = value {
            hints.0.iter().for_each(|hint| each(IpAddr::V4(hint.0)));
        } else if let SvcParamValue::Ipv6Hint(hints) = value {
            hints.0.iter().for_each(|hint| each(IpAddr::V6(hint.0)));
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

/// Several answers about one name as one: addresses add up, one success outweighs failures, and a
/// failure that may pass outweighs an absence of one record type.
#[derive(Debug, Default)]
pub(in crate::witness) struct Merge {
    merged: Option<Finding>,
    known: HashMap<IpAddr, Option<usize>>,
}

impl Merge {
    /// Adds one answer.
    pub(in crate::witness) fn add(&mut self, finding: Finding) {
        let merged = self.merged.get_or_insert_with(|| Finding {
            ttl_s: finding.ttl_s,
            ..Finding::failed(finding.outcome)
        });
        if rank(finding.outcome) > rank(merged.outcome) {
            merged.outcome = finding.outcome;
            merged.ttl_s = finding.ttl_s;
        } else if finding.outcome == merged.outcome {
            merged.ttl_s = merged.ttl_s.min(finding.ttl_s);
        }
        if merged.chain.is_empty() {
            merged.chain = finding.chain;
        }
        merged.dropped = merged.dropped.saturating_add(finding.dropped);
        merged.failed_over |= finding.failed_over;
        let base = u8::try_from(merged.sources.len()).unwrap_or(u8::MAX);
        merged.sources.extend(finding.sources);
        merged.sources.truncate(SOURCES_MAX);
        for mut sighting in finding.addresses {
            match self.known.get(&sighting.address) {
                Some(&Some(at)) => {
                    if let Some(known) = merged.addresses.get_mut(at) {
                        known.ttl_s = known.ttl_s.min(sighting.ttl_s);
                        known.hint &= sighting.hint;
                    }
                }
                Some(None) => {}
                None if merged.addresses.len() >= ADDRESSES_PER_ANSWER_MAX => {
                    merged.dropped = merged.dropped.saturating_add(1);
                }
                None => {
                    let at = merged.addresses.len();
                    self.known.insert(sighting.address, Some(at));
                    sighting.source = sighting.source.saturating_add(base);
                    merged.addresses.push(sighting);
                }
            }
        }
    }

    /// What there is so far and has not been taken; its addresses are taken with it, and none of
    /// them comes again.
    pub(in crate::witness) fn take(&mut self) -> Finding {
        let Some(merged) = &mut self.merged else {
            return Finding::failed(AnswerOutcome::TimedOut);
        };
        self.known.values_mut().for_each(|at| *at = None);
        let rest = Finding {
            outcome: merged.outcome,
            ttl_s: merged.ttl_s,
            ..Finding::failed(merged.outcome)
        };
        std::mem::replace(merged, rest)
    }
}

/// How much an outcome says of a name all of whose record types were asked for.
fn rank(outcome: AnswerOutcome) -> u8 {
    match outcome {
        AnswerOutcome::Resolved => 5,
        AnswerOutcome::TimedOut => 4,
        AnswerOutcome::ServerFailure => 3,
        AnswerOutcome::NoAddress => 2,
        AnswerOutcome::NoSuchName => 1,
        AnswerOutcome::OverBudget => 0,
    }
}

/// Longest chain of aliases followed, as common resolvers do.
const CHAIN_MAX: usize = 16;
/// A time to live above this counts as this: we ask again anyway.
const TTL_MAX_S: u32 = 3_600;
/// Time to live of an NXDOMAIN or an empty answer that brought none of its own.
const NEGATIVE_TTL_S: u32 = 10;
const NEGATIVE_TTL_MAX_S: u32 = 60;
/// Answers of one look-up that are told apart.
const SOURCES_MAX: usize = 64;

#[cfg(test)]
mod tests;
