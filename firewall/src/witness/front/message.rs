//! Questions off the wire, and answers onto it. Pure: bytes and records in, bytes out.

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{
    Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_resolver::proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_resolver::proto::rr::rdata::svcb::{SVCB, SvcParamKey, SvcParamValue};
use hickory_resolver::proto::rr::rdata::{HTTPS, SOA};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::BinEncodable;
use ipc::witness::{FrontVerdict, SightingV1};

use crate::witness::resolve::Heard;

/// One question that may be put to the daemon.
#[derive(Clone, Debug)]
pub(super) struct Question {
    request: Metadata,
    query: Query,
    /// The largest datagram its sender takes, when it speaks EDNS.
    payload: Option<u16>,
}

/// What a message turned out to be.
#[derive(Debug)]
pub(super) enum Read {
    /// A question.
    Question(Box<Question>),
    /// Something to be answered at once, like this.
    Unanswerable(Vec<u8>),
    /// Nothing that is answered: an answer to one would be the beginning of a loop.
    Nothing,
}

/// Reads a message of a client.
pub(super) fn read(bytes: &[u8]) -> Read {
    let Ok(message) = Message::from_vec(bytes) else {
        return misread(bytes);
    };
    let request = message.metadata;
    if request.message_type != MessageType::Query {
        return Read::Nothing;
    }
    let unanswerable = |code| error(request, message.queries.first(), code);
    if request.op_code != OpCode::Query {
        return unanswerable(ResponseCode::NotImp);
    }
    // Records have no place in a question.
    let bare = message.answers.is_empty() && message.authorities.is_empty();
    let [query] = message.queries.as_slice() else {
        return unanswerable(ResponseCode::FormErr);
    };
    if !bare || request.truncation {
        return unanswerable(ResponseCode::FormErr);
    }
    if message
        .edns
        .as_ref()
        .is_some_and(|edns| edns.version() != 0)
    {
        return unanswerable(ResponseCode::BADVERS);
    }
    if query.query_class() != DNSClass::IN {
        return unanswerable(ResponseCode::Refused);
    }
    Read::Question(Box::new(Question {
        request,
        query: query.clone(),
        payload: message.edns.as_ref().map(Edns::max_payload),
    }))
}

/// What begins like a question and is none gets the header of an answer.
fn misread(bytes: &[u8]) -> Read {
    let Some(&[a, b, flags, _]) = bytes.first_chunk::<4>() else {
        return Read::Nothing;
    };
    if bytes.len() < HEADER_BYTES || flags & RESPONSE != 0 {
        return Read::Nothing;
    }
    let request = Metadata::new(
        u16::from_be_bytes([a, b]),
        MessageType::Query,
        OpCode::Query,
    );
    error(request, None, ResponseCode::FormErr)
}

fn error(request: Metadata, query: Option<&Query>, code: ResponseCode) -> Read {
    let mut message = Message::error_msg(request.id, request.op_code, code);
    message.metadata.recursion_desired = request.recursion_desired;
    message.add_queries(query.cloned());
    if code == ResponseCode::BADVERS {
        message.set_edns(Edns::new());
    }
    message.to_vec().map_or(Read::Nothing, Read::Unanswerable)
}

impl Question {
    /// The name as it was written, without its last dot.
    pub(super) fn name(&self) -> String {
        let mut name = self.query.name().to_ascii();
        if name.len() > 1 && name.ends_with('.') {
            name.pop();
        }
        name
    }

    /// The name, and the type of records asked for, as a resolver is asked.
    pub(super) fn sought(&self) -> (Name, RecordType) {
        let mut name = self.query.name().to_lowercase();
        name.set_fqdn(true);
        (name, self.query.query_type())
    }

    /// The answer that nobody was asked for.
    pub(super) fn refusal(&self, verdict: FrontVerdict) -> Message {
        let mut message = self.begin();
        message.metadata.response_code = match verdict {
            FrontVerdict::NoSuchName => ResponseCode::NXDomain,
            FrontVerdict::NoData => ResponseCode::NoError,
            FrontVerdict::Refuse | FrontVerdict::Forward | FrontVerdict::Ignore => {
                ResponseCode::Refused
            }
        };
        if message.metadata.response_code != ResponseCode::Refused {
            // Kept for a moment only: the policy may allow it the next.
            message.add_authority(start_of_authority(self.query.name()));
        }
        if let Some(edns) = &mut message.edns {
            // RFC 8914, sections 3 and 4.16.
            let mut blocked = BLOCKED.to_be_bytes().to_vec();
            blocked.extend_from_slice(b"not in the policy");
            let code = EdnsCode::Unknown(EXTENDED_ERROR);
            let option = EdnsOption::Unknown(EXTENDED_ERROR, blocked);
            edns.options_mut().as_mut().push((code, option));
        }
        message
    }

    /// That no resolver could be asked, or none answered.
    pub(super) fn failure(&self) -> Message {
        let mut message = self.begin();
        message.metadata.response_code = ResponseCode::ServFail;
        message
    }

    /// The answer that tells a front that its resolver leads to another front.
    pub(super) fn marked(&self) -> Message {
        let mut message = self.begin();
        let mark = RData::A(hickory_resolver::proto::rr::rdata::A(super::probe::MARK));
        message.add_answer(Record::from_rdata(self.query.name().clone(), 0, mark));
        message
    }

    /// What a resolver said, less these addresses, `age_s` seconds later.
    pub(super) fn answer(&self, answer: &Answer, without: &[IpAddr], age_s: u32) -> Message {
        let mut message = self.begin();
        message.metadata.response_code = answer.code;
        let records = answer.records.iter().filter_map(|record| {
            let mut record = strip(record, without)?;
            // As it was written: a resolver is asked in a case of our own.
            if record.name == *self.query.name() {
                record.name = self.query.name().clone();
            }
            record.ttl = record.ttl.saturating_sub(age_s);
            Some(record)
        });
        message.add_answers(records);
        message.add_authorities(answer.authority.as_ref().map(|record| {
            let mut record = record.clone();
            record.ttl = record.ttl.saturating_sub(age_s);
            record
        }));
        message
    }

    fn begin(&self) -> Message {
        let mut message = Message::response(self.request.id, OpCode::Query);
        message.metadata.recursion_desired = self.request.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.request.checking_disabled;
        message.add_query(self.query.clone());
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD_MAX);
            message.set_edns(edns);
        }
        message
    }

    /// An answer as bytes: for a datagram cut to what its receiver takes, which then asks over TCP.
    pub(super) fn encode(&self, message: &Message, datagram: bool) -> Option<Vec<u8>> {
        let bytes = message.to_vec().ok()?;
        let payload = self.payload.unwrap_or(PAYLOAD_MIN);
        let most = if datagram {
            usize::from(payload.clamp(PAYLOAD_MIN, PAYLOAD_MAX))
        } else {
            usize::from(u16::MAX)
        };
        if bytes.len() <= most {
            return Some(bytes);
        }
        message.truncate().to_vec().ok()
    }
}

