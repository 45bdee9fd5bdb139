//! What an undecided flow cannot do.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use firewall::marks::{self, QueueClass};
use firewall::nfqueue::Action;
use firewall::raw::{RawSender, Segment, SegmentKind};

use crate::ruleset::{dial, echo, judging};
use crate::wire::{ACK, Crafted, FIN, RST, SYN, Tap, echo_request, send, send_from, tcp};
use crate::world::{
    Answer, CLIENT, Decider, Place, SERVER, UPLINK, V4, V6, World, at, eventually, layout,
};

/// Lets what was sent arrive, if it ever does.
fn settle() {
    std::thread::sleep(Duration::from_millis(150));
}

/// Passes handshakes, holds payload for good.
fn holding(class: QueueClass, _bytes: &[u8]) -> Answer {
    match class {
        QueueClass::Original => Answer::Hold,
        _ => Answer::Give(Action::Continue(marks::VERDICT_PASS)),
    }
}

fn passing(_class: QueueClass, _bytes: &[u8]) -> Answer {
    Answer::Give(Action::Continue(marks::VERDICT_PASS))
}

/// A connection the client writes byte by byte: both next numbers after the handshake.
struct ByHand {
    next: Crafted,
    _listener: TcpListener,
}

/// Opens a connection from a port of which the client's own stack knows nothing.
fn open_by_hand(world: &World, family: usize, decider: &Decider, options: &[u8]) -> ByHand {
    // Its stack would answer the SYN/ACK with a reset.
    let quiet = "nft 'add table inet quiet; add chain inet quiet out { type filter hook output \
                 priority 0; }; add rule inet quiet out tcp flags & rst == rst meta mark 0 \
                 tcp sport 40000-40999 drop'";
    world.run(Place::Client, quiet);
    let listener = world.within(Place::Internet, move || {
        TcpListener::bind(at(SERVER[family], 443)).unwrap()
    });
    let before = decider.packets(QueueClass::Reply).len();
    let mut syn = Crafted::new(at(CLIENT[family], 40_000), at(SERVER[family], 443), SYN);
    syn.options = options.to_vec();
    syn.send(world);
    eventually("the server answers", || {
        decider.packets(QueueClass::Reply).len() > before
    });
    let answer = tcp(&decider.packets(QueueClass::Reply)[before]).unwrap().0;
    assert!(answer.syn && answer.ack);
    let mut next = syn;
    next.options.clear();
    next.flags = ACK;
    next.sequence = next.sequence.wrapping_add(1);
    next.acknowledge = answer.sequence_number.wrapping_add(1);
    ByHand {
        next,
        _listener: listener,
    }
}

#[test]
fn nothing_of_a_held_hello_reaches_the_wire() {
    let world = World::new();
    world.install(&layout());
    echo(&world, 443);
    let tap = Tap::open(&world, Place::Internet);
    let decider = world.decide(holding);
    for family in [V4, V6] {
        let mut stream = dial(&world, family, 443).unwrap();
        stream.write_all(b"held-hello").unwrap();
        settle();
        assert!(decider.classes().contains(&QueueClass::Original));
    }
    assert!(!tap.holds(b"held-hello"));
    drop(decider);
    settle();
    assert!(!tap.holds(b"held-hello"), "a dead daemon let it go");
}

#[test]
fn end_of_an_undecided_flow_is_queued_too() {
    let world = World::new();
    world.install(&layout());
    echo(&world, 443);
    let decider = world.decide(judging);
    for family in [V4, V6] {
        drop(dial(&world, family, 443).unwrap());
    }
    eventually("both FINs are queued", || {
        let packets = decider.packets(QueueClass::Original);
        packets.iter().filter(|p| tcp(p).unwrap().0.fin).count() == 2
    });
}

#[test]
fn invalid_packets_are_dropped_before_anything_else() {
    let world = World::new();
    world.install(&layout());
    let tap = Tap::open(&world, Place::Internet);
    // Would pass whatever is asked.
    let decider = world.decide(|_, _| Answer::Give(Action::Continue(marks::judged(1))));
    for family in [V4, V6] {
        let to = at(SERVER[family], 443);
        let with = |flags, port, payload: &[u8]| {
            let mut packet = Crafted::new(at(CLIENT[family], port), to, flags);
            packet.payload = payload.to_vec();
            packet
        };
        for packet in [
            with(ACK, 41_001, b"no-connection"),
            with(0, 41_002, b"null-flags"),
            with(SYN | FIN, 41_003, b"syn-and-fin"),
            with(SYN | RST, 41_004, b"syn-and-rst"),
            with(RST, 41_005, b"rst-of-nothing"),
            with(FIN | ACK, 41_006, b"fin-of-nothing"),
        ] {
            packet.send(&world);
        }
        with(SYN, 41_007, b"bad-checksum").send_damaged(&world);
    }
    settle();
    assert!(tap.segments().is_empty(), "{:?}", tap.segments());
    assert!(decider.classes().is_empty());
    assert!(world.counted("invalid") >= 14);
}

