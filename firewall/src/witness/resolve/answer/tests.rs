use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::op::{MessageType, OpCode};

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// A record as a zone file has it.
fn record(text: &str) -> Record {
    let words: Vec<&str> = text.splitn(4, ' ').collect();
    let data = RData::try_from_str(words[2].parse().unwrap(), words[3]).unwrap();
    Record::from_rdata(name(words[0]), words[1].parse().unwrap(), data)
}

fn message(answers: &[&str], additionals: &[&str]) -> Message {
    let mut message = Message::new(1, MessageType::Response, OpCode::Query);
    message.answers = answers.iter().map(|text| record(text)).collect();
    message.additionals = additionals.iter().map(|text| record(text)).collect();
    message
}

fn finding(answers: &[&str], record_type: RecordType) -> Finding {
    Finding::of_message(
        &message(answers, &[]),
        &name("www.example.org."),
        record_type,
    )
}

fn addresses(finding: &Finding) -> Vec<String> {
    let addresses = finding.addresses.iter();
    addresses.map(|seen| seen.address.to_string()).collect()
}

#[test]
fn alias_counts_inside_one_answer_and_lowers_the_ttl() {
    let found = finding(
        &[
            "edge.example.net. 300 A 198.51.100.7",
            "www.example.org. 20 CNAME EDGE.example.net.",
        ],
        RecordType::A,
    );
    assert_eq!(addresses(&found), ["198.51.100.7"]);
    assert_eq!(
        (found.ttl_s, found.chain),
        (20, vec!["edge.example.net".to_owned()])
    );
}

#[test]
fn time_to_live_is_that_of_each_address() {
    let found = finding(
        &[
            "www.example.org. 20 A 198.51.100.1",
            "www.example.org. 90 A 198.51.100.2",
        ],
        RecordType::A,
    );
    let times: Vec<u32> = found.addresses.iter().map(|seen| seen.ttl_s).collect();
    assert_eq!((times, found.ttl_s), (vec![20, 90], 20));
}

#[test]
fn address_of_a_stranger_in_the_same_answer_does_not_count() {
    let found = finding(
        &[
            "www.example.org. 60 A 198.51.100.1",
            "evil.example.net. 60 A 198.51.100.9",
        ],
        RecordType::A,
    );
    assert_eq!(addresses(&found), ["198.51.100.1"]);
}

#[test]
fn alias_whose_target_has_no_address_in_the_answer_resolves_to_nothing() {
    let found = finding(
        &["www.example.org. 20 CNAME edge.example.net."],
        RecordType::A,
    );
    assert_eq!(
        (found.outcome, found.addresses),
        (AnswerOutcome::NoAddress, vec![])
    );
}

#[test]
fn alias_loops_and_long_chains_end() {
    let looped = [
        "www.example.org. 20 CNAME b.example.org.",
        "b.example.org. 20 CNAME www.example.org.",
    ];
    assert_eq!(finding(&looped, RecordType::A).addresses, []);
    assert_eq!(
        finding(
            &["www.example.org. 20 CNAME www.example.org."],
            RecordType::A
        )
        .addresses,
        []
    );
    let chain = |length: usize| {
        let mut texts = vec!["www.example.org. 20 CNAME n0.example.".to_owned()];
        texts.extend((1..length).map(|n| format!("n{}.example. 20 CNAME n{n}.example.", n - 1)));
        texts.push(format!("n{}.example. 20 A 198.51.100.1", length - 1));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        finding(&texts, RecordType::A).addresses.len()
    };
    assert_eq!((chain(15), chain(16)), (1, 0));
}

#[test]
fn hints_count_in_service_mode_only() {
    let hints = |priority| {
        let text = format!(
            "www.example.org. 60 HTTPS {priority} . ipv4hint=198.51.100.3 ipv6hint=2001:db8::3"
        );
        addresses(&finding(&[&text], RecordType::HTTPS))
    };
    assert_eq!(hints(1), ["198.51.100.3", "2001:db8::3"]);
    assert_eq!(hints(0), Vec::<String>::new());
}

