//! The ways past a hostname filter that these layers decide, each by its row of EVASIONS.md.

use super::samples::*;
use super::*;

/// Sends one message as the client's first and says why it was refused, if it was.
pub(super) fn judged(payload: &[u8]) -> Option<Reason> {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, payload);
    let reason = world.refusal();
    if reason.is_some() {
        assert_eq!(world.payload_to(conn.server), 0, "refused bytes left");
        assert_eq!(world.resets.len(), 2, "both ends are told");
    }
    reason
}

#[test]
fn row_1_an_allowed_name_at_another_address_is_refused() {
    let mut world = World::new(snapshot(
        &[("postern:tls:*.example.com", "tcp", "443")],
        "",
        1,
    ));
    let conn = Conn::new("10.0.0.1:40000", "203.0.113.66:443").open(&mut world);
    let token = conn.send(&mut world, 0, &hello());
    assert_eq!(world.verdict(token), None, "a look-up may still bind it");
    assert_eq!(world.queries[0].sought.name.as_str(), "api.example.com");
    world.answer("api.example.com", Answer::Resolved);
    assert_eq!(world.refusal(), Some(Reason::AddressNotOfName));
    assert_eq!(world.payload_to(conn.server), 0);
}

#[test]
fn row_1_a_fresh_answer_rescues_the_flow() {
    let mut world = World::new(snapshot(
        &[("postern:tls:*.example.com", "tcp", "443")],
        "",
        1,
    ));
    let conn = Conn::new("10.0.0.1:40000", "203.0.113.66:443").open(&mut world);
    conn.send(&mut world, 0, &hello());
    world.bind("api.example.com", "203.0.113.66");
    world.answer("api.example.com", Answer::Resolved);
    let line = world.line(Category::Client).unwrap();
    assert!(line.is_allowed() && line.rescued);
    assert_eq!(conn.at_server(&world), hello());
}

#[test]
fn row_1_lookup_failure_never_allows() {
    let mut world = World::new(snapshot(
        &[("postern:tls:*.example.com", "tcp", "443")],
        "",
        1,
    ));
    let conn = Conn::new("10.0.0.1:40000", "203.0.113.66:443").open(&mut world);
    conn.send(&mut world, 0, &hello());
    world.answer("api.example.com", Answer::Failed);
    assert_eq!(world.refusal(), Some(Reason::NameUnresolvable));
}

#[test]
fn a_name_outside_policy_is_refused_and_never_resolved() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello_for("secret-data.attacker.example"));
    assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));
    assert_eq!(
        world.records[0].dhost.as_deref(),
        Some("secret-data.attacker.example")
    );
    assert!(world.queries.is_empty());
}

#[test]
fn row_4_a_hello_that_hides_a_name_is_refused() {
    assert_eq!(
        judged(
            &Hello {
                ech: true,
                ..Hello::default()
            }
            .bytes()
        ),
        Some(Reason::Ech)
    );
}

#[test]
fn row_4_the_outer_name_is_judged_when_the_preference_says_so() {
    let rules = [("postern:tls:api.example.com", "tcp", "443")];
    let mut world = World::new(snapshot(&rules, "ech = \"allow_outer\"", 1));
    let conn = Conn::tls().open(&mut world);
    conn.send(
        &mut world,
        0,
        &Hello {
            ech: true,
            ..Hello::default()
        }
        .bytes(),
    );
    assert_eq!(world.refusal(), None);
}

#[test]
fn rows_10_11_a_hello_in_segments_of_one_byte_is_judged_whole() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let bytes = hello();
    for (at, byte) in (0_u32..).zip(&bytes) {
        assert_eq!(world.payload_to(conn.server), 0);
        conn.send(&mut world, at, &[*byte]);
    }
    assert_eq!(conn.at_server(&world), bytes);
}

#[test]
fn row_15_a_retransmission_with_other_bytes_ends_the_flow() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let (good, evil) = (hello(), hello_for("evi.example.com"));
    assert_eq!(good.len(), evil.len());
    conn.send(&mut world, 0, &good[..good.len() - 10]);
    conn.send(&mut world, 50, &evil[50..]);
    assert_eq!(world.refusal(), Some(Reason::TcpOverlap));
    assert_eq!(world.payload_to(conn.server), 0);
}

