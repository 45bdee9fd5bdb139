//! From the hellos to the last byte in clear.

use policy::Reason;

use super::build::*;
use super::captured::{captured, read};
use crate::progress::Framed;
use crate::tls::{Conversation, Limits, ServerAnswer, TlsVersion, server_hello};

fn start(client: &Client) -> Conversation {
    Conversation::new(client.hello(), Limits::default())
}

/// Plays a captured connection in pieces of `step` bytes.
///
/// First the server's answer to the first hello, then the client's second hello if that was a
/// request for one, then the rest of the server's bytes and of the client's.
fn play(client: &[u8], server: &[u8], step: usize) -> Conversation {
    let hello = read(client);
    let answer = server_hello(server, &hello, &Limits::default())
        .complete()
        .unwrap();
    let rest = &client[hello.bytes..];
    let second = match &answer {
        // One change_cipher_spec in front of it.
        ServerAnswer::Hello(request) if request.is_retry => 6 + read(&rest[6..]).bytes,
        ServerAnswer::Hello(_) | ServerAnswer::Alert(_) => 0,
    };
    let mut conversation = Conversation::new(hello, Limits::default());
    for piece in server[..answer.bytes()].chunks(step) {
        conversation.server(piece).unwrap();
    }
    for piece in rest[..second].chunks(step) {
        conversation.client(piece).unwrap();
    }
    for piece in server[answer.bytes()..].chunks(step) {
        conversation.server(piece).unwrap();
    }
    for piece in rest[second..].chunks(step) {
        conversation.client(piece).unwrap();
    }
    assert_eq!(conversation.client(&[]).unwrap().safe, rest.len() as u64);
    assert_eq!(conversation.server(&[]).unwrap().safe, server.len() as u64);
    conversation
}

#[test]
fn captured_connections_end_protected_in_pieces_of_any_size() {
    for step in [1, 7, 1460, 65536] {
        let played = play(
            captured!("openssl-tls13.client"),
            captured!("openssl-tls13.server"),
            step,
        );
        assert!(played.is_protected());
        assert_eq!(played.version(), Some(TlsVersion::TLS1_3));
        let played = play(
            captured!("curl-tls13.client"),
            captured!("curl-tls13.server"),
            step,
        );
        assert!(played.is_protected());
        let played = play(
            captured!("rustls-mlkem.client"),
            captured!("rustls-mlkem.server"),
            step,
        );
        assert!(played.is_protected() && played.is_pqc());
        let played = play(
            captured!("go-tls13.client"),
            captured!("go-tls13.server"),
            step,
        );
        assert!(played.is_protected() && played.certificates().is_none());
    }
}

#[test]
fn a_tls_1_2_certificate_is_read_in_band() {
    for step in [1, 100, 65536] {
        let played = play(
            captured!("openssl-tls12.client"),
            captured!("openssl-tls12.server"),
            step,
        );
        assert!(played.is_protected());
        let leaf = played.certificates().unwrap().leaf().unwrap();
        assert!(leaf.starts_with(&[0x30, 0x82]));
        assert!(
            leaf.windows(HOST.len())
                .any(|window| window == HOST.as_bytes())
        );
        let played = play(
            captured!("openssl-client-certificate12.client"),
            captured!("openssl-client-certificate12.server"),
            step,
        );
        assert!(played.is_protected());
        assert_eq!(played.certificates().unwrap().intermediates().count(), 0);
    }
}

#[test]
fn a_retried_handshake_goes_through_its_second_hello() {
    for step in [1, 50, 65536] {
        let played = play(
            captured!("openssl-retry.client"),
            captured!("openssl-retry.server"),
            step,
        );
        assert!(played.is_protected());
        assert!(played.hello().is_second());
        assert_eq!(&*played.hello().key_shares, [24]);
    }
}

