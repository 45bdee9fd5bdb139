use std::net::Ipv4Addr;

use hickory_resolver::proto::op::DnsResponse;
use proptest::prelude::*;

use super::*;
use crate::witness::resolve::Finding;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// A record as a zone file has it.
fn record(text: &str) -> Record {
    let words: Vec<&str> = text.splitn(4, ' ').collect();
    let data = RData::try_from_str(words[2].parse().unwrap(), words[3]).unwrap();
    Record::from_rdata(name(words[0]), words[1].parse().unwrap(), data)
}

fn request(record_type: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name("WWW.example.org."), record_type));
    if let Some(payload) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn question(record_type: RecordType, edns: Option<u16>) -> Box<Question> {
    let Read::Question(question) = read(&request(record_type, edns)) else {
        panic!("no question")
    };
    question
}

/// What is passed on of a resolver's answer to a question.
fn answer(record_type: RecordType, records: Vec<Record>) -> Answer {
    let mut message = Message::response(1, OpCode::Query);
    message.add_query(Query::query(name("www.example.org."), record_type));
    message.answers = records;
    let asked = name("www.example.org.");
    let heard = Heard {
        finding: Finding::of_message(&message, &asked, record_type),
        result: Ok(DnsResponse::from_message(message).unwrap()),
    };
    Answer::of((&asked, record_type), heard).unwrap()
}

fn told(question: &Question, answer: &Answer, without: &[IpAddr]) -> Vec<String> {
    let message = question.answer(answer, without, 0);
    message.answers.iter().map(ToString::to_string).collect()
}

#[test]
fn only_what_answers_the_question_is_passed_on() {
    let records = [
        "www.example.org. 300 CNAME edge.example.net.",
        "edge.example.net. 60 A 198.51.100.7",
        "edge.example.net. 60 TXT smuggled",
        "other.example.net. 60 A 198.51.100.8",
        "evil.example. 60 CNAME www.example.org.",
    ];
    let answer = answer(RecordType::A, records.map(record).to_vec());
    let question = question(RecordType::A, None);
    let expected = [
        // Its owner as it was asked for.
        "WWW.example.org. 300 IN CNAME edge.example.net.",
        "edge.example.net. 60 IN A 198.51.100.7",
    ];
    assert_eq!(told(&question, &answer, &[]), expected);
    assert_eq!(answer.ttl_s, 60);
    let withheld = [IpAddr::from(Ipv4Addr::new(198, 51, 100, 7))];
    assert_eq!(told(&question, &answer, &withheld), expected[..1]);
}

#[test]
fn question_comes_back_as_it_was_written_and_time_passes() {
    let answer = answer(
        RecordType::A,
        vec![record("www.example.org. 86400 A 198.51.100.7")],
    );
    let question = question(RecordType::A, None);
    let reply = question.answer(&answer, &[], 600);
    assert_eq!(reply.metadata.id, 7);
    assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
    assert_eq!(reply.queries[0].name().to_ascii(), "WWW.example.org.");
    // A binding ends an hour after it was last seen: nobody is told a longer time.
    assert_eq!(reply.answers[0].ttl, 3_000);
    assert!(reply.edns.is_none());
}

#[test]
fn keys_that_hide_a_name_are_taken_out_and_nothing_demands_them() {
    let service =
        "www.example.org. 60 HTTPS 1 . mandatory=alpn,ech alpn=h2 ipv4hint=198.51.100.7 ech=AAAA";
    let answer = answer(RecordType::HTTPS, vec![record(service)]);
    let question = question(RecordType::HTTPS, None);
    let [record] = told(&question, &answer, &[]).try_into().unwrap();
    assert!(
        !record.contains("ech") && record.contains("mandatory=alpn"),
        "{record}"
    );
    let hint = [IpAddr::from(Ipv4Addr::new(198, 51, 100, 7))];
    let [record] = told(&question, &answer, &hint).try_into().unwrap();
    assert!(!record.contains("hint"), "{record}");

    let only = "www.example.org. 60 HTTPS 1 . mandatory=ech ech=AAAA";
    let answer = self::answer(RecordType::HTTPS, vec![self::record(only)]);
    let [record] = told(&question, &answer, &[]).try_into().unwrap();
    assert!(!record.contains("mandatory"), "{record}");
}

#[test]
fn refused_name_above_others_exists_without_anything() {
    let question = question(RecordType::A, None);
    let bytes = question
        .encode(&question.refusal(FrontVerdict::NoData), true)
        .unwrap();
    let refusal = Message::from_vec(&bytes).unwrap();
    assert_eq!(refusal.response_code, ResponseCode::NoError);
    assert!(refusal.answers.is_empty());
    assert_eq!(refusal.authorities.len(), 1);
}

