use policy::Reason;

use super::*;
use crate::record::Category;
use crate::sim::samples::*;
use crate::sim::{ACK, Conn, FIN, PSH, SYN, ordinary, tcp, udp};

fn everywhere(_: IpAddr) -> bool {
    true
}

fn replay(bound_everywhere: bool) -> Replay {
    let options = ReplayOptions {
        bound_everywhere,
        is_global: everywhere,
    };
    Replay::new(Arc::new(ordinary()), options)
}

fn label(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in text.split('.') {
        bytes.push(u8::try_from(part.len()).unwrap());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// An answer for `asked`: an alias, then an address and a hint of the alias.
fn answer(asked: &str) -> Vec<u8> {
    let mut m = vec![0, 7, 0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 0];
    m.extend(label(asked));
    m.extend([0, 1, 0, 1]);
    let target = label("edge.cdn.example");
    m.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60]);
    m.extend(u16::try_from(target.len()).unwrap().to_be_bytes());
    let at = u16::try_from(m.len()).unwrap() | 0xc000;
    m.extend(target);
    m.extend(at.to_be_bytes());
    m.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 5]);
    m.extend(at.to_be_bytes());
    m.extend([
        0, 65, 0, 1, 0, 0, 0, 60, 0, 11, 0, 1, 0, 0, 4, 0, 4, 203, 0, 113, 6,
    ]);
    m
}

fn connection(replay: &mut Replay, conn: &Conn, hello: &[u8], at: u64) {
    let ack = conn.isn.wrapping_add(1);
    let end = u32::try_from(hello.len()).unwrap();
    let flight = server_flight_13(29);
    let packets = [
        tcp(conn.client, conn.server, conn.isn, 0, SYN, b""),
        tcp(
            conn.server,
            conn.client,
            conn.server_isn,
            ack,
            SYN | ACK,
            b"",
        ),
        conn.client_bytes(0, ACK, b""),
        conn.client_bytes(0, PSH | ACK, hello),
        conn.server_bytes(0, PSH | ACK, &flight),
        conn.client_bytes(end, PSH | ACK, &client_finished_13()),
        conn.server_bytes(u32::try_from(flight.len()).unwrap(), PSH | ACK, &[1; 1_000]),
        conn.client_bytes(end + 59, FIN | ACK, b""),
    ];
    for (i, packet) in (0_u64..).zip(packets) {
        replay.packet(at + i, &packet);
    }
}

#[test]
fn an_answer_binds_its_question_through_aliases_and_hints() {
    let resolved = read_answer(&answer("api.example.com")).unwrap();
    assert_eq!(resolved.name.as_str(), "api.example.com");
    let expected: [IpAddr; 2] = [[203, 0, 113, 5].into(), [203, 0, 113, 6].into()];
    assert_eq!(resolved.addresses, expected);
}

#[test]
fn broken_answers_bind_nothing() {
    let whole = answer("api.example.com");
    for end in 0..whole.len() {
        assert!(read_answer(&whole[..end]).is_none(), "{end}");
    }
    // A name that is a pointer to itself.
    let mut looped = whole[..12].to_vec();
    looped.extend([0xc0, 12, 0, 1, 0, 1]);
    assert!(read_answer(&looped).is_none());
    let mut query = whole.clone();
    query[2] = 1;
    assert!(read_answer(&query).is_none());
}

#[test]
fn a_capture_is_judged_by_the_answers_in_it() {
    let mut learnt = replay(false);
    let resolver = "10.0.0.2:53".parse().unwrap();
    let client = "10.0.0.1:5353".parse().unwrap();
    learnt.packet(1_000, &udp(resolver, client, &answer("api.example.com")));
    connection(&mut learnt, &Conn::tls(), &hello(), 2_000);
    let records = learnt.take_records();
    assert_eq!(records.len(), 2, "{records:?}");
    assert!(records.iter().all(FlowRecord::is_allowed));
    assert_eq!(records[0].unix_ms, 2_003);
    assert_eq!(learnt.undecided().count(), 0);

    let mut nothing = replay(false);
    connection(&mut nothing, &Conn::tls(), &hello(), 2_000);
    let records = nothing.take_records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(
        records[0].outcome,
        Outcome::Disallowed(Reason::NameUnresolvable)
    );

    let mut anywhere = replay(true);
    connection(&mut anywhere, &Conn::tls(), &hello(), 2_000);
    assert!(anywhere.take_records().iter().all(FlowRecord::is_allowed));
}

#[test]
fn a_port_that_is_used_again_is_judged_again() {
    let mut replay = replay(true);
    let conn = Conn::tls();
    connection(&mut replay, &conn, &hello(), 1_000);
    let again = Conn { isn: 7, ..conn };
    connection(&mut replay, &again, &hello_for("evi.example.com"), 9_000);
    let records = replay.take_records();
    let last = records.last().unwrap();
    assert_eq!(last.category, Category::Client);
    assert_eq!(last.outcome, Outcome::Disallowed(Reason::NameNotAllowed));
    assert_eq!(records.len(), 3);
}

#[test]
fn padding_is_cut_off_and_what_was_not_captured_is_counted() {
    let mut replay = replay(true);
    let conn = Conn::tls();
    let mut syn = tcp(conn.client, conn.server, conn.isn, 0, SYN, b"");
    syn.extend([0; 6]);
    replay.packet(1, &syn);
    assert_eq!(replay.skipped(), 0);
    replay.packet(2, &conn.client_bytes(0, ACK, &hello())[..60]);
    assert_eq!(replay.skipped(), 1);
    assert_eq!(replay.undecided().count(), 1);
}

#[test]
fn strangers_and_other_protocols_are_reported_once() {
    let mut replay = replay(true);
    let stranger = Conn::new("10.0.9.9:1", "203.0.113.5:443");
    connection(&mut replay, &stranger, &hello(), 1);
    let (client, host) = (
        "10.0.0.1:9".parse().unwrap(),
        "203.0.113.5:443".parse().unwrap(),
    );
    for at in 10..20 {
        replay.packet(at, &udp(client, host, b"quic"));
        replay.packet(at, &udp(host, client, b"answer"));
    }
    let reasons: Vec<_> = replay
        .take_records()
        .iter()
        .map(|record| record.outcome)
        .collect();
    let expected = [Reason::ClientUnknown, Reason::Quic].map(Outcome::Disallowed);
    assert_eq!(reasons, expected);
}
