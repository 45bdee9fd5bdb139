//! What a ClientHello may and may not say.

use policy::Reason;

use super::build::*;
use crate::progress::Progress;
use crate::tls::{Ech, Limits, TlsVersion, client_hello};

fn refusal(stream: &[u8]) -> Reason {
    client_hello(stream, &Limits::default())
        .refusal()
        .unwrap()
        .reason
}

#[test]
fn a_plain_hello_is_read_whole() {
    let hello = Client::default().hello();
    assert_eq!(hello.server_name.log_text(), HOST);
    assert_eq!(hello.max_version(), Some(TlsVersion::TLS1_3));
    assert_eq!(hello.fault(), None);
    assert_eq!(hello.ech, Ech::Absent);
    assert!(!hello.is_pqc_offered());
    assert_eq!(hello.bytes, Client::default().stream().len());
}

#[test]
fn grease_is_ignored_wherever_it_stands() {
    let mut client = Client::default()
        .with(10, u16s16(&[0x2a2a, 29]))
        .with(43, u16s8(&[0xfafa, 0x0304]))
        .and(0x1a1a, vec![])
        .and(0xbaba, vec![0]);
    client.suites.insert(0, 0x5a5a);
    let shares = [&[0x2a, 0x2a, 0, 1, 0][..], &key_shares(&[29])[2..]].concat();
    let hello = client.with(51, vec16(&shares)).hello();
    assert_eq!(hello.fault(), None);
    assert_eq!(&*hello.key_shares, [29]);
    assert_eq!(&*hello.groups, [29]);
    assert_eq!(&*hello.cipher_suites, [0x1301, 0xc02f]);
}

#[test]
fn the_name_is_lower_cased_and_judged_as_bytes() {
    let named = |host: &[u8]| Client::default().with(0, server_name(host)).hello();
    assert_eq!(named(b"API.Allowed.Example").server_name.log_text(), HOST);
    for bad in [
        &b"attacker.example\0.google.com"[..],
        b"api.allowed.example.",
        b"api allowed.example",
        b"api..example",
        b"",
        b"b\xc3\xbccher.example",
        &[b'a'; 300],
    ] {
        assert_eq!(
            named(bad).fault(),
            Some(Reason::SniMalformed),
            "{}",
            bad.escape_ascii()
        );
    }
    for address in [
        &b"192.0.2.1"[..],
        b"2001:db8::1",
        b"[2001:db8::1]",
        b"0xc0000201",
    ] {
        assert_eq!(
            named(address).fault(),
            Some(Reason::SniIpLiteral),
            "{}",
            address.escape_ascii()
        );
    }
    let text = named(b"a\0b.example").server_name.log_text().to_owned();
    assert_eq!(text, "a\\x00b.example");
}

#[test]
fn a_hello_without_a_name_is_whole_but_faulty() {
    let hello = Client::default().without(0).hello();
    assert_eq!(hello.fault(), Some(Reason::SniMissing));
    assert_eq!(hello.server_name.log_text(), "");
}

#[test]
fn two_names_in_any_form_are_refused() {
    let entry = |host: &[u8]| [&[0][..], &vec16(host)].concat();
    let two = vec16(&[entry(b"one.example"), entry(b"two.example")].concat());
    let other_kind = vec16(&[&[1][..], &vec16(b"one.example")].concat());
    let twice = Client::default().and(0, server_name(b"two.example"));
    for client in [
        Client::default().with(0, two),
        Client::default().with(0, other_kind),
        twice,
    ] {
        assert_eq!(client.hello().fault(), Some(Reason::SniMultiple));
    }
    // The order of a bad and a good one makes no difference.
    let empty_first = Client::default()
        .with(0, vec![])
        .and(0, server_name(b"two.example"));
    assert_eq!(empty_first.hello().fault(), Some(Reason::SniMultiple));
}