#[test]
fn data_before_the_answer_does_not_leave() {
    let world = World::new();
    world.install(&layout());
    let tap = Tap::open(&world, Place::Internet);
    let _decider = world.decide(holding);
    for family in [V4, V6] {
        let mut packet = Crafted::new(at(CLIENT[family], 41_100), at(SERVER[family], 9), SYN);
        packet.send(&world);
        packet.flags = ACK;
        packet.sequence = 1_001;
        packet.payload = b"too-early".to_vec();
        packet.send(&world);
    }
    settle();
    assert!(!tap.holds(b"too-early"));
}

#[test]
fn out_of_window_data_does_not_leave() {
    for family in [V4, V6] {
        let world = World::new();
        world.install(&layout());
        let tap = Tap::open(&world, Place::Internet);
        let decider = world.decide(judging);
        let by_hand = open_by_hand(&world, family, &decider, &[]);
        by_hand.next.send(&world);
        let mut far = by_hand.next.clone();
        far.sequence = far.sequence.wrapping_add(0x4000_0000);
        far.payload = b"far-out".to_vec();
        far.send(&world);
        settle();
        assert!(!tap.holds(b"far-out"));
        assert!(world.counted("invalid") > 0);
    }
}

/// MSS 8,960, SACK permitted, timestamps, no-operation, window scale: what a stack sends.
const PLAIN: [u8; 20] = [
    2, 4, 0x23, 0x00, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];

#[test]
fn handshake_keeps_four_options_and_loses_multipath_and_fast_open() {
    for family in [V4, V6] {
        let world = World::new();
        world.install(&layout());
        let tap = Tap::open(&world, Place::Internet);
        let _decider = world.decide(judging);
        let mut syn = Crafted::new(at(CLIENT[family], 41_200), at(SERVER[family], 9), SYN);
        syn.options = PLAIN.to_vec();
        // Multipath TCP's MP_CAPABLE, an empty fast-open option, an experiment, an unknown one.
        syn.options.extend([
            30, 4, 0x01, 0x01, 34, 2, 254, 6, 0xf9, 0x89, b'e', b'x', 77, 2, 1, 1,
        ]);
        syn.send(&world);
        eventually("the SYN arrives", || !tap.segments().is_empty());
        let arrived = tap.segments()[0].0.clone();
        let mut expected = PLAIN;
        // Clamped to the path's 1,500 bytes.
        let mss: u16 = if family == V4 { 1_460 } else { 1_440 };
        expected[2..4].copy_from_slice(&mss.to_be_bytes());
        let options = arrived.options.as_slice();
        assert_eq!(options[..20], expected);
        assert_eq!(options[20..], [1; 16], "no-operations instead");
    }
}

#[test]
fn server_cannot_offer_multipath_either() {
    let world = World::new();
    world.install(&layout());
    let decider = world.decide(judging);
    // Multipath TCP on both ends: the server would answer MP_CAPABLE in kind if it saw one.
    world.run(Place::Internet, "sysctl -qw net.mptcp.enabled=1");
    let _open = open_by_hand(&world, V4, &decider, &[30, 4, 0x01, 0x01]);
    let answer = tcp(&decider.packets(QueueClass::Reply)[0]).unwrap().0;
    assert!(!answer.options.as_slice().contains(&30));
}