#[test]
fn refused_name_does_not_exist_for_a_moment_and_says_why() {
    let question = question(RecordType::A, Some(4_096));
    let refusal = question.refusal(FrontVerdict::NoSuchName);
    let bytes = question.encode(&refusal, true).unwrap();
    let refusal = Message::from_vec(&bytes).unwrap();
    assert_eq!(refusal.response_code, ResponseCode::NXDomain);
    let [soa] = refusal.authorities.as_slice() else {
        panic!("{refusal:?}")
    };
    assert_eq!(
        (soa.record_type(), soa.ttl),
        (RecordType::SOA, REFUSAL_TTL_S)
    );
    let edns = refusal.edns.unwrap();
    let said = edns.option(EdnsCode::Unknown(EXTENDED_ERROR)).unwrap();
    let expected = EdnsOption::Unknown(15, b"\x00\x0fnot in the policy".to_vec());
    assert_eq!(*said, expected);
}

#[test]
fn datagram_is_cut_to_what_its_receiver_takes() {
    let many = (0..100).map(|n| {
        let mut record = record("www.example.org. 60 A 198.51.100.7");
        record.data = RData::A(Ipv4Addr::new(198, 51, 100, n).into());
        record
    });
    let answer = answer(RecordType::A, many.collect());
    for (edns, most) in [(None, 512), (Some(100), 512), (Some(65_535), 1_232)] {
        let question = question(RecordType::A, edns);
        let message = question.answer(&answer, &[], 0);
        let bytes = question.encode(&message, true).unwrap();
        assert!(bytes.len() <= most);
        assert!(Message::from_vec(&bytes).unwrap().truncation);
        let whole = question.encode(&message, false).unwrap();
        assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 100);
    }
}

#[test]
fn what_is_no_question_is_answered_with_an_error_or_not_at_all() {
    let good = request(RecordType::A, Some(1_232));
    let mut answer = good.clone();
    answer[2] |= RESPONSE;
    for nothing in [&answer[..], &good[..11], b""] {
        assert!(matches!(read(nothing), Read::Nothing), "{nothing:?}");
    }
    let code = |bytes: &[u8]| {
        let Read::Unanswerable(answer) = read(bytes) else {
            panic!("no error")
        };
        assert_eq!(answer[..2], bytes[..2]);
        Message::from_vec(&answer).unwrap().response_code
    };
    assert_eq!(code(&good[..good.len() - 1]), ResponseCode::FormErr);
    let mut update = good.clone();
    update[2] = 0x28;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut twice = good;
    twice[5] = 0;
    assert_eq!(code(&twice[..12]), ResponseCode::FormErr);
}

fn any_record() -> impl Strategy<Value = Record> {
    let owners = ["www.example.org.", "edge.example.net.", "other.example."];
    let data = prop_oneof![
        (0..16_u8).prop_map(|n| RData::A(Ipv4Addr::new(198, 51, 100, n).into())),
        (0..3_usize).prop_map(
            move |at| RData::CNAME(hickory_resolver::proto::rr::rdata::CNAME(name(owners[at])))
        ),
        Just(record("www.example.org. 60 HTTPS 1 . ipv4hint=198.51.100.3 ech=AAAA").data),
        Just(record("www.example.org. 60 HTTPS 0 edge.example.net.").data),
        Just(record("www.example.org. 60 TXT text").data),
    ];
    (0..3_usize, any::<u32>(), data)
        .prop_map(move |(at, ttl, data)| Record::from_rdata(name(owners[at]), ttl, data))
}

proptest! {
    #[test]
    fn whatever_bytes_come_they_are_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        drop(read(&bytes));
    }

    #[test]
    fn a_message_changed_anywhere_is_read(at in 0..40_usize, value in any::<u8>()) {
        let mut bytes = request(RecordType::HTTPS, Some(1_232));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        drop(read(&bytes));
    }

    /// What the daemon binds is all that a client is told.
    #[test]
    fn no_address_is_handed_out_that_the_daemon_was_not_told_of(
        records in prop::collection::vec(any_record(), 0..8),
        https in any::<bool>(),
    ) {
        let record_type = if https { RecordType::HTTPS } else { RecordType::A };
        let answer = answer(record_type, records);
        let question = question(record_type, None);
        let known: HashSet<IpAddr> = answer.addresses.iter().map(|it| it.address).collect();
        let message = question.answer(&answer, &[], 0);
        for mut record in message.answers {
            prop_assert!(record.ttl <= TTL_MAX_S);
            if let Some(address) = record.data.ip_addr() {
                prop_assert!(known.contains(&address), "{address}");
            }
            if let Some(service) = service_of(&mut record.data) {
                let text = service.to_string();
                prop_assert!(!text.contains("ech"), "{text}");
                let hint = IpAddr::from(Ipv4Addr::new(198, 51, 100, 3));
                prop_assert!(!text.contains("hint") || known.contains(&hint));
            }
        }
    }
}
