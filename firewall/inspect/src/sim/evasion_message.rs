//! Rows of EVASIONS.md about what a message says rather than how it is cut, and the check that
//! every reason of the engine is produced by some test.

use super::evasion::judged;
use super::samples::*;
use super::*;

#[test]
fn rows_5_6_32_33_names_that_are_none_are_refused_by_their_kind() {
    let with = |names: Vec<&'static [u8]>| {
        Hello {
            names,
            ..Hello::default()
        }
        .bytes()
    };
    let absent = Hello {
        name_extensions: 0,
        ..Hello::default()
    }
    .bytes();
    let twice = Hello {
        name_extensions: 2,
        ..Hello::default()
    }
    .bytes();
    assert_eq!(judged(&absent), Some(Reason::SniMissing));
    assert_eq!(
        judged(&with(vec![b"203.0.113.5"])),
        Some(Reason::SniIpLiteral)
    );
    assert_eq!(
        judged(&with(vec![b"[2001:db8::5]"])),
        Some(Reason::SniIpLiteral)
    );
    assert_eq!(
        judged(&with(vec![b"0x7f000001"])),
        Some(Reason::SniIpLiteral)
    );
    assert_eq!(
        judged(&with(vec![b"api.example.com", b"b.example"])),
        Some(Reason::SniMultiple)
    );
    assert_eq!(judged(&twice), Some(Reason::SniMultiple));
    for bad in [
        &b"api.example.com\0.x"[..],
        b"api.example.com.",
        b"api example.com",
        b"",
        b"a..b",
    ] {
        assert_eq!(
            judged(&with(vec![bad])),
            Some(Reason::SniMalformed),
            "{bad:?}"
        );
    }
    assert_eq!(
        judged(&with(vec![b"API.Example.COM"])),
        None,
        "case is folded"
    );
}

#[test]
fn row_12_a_hello_in_many_records_is_reassembled_and_abuse_refused() {
    let message = Hello::default().message();
    assert_eq!(judged(&records(&message, 20)), None);
    assert_eq!(judged(&records(&message, 2)), Some(Reason::RecordAbuse));
    let empty = [record(22, &[]), hello()].concat();
    assert_eq!(judged(&empty), Some(Reason::RecordAbuse));
    let (head, tail) = message.split_at(40);
    let interleaved = [record(22, head), record(20, &[1]), record(22, tail)].concat();
    assert!(judged(&interleaved).is_some());
}

#[test]
fn row_14_a_hello_of_21_kilobytes_passes_and_one_past_64_is_too_big() {
    let large = Hello {
        padding: 21_500,
        ..Hello::default()
    }
    .message();
    assert_eq!(judged(&records(&large, 16_384)), None);
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    // The header alone promises 70,000 bytes.
    conn.send(&mut world, 0, &record(22, &[1, 1, 0x11, 0x70, 3, 3]));
    assert_eq!(world.refusal(), Some(Reason::HelloTooBig));
}

#[test]
fn row_36_grease_is_ignored() {
    // The sample hello carries GREASE versions, groups, shares and suites.
    assert_eq!(judged(&hello()), None);
}

#[test]
fn row_37_an_sslv2_hello_is_refused() {
    assert_eq!(
        judged(&[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0]),
        Some(Reason::Sslv2Hello)
    );
}

#[test]
fn row_38_old_versions_of_the_client_are_refused() {
    let old = Hello {
        versions: vec![],
        legacy: 0x0302,
        ..Hello::default()
    }
    .bytes();
    assert_eq!(judged(&old), Some(Reason::TlsVersionClient));
}

#[test]
fn row_35_lying_lengths_are_refused() {
    let mut longer = Hello::default().message();
    longer.push(0);
    let len = u32::try_from(longer.len() - 4).unwrap().to_be_bytes();
    longer[1..4].copy_from_slice(&len[1..]);
    assert_eq!(judged(&record(22, &longer)), Some(Reason::TlsMalformed));
}

#[test]
fn row_3_a_tunnel_request_is_no_tls() {
    let connect = b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    assert_eq!(judged(connect), Some(Reason::PlaintextHttp));
}

#[test]
fn row_25_a_split_handshake_is_dropped() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls();
    conn.syn(&mut world);
    let bytes = tcp(conn.server, conn.client, conn.server_isn, 0, SYN, b"");
    let bare = world.packet(Class::Reply, bytes.clone());
    assert_eq!(world.verdict(bare), Some(Verdict::Drop));
    let posing = world.packet(Class::SynAck, bytes);
    assert_eq!(world.verdict(posing), Some(Verdict::Drop));
    let syn_ack = conn.syn_ack(&mut world);
    assert_eq!(
        world.verdict(syn_ack),
        Some(Verdict::Pass),
        "the true order still works"
    );
}

#[test]
fn row_34_a_name_in_another_script_is_refused() {
    let cyrillic = "\u{430}pi.example.com";
    let hello = Hello {
        names: vec![cyrillic.as_bytes()],
        ..Hello::default()
    };
    assert_eq!(judged(&hello.bytes()), Some(Reason::SniMalformed));
}

#[test]
fn row_55_dns_over_tls_has_no_port() {
    let mut world = World::new(ordinary());
    Conn::new("10.0.0.1:1", "203.0.113.5:853").syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::PortNotAllowed));
}

/// Reasons that are decided outside the engine, by the witness.
const ELSEWHERE: [Reason; 2] = [Reason::CertificateRevoked, Reason::DnsRecordType];

#[test]
fn every_reason_of_the_engine_has_a_test() {
    let tests = [
        include_str!("certificates.rs"),
        include_str!("evasion.rs"),
        include_str!("evasion_message.rs"),
        include_str!("gates.rs"),
        include_str!("leniency.rs"),
        include_str!("lifetime.rs"),
        include_str!("nat_ports.rs"),
        include_str!("promises.rs"),
        include_str!("protocols.rs"),
    ]
    .concat();
    let named = |reason: &Reason| {
        let word = format!("Reason::{reason:?}");
        let mut after = tests.split(&word).skip(1);
        after.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    for reason in Reason::ALL
        .iter()
        .filter(|reason| !ELSEWHERE.contains(reason))
    {
        assert!(named(reason), "{reason:?} has no test");
    }
}
