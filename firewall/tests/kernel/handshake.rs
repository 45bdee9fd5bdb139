//! The short way past the rules that take options out: which handshakes may go it.

use crate::ruleset::judging;
use crate::wire::{Crafted, SYN, Tap};
use crate::world::{CLIENT, Place, SERVER, V4, V6, World, at, eventually, layout};

/// What stacks write, with a segment size of 8,960.
const PLAIN: [(&str, &[u8]); 6] = [
    (
        "Linux",
        &[
            2, 4, 0x23, 0, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
        ],
    ),
    (
        "FreeBSD",
        &[
            2, 4, 0x23, 0, 1, 3, 3, 6, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0,
        ],
    ),
    (
        "Apple",
        &[
            2, 4, 0x23, 0, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 4, 2, 0, 0,
        ],
    ),
    ("Windows", &[2, 4, 0x23, 0, 1, 3, 3, 8, 1, 1, 4, 2]),
    (
        "Linux without timestamps",
        &[2, 4, 0x23, 0, 1, 1, 4, 2, 1, 3, 3, 7],
    ),
    ("segment size only", &[2, 4, 0x23, 0]),
];

/// Sends SYNs with these options and returns what arrived, in order.
fn arriving(family: usize, sent: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let world = World::new();
    world.install(&layout());
    let tap = Tap::open(&world, Place::Internet);
    let _decider = world.decide(judging);
    for (port, options) in (41_300_u16..).zip(sent) {
        let mut syn = Crafted::new(at(CLIENT[family], port), at(SERVER[family], 9), SYN);
        syn.options = options.clone();
        syn.send(&world);
        let arrived = usize::from(port - 41_300) + 1;
        eventually("the SYN arrives", || tap.segments().len() >= arrived);
    }
    let segments = tap.segments();
    let options = |segment: &etherparse::TcpHeader| segment.options.as_slice().to_vec();
    segments.iter().map(|segment| options(&segment.0)).collect()
}

#[test]
fn handshakes_of_known_stacks_lose_nothing_but_segment_size() {
    for family in [V4, V6] {
        let sent: Vec<Vec<u8>> = PLAIN.iter().map(|(_, options)| options.to_vec()).collect();
        let arrived = arriving(family, &sent);
        // Clamped to the path's 1,500 bytes.
        let size: u16 = if family == V4 { 1_460 } else { 1_440 };
        for ((name, options), arrived) in PLAIN.iter().zip(&arrived) {
            let mut expected = options.to_vec();
            expected[2..4].copy_from_slice(&size.to_be_bytes());
            assert_eq!(*arrived, expected, "{name}");
        }
    }
}

/// Every byte of those shapes that is no value: with any other there, the options are cleaned as ever.
#[test]
fn handshake_that_is_nearly_a_known_one_is_cleaned() {
    let mut sent = Vec::new();
    for (_, options) in PLAIN {
        // Four bytes more, and multipath TCP in them: no length of a known shape, or another's.
        sent.push([options, &[30, 4, 0x01, 0x01]].concat());
        // In the place of what follows the segment size.
        if options.len() > 8 {
            let mut other = options.to_vec();
            other[4..8].copy_from_slice(&[30, 4, 0x01, 0x01]);
            // What stood there may have led into the rest.
            other[8..].fill(1);
            sent.push(other);
        }
    }
    let arrived = arriving(V4, &sent);
    for (sent, arrived) in sent.iter().zip(&arrived) {
        assert_eq!(sent.len(), arrived.len());
        let has_key = |options: &[u8]| options.windows(4).any(|bytes| bytes == [30, 4, 1, 1]);
        assert!(
            has_key(sent) && !has_key(arrived),
            "{sent:?} came as {arrived:?}"
        );
    }
}
