//! Promise 3, and every way to cut a hello: one verdict, whatever the pieces (EVASIONS 10 to 14, 16, 30, 31).

use std::time::Duration;

use e2e::hello::{ClientHello, record};
use e2e::topology::{RECORDER, Topology};

use crate::scene::{EVIL_MARK, Scene, allowed, evil};

/// Ways to send the same bytes: (offset, length) of each segment, in the order they are sent.
fn orders(length: usize) -> Vec<(&'static str, Vec<(usize, usize)>)> {
    let bytes: Vec<(usize, usize)> = (0..length).map(|at| (at, 1)).collect();
    let halves = vec![(0, length / 2), (length / 2, length - length / 2)];
    let sevens: Vec<(usize, usize)> = (0..length)
        .step_by(7)
        .map(|at| (at, 7.min(length - at)))
        .collect();
    let shuffled = (0..sevens.len())
        .map(|index| sevens[index * 17 % sevens.len()])
        .collect::<Vec<_>>();
    let whole: std::collections::BTreeSet<_> = shuffled.iter().collect();
    let shuffled = if whole.len() == sevens.len() {
        shuffled
    } else {
        reversed(&sevens)
    };
    let twice = halves.iter().flat_map(|piece| [*piece, *piece]).collect();
    vec![
        ("one segment", vec![(0, length)]),
        ("a byte a segment", bytes.clone()),
        ("a byte a segment, backwards", reversed(&bytes)),
        ("two halves", halves.clone()),
        ("two halves, second first", reversed(&halves)),
        ("seven bytes a segment, shuffled", shuffled),
        ("every half twice", twice),
        ("the first byte last", vec![(1, length - 1), (0, 1)]),
    ]
}

fn reversed(pieces: &[(usize, usize)]) -> Vec<(usize, usize)> {
    pieces.iter().rev().copied().collect()
}

both_families! {
    fn any_segmentation_same_verdict(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let (good, bad) = (allowed(), evil());
        for (what, pieces) in orders(good.len()) {
            let tcp = scene.connect();
            for (at, length) in pieces {
                tcp.push(at, &good[at..at + length]).unwrap();
            }
            let got = || scene.recorder.with_port(tcp.local.port());
            let all = || got().is_some_and(|found| found.bytes == good);
            assert!(e2e::wait::holds(Duration::from_secs(5), all), "{what}: {:?}", got());
        }
        for (what, pieces) in orders(bad.len()) {
            let mut tcp = scene.connect();
            for (at, length) in pieces {
                tcp.push(at, &bad[at..at + length]).unwrap();
            }
            scene.assert_ended(what, &mut tcp, &["name_not_allowed"]);
        }
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    fn a_hello_over_many_records_has_the_verdict_of_one(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let (good, bad) = (ClientHello::new(RECORDER.name), ClientHello::new("evil.example"));
        for size in [300, 100, 40, 16] {
            scene.assert_allowed("records", &good.records(size));
            scene.assert_refused("records", &bad.records(size), &["name_not_allowed"]);
        }
        // Records and segments together, backwards.
        let bytes = bad.records(16);
        let mut tcp = scene.connect();
        for (at, piece) in bytes.chunks(9).enumerate().rev() {
            tcp.push(at * 9, piece).unwrap();
        }
        scene.assert_ended("records in segments, backwards", &mut tcp, &["name_not_allowed"]);
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    fn abused_records_are_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let message = ClientHello::new(RECORDER.name).message();
        let empty_first = [record(22, &[]), record(22, &message)].concat();
        scene.assert_refused("an empty record", &empty_first, &["record_abuse"]);
        let crumbs = ClientHello::new(RECORDER.name).records(4);
        scene.assert_refused("more than 32 records", &crumbs, &["record_abuse"]);
        let (head, tail) = message.split_at(50);
        for kind in [20, 21, 23] {
            let mixed = [record(22, head), record(kind, &[1]), record(22, tail)].concat();
            scene.assert_refused("another record between", &mixed, &["record_abuse", "tls_malformed"]);
        }
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_hello_larger_than_one_record_arrives(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        // FrodoKEM-1344 makes a hello of about 21,500 bytes: two records, and more than a window of segments.
        let mut hello = ClientHello::new(RECORDER.name);
        hello.extensions.push((0x6a6a, vec![0x5a; 21_300]));
        let bytes = hello.records(16_384);
        let tcp = scene.connect();
        for (index, piece) in bytes.chunks(1400).enumerate() {
            tcp.push(index * 1400, piece).unwrap();
        }
        assert!(scene.recorder.got(&bytes));
    }
}

both_families! {
    fn a_hello_that_never_ends_is_refused_after_ten_seconds(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let started = std::time::Instant::now();
        let mut slow = scene.connect();
        slow.write(&allowed()[..60]).unwrap();
        let mut silent = scene.connect();
        assert!(slow.pump(Duration::from_secs(14), |tcp| tcp.reset).unwrap(), "half a hello was not reset");
        assert!(started.elapsed() > Duration::from_secs(8), "{:?}", started.elapsed());
        assert_eq!(scene.reason(&slow), "hello_incomplete");
        assert!(silent.pump(Duration::from_secs(4), |tcp| tcp.reset).unwrap(), "silence was not reset");
        assert_eq!(scene.payload_out(), []);
    }
}