/// What a resolver said to a question, as far as it is passed on.
#[derive(Clone, Debug)]
pub(in crate::witness) struct Answer {
    /// How the resolver ended it.
    pub(super) code: ResponseCode,
    /// The records, without those nobody asked for.
    records: Vec<Record>,
    /// For how long a negative answer counts.
    authority: Option<Record>,
    /// Seconds until the first of them is stale.
    pub(super) ttl_s: u32,
    /// Every address in it.
    pub(super) addresses: Vec<SightingV1>,
    /// Aliases followed in it.
    pub(super) chain: Vec<String>,
    /// The resolver.
    pub(super) upstream: String,
    weight: u32,
}

impl Answer {
    /// What of a resolver's answer to a question is passed on; nothing when nobody answered.
    pub(super) fn of((name, record_type): (&Name, RecordType), heard: Heard) -> Option<Self> {
        let Heard { finding, result } = heard;
        let upstream = finding.sources.into_iter().next();
        let mut answer = Self {
            code: ResponseCode::NoError,
            records: Vec::new(),
            authority: None,
            ttl_s: finding.ttl_s,
            addresses: finding.addresses,
            chain: finding.chain,
            upstream: upstream.map(|source| source.upstream).unwrap_or_default(),
            weight: 0,
        };
        match result {
            // Over TCP as well: half an answer would bind half of its addresses.
            Ok(message) if message.truncation => return None,
            Ok(message) => {
                answer.code = message.response_code;
                let known: HashSet<IpAddr> = answer.addresses.iter().map(|it| it.address).collect();
                answer.records = relevant(&message.answers, name, record_type, &known);
                let negative = |record: &&Record| record.record_type() == RecordType::SOA;
                if answer.records.is_empty() {
                    answer.authority = message.authorities.iter().find(negative).cloned();
                }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(negative))) => {
                answer.code = negative.response_code;
                answer.authority = negative.soa.map(|soa| soa.into_record_of_rdata());
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => answer.code = code,
            Err(_) => return None,
        }
        let records = answer.records.iter_mut();
        for record in records.chain(answer.authority.as_mut()) {
            record.ttl = record.ttl.min(TTL_MAX_S);
        }
        let ttls = answer.records.iter().map(|record| record.ttl);
        if let Some(ttl_s) = ttls.min() {
            answer.ttl_s = ttl_s;
        }
        let bytes = |record: &Record| record.to_bytes().map_or(usize::MAX, |bytes| bytes.len());
        let records = answer
            .records
            .iter()
            .map(|it| bytes(it).saturating_add(BESIDE));
        let bytes = records.fold(BESIDE, usize::saturating_add);
        answer.weight = u32::try_from(bytes).unwrap_or(u32::MAX);
        Some(answer)
    }

