//! Promise 25: a hello begins at the byte after the initial sequence number, whatever comes first (REDTEAM 3).

use std::time::Duration;

use e2e::topology::Topology;

use crate::scene::{EVIL_MARK, Scene, allowed, evil};

both_families! {
    fn first_byte_of_a_hello_is_isn_plus_one(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let (good, bad) = (allowed(), evil());
        // The allowed hello first, behind a hole exactly as long as the evil one that then fills it.
        let mut tcp = scene.connect();
        tcp.push(bad.len(), &good).unwrap();
        scene.outside.settle(Duration::from_millis(50));
        assert_eq!(scene.payload_out(), [], "bytes behind a hole left");
        tcp.push(0, &bad).unwrap();
        scene.assert_ended("a hole filled later", &mut tcp, &["name_not_allowed"]);
        // An allowed hello before the first byte is out of the window; nothing of it counts.
        let tcp = scene.connect();
        let mut early = tcp.segment(0, e2e::packet::flags::ACK | e2e::packet::flags::PSH, &good);
        early.seq = tcp.isn.wrapping_sub(good.len() as u32 - 1);
        tcp.put(&early).unwrap();
        tcp.push(0, &bad).unwrap();
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.payload_out(), []);
        // A hole that an honest client fills is no offence.
        let tcp = scene.connect();
        tcp.push(1, &good[1..]).unwrap();
        tcp.push(0, &good[..1]).unwrap();
        assert!(scene.recorder.got(&good));
    }
}
