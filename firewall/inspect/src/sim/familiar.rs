//! Familiar pairs: what is promised of them, and how a connection is met whose SYN only the kernel saw.

use super::samples::*;
use super::*;
use crate::FAMILIAR_MS;

fn at(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

/// A world in which every address stays open for so long.
fn open_for(policy: Snapshot, ms: u64) -> World {
    let mut world = World::new(policy);
    world.directory.open_until_ms = Some(world.now.mono_ms + ms);
    world
}

/// Takes an open connection to its end.
fn finish(world: &mut World, conn: &Conn) {
    conn.send(world, 0, &hello());
    conn.reply(world, 0, &server_flight_13(29));
    let last = conn.send(world, at(&hello()), &client_finished_13());
    assert_eq!(world.verdict(last), Some(Verdict::Judged));
}

#[test]
fn a_pair_is_familiar_only_where_its_gate_stays_open_long_enough() {
    for (open_ms, expected) in [(FAMILIAR_MS, 1), (FAMILIAR_MS - 1, 0)] {
        let mut world = open_for(ordinary(), open_ms);
        let conn = Conn::tls().open(&mut world);
        finish(&mut world, &conn);
        assert_eq!(world.familiar, expected, "open for {open_ms} ms");
    }
    // Who asks name after name does not know for how long.
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    finish(&mut world, &conn);
    assert_eq!(world.familiar, 0);
}

#[test]
fn see_thru_that_ends_within_the_time_makes_nobody_familiar() {
    let last_day = "see_thru = \"2026-11-22\"";
    for (left_ms, expected) in [(FAMILIAR_MS + 1, 1), (FAMILIAR_MS, 0)] {
        let mut world = World::new(snapshot(&[], last_day, 1));
        let day_ms = 24 * 3_600 * 1_000;
        world.now.unix_ms = EPOCH_MS + day_ms - left_ms;
        let conn = Conn::tls().open(&mut world);
        finish(&mut world, &conn);
        assert_eq!(world.familiar, expected, "{left_ms} ms of it left");
    }
}

#[test]
fn a_connection_met_at_its_syn_ack_is_judged_like_any_other() {
    let mut world = open_for(ordinary(), FAMILIAR_MS);
    let conn = Conn::tls();
    let syn_ack = conn.admitted(&mut world, SYN | ACK);
    assert_eq!(world.verdict(syn_ack), Some(Verdict::Pass));
    assert_eq!(world.inspector.counters().familiar, 1);
    // Repeated, it is the same connection.
    let again = conn.admitted(&mut world, SYN | ACK);
    assert_eq!(world.verdict(again), Some(Verdict::Pass));
    assert_eq!(world.inspector.counters().familiar, 1);
    finish(&mut world, &conn);
    assert_eq!(world.familiar, 1);
    let mut world = open_for(ordinary(), FAMILIAR_MS);
    conn.admitted(&mut world, SYN | ACK);
    conn.send(&mut world, 0, &hello_for("evil.example.com"));
    assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));
    assert_eq!(conn.at_server(&world), b"");
    assert_eq!(world.resets.len(), 2);
    // A first byte is the one behind the number that the server acknowledged.
    let mut world = open_for(ordinary(), FAMILIAR_MS);
    conn.admitted(&mut world, SYN | ACK);
    conn.send(&mut world, 1, &hello());
    assert_eq!(conn.at_server(&world), b"");
}

#[test]
fn a_server_that_refuses_is_heard() {
    let mut world = open_for(ordinary(), FAMILIAR_MS);
    let conn = Conn::tls();
    let reset = conn.admitted(&mut world, RST | ACK);
    assert_eq!(world.verdict(reset), Some(Verdict::Pass));
    assert_eq!(world.inspector.undecided(), 0);
}

#[test]
fn the_policy_in_force_judges_what_the_one_before_let_through() {
    let mut world = open_for(snapshot(&[], "", 2), FAMILIAR_MS);
    let conn = Conn::tls();
    let syn_ack = conn.admitted(&mut world, SYN | ACK);
    assert_eq!(world.verdict(syn_ack), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::NoRule));
    assert_eq!(world.resets.len(), 2, "both ends know of it");
    assert_eq!(world.inspector.undecided(), 0);
}

#[test]
fn a_gate_that_a_look_up_may_open_lets_the_client_try_again() {
    let mut world = open_for(ordinary(), FAMILIAR_MS);
    world.directory.open_until_ms = Some(0);
    let conn = Conn::tls();
    let syn_ack = conn.admitted(&mut world, SYN | ACK);
    assert_eq!(world.verdict(syn_ack), Some(Verdict::Drop));
    assert!(world.resets.is_empty() && world.records.is_empty());
    let key = FlowKey {
        client: conn.client,
        server: conn.server,
    };
    assert_eq!(world.forgotten, [key]);
    assert_eq!(world.inspector.undecided(), 0);
}

#[test]
fn limits_hold_for_connections_met_at_their_syn_ack() {
    for (limits, reason) in [
        (
            Limits {
                flows: 1,
                ..Limits::default()
            },
            Reason::TableFull,
        ),
        (
            Limits {
                flows_per_client: 1,
                ..Limits::default()
            },
            Reason::ClientLimit,
        ),
    ] {
        let mut world = World::with_limits(ordinary(), limits);
        Conn::tls().open(&mut world);
        let more = Conn::new("10.0.0.1:40001", "203.0.113.5:443");
        let syn_ack = more.admitted(&mut world, SYN | ACK);
        assert_eq!(world.verdict(syn_ack), Some(Verdict::Drop));
        assert_eq!(world.refusal(), Some(reason));
        assert_eq!(world.inspector.undecided(), 1);
    }
}

#[test]
fn the_same_ports_again_are_another_connection() {
    let mut world = open_for(ordinary(), FAMILIAR_MS);
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello()[..40]);
    let again = Conn {
        isn: 77,
        server_isn: 88,
        ..conn
    };
    let syn_ack = again.admitted(&mut world, SYN | ACK);
    assert_eq!(world.verdict(syn_ack), Some(Verdict::Pass));
    // What the first one said counts for nothing.
    again.send(&mut world, 0, &hello()[40..]);
    assert_eq!(again.at_server(&world), b"");
    assert_eq!(world.payload_to(conn.server), 0);
}

#[test]
fn what_is_no_answer_to_a_syn_makes_no_connection() {
    let mut world = open_for(ordinary(), FAMILIAR_MS);
    let conn = Conn::tls();
    let ack = conn.isn.wrapping_add(1);
    let numbers = (conn.server_isn, ack);
    for (flags, payload) in [
        (SYN | ACK, &b"data"[..]),
        (ACK, b""),
        (PSH | ACK, b"data"),
        (SYN, b""),
        (FIN | ACK, b""),
    ] {
        let bytes = tcp(
            conn.server,
            conn.client,
            numbers.0,
            numbers.1,
            flags,
            payload,
        );
        world.packet(Class::Admitted, bytes);
        assert_eq!(world.inspector.undecided(), 0, "{flags:#x}");
        assert_eq!(world.payload_to(conn.client), 0, "{flags:#x}");
    }
    let admitted = world.inspector.counters().familiar;
    assert_eq!(admitted, 0);
}