#[test]
fn a_broken_name_list_is_malformed() {
    for content in [
        vec![],
        vec![0, 0],
        vec![0, 9, 0, 0, 1, b'a'],
        vec![0, 3, 0, 0, 4],
    ] {
        let hello = Client::default().with(0, content).hello();
        assert_eq!(hello.fault(), Some(Reason::SniMalformed));
    }
    let trailing = [server_name(HOST.as_bytes()), vec![0]].concat();
    assert_eq!(
        Client::default().with(0, trailing).hello().fault(),
        Some(Reason::SniMalformed)
    );
}

#[test]
fn old_versions_are_a_fault_of_the_client() {
    let old = Client::default().with(43, u16s8(&[0x0302, 0x0301]));
    assert_eq!(old.hello().fault(), Some(Reason::TlsVersionClient));
    let mut legacy = Client::default().without(43);
    legacy.legacy_version = 0x0301;
    assert_eq!(legacy.hello().fault(), Some(Reason::TlsVersionClient));
    legacy.legacy_version = 0x0303;
    assert_eq!(legacy.hello().fault(), None);
    // Only GREASE and a draft: there is no version to agree on.
    let none = Client::default().with(43, u16s8(&[0x7a7a, 0x7f1c]));
    assert_eq!(none.hello().fault(), Some(Reason::TlsVersionClient));
}

#[test]
fn both_forms_of_encrypted_names_are_flagged() {
    let outer = [&[0, 0, 1, 0, 1, 0][..], &vec16(&[1; 32]), &vec16(&[2; 144])].concat();
    assert_eq!(
        Client::default().and(0xfe0d, outer).hello().ech,
        Ech::Present
    );
    assert_eq!(
        Client::default().and(0xffce, vec![1]).hello().ech,
        Ech::Present
    );
    assert_eq!(
        Client::default().and(0xfe0d, vec![]).hello().ech,
        Ech::Present
    );
}

#[test]
fn a_post_quantum_key_share_is_noticed() {
    let shares = [&key_shares(&[0x11ec])[2..], &key_shares(&[29])[2..]].concat();
    assert!(
        Client::default()
            .with(51, vec16(&shares))
            .hello()
            .is_pqc_offered()
    );
}

#[test]
fn every_vector_must_be_consumed_exactly() {
    let cases: [(u16, Vec<u8>); 12] = [
        (43, vec![3, 3, 4, 3]),           // half a version
        (43, vec![2, 3, 4, 0]),           // a byte after the list
        (43, vec![0]),                    // an empty list
        (43, vec![4, 3, 4]),              // a list that overruns
        (10, vec![0, 3, 0, 29, 0]),       // half a group
        (10, vec![0, 0]),                 // no group
        (51, vec![0, 5, 0, 29, 0, 9, 1]), // a share that overruns
        (51, vec![0, 4, 0, 29, 0, 0]),    // an empty share
        (51, [key_shares(&[29]), vec![0]].concat()),
        (51, key_shares(&[29, 29])), // one group twice
        (16, vec![0, 1, 0]),         // an empty protocol name
        (42, vec![0]),               // early_data has no content
    ];
    for (kind, content) in cases {
        let stream = Client::default().with(kind, content.clone()).stream();
        assert_eq!(refusal(&stream), Reason::TlsMalformed, "{kind} {content:?}");
    }
}

#[test]
fn an_extension_twice_is_malformed() {
    for kind in [43, 10, 51, 0x1234] {
        let first = Client::default().with(kind, u16s8(&[0x0304]));
        let stream = first.and(kind, u16s8(&[0x0304])).stream();
        assert_eq!(refusal(&stream), Reason::TlsMalformed, "{kind}");
    }
    let late = Client::default().and(41, vec![0]).and(0x1234, vec![]);
    assert_eq!(
        refusal(&late.stream()),
        Reason::TlsMalformed,
        "pre_shared_key must be last"
    );
}

