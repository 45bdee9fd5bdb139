//! What a name of the double is answered with.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Lie, Reply};

/// The script of one name.
#[derive(Debug, Clone)]
pub struct Answer {
    addresses: Vec<IpAddr>,
    at_a_time: usize,
    ttl_s: u32,
    via: Option<String>,
    records: Vec<Record>,
    additional: Vec<Record>,
    code: ResponseCode,
    delay: Duration,
    truncated: bool,
    lie: Option<Lie>,
}

impl Answer {
    /// These addresses, all in every answer, for a minute.
    pub fn of<A: Into<IpAddr>>(addresses: impl IntoIterator<Item = A>) -> Self {
        Self {
            addresses: addresses.into_iter().map(Into::into).collect(),
            at_a_time: usize::MAX,
            ttl_s: 60,
            via: None,
            records: Vec::new(),
            additional: Vec::new(),
            code: ResponseCode::NoError,
            delay: Duration::ZERO,
            truncated: false,
            lie: None,
        }
    }

    /// No address: the name exists, and that is all.
    pub fn empty() -> Self {
        Self::of::<IpAddr>([])
    }

    /// This code and nothing else.
    pub fn code(code: ResponseCode) -> Self {
        Self {
            code,
            ..Self::empty()
        }
    }

    /// These records in the answer section, each where the question's type or an alias makes it belong; see [`record`].
    pub fn records_of(texts: &[&str]) -> Self {
        Self {
            records: texts.iter().map(|text| record(text)).collect(),
            ..Self::empty()
        }
    }

    /// Only so many of its addresses in one answer, drawn at random each time.
    pub fn at_a_time(self, at_a_time: usize) -> Self {
        Self { at_a_time, ..self }
    }

    /// Another time to live, in seconds.
    pub fn ttl(self, ttl_s: u32) -> Self {
        Self { ttl_s, ..self }
    }

    /// The addresses belong to this name, and the question's name is an alias for it.
    pub fn via(self, canonical: &str) -> Self {
        Self {
            via: Some(canonical.to_owned()),
            ..self
        }
    }

    /// More records in the answer section.
    pub fn and(mut self, text: &str) -> Self {
        self.records.push(record(text));
        self
    }

    /// A record in the additional section of every answer, whatever was asked for.
    pub fn and_additional(mut self, text: &str) -> Self {
        self.additional.push(record(text));
        self
    }

    /// Answers come this much later.
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Over UDP only the news that there is more.
    pub fn truncated(self) -> Self {
        Self {
            truncated: true,
            ..self
        }
    }

    /// Answers are false in this way.
    pub fn lying(self, lie: Lie) -> Self {
        Self {
            lie: Some(lie),
            ..self
        }
    }

    /// The answer section for one question.
    pub(super) fn records(&self, query: &Query) -> Vec<Record> {
        let wanted = query.query_type();
        let mut records: Vec<Record> = self
            .records
            .iter()
            .filter(|record| [wanted, RecordType::CNAME].contains(&record.record_type()))
            .cloned()
            .collect();
        let mut owner = query.name().clone();
        if let Some(via) = &self.via {
            let target = name(via);
            let alias = RData::CNAME(hickory_proto::rr::rdata::CNAME(target.clone()));
            records.push(Record::from_rdata(owner, self.ttl_s, alias));
            owner = target;
        }
        let fitting = self.addresses.iter().filter(|address| {
            wanted
                == if address.is_ipv4() {
                    RecordType::A
                } else {
                    RecordType::AAAA
                }
        });
        let drawn = if self.at_a_time == usize::MAX {
            fitting.collect()
        } else {
            fastrand::choose_multiple(fitting, self.at_a_time)
        };
        for address in drawn {
            records.push(Record::from_rdata(
                owner.clone(),
                self.ttl_s,
                RData::from(*address),
            ));
        }
        records
    }

    /// The messages that answer one question.
    pub(super) fn replies(
        &self,
        question: &Message,
        query: &Query,
        records: Vec<Record>,
        tcp: bool,
    ) -> Vec<Reply> {
        let message = self.message(question, query, records);
        let room = usize::from(question.max_payload().max(512));
        let mut bytes = if message.answers.len() > PACK_ABOVE && self.via.is_none() {
            pack(question, &message.answers)
        } else {
            message.to_vec().unwrap_or_default()
        };
        if !tcp && (self.truncated || bytes.len() > room) {
            bytes = message.truncate().to_vec().unwrap_or_default();
        }
        let mut replies = match &self.lie {
            Some(lie) => lie.replies(question, &message, bytes, tcp),
            None => vec![Reply::plain(bytes)],
        };
        for reply in &mut replies {
            reply.delay = self.delay;
        }
        replies
    }

    fn message(&self, question: &Message, query: &Query, records: Vec<Record>) -> Message {
        let mut message = Message::response(question.id, OpCode::Query);
        message.metadata.response_code = self.code;
        message.metadata.recursion_desired = question.recursion_desired;
        message.metadata.recursion_available = true;
        message.add_query(query.clone());
        if records.is_empty() {
            // How long the absence may be remembered (RFC 2308, section 3).
            let ttl_s = self.ttl_s.min(10);
            let soa = format!("example. {ttl_s} SOA ns.example. host.example. 1 60 60 60 {ttl_s}");
            message.add_authority(record(&soa));
        }
        message.add_answers(records);
        message.add_additionals(self.additional.iter().cloned());
        if question.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(1_232);
            message.set_edns(edns);
        }
        message
    }
}

impl Reply {
    pub(super) fn plain(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            elsewhere: false,
            delay: Duration::ZERO,
        }
    }
}

/// As many of these addresses of the name asked for as fit a message, 4,093 of IPv4: the encoder of the library repeats
/// the name in each record once a message is long.
fn pack(question: &Message, records: &[Record]) -> Vec<u8> {
    let mut header = question.clone();
    header.metadata.message_type = MessageType::Response;
    header.metadata.recursion_available = true;
    header.edns = None;
    let mut bytes = header.to_vec().unwrap_or_default();
    let mut count = 0_u16;
    for record in records {
        let data = match record.data.ip_addr() {
            Some(IpAddr::V4(address)) => address.octets().to_vec(),
            Some(IpAddr::V6(address)) => address.octets().to_vec(),
            None => continue,
        };
        if bytes.len() + 12 + data.len() > usize::from(u16::MAX) {
            break;
        }
        count += 1;
        // A pointer to the question's name, which stands behind the header.
        bytes.extend_from_slice(&[0xc0, 12]);
        bytes.extend_from_slice(&u16::from(record.record_type()).to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(&record.ttl.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&data);
    }
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    bytes
}

/// More records than this are packed by hand.
const PACK_ABOVE: usize = 1_000;

/// One record as a zone file has it: `www.example.org. 60 CNAME edge.example.net.`
///
/// # Panics
/// When the text is no record; it stands in a test.
pub fn record(text: &str) -> Record {
    let mut words = text.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (owner, ttl_s, kind, data) = (word(), word(), word(), word());
    #[expect(clippy::expect_used, reason = "a record written by hand in a test")]
    let parsed = {
        let kind: RecordType = kind.parse().expect(text);
        let data = RData::try_from_str(kind, data).expect(text);
        Record::from_rdata(name(owner), ttl_s.parse().expect(text), data)
    };
    parsed
}

#[expect(clippy::expect_used, reason = "a name written by hand in a test")]
pub(super) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect(text);
    name.set_fqdn(true);
    name
}