#[test]
fn target_of_a_service_counts_inside_the_answer_and_nothing_else_in_its_additional_section() {
    let answers = ["www.example.org. 60 HTTPS 0 svc.example.net."];
    let additionals = [
        "svc.example.net. 30 HTTPS 1 . ipv4hint=198.51.100.4",
        "svc.example.net. 50 A 198.51.100.5",
        "www.example.org. 60 A 198.51.100.66",
        "other.example.org. 60 A 198.51.100.67",
    ];
    let asked = name("www.example.org.");
    let found = Finding::of_message(&message(&answers, &additionals), &asked, RecordType::HTTPS);
    assert_eq!(addresses(&found), ["198.51.100.4", "198.51.100.5"]);
    assert_eq!(found.ttl_s, 30);
    assert!(found.addresses.iter().all(|seen| seen.hint));
}

#[test]
fn additional_section_of_an_address_answer_never_counts() {
    let answers = ["www.example.org. 60 A 198.51.100.1"];
    let additionals = ["www.example.org. 60 A 198.51.100.66"];
    let asked = name("www.example.org.");
    let found = Finding::of_message(&message(&answers, &additionals), &asked, RecordType::A);
    assert_eq!(addresses(&found), ["198.51.100.1"]);
}

#[test]
fn answer_with_an_error_code_names_no_address() {
    let mut lying = message(&["www.example.org. 60 A 198.51.100.1"], &[]);
    let asked = name("www.example.org.");
    for (code, outcome) in [
        (ResponseCode::NXDomain, AnswerOutcome::NoSuchName),
        (ResponseCode::ServFail, AnswerOutcome::ServerFailure),
    ] {
        lying.metadata.response_code = code;
        let found = Finding::of_message(&lying, &asked, RecordType::A);
        assert_eq!((found.outcome, found.addresses), (outcome, vec![]));
    }
}

fn many(first: u32, count: u32) -> Finding {
    let asked = name("www.example.org.");
    let mut message = message(&[], &[]);
    let owner = |address| Record::from_rdata(asked.clone(), 60, RData::from(address));
    let addresses = (first..first + count).map(|n| IpAddr::V4(Ipv4Addr::from(n)));
    message.answers = addresses.map(owner).collect();
    Finding::of_message(&message, &asked, RecordType::A)
}

#[test]
fn addresses_beyond_the_limit_are_counted_and_left_out() {
    let found = many(0x0808_0000, 4_100);
    assert_eq!((found.addresses.len(), found.dropped), (4_096, 4));
    let mut merge = Merge::default();
    merge.add(many(0x0808_0000, 3_000));
    merge.add(many(0x0909_0000, 3_000));
    let merged = merge.take();
    assert_eq!((merged.addresses.len(), merged.dropped), (4_096, 1_904));
}

#[test]
fn one_success_outweighs_failures_and_addresses_add_up() {
    let mut merge = Merge::default();
    merge.add(Finding::failed(AnswerOutcome::TimedOut));
    merge.add(finding(
        &["www.example.org. 60 A 198.51.100.1"],
        RecordType::A,
    ));
    merge.add(finding(
        &["www.example.org. 30 A 198.51.100.2"],
        RecordType::A,
    ));
    let merged = merge.take();
    assert_eq!(merged.outcome, AnswerOutcome::Resolved);
    assert_eq!((merged.addresses.len(), merged.ttl_s), (2, 30));
}

#[test]
fn name_without_one_type_whose_other_question_was_lost_is_not_called_empty() {
    let mut merge = Merge::default();
    merge.add(Finding::failed(AnswerOutcome::NoAddress));
    merge.add(Finding::failed(AnswerOutcome::TimedOut));
    assert_eq!(merge.take().outcome, AnswerOutcome::TimedOut);
}