#[test]
fn bare_acknowledgement_passes_and_its_options_do_not() {
    for family in [V4, V6] {
        let world = World::new();
        world.install(&layout());
        let tap = Tap::open(&world, Place::Internet);
        let decider = world.decide(passing);
        let by_hand = open_by_hand(&world, family, &decider, &[]);
        let queued = decider.classes().len();
        by_hand.next.send(&world);
        let mut timed = by_hand.next.clone();
        timed.options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        timed.send(&world);
        eventually("they arrive", || tap.segments().len() >= 3);
        assert_eq!(decider.classes().len(), queued, "none was queued");
        for kind in [6, 9, 19, 76, 254, 255, 5, 2] {
            let mut ack = by_hand.next.clone();
            // A SACK option of one block is well formed; MSS has four bytes.
            let length = match kind {
                2 => 4,
                5 => 10,
                _ => 12,
            };
            ack.options = vec![kind, length];
            ack.options.resize(usize::from(length), b'S');
            ack.options.resize(12, 1);
            ack.send(&world);
        }
        eventually("the acknowledgements arrive", || tap.segments().len() >= 11);
        // Of each kind the first copy is gone; whether there is a second is for the daemon to see.
        assert_eq!(decider.classes().len(), queued + 8, "all were queued");
        for (header, payload) in tap.segments().into_iter().skip(3) {
            assert!(header.ack && payload.is_empty());
            let options = header.options.as_slice();
            assert!(options.iter().all(|byte| *byte == 1), "{options:?}");
        }
    }
}

#[test]
fn option_of_a_false_length_is_dropped() {
    let world = World::new();
    world.install(&layout());
    let tap = Tap::open(&world, Place::Internet);
    let _decider = world.decide(judging);
    let mut syn = Crafted::new(at(CLIENT[V4], 41_300), at(SERVER[V4], 9), SYN);
    syn.options = vec![
        2, 12, 5, 180, b'c', b'o', b'v', b'e', b'r', b't', b'!', b'!',
    ];
    syn.send(&world);
    settle();
    assert!(tap.segments().is_empty());
    assert_eq!(world.counted("tcp_option"), 1);
}

#[test]
fn acknowledgement_that_dies_on_the_way_is_dropped() {
    for family in [V4, V6] {
        let world = World::new();
        world.install(&layout());
        let tap = Tap::open(&world, Place::Internet);
        let decider = world.decide(judging);
        let mut ack = open_by_hand(&world, family, &decider, &[]).next;
        // The ruleset sees the hop limit after the kernel has taken one off.
        ack.hops = 32;
        ack.send(&world);
        settle();
        assert_eq!(tap.segments().len(), 1, "the SYN alone");
        assert_eq!(world.counted("low_hop_limit"), 1);
    }
}

#[test]
fn split_handshake_is_dropped() {
    let world = World::new();
    world.install(&layout());
    let tap = Tap::open(&world, Place::Client);
    let decider = world.decide(judging);
    never_resets(&world);
    Crafted::new(at(CLIENT[V4], 41_400), at(SERVER[V4], 9), SYN).send(&world);
    eventually("the SYN is judged", || !decider.classes().is_empty());
    settle();
    world.within(Place::Internet, || {
        let segment = Segment {
            source: at(SERVER[V4], 9),
            destination: at(UPLINK[V4], 41_400),
            sequence: 5,
            kind: SegmentKind::Probe,
        };
        RawSender::open().unwrap().send(&segment).unwrap();
    });
    settle();
    assert!(tap.segments().is_empty());
    assert_eq!(world.counted("split_handshake"), 1);
}

/// Keeps the internet's closed ports from answering, which would end the entry.
fn never_resets(world: &World) {
    let mute = "nft 'add table inet mute; add chain inet mute out { type filter hook output \
                priority 0; }; add rule inet mute out tcp flags & rst == rst drop'";
    world.run(Place::Internet, mute);
}

#[test]
fn strangers_towards_a_client_are_dropped_silently() {
    let world = World::new();
    world.install(&firewall::ruleset::Layout {
        served: vec![
            "10.77.1.0/24".parse().unwrap(),
            "fd77:1::/64".parse().unwrap(),
        ],
        ..layout()
    });
    let decider = world.decide(judging);
    world.ip(Place::Internet, "route add 10.77.1.0/24 via 203.0.113.1");
    world.ip(
        Place::Internet,
        "-6 route add fd77:1::/64 via 2001:db8:77::1",
    );
    let tap = Tap::open(&world, Place::Internet);
    world.within(Place::Internet, || {
        for family in [V4, V6] {
            let socket = UdpSocket::bind(at(SERVER[family], 0)).unwrap();
            socket.send_to(b"scan", at(CLIENT[family], 22)).unwrap();
        }
    });
    settle();
    assert_eq!(world.counted("stranger"), 2);
    assert!(decider.classes().is_empty());
    assert!(!tap.holds(b"scan"), "not even an error came back");
}