    /// Whether it says something of the name that is worth keeping.
    pub(super) fn is_conclusive(&self) -> bool {
        matches!(self.code, ResponseCode::NoError | ResponseCode::NXDomain)
    }

    /// How many bytes it takes to keep, about.
    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    /// What it holds beside addresses and aliases, for a person.
    pub(super) fn others(&self) -> Vec<String> {
        let others = self.records.iter().filter(|record| {
            record.data.ip_addr().is_none() && record.record_type() != RecordType::CNAME
        });
        let text = |record: &Record| {
            let mut text = record.data.to_string();
            text.truncate(text.floor_char_boundary(OTHER_BYTES_MAX));
            text
        };
        others.take(OTHERS_MAX).map(text).collect()
    }
}

/// The records that answer a question: those of the name and of its aliases, of the type asked for, with addresses that
/// are `known`, without what hides a name from us.
fn relevant(
    records: &[Record],
    name: &Name,
    record_type: RecordType,
    known: &HashSet<IpAddr>,
) -> Vec<Record> {
    let mut owners = vec![name];
    while owners.len() <= CHAIN_MAX {
        let last = owners.last().copied();
        let of = |record: &&Record| last.is_some_and(|last| record.name.eq_ignore_root(last));
        let alias = records.iter().filter(of).find_map(|record| {
            if let RData::CNAME(target) = &record.data {
                Some(&target.0)
            } else {
                None
            }
        });
        match alias.filter(|target| !owners.iter().any(|owner| owner.eq_ignore_root(target))) {
            Some(target) => owners.push(target),
            None => break,
        }
    }
    let wanted = |record: &&Record| {
        let kind = record.record_type();
        record.dns_class == DNSClass::IN
            && (kind == record_type || kind == RecordType::CNAME)
            && owners.iter().any(|owner| record.name.eq_ignore_root(owner))
            && record
                .data
                .ip_addr()
                .is_none_or(|address| known.contains(&address))
    };
    let reduce = |record: &Record| {
        let mut record = record.clone();
        if let Some(service) = service_of(&mut record.data) {
            reduce_service(service, &|address| known.contains(&address));
        }
        record
    };
    records.iter().filter(wanted).map(reduce).collect()
}