#[test]
fn early_data_may_leave_before_the_answer() {
    let client = captured!("openssl-early-data.client");
    let hello = read(client);
    let bytes = hello.bytes;
    let mut conversation = Conversation::new(hello, Limits::default());
    // change_cipher_spec, then the early data itself.
    let framed = conversation
        .client(&client[bytes..bytes + 6 + 5 + 20])
        .unwrap();
    assert!(
        framed.safe > 0 && !framed.protected,
        "early data proves nothing"
    );
    assert!(
        conversation
            .server(captured!("openssl-early-data.server"))
            .unwrap()
            .protected
    );
    assert!(
        start(&Client::default())
            .client(&record(23, &[0; 40]))
            .is_err(),
        "not offered"
    );
}

#[test]
fn an_alert_ends_the_servers_direction() {
    let hello = read(captured!("openssl-alert.client"));
    let mut conversation = Conversation::new(hello, Limits::default());
    let framed = conversation
        .server(captured!("openssl-alert.server"))
        .unwrap();
    assert_eq!(
        framed,
        Framed {
            safe: 7,
            protected: false,
            ended: true
        }
    );
    assert!(matches!(
        conversation.answer(),
        Some(ServerAnswer::Alert(_))
    ));
    assert_eq!(conversation.server(&[0]), Err(Reason::TlsMalformed));
}

#[test]
fn a_second_hello_with_another_name_is_refused_before_it_leaves() {
    let retry = |second: &Client| {
        let mut conversation = start(&Client::default());
        conversation.server(&Server::retry(24).stream()).unwrap();
        let ccs = record(20, &[1]);
        assert_eq!(conversation.client(&ccs).unwrap().safe, 6);
        let stream = second.stream();
        let (head, last) = stream.split_at(stream.len() - 1);
        // All but the last byte is held: nothing of it is safe.
        assert_eq!(conversation.client(head).unwrap().safe, 6);
        conversation.client(last)
    };
    let honest = Client::default().with(51, key_shares(&[24]));
    assert_eq!(
        retry(&honest).unwrap().safe,
        6 + honest.stream().len() as u64
    );
    let other = honest.clone().with(0, server_name(b"other.example"));
    assert_eq!(retry(&other), Err(Reason::SniMultiple));
    assert_eq!(retry(&honest.clone().without(0)), Err(Reason::SniMultiple));
    let hidden = honest.clone().and(0xfe0d, vec![1]);
    assert_eq!(retry(&hidden), Err(Reason::TlsMalformed), "ECH appears");
    let mut suites = honest.clone();
    suites.suites.push(0x1302);
    assert_eq!(retry(&suites), Err(Reason::TlsMalformed));
    assert_eq!(
        retry(&honest.and(42, vec![])),
        Err(Reason::TlsMalformed),
        "early data again"
    );
}

#[test]
fn a_server_retries_once_and_keeps_to_it() {
    let second = Client::default().with(51, key_shares(&[24]));
    let after = |server: &Server| {
        let mut conversation = start(&Client::default());
        conversation.server(&Server::retry(24).stream())?;
        conversation.server(&record(20, &[1]))?;
        conversation.client(&second.stream())?;
        conversation.server(&server.stream())
    };
    let mut selected = Server::plain();
    selected.extensions = Some(vec![
        (43, vec![3, 4]),
        (51, [&[0, 24][..], &vec16(&[5; 97])].concat()),
    ]);
    assert!(after(&selected).is_ok());
    assert_eq!(
        after(&Server::retry(29)),
        Err(Reason::TlsMalformed),
        "a second request"
    );
    assert_eq!(
        after(&Server::tls12()),
        Err(Reason::TlsMalformed),
        "an older version now"
    );
    let mut early = start(&Client::default());
    early.server(&Server::retry(24).stream()).unwrap();
    assert_eq!(
        early.server(&selected.stream()),
        Err(Reason::TlsMalformed),
        "before the hello"
    );
}