#[test]
fn ip_options_and_extension_headers_are_dropped() {
    let world = World::new();
    world.install(&layout());
    let tap = Tap::open(&world, Place::Internet);
    let decider = world.decide(|_, _| Answer::Give(Action::Continue(marks::judged(1))));
    // UDP behind a router-alert option, and behind a destination-options header.
    let v4 = [
        &[0x46, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0][..],
        &[10, 77, 1, 2, 203, 0, 113, 2, 0x94, 4, 0, 0],
        &[0x9c, 0x40, 0, 9, 0, 12, 0, 0, b'o', b'p', b't', b's'],
    ]
    .concat();
    send(&world, SERVER[V4].parse().unwrap(), v4);
    let mut v6 = vec![0x60, 0, 0, 0, 0, 20, 60, 64];
    for address in [CLIENT[V6], SERVER[V6]] {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        v6.extend(address.octets());
    }
    v6.extend([17, 0, 1, 4, 0, 0, 0, 0, 0x9c, 0x40, 0, 9, 0, 12, 0x5a, 0x5a]);
    v6.extend(b"opts");
    send(&world, SERVER[V6].parse().unwrap(), v6);
    settle();
    assert!(!tap.holds(b"opts"));
    // A sample is queued for the log, and no verdict lets it pass.
    let sampled = decider.classes();
    assert!(
        sampled.iter().all(|class| *class == QueueClass::NonTcp),
        "{sampled:?}"
    );
    assert!(!sampled.is_empty(), "nobody hears of it");
    let counted = ["ip_options", "extension_header", "invalid"].map(|name| world.counted(name));
    assert_eq!(counted.iter().sum::<u64>(), 2, "{counted:?}");
}

#[test]
fn client_made_icmp_errors_carry_nothing_out() {
    let world = World::new();
    world.install(&layout());
    echo(&world, 443);
    let decider = world.decide(holding);
    let mut stream = dial(&world, V4, 443).unwrap();
    stream.write_all(b"hello").unwrap();
    eventually("the hello is held", || {
        decider.classes().contains(&QueueClass::Original)
    });
    let tap = Tap::open(&world, Place::Internet);
    // "Fragmentation needed" about a packet the server sent, with a kilobyte of the client's own.
    let answer = decider.packets(QueueClass::Reply)[0].clone();
    let mut icmp = vec![3, 4, 0, 0, 0, 0, 5, 0x14];
    icmp.extend(&answer);
    icmp.extend([b'L'; 1_000]);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 1, 0, 0];
    packet.extend([10, 77, 1, 2, 203, 0, 113, 2]);
    packet.extend(icmp);
    send(&world, SERVER[V4].parse().unwrap(), packet);
    settle();
    assert!(!tap.holds(b"LLLLLLLL"));
    assert_eq!(world.counted("icmp_other"), 1);
}

#[test]
fn path_mtu_errors_reach_an_undecided_client() {
    let world = World::new();
    world.install(&layout());
    let tap = Tap::open(&world, Place::Client);
    let decider = world.decide(judging);
    never_resets(&world);
    Crafted::new(at(CLIENT[V4], 41_500), at(SERVER[V4], 9), SYN).send(&world);
    eventually("the SYN is judged", || !decider.classes().is_empty());
    let inner = {
        let syn = decider.packets(QueueClass::Syn)[0].clone();
        let mut translated = syn;
        translated[12..16].copy_from_slice(&[203, 0, 113, 1]);
        translated
    };
    let mut icmp = vec![3, 4, 0, 0, 0, 0, 5, 0x14];
    icmp.extend(inner);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 1, 0, 0];
    packet.extend([203, 0, 113, 2, 203, 0, 113, 1]);
    packet.extend(icmp);
    send_from(&world, Place::Internet, UPLINK[V4].parse().unwrap(), packet);
    eventually("the error arrives", || {
        let packets = tap.packets();
        packets
            .iter()
            .any(|p| p.get(9) == Some(&1) && p.get(20..22) == Some(&[3, 4]))
    });
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

#[test]
fn ping_is_judged_by_its_first_packet() {
    let world = World::new();
    world.install(&layout());
    let decider = world.decide(|_, _| Answer::Give(Action::Continue(marks::judged(1))));
    for family in [V4, V6] {
        let before = decider.classes().len();
        let [from, to] = [at(CLIENT[family], 0).ip(), at(SERVER[family], 0).ip()];
        let tap = Tap::open(&world, Place::Client);
        for sequence in 1..=3 {
            send(&world, to, echo_request(from, to, sequence));
            eventually("the echo comes back", || {
                let packets = tap.packets();
                let echoes = packets.iter().filter(|packet| packet.ends_with(b"echo"));
                echoes.count() == usize::from(sequence)
            });
        }
        assert_eq!(decider.classes()[before..], [QueueClass::NonTcp]);
    }
}