/// A record without some addresses, or nothing when nothing is left of it.
fn strip(record: &Record, without: &[IpAddr]) -> Option<Record> {
    if record
        .data
        .ip_addr()
        .is_some_and(|address| without.contains(&address))
    {
        return None;
    }
    let mut record = record.clone();
    if let (false, Some(service)) = (without.is_empty(), service_of(&mut record.data)) {
        reduce_service(service, &|address| !without.contains(&address));
    }
    Some(record)
}

fn service_of(data: &mut RData) -> Option<&mut SVCB> {
    if let RData::HTTPS(HTTPS(service)) | RData::SVCB(service) = data {
        Some(service)
    } else {
        None
    }
}

/// Takes out the keys of Encrypted Client Hello, under which a client would claim a name that nobody can read, and the
/// hints that are not `kept`.
fn reduce_service(service: &mut SVCB, kept: &dyn Fn(IpAddr) -> bool) {
    let mut gone = vec![SvcParamKey::EchConfigList];
    service.svc_params.retain_mut(|(key, value)| {
        if let SvcParamValue::Ipv4Hint(hints) = value {
            hints.0.retain(|hint| kept(IpAddr::V4(hint.0)));
            if hints.0.is_empty() {
                gone.push(*key);
            }
        } else if let SvcParamValue::Ipv6Hint(hints) = value {
            hints.0.retain(|hint| kept(IpAddr::V6(hint.0)));
            if hints.0.is_empty() {
                gone.push(*key);
            }
        }
        !gone.contains(key)
    });
    for (_, value) in &mut service.svc_params {
        if let SvcParamValue::Mandatory(mandatory) = value {
            mandatory.0.retain(|key| !gone.contains(key));
        }
    }
    // RFC 9460, section 8: a list of mandatory keys is never empty.
    let empty = |value: &SvcParamValue| matches!(value, SvcParamValue::Mandatory(mandatory) if mandatory.0.is_empty());
    service.svc_params.retain(|(_, value)| !empty(value));
}

/// A response code as logs have it.
pub(super) fn code_name(code: ResponseCode) -> String {
    let named = CODES.iter().find(|(known, _)| *known == code);
    named.map_or_else(
        || format!("RCODE{}", u16::from(code)),
        |(_, name)| (*name).to_owned(),
    )
}

/// Says for how long a name that we have refused does not exist (RFC 2308, section 5).
fn start_of_authority(name: &Name) -> Record {
    let named = |text: &str| Name::from_ascii(text).unwrap_or_else(|_| Name::root());
    let (server, mailbox) = (named("postern.invalid."), named("nobody.invalid."));
    let retry = i32::try_from(REFUSAL_TTL_S).unwrap_or_default();
    let soa = SOA::new(server, mailbox, 1, retry, retry, retry, REFUSAL_TTL_S);
    Record::from_rdata(name.clone(), REFUSAL_TTL_S, RData::SOA(soa))
}

/// The codes of RFC 1035, section 4.1.1.
const CODES: [(ResponseCode, &str); 6] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::ServFail, "SERVFAIL"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::NotImp, "NOTIMP"),
    (ResponseCode::Refused, "REFUSED"),
];
/// Bytes of a message's header.
const HEADER_BYTES: usize = 12;
/// The flag of an answer, in the third of them.
const RESPONSE: u8 = 0x80;
/// The least every receiver of datagrams takes (RFC 1035, section 4.2.1), and the most that needs no fragments anywhere.
const PAYLOAD_MIN: u16 = 512;
const PAYLOAD_MAX: u16 = 1_232;
/// The EDNS option of extended errors, and the error that a name is blocked (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
const BLOCKED: u16 = 15;
/// What a record, and an answer, take in memory beside their bytes, about.
const BESIDE: usize = 256;
/// Aliases followed, as the witness does.
const CHAIN_MAX: usize = 16;
/// No record counts for longer at its receiver: bindings of an address end this long after it was last seen.
const TTL_MAX_S: u32 = 3_600;
/// How long a refused name does not exist.
const REFUSAL_TTL_S: u32 = 5;
/// Records beside addresses that are told, and bytes of each.
const OTHERS_MAX: usize = 16;
const OTHER_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests;
