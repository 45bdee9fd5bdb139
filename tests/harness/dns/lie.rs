//! Answers that are false on the wire.

use std::net::IpAddr;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{RData, Record, RecordType};

use super::Reply;
use super::answer::name;

/// One way to lie. Where an address is named, the lie precedes the true answer, as a spoofer's would, and carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The id of another question.
    WrongId(IpAddr),
    /// A port that was not asked.
    WrongPort(IpAddr),
    /// An answer to the question for another name; its record is about the name asked for.
    WrongQuestion(IpAddr),
    /// The question comes back in lower case, over UDP. Over TCP the truth follows, as from a server that keeps no case.
    LostCase(IpAddr),
    /// The question comes back in lower case, over UDP and TCP alike, with the true answer.
    NoCase,
    /// A compression pointer to itself.
    PointerLoop,
    /// A compression pointer behind the end.
    PointerBeyond,
    /// Half of the message.
    CutShort,
    /// 65,535 answers announced, none there.
    CountLie,
    /// The length of an address record is wrong.
    LengthLie,
    /// Noise behind the right id.
    Noise,
    /// The question itself sent back.
    Echo,
}

/// Every lie that leaves nothing of use in the answer.
pub const UNREADABLE: [Lie; 7] = [
    Lie::PointerLoop,
    Lie::PointerBeyond,
    Lie::CutShort,
    Lie::CountLie,
    Lie::LengthLie,
    Lie::Noise,
    Lie::Echo,
];

impl Lie {
    /// What is sent instead of, or before, `truth`.
    pub(super) fn replies(
        self,
        question: &Message,
        answer: &Message,
        truth: Vec<u8>,
        tcp: bool,
    ) -> Vec<Reply> {
        let first = match self {
            Self::WrongId(address) => {
                let mut forged = with_address(question, answer, address);
                forged.metadata.id = forged.metadata.id.wrapping_add(1);
                Reply::plain(encode(&forged))
            }
            Self::WrongPort(address) => Reply {
                elsewhere: true,
                ..Reply::plain(encode(&with_address(question, answer, address)))
            },
            Self::WrongQuestion(address) => {
                let mut forged = with_address(question, answer, address);
                for query in &mut forged.queries {
                    query.set_name(name("another.example"));
                }
                Reply::plain(encode(&forged))
            }
            Self::LostCase(_) if tcp => return vec![Reply::plain(truth)],
            Self::LostCase(address) => {
                let mut forged = with_address(question, answer, address);
                lower(&mut forged);
                return vec![Reply::plain(encode(&forged))];
            }
            Self::NoCase => {
                let mut lowered = answer.clone();
                lower(&mut lowered);
                return vec![Reply::plain(encode(&lowered))];
            }
            Self::PointerLoop
            | Self::PointerBeyond
            | Self::CutShort
            | Self::CountLie
            | Self::LengthLie
            | Self::Noise
            | Self::Echo => return vec![Reply::plain(self.unreadable(question, truth))],
        };
        // Nobody can put a datagram into a connection.
        if tcp {
            return vec![Reply::plain(truth)];
        }
        vec![first, Reply::plain(truth)]
    }

    fn unreadable(self, question: &Message, truth: Vec<u8>) -> Vec<u8> {
        let mut bytes = question_only(question, 1);
        let at = u16::try_from(bytes.len()).unwrap_or_default() | 0xc000;
        match self {
            Self::PointerLoop => bytes.extend_from_slice(&at.to_be_bytes()),
            Self::PointerBeyond => bytes.extend_from_slice(&[0xff, 0xff]),
            Self::CutShort => return truth[..truth.len() / 2].to_vec(),
            Self::CountLie => return question_only(question, u16::MAX),
            // A record that points at the question's name, with 5 bytes announced as its address.
            Self::LengthLie => {
                bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 5, 1, 2, 3, 4, 5]);
            }
            Self::Noise => {
                bytes.truncate(2);
                bytes.resize_with(60, || fastrand::u8(..));
            }
            Self::Echo => return encode(question),
            Self::WrongId(_)
            | Self::WrongPort(_)
            | Self::WrongQuestion(_)
            | Self::LostCase(_)
            | Self::NoCase => {}
        }
        bytes
    }
}

/// A response with the question, and a header that announces answers which are not there.
fn question_only(question: &Message, announced: u16) -> Vec<u8> {
    let mut message = question.clone();
    message.metadata.message_type = hickory_proto::op::MessageType::Response;
    message.edns = None;
    let mut bytes = encode(&message);
    bytes[6..8].copy_from_slice(&announced.to_be_bytes());
    bytes
}

/// `answer`, with `address` as the only address of the name asked for.
fn with_address(question: &Message, answer: &Message, address: IpAddr) -> Message {
    let mut forged = answer.clone();
    forged.authorities.clear();
    forged.answers.clear();
    let Some(query) = question.queries.first() else {
        return forged;
    };
    let wanted = if address.is_ipv4() {
        RecordType::A
    } else {
        RecordType::AAAA
    };
    if query.query_type() == wanted {
        forged.add_answer(Record::from_rdata(
            query.name().clone(),
            60,
            RData::from(address),
        ));
    }
    forged
}

fn lower(message: &mut Message) {
    for query in &mut message.queries {
        let lowered = Query::query(query.name().to_lowercase(), query.query_type());
        *query = lowered;
    }
}

fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_default()
}
