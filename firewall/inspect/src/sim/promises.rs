//! DESIGN.md, section 8, as far as the engine keeps them.

use proptest::prelude::*;

use super::samples::*;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Syn(u8),
    StaleSyn(u8),
    SynAck(u8),
    Admitted(u8, u8),
    Client {
        conn: u8,
        from: usize,
        len: usize,
        flags: u8,
        evil: bool,
    },
    Server {
        conn: u8,
        from: usize,
        len: usize,
        flags: u8,
    },
    Answer {
        name: u8,
        ok: u8,
    },
    Wait(u64),
    Policy(u8),
    Rejudge,
    Kill(u8),
    Other(u8),
    Noise(Vec<u8>, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        6 => Just(PSH | ACK),
        1 => Just(FIN | ACK),
        1 => Just(RST | ACK),
        1 => Just(URG | ACK),
        1 => Just(SYN | ACK)
    ];
    prop_oneof![
        4 => (0u8..6).prop_map(Step::Syn),
        1 => (0u8..6).prop_map(Step::StaleSyn),
        4 => (0u8..6).prop_map(Step::SynAck),
        3 => (0u8..6, prop_oneof![3 => Just(SYN | ACK), 1 => Just(RST | ACK), 1 => Just(ACK)])
            .prop_map(|(conn, flags)| Step::Admitted(conn, flags)),
        8 => (0u8..6, 0usize..2_000, 0usize..2_000, flags.clone(), any::<bool>()).prop_map(
            |(conn, from, len, flags, evil)| Step::Client { conn, from, len, flags, evil }
        ),
        4 => (0u8..6, 0usize..1_500, 0usize..1_500, flags)
            .prop_map(|(conn, from, len, flags)| Step::Server { conn, from, len, flags }),
        2 => (0u8..3, 0u8..4).prop_map(|(name, ok)| Step::Answer { name, ok }),
        2 => (0u64..12_000).prop_map(Step::Wait),
        1 => (0u8..4).prop_map(Step::Policy),
        1 => Just(Step::Rejudge),
        1 => (0u8..6).prop_map(Step::Kill),
        1 => (0u8..3).prop_map(Step::Other),
        1 => (proptest::collection::vec(any::<u8>(), 0..120), 0u8..8)
            .prop_map(|(bytes, class)| Step::Noise(bytes, class)),
    ]
}

fn conn(n: u8) -> Conn {
    match n {
        0 | 1 => Conn::new(&format!("10.0.0.1:4000{n}"), "203.0.113.5:443"),
        2 => Conn::tls_v6(),
        3 => Conn::ssh(),
        4 => Conn::new("10.0.0.1:40004", "203.0.113.99:443"),
        _ => Conn::new("10.0.9.9:40005", "203.0.113.5:443"),
    }
}

fn policy(n: u8, generation: u64) -> Snapshot {
    let rules = [
        ("postern:tls:api.example.com,www.example.com", "tcp", "443"),
        ("postern:ssh:git.example.com", "tcp", "22"),
        ("postern:tls:*.example.com", "tcp", "443"),
    ];
    if n == 3 {
        return snapshot(&rules[1..2], "", generation);
    }
    let see_thru = if n == 2 {
        "see_thru = \"2030-01-01\""
    } else {
        ""
    };
    snapshot(&rules[..usize::from(n) + 1], see_thru, generation)
}

fn cut(bytes: &[u8], from: usize, len: usize) -> &[u8] {
    let from = from.min(bytes.len());
    &bytes[from..(from + len).min(bytes.len())]
}

const CLASSES: [Class; 8] = [
    Class::Syn,
    Class::StaleSyn,
    Class::SynAck,
    Class::Admitted,
    Class::Original,
    Class::Reply,
    Class::NonTcp,
    Class::Kill,
];