#[test]
fn what_follows_a_hello_must_be_tls() {
    let cases: [(&[u8], Reason); 7] = [
        (b"GET / HTTP/1.1\r\n", Reason::TlsMalformed),
        (b"\x17\x03\x03", Reason::TlsMalformed),
        (&[22, 3, 3, 0, 4], Reason::TlsMalformed),
        (&[23, 4], Reason::TlsMalformed),
        (&[20, 3, 3, 0, 2], Reason::RecordAbuse),
        (&[20, 3, 3, 0, 1, 0], Reason::TlsMalformed),
        (&[24, 3, 3, 0, 1], Reason::TlsMalformed),
    ];
    for (bytes, reason) in cases {
        let mut conversation = start(&Client::default());
        let unanswered = conversation.client(bytes);
        let expected = if bytes == b"\x17\x03\x03" {
            None
        } else {
            Some(reason)
        };
        assert_eq!(unanswered.err(), expected, "{bytes:x?}");
    }
}

#[test]
fn tls_1_3_sends_nothing_but_protected_records() {
    let answered = || {
        let mut conversation = start(&Client::default());
        conversation.server(&Server::default().stream()).unwrap();
        conversation
    };
    assert_eq!(
        answered().server(&record(22, &message(11, &[0; 9]))),
        Err(Reason::TlsMalformed)
    );
    assert_eq!(
        answered().client(&record(22, &message(20, &[0; 9]))),
        Err(Reason::TlsMalformed)
    );
    assert_eq!(
        answered().client(&record(23, &[0; 8])),
        Err(Reason::TlsMalformed),
        "no tag"
    );
    assert_eq!(
        answered().server(&[23, 3, 3, 0x41, 1]),
        Err(Reason::RecordAbuse),
        "too long"
    );
    assert!(answered().server(&[23, 3, 3, 0x41, 0]).is_ok());
    assert!(answered().client(&record(23, &[0; 40])).unwrap().protected);
    let flood = record(20, &[1]).repeat(5);
    assert_eq!(answered().client(&flood), Err(Reason::RecordAbuse));
}

#[test]
fn tls_1_2_is_opaque_only_after_change_cipher_spec() {
    let answered = || {
        let mut conversation = start(&Client::default());
        conversation.server(&Server::tls12().stream()).unwrap();
        conversation
    };
    assert_eq!(
        answered().client(&record(23, &[0; 40])),
        Err(Reason::TlsMalformed)
    );
    assert_eq!(
        answered().client(&record(22, &message(1, &[0; 9]))),
        Err(Reason::TlsMalformed)
    );
    assert_eq!(
        answered().server(&record(22, &message(16, &[0; 9]))),
        Err(Reason::TlsMalformed)
    );
    let mut conversation = answered();
    conversation
        .client(&record(22, &message(16, &[0; 9])))
        .unwrap();
    assert!(!conversation.client(&record(20, &[1])).unwrap().protected);
    assert!(
        conversation
            .client(&record(22, &[0; 40]))
            .unwrap()
            .protected
    );
    assert_eq!(
        conversation.client(&record(20, &[1])),
        Err(Reason::TlsMalformed)
    );
    // Keys change between messages, never inside one.
    let mut torn = answered();
    torn.client(&record(22, &message(16, &[0; 9])[..6]))
        .unwrap();
    assert_eq!(torn.client(&record(20, &[1])), Err(Reason::TlsMalformed));
}

#[test]
fn a_hello_and_its_certificate_may_share_a_record() {
    let certificate = [&[0, 0, 7, 0, 0, 4][..], &[0x30, 2, 5, 0]].concat();
    let flight = [
        Server::tls12().message(),
        message(11, &certificate),
        message(14, &[]),
    ]
    .concat();
    let mut conversation = start(&Client::default());
    for byte in record(22, &flight) {
        conversation.server(&[byte]).unwrap();
    }
    assert_eq!(
        conversation.certificates().unwrap().leaf(),
        Some(&[0x30, 2, 5, 0][..])
    );
    assert_eq!(
        conversation.server(&record(22, &message(11, &certificate))),
        Err(Reason::TlsMalformed)
    );
}

#[test]
fn half_a_record_header_is_not_safe() {
    let mut conversation = start(&Client::default());
    conversation.server(&Server::default().stream()).unwrap();
    assert_eq!(conversation.client(&[23, 3, 3]).unwrap().safe, 0);
    assert_eq!(conversation.client(&[0, 40, 1]).unwrap().safe, 6);
}
