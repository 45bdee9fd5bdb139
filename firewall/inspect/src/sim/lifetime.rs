//! Over time: policy changes, late packets, resets with exact numbers, flows to be ended.

use super::samples::*;
use super::*;

fn at(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

/// A connection that has just been judged.
fn judged(world: &mut World) -> Conn {
    let conn = Conn::tls().open(world);
    conn.send(world, 0, &hello());
    conn.reply(world, 0, &server_flight_13(29));
    let last = conn.send(world, at(&hello()), &client_finished_13());
    assert_eq!(world.verdict(last), Some(Verdict::Judged));
    conn
}

#[test]
fn packets_queued_before_the_mark_landed_meet_the_same_verdict() {
    let mut world = World::new(ordinary());
    let conn = judged(&mut world);
    let probe = conn.send(&mut world, 0, &hello());
    assert_eq!(world.verdict(probe), Some(Verdict::Judged));
    let reply = conn.reply(&mut world, 2_000, b"more");
    assert_eq!(world.verdict(reply), Some(Verdict::Judged));
    world.wait(5_000);
    let stray = conn.send(&mut world, 0, &hello());
    assert_eq!(world.verdict(stray), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::TcpState));
}

#[test]
fn a_verdict_is_never_inherited() {
    let mut world = World::new(ordinary());
    let conn = judged(&mut world);
    let bytes = tcp(conn.client, conn.server, 5_000, 0, SYN, b"");
    let stale = world.packet(Class::StaleSyn, bytes);
    assert_eq!(world.verdict(stale), Some(Verdict::Drop));
    assert_eq!(
        world.forgotten,
        [FlowKey {
            client: conn.client,
            server: conn.server
        }]
    );
    let again = Conn {
        isn: 5_000,
        server_isn: 9_000,
        ..conn
    }
    .open(&mut world);
    again.send(&mut world, 0, &hello_for("evi.example.com"));
    assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));
    // Also without the stale SYN: a new entry in the kernel is a new connection.
    let mut world = World::new(ordinary());
    let conn = judged(&mut world);
    let again = Conn {
        isn: 5_000,
        server_isn: 9_000,
        ..conn
    }
    .open(&mut world);
    again.send(&mut world, 0, &hello_for("evi.example.com"));
    assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));
}

#[test]
fn a_syn_repeated_while_its_answer_is_under_way_ends_nothing() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let syn = tcp(conn.client, conn.server, conn.isn, 0, SYN, b"");
    let repeated = world.packet(Class::StaleSyn, syn);
    assert_eq!(world.verdict(repeated), Some(Verdict::Drop));
    assert_eq!(world.forgotten, []);
    conn.send(&mut world, 0, &hello());
    conn.reply(&mut world, 0, &server_flight_13(29));
    let last = conn.send(&mut world, at(&hello()), &client_finished_13());
    assert_eq!(world.verdict(last), Some(Verdict::Judged));
}

#[test]
fn resets_carry_what_each_end_expects_next() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let bytes = hello_for("evi.example.com");
    let (head, tail) = bytes.split_at(100);
    conn.send(&mut world, 100, tail);
    conn.send(&mut world, 0, head);
    let to = |addr| *world.resets.iter().find(|reset| reset.dst == addr).unwrap();
    let (server, client) = (to(conn.server), to(conn.client));
    assert_eq!(server.src, conn.client);
    assert_eq!(
        server.seq,
        conn.isn.wrapping_add(1),
        "the first byte it was not given"
    );
    assert_eq!(server.ack, conn.server_isn.wrapping_add(1));
    assert_eq!(client.src, conn.server);
    assert_eq!(client.seq, conn.server_isn.wrapping_add(1));
    assert_eq!(client.ack, conn.isn.wrapping_add(1 + at(&bytes)));
}

#[test]
fn a_refusal_of_the_server_resets_behind_the_released_hello() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello());
    conn.reply(&mut world, 0, b"not tls at all");
    let to_server = world
        .resets
        .iter()
        .find(|reset| reset.dst == conn.server)
        .unwrap();
    assert_eq!(to_server.seq, conn.isn.wrapping_add(1 + at(&hello())));
    let to_client = world
        .resets
        .iter()
        .find(|reset| reset.dst == conn.client)
        .unwrap();
    assert_eq!(to_client.seq, conn.server_isn.wrapping_add(1));
}

#[test]
fn verdict_names_its_generation() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let first_id = world.policy.policy_id().to_owned();
    conn.send(&mut world, 0, &hello()[..50]);
    let rules = [
        ("postern:tls:api.example.com,www.example.com", "tcp", "443"),
        ("postern:tls:new.example.com", "tcp", "8443"),
    ];
    world.adopt(snapshot(&rules, "", 7));
    conn.send(&mut world, 50, &hello()[50..]);
    let line = world.line(Category::Client).unwrap();
    assert!(line.is_allowed());
    assert_eq!(line.generation, 7);
    assert_eq!(&*line.policy_id, world.policy.policy_id());
    assert_ne!(&*line.policy_id, first_id);
}