fn take(world: &mut World, step: &Step, generation: &mut u64) {
    match step {
        Step::Syn(n) => drop(conn(*n).syn(world)),
        Step::StaleSyn(n) => {
            let c = conn(*n);
            world.packet(Class::StaleSyn, tcp(c.client, c.server, c.isn, 0, SYN, b""));
        }
        Step::SynAck(n) => drop(conn(*n).syn_ack(world)),
        Step::Admitted(n, flags) => drop(conn(*n).admitted(world, *flags)),
        Step::Client {
            conn: n,
            from,
            len,
            flags,
            evil,
        } => {
            let stream = match (n, evil) {
                (3, _) => [&b"SSH-2.0-c\r\n"[..], &ssh_kexinit()].concat(),
                (_, true) => hello_for("evi.example.com"),
                (_, false) => [pq_hello(), client_finished_13()].concat(),
            };
            let at = u32::try_from((*from).min(stream.len())).unwrap();
            conn(*n).send_flags(world, at, *flags, cut(&stream, *from, *len));
        }
        Step::Server {
            conn: n,
            from,
            len,
            flags,
        } => {
            let stream = server_flight_13(4588);
            let at = u32::try_from((*from).min(stream.len())).unwrap();
            conn(*n).reply_flags(world, at, *flags, cut(&stream, *from, *len));
        }
        Step::Answer { name, ok } => {
            let name =
                ["api.example.com", "www.example.com", "git.example.com"][usize::from(*name)];
            let spent = Answer::Spent("10.0.0.1".parse().unwrap());
            let answers = [Answer::Resolved, Answer::Failed, Answer::OverBudget, spent];
            let answer = answers[usize::from(*ok)];
            world.answer(name, answer);
        }
        Step::Wait(ms) => world.wait(*ms),
        Step::Policy(n) => {
            *generation += 1;
            world.swap(policy(*n, *generation));
        }
        Step::Rejudge => drop(world.rejudge()),
        Step::Kill(n) => {
            let bytes = conn(*n).server_bytes(3, ACK, b"");
            world.packet(Class::Kill, bytes);
        }
        Step::Other(n) => {
            let c = conn(*n);
            world.packet(Class::NonTcp, udp(c.client, c.server, b"datagram"));
        }
        Step::Noise(bytes, class) => {
            world.packet(CLASSES[usize::from(*class)], bytes.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no packet is answered twice ([`World::call`]
    /// asserts it), none is left unanswered once every deadline has passed, the account of
    /// memory returns to nothing, and no byte of a refused hello has left.
    #[test]
    fn every_packet_gets_one_verdict(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new(ordinary());
        let mut generation = 1;
        for step in &steps {
            take(&mut world, step, &mut generation);
        }
        world.wait(400_000);
        prop_assert!(world.in_flight.is_empty(), "unanswered: {:?}", world.in_flight.keys());
        prop_assert_eq!(world.inspector.undecided(), 0);
        prop_assert_eq!(world.inspector.held(), (0, 0));
        prop_assert_eq!(world.inspector.waiting.len(), 0);
        prop_assert_eq!(world.inspector.poll_timeout(), None);
    }
}

/// Whether a policy of [`policy`] opens a server's port at all.
fn is_open(n: u8, port: u16) -> bool {
    match n {
        0 => port == 443,
        3 => port == 22,
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// From the swap on, however few flows have been judged again since: no line is of another
    /// policy than the one in force, and no SYN or byte of an undecided flow passes that it refuses.
    #[test]
    fn nothing_passes_by_a_policy_that_is_no_longer_in_force(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new(ordinary());
        let (mut generation, mut n) = (1, 1);
        for step in &steps {
            let (lines, packets) = (world.records.len(), world.wire.len());
            take(&mut world, step, &mut generation);
            if let Step::Policy(now) = step {
                n = *now;
            }
            for line in &world.records[lines..] {
                prop_assert_eq!(line.generation, generation);
            }
            // A packet queued before its flow's mark landed is the flow thread's to stop.
            if world.inspector.counters().judged > 0 {
                break;
            }
            for wire in &world.wire[packets..] {
                let server = match wire.dst.port() {
                    40_022 => 22,
                    40_000..=40_005 => 443,
                    port => port,
                };
                let says_something = !wire.payload.is_empty() || wire.flags == SYN;
                prop_assert!(!says_something || is_open(n, server), "{wire:?} under {n}");
            }
        }
    }
}

#[test]
fn refused_hello_never_reaches_the_wire() {
    let evil = hello_for("evi.example.com");
    for size in [1, 7, 100, evil.len()] {
        for reversed in [false, true] {
            let mut world = World::new(ordinary());
            let conn = Conn::tls().open(&mut world);
            let mut pieces: Vec<_> = evil.chunks(size).enumerate().collect();
            if reversed {
                pieces.reverse();
            }
            for (i, piece) in pieces {
                conn.send(&mut world, u32::try_from(i * size).unwrap(), piece);
            }
            assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));
            assert_eq!(world.payload_to(conn.server), 0);
        }
    }
}

#[test]
fn conflicting_overlap_ends_the_flow() {
    // At every stage: while held, after release, and out of order.
    let good = hello();
    let mut changed = good.clone();
    changed[120] ^= 0xff;
    let ends = |setup: &dyn Fn(&mut World, &Conn)| {
        let mut world = World::new(ordinary());
        let conn = Conn::tls().open(&mut world);
        setup(&mut world, &conn);
        assert_eq!(world.refusal(), Some(Reason::TcpOverlap));
        assert_eq!(world.resets.len(), 2);
        let late = conn.send(&mut world, 0, &good);
        assert_eq!(world.verdict(late), Some(Verdict::Drop));
    };
    ends(&|world, conn| {
        conn.send(world, 0, &good[..150]);
        conn.send(world, 0, &changed[..150]);
    });
    ends(&|world, conn| {
        conn.send(world, 100, &good[100..150]);
        conn.send(world, 110, &changed[110..190]);
    });
    ends(&|world, conn| {
        conn.send(world, 0, &good);
        conn.send(world, 0, &changed);
    });
    ends(&|world, conn| {
        conn.send(world, 0, &good);
        conn.reply(world, 0, &server_flight_13(29));
        conn.send(world, 100, &changed[100..]);
    });
    ends(&|world, conn| {
        conn.send(world, 0, &good);
        let flight = server_flight_13(29);
        conn.reply(world, 0, &flight);
        conn.reply(world, 5, b"other bytes than before");
    });
}

#[test]
fn undecided_memory_is_bounded_and_full_is_closed() {
    // One flow: 64 KiB and 512 segments.
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let promise = record(22, &[1, 0, 0xff, 0xff, 3, 3]);
    conn.send(&mut world, 0, &promise[..9]);
    let mut sent = 9;
    while world.refusal().is_none() {
        conn.send(&mut world, sent, &[0; 1_400]);
        sent += 1_400;
        assert!(world.inspector.held().0 <= 64 << 10);
        assert!(sent < 100_000);
    }
    assert_eq!(world.payload_to(conn.server), 0);
    assert_eq!(world.inspector.held(), (0, 0));
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    for at in 0..600 {
        conn.send(&mut world, 10 + at * 2, b"x");
        assert!(world.in_flight.len() <= 512);
    }
    assert_eq!(world.refusal(), Some(Reason::HelloIncomplete));
    // All flows: what does not fit is refused.
    let limits = Limits {
        bytes: 100_000,
        ..Limits::default()
    };
    let mut world = World::with_limits(ordinary(), limits);
    for port in 1..=200_u16 {
        let conn = Conn::new(&format!("10.0.0.1:{port}"), "203.0.113.5:443").open(&mut world);
        conn.send(&mut world, 0, &pq_hello()[..1_000]);
        assert!(world.inspector.held().0 <= 100_000);
    }
    let full = world
        .records
        .iter()
        .filter(|r| r.outcome == Outcome::Disallowed(Reason::TableFull));
    assert!(full.count() > 0);
    let limits = Limits {
        segments: 50,
        ..Limits::default()
    };
    let mut world = World::with_limits(ordinary(), limits);
    for port in 1..=200_u16 {
        let conn = Conn::new(&format!("10.0.0.1:{port}"), "203.0.113.5:443").open(&mut world);
        conn.send(&mut world, 0, b"\x16");
        assert!(world.in_flight.len() <= 50);
    }
    // Memories of decided flows and of look-ups are bounded too.
    assert!(world.inspector.decided.len() <= Limits::default().decided);
}

/// PERFORMANCE.md, section 5, finding 1: the client probes with the tail only while the
/// verdict on its two-segment hello is late.
#[test]
fn a_late_verdict_on_a_post_quantum_hello_is_no_false_refusal() {
    let bytes = pq_hello();
    let (head, tail) = bytes.split_at(1_400);
    for order in [[0, 1], [1, 0]] {
        let rules = [("postern:tls:*.example.com", "tcp", "443")];
        let mut world = World::new(snapshot(&rules, "", 1));
        let conn = Conn::new("10.0.0.1:40000", "203.0.113.66:443").open(&mut world);
        let send = |world: &mut World, which: usize| match which {
            0 => conn.send(world, 0, head),
            _ => conn.send(world, 1_400, tail),
        };
        for which in order {
            send(&mut world, which);
        }
        // The look-up takes its time; the client probes and retransmits.
        for which in [1, 1, 0, 1, 0] {
            world.wait(150);
            let token = send(&mut world, which);
            assert_eq!(world.verdict(token), Some(Verdict::Drop));
        }
        world.bind("api.example.com", "203.0.113.66");
        world.answer("api.example.com", Answer::Resolved);
        assert_eq!(conn.at_server(&world), bytes);
        // Probes that were on their way.
        for which in [1, 0, 1] {
            let token = send(&mut world, which);
            assert_eq!(world.verdict(token), Some(Verdict::Pass));
        }
        let flight = conn.reply(&mut world, 0, &server_flight_13(4588));
        assert_eq!(world.verdict(flight), Some(Verdict::Pass));
        let end = u32::try_from(bytes.len()).unwrap();
        let last = conn.send(&mut world, end, &client_finished_13());
        assert_eq!(world.verdict(last), Some(Verdict::Judged));
        for which in [1, 0] {
            let token = send(&mut world, which);
            assert_eq!(world.verdict(token), Some(Verdict::Judged));
        }
        assert_eq!(world.refusal(), None);
    }
}