#[test]
fn row_16_segments_in_reverse_order_are_judged_in_order() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let bytes = hello();
    let chunks: Vec<_> = bytes.chunks(30).collect();
    for (i, chunk) in chunks.iter().enumerate().rev() {
        conn.send(&mut world, u32::try_from(i * 30).unwrap(), chunk);
    }
    assert_eq!(conn.at_server(&world), bytes);
    let order: Vec<_> = world
        .wire
        .iter()
        .filter(|w| !w.payload.is_empty())
        .map(|w| w.seq)
        .collect();
    let from = conn.isn.wrapping_add(1);
    assert!(
        order.is_sorted_by_key(|seq| seq.wrapping_sub(from)),
        "released in order"
    );
}

#[test]
fn row_17_a_decoy_with_few_hops_left_is_refused() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let mut decoy = conn.client_bytes(0, PSH | ACK, &hello());
    decoy[8] = 3;
    world.packet(Class::Original, decoy);
    assert_eq!(world.refusal(), Some(Reason::TcpState));
}

#[test]
fn row_17_a_decoy_out_of_window_changes_nothing() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let far = conn.send(&mut world, 1 << 20, &hello_for("evi.example.com"));
    assert_eq!(world.verdict(far), Some(Verdict::Drop));
    conn.send(&mut world, 0, &hello());
    assert_eq!(conn.at_server(&world), hello());
}

#[test]
fn row_18_a_false_reset_or_fin_does_not_free_the_flow() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let false_rst = conn.send_flags(&mut world, 77, RST | ACK, b"");
    assert_eq!(world.verdict(false_rst), Some(Verdict::Drop));
    conn.send(&mut world, 0, &hello_for("evi.example.com"));
    assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));

    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let fin = conn.send_flags(&mut world, 0, FIN | ACK, b"");
    assert_eq!(world.verdict(fin), Some(Verdict::Pass));
    conn.send(&mut world, 0, &hello());
    assert_eq!(world.refusal(), Some(Reason::TcpState), "data after FIN");
    assert_eq!(world.payload_to(conn.server), 0);
}

#[test]
fn row_18_a_true_reset_closes_and_nothing_more_passes() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let rst = conn.send_flags(&mut world, 0, RST | ACK, b"");
    assert_eq!(world.verdict(rst), Some(Verdict::Pass));
    let late = conn.send(&mut world, 0, &hello());
    assert_eq!(world.verdict(late), Some(Verdict::Drop));
    assert_eq!(world.inspector.undecided(), 0);
}

#[test]
fn row_18_a_reset_behind_half_a_hello_ends_the_flow_for_its_server_too() {
    for gap in [0, 40] {
        let mut world = World::new(ordinary());
        let conn = Conn::tls().open(&mut world);
        conn.send(&mut world, gap, &hello()[..80]);
        let rst = conn.send_flags(&mut world, gap + 80, RST | ACK, b"");
        assert_eq!(world.verdict(rst), Some(Verdict::Drop));
        assert_eq!(world.refusal(), Some(Reason::HelloIncomplete));
        let told = world.resets.iter().find(|reset| reset.dst == conn.server);
        assert_eq!(
            told.unwrap().seq,
            conn.isn.wrapping_add(1),
            "which got no byte"
        );
        assert_eq!(world.inspector.undecided(), 0);
        assert_eq!(world.payload_to(conn.server), 0);
    }
}

#[test]
fn row_19_a_syn_with_another_number_starts_over() {
    let mut world = World::new(ordinary());
    let first = Conn::tls();
    first.syn(&mut world);
    let second = Conn { isn: 77, ..first };
    let syn = second.syn(&mut world);
    assert_eq!(world.verdict(syn), Some(Verdict::Drop));
    let stray = first.syn_ack(&mut world);
    assert_eq!(world.verdict(stray), Some(Verdict::Drop));
    assert_eq!(world.forgotten.len(), 1);
    second.open(&mut world);
}

#[test]
fn row_20_data_in_a_syn_is_refused() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls();
    let bytes = tcp(conn.client, conn.server, conn.isn, 0, SYN, &hello());
    world.packet(Class::Syn, bytes);
    assert_eq!(world.refusal(), Some(Reason::SynData));
    assert_eq!(world.resets.len(), 1);

    let mut world = World::new(ordinary());
    conn.syn(&mut world);
    let ack = conn.isn.wrapping_add(1);
    let bytes = tcp(
        conn.server,
        conn.client,
        conn.server_isn,
        ack,
        SYN | ACK,
        b"early",
    );
    world.packet(Class::SynAck, bytes);
    assert_eq!(world.refusal(), Some(Reason::SynData));
}