#[test]
fn a_policy_that_refuses_ends_undecided_flows_at_once() {
    let without = || snapshot(&[("postern:tls:www.example.com", "tcp", "443")], "", 2);
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello());
    world.adopt(without());
    assert_eq!(world.refusal(), Some(Reason::PolicyChanged));
    assert_eq!(world.resets.len(), 2);
    // The same when a packet comes before the daemon says so.
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello());
    world.policy = without().into();
    let flight = conn.reply(&mut world, 0, &server_flight_13(29));
    assert_eq!(world.verdict(flight), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::PolicyChanged));
    assert_eq!(world.records.last().unwrap().generation, 2);
}

#[test]
fn a_policy_that_still_allows_disturbs_nothing() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello());
    world.adopt(snapshot(
        &[("postern:tls:*.example.com", "tcp", "all")],
        "",
        2,
    ));
    conn.reply(&mut world, 0, &server_flight_13(29));
    let last = conn.send(&mut world, at(&hello()), &client_finished_13());
    assert_eq!(world.verdict(last), Some(Verdict::Judged));
}

#[test]
fn a_policy_that_names_the_address_lets_a_held_syn_pass() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:1", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    world.bind("new.example.com", "203.0.113.99");
    world.adopt(snapshot(
        &[("postern:tls:new.example.com", "tcp", "443")],
        "",
        2,
    ));
    assert_eq!(world.verdict(syn), Some(Verdict::Pass));
}

#[test]
fn a_syn_ack_nobody_asked_for_is_forgotten() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls();
    let token = conn.syn_ack(&mut world);
    assert_eq!(world.verdict(token), Some(Verdict::Drop));
    assert_eq!(world.forgotten.len(), 1);
}

#[test]
fn a_challenge_ack_resets_both_ends_of_a_flow_to_be_ended() {
    let mut world = World::new(ordinary());
    let conn = judged(&mut world);
    let bytes = tcp(conn.server, conn.client, 700, 900, ACK, b"");
    let token = world.packet(Class::Kill, bytes);
    assert_eq!(world.verdict(token), Some(Verdict::Drop));
    let to_client = world
        .resets
        .iter()
        .find(|reset| reset.dst == conn.client)
        .unwrap();
    assert_eq!((to_client.seq, to_client.ack), (700, 900));
    let to_server = world
        .resets
        .iter()
        .find(|reset| reset.dst == conn.server)
        .unwrap();
    assert_eq!((to_server.seq, to_server.ack), (900, 700));
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello());
    world.wait(59_999);
    assert_eq!(world.refusal(), None);
    world.wait(1);
    assert_eq!(world.refusal(), Some(Reason::HelloIncomplete));
    assert_eq!(world.inspector.undecided(), 0);
}

#[test]
fn a_server_hello_held_for_ten_seconds_is_incomplete() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello());
    let token = conn.reply(&mut world, 0, &server_hello_13(29)[..20]);
    assert_eq!(world.verdict(token), None);
    world.wait(10_000);
    assert_eq!(world.verdict(token), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::HelloIncomplete));
}

#[test]
fn a_syn_without_an_answer_is_forgotten_silently() {
    let mut world = World::new(ordinary());
    Conn::tls().syn(&mut world);
    world.wait(30_000);
    assert_eq!(world.inspector.undecided(), 0);
    assert!(world.records.is_empty() && world.resets.is_empty());
}

#[test]
fn a_bare_fin_waits_behind_held_data() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let bytes = hello();
    let fin = conn.send_flags(&mut world, at(&bytes), FIN | ACK, b"");
    assert_eq!(world.verdict(fin), None);
    conn.send(&mut world, 0, &bytes);
    assert_eq!(world.verdict(fin), Some(Verdict::Pass));
    assert_eq!(
        world.wire.last().unwrap().flags & FIN,
        FIN,
        "and leaves after it"
    );
}

#[test]
fn a_refused_connection_by_the_server_passes_its_reset() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls();
    conn.syn(&mut world);
    let rst = conn.reply_flags(&mut world, 0, RST | ACK, b"");
    assert_eq!(world.verdict(rst), Some(Verdict::Pass));
    assert_eq!(world.inspector.undecided(), 0);
}

#[test]
fn a_keep_alive_probe_of_an_undecided_flow_is_dropped() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let probe = conn.send(&mut world, u32::MAX, b"\0");
    assert_eq!(world.verdict(probe), Some(Verdict::Drop));
    assert_eq!(world.refusal(), None);
}

#[test]
fn first_byte_of_a_hello_is_isn_plus_one() {
    // REDTEAM.md, finding 3: the hello that is read first stands at a later number.
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let evil = hello_for("evi.example.com");
    conn.send(&mut world, at(&evil), &hello());
    assert_eq!(world.payload_to(conn.server), 0);
    conn.send(&mut world, 0, &evil);
    assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));
    assert_eq!(world.payload_to(conn.server), 0);
    // And one byte before the first.
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, u32::MAX, &[&b"x"[..], &hello()].concat());
    assert_eq!(world.refusal(), Some(Reason::TcpState));
}