#[test]
fn what_was_taken_does_not_come_again_and_each_address_tells_its_source() {
    let source = |upstream: &str| SourceV1 {
        upstream: upstream.to_owned(),
        record_type: "A".to_owned(),
    };
    let from = |upstream: &str, text: &str| Finding {
        sources: vec![source(upstream)],
        ..finding(&[text], RecordType::A)
    };
    let mut merge = Merge::default();
    merge.add(from("first", "www.example.org. 60 A 198.51.100.1"));
    assert_eq!(addresses(&merge.take()), ["198.51.100.1"]);
    merge.add(from("first", "www.example.org. 60 A 198.51.100.1"));
    merge.add(from("second", "www.example.org. 60 A 198.51.100.2"));
    let rest = merge.take();
    assert_eq!(
        (rest.outcome, addresses(&rest)),
        (AnswerOutcome::Resolved, vec!["198.51.100.2".to_owned()])
    );
    let at = usize::from(rest.addresses[0].source);
    assert_eq!(rest.sources[at].upstream, "second");
    assert_eq!(merge.take().addresses, []);
}

#[test]
fn hints_of_an_address_also_found_by_itself_is_no_mere_hint() {
    let mut merge = Merge::default();
    let hint = "www.example.org. 60 HTTPS 1 . ipv6hint=2001:db8::3";
    merge.add(finding(&[hint], RecordType::HTTPS));
    merge.add(finding(
        &["www.example.org. 60 AAAA 2001:db8::3"],
        RecordType::AAAA,
    ));
    let merged = merge.take();
    let expected: IpAddr = "2001:db8::3".parse::<Ipv6Addr>().unwrap().into();
    assert_eq!(
        (merged.addresses[0].address, merged.addresses[0].hint),
        (expected, false)
    );
}

/// Owners, targets and data that lead to each other, and to nowhere.
fn any_record() -> impl Strategy<Value = Record> {
    let owner = prop::sample::select(vec![
        "www.example.org.",
        "a.example.",
        "B.example.",
        "c.example.",
        ".",
    ]);
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| RData::from(IpAddr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| RData::from(IpAddr::from(octets))),
        prop::sample::select(vec![
            "CNAME a.example.",
            "CNAME b.example.",
            "CNAME www.example.org.",
            "CNAME nowhere.example.",
            "HTTPS 0 a.example.",
            "HTTPS 0 www.example.org.",
            "HTTPS 1 c.example. ipv4hint=192.0.2.7",
            "HTTPS 2 . ipv6hint=2001:db8::7",
            "TXT nothing",
        ])
        .prop_map(|text| {
            let (kind, data) = text.split_once(' ').unwrap();
            RData::try_from_str(kind.parse().unwrap(), data).unwrap()
        }),
    ];
    (owner, any::<u32>(), data)
        .prop_map(|(owner, ttl, data)| Record::from_rdata(name(owner), ttl, data))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever the records, and whatever happens to their bytes: it ends, within its bounds, and every address is one that
    /// stands in the message.
    #[test]
    fn no_message_brings_an_address_that_is_not_in_it(
        answers in prop::collection::vec(any_record(), 0..12),
        additionals in prop::collection::vec(any_record(), 0..6),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut sent = message(&[], &[]);
        sent.answers = answers;
        sent.additionals = additionals;
        let mut bytes = sent.to_vec().unwrap();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let Ok(read) = Message::from_vec(&bytes) else { return Ok(()) };
        let mut there: Vec<IpAddr> = Vec::new();
        for record in read.answers.iter().chain(&read.additionals) {
            there.extend(record.data.ip_addr());
            if let RData::HTTPS(service) = &record.data {
                each_hint(&service.0, |address| there.push(address));
            }
        }
        for record_type in [RecordType::A, RecordType::AAAA, RecordType::HTTPS] {
            let found = Finding::of_message(&read, &name("www.example.org."), record_type);
            prop_assert!(found.addresses.iter().all(|seen| there.contains(&seen.address)));
            prop_assert!(found.addresses.iter().all(|seen| seen.ttl_s <= TTL_MAX_S));
            prop_assert!(found.chain.len() <= CHAIN_MAX);
            prop_assert_eq!(found.outcome == AnswerOutcome::Resolved, !found.addresses.is_empty());
        }
    }
}