#[test]
fn lengths_that_lie_are_malformed() {
    let whole = Client::default().message();
    // Trailing byte inside the message, extension block short, message without suites.
    let mut trailing = whole[4..].to_vec();
    trailing.push(0);
    assert_eq!(
        refusal(&record(22, &message(1, &trailing))),
        Reason::TlsMalformed
    );
    let cut = &whole[4..whole.len() - 1];
    assert_eq!(refusal(&record(22, &message(1, cut))), Reason::TlsMalformed);
    let mut no_suites = Client::plain();
    no_suites.suites.clear();
    assert_eq!(refusal(&no_suites.stream()), Reason::TlsMalformed);
    let mut long_id = Client::plain();
    long_id.session_id = vec![0; 33];
    assert_eq!(refusal(&long_id.stream()), Reason::TlsMalformed);
    let mut compressed = Client::plain();
    compressed.compression = vec![1];
    assert_eq!(refusal(&compressed.stream()), Reason::TlsMalformed);
    assert_eq!(refusal(&record(22, &message(1, &[]))), Reason::TlsMalformed);
}

#[test]
fn a_malformed_hello_still_says_what_was_read() {
    let client = Client::default()
        .with(51, key_shares(&[0x11ec]))
        .and(42, vec![0]);
    let Progress::Refused(rejected) = client.read() else {
        panic!("{:?}", client.read());
    };
    assert_eq!(&*rejected.seen.server_name, HOST);
    assert_eq!(rejected.seen.version, Some(TlsVersion::TLS1_3));
    assert!(rejected.seen.pqc);
}

#[test]
fn records_are_not_to_be_abused() {
    let message = Client::default().message();
    let mut empty_record = records(&message, &[10]);
    let second = 5 + 10;
    empty_record.splice(second..second, record(22, &[]));
    assert_eq!(
        refusal(&empty_record),
        Reason::RecordAbuse,
        "zero-length record"
    );
    for content in [20, 21, 23, 24] {
        let mut interleaved = records(&message, &[10]);
        interleaved.splice(second..second, record(content, &[1]));
        assert_eq!(
            refusal(&interleaved),
            Reason::RecordAbuse,
            "type {content} in between"
        );
    }
    let mut after = message.clone();
    after.extend([0; 4]);
    assert_eq!(
        refusal(&record(22, &after)),
        Reason::RecordAbuse,
        "a record that goes on"
    );
    let whole = records(&message, &[3; 31]);
    assert!(matches!(
        client_hello(&whole, &Limits::default()),
        Progress::Complete(_)
    ));
    assert_eq!(
        refusal(&records(&message, &[3; 32])),
        Reason::RecordAbuse,
        "33 records"
    );
    assert_eq!(
        refusal(&[22, 3, 1, 0x40, 1]),
        Reason::RecordAbuse,
        "2^14 + 1"
    );
    assert_eq!(refusal(&[22, 3, 1, 0, 0]), Reason::RecordAbuse);
    assert_eq!(refusal(&[22, 2]), Reason::TlsMalformed);
    assert_eq!(refusal(&[22, 3, 5]), Reason::TlsMalformed);
    assert_eq!(
        refusal(&record(22, &[2, 0, 0, 0])),
        Reason::TlsMalformed,
        "not a ClientHello"
    );
}

#[test]
fn a_hello_of_64_kib_is_read_and_a_larger_one_refused_by_its_length_field() {
    // FrodoKEM-1344's share is 21,520 bytes; this is padding of the same effect.
    let room = (1 << 16) - Client::default().message().len() - 4;
    let largest = Client::default().and(21, vec![0; room]);
    let sizes = [1 << 14; 3];
    let stream = records(&largest.message(), &sizes);
    let Progress::Complete(hello) = client_hello(&stream, &Limits::default()) else {
        panic!();
    };
    assert_eq!(hello.server_name.log_text(), HOST);
    assert!(stream.len() <= Limits::default().stream_bytes());
    assert_eq!(
        refusal(&[22, 3, 1, 0x40, 0, 1, 1, 0, 0]),
        Reason::HelloTooBig
    );
    assert_eq!(
        refusal(&[22, 3, 1, 0, 2, 1, 0, 22, 3, 1, 0, 2, 0xff, 0xfd]),
        Reason::HelloTooBig
    );
}