#[test]
fn row_21_urgent_data_is_refused() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send_flags(&mut world, 0, URG | PSH | ACK, &hello());
    assert_eq!(world.refusal(), Some(Reason::TcpUrgent));
    assert_eq!(world.resets.len(), 2);
}

#[test]
fn rows_22_23_24_options_extensions_and_fragments_are_refused() {
    let conn = Conn::tls_v6();
    let mut world = World::new(ordinary());
    conn.open(&mut world);
    let mut hop_by_hop = conn.client_bytes(0, PSH | ACK, &hello());
    hop_by_hop[6] = 0;
    world.packet(Class::Original, hop_by_hop);
    assert_eq!(world.refusal(), Some(Reason::ExtensionHeader));

    let conn = Conn::tls();
    let mut world = World::new(ordinary());
    conn.open(&mut world);
    let plain = conn.client_bytes(0, PSH | ACK, &hello());
    let total = u16::try_from(plain.len() + 4).unwrap().to_be_bytes();
    let mut options = plain[..20].to_vec();
    options.extend_from_slice(&[1, 1, 1, 0]);
    options.extend_from_slice(&plain[20..]);
    options[0] = 0x46;
    options[2..4].copy_from_slice(&total);
    world.packet(Class::Original, options);
    assert_eq!(world.refusal(), Some(Reason::IpOptions));

    let mut world = World::new(ordinary());
    conn.open(&mut world);
    let mut cut = plain.clone();
    cut.push(0);
    world.packet(Class::Original, cut);
    assert_eq!(world.refusal(), Some(Reason::Internal));
}

#[test]
fn row_26_data_before_the_syn_ack_is_dropped() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls();
    conn.syn(&mut world);
    let early = conn.send(&mut world, 0, &hello());
    assert_eq!(world.verdict(early), Some(Verdict::Drop));
    conn.syn_ack(&mut world);
    conn.send(&mut world, 0, &hello());
    assert_eq!(conn.at_server(&world), hello());
}

#[test]
fn row_27_a_flow_whose_beginning_was_not_seen_is_reset_at_both_ends() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls();
    let stray = conn.send(&mut world, 500, b"mid-stream");
    assert_eq!(world.verdict(stray), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::TcpState));
    let seq = conn.isn.wrapping_add(501);
    let to_server = world
        .resets
        .iter()
        .find(|reset| reset.dst == conn.server)
        .unwrap();
    assert_eq!(
        (to_server.seq, to_server.ack),
        (seq, conn.server_isn.wrapping_add(1))
    );
    let to_client = world
        .resets
        .iter()
        .find(|reset| reset.dst == conn.client)
        .unwrap();
    assert_eq!(
        (to_client.seq, to_client.ack),
        (to_server.ack, seq.wrapping_add(10))
    );
    let again = conn.send(&mut world, 500, b"mid-stream");
    assert_eq!(world.verdict(again), Some(Verdict::Drop));
    assert_eq!(world.resets.len(), 2, "repeats are silent");
}

#[test]
fn row_29_what_does_not_begin_as_a_known_protocol_is_refused() {
    assert_eq!(judged(b"\x00\x01\x02"), Some(Reason::ProtocolUnknown));
    assert_eq!(
        judged(&[b"EHLO x\r\n", &hello()[..]].concat()),
        Some(Reason::ProtocolUnknown)
    );
    assert_eq!(
        judged(b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"),
        Some(Reason::PlaintextHttp)
    );
}

#[test]
fn row_30_a_slow_hello_has_ten_seconds() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let bytes = hello();
    for at in 0..9 {
        conn.send(&mut world, at, &bytes[at as usize..=at as usize]);
        world.wait(1_000);
    }
    world.wait(999);
    assert_eq!(world.refusal(), None);
    world.wait(1);
    assert_eq!(world.refusal(), Some(Reason::HelloIncomplete));
    assert!(world.in_flight.is_empty());
    assert_eq!(world.resets.len(), 2);
}
