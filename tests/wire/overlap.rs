//! Promise 4: bytes that contradict what was judged, or what is held, end the flow (EVASIONS 15, 17, 31).

use std::time::Duration;

use e2e::hello;
use e2e::packet::{Tcp, flags, options};
use e2e::topology::Topology;

use crate::scene::{EVIL_MARK, Scene, allowed, evil};

both_families! {
    fn conflicting_overlap_ends_the_flow(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let (good, bad) = (allowed(), evil());
        // While held: the tail twice, differing, before the head completes either.
        for (first, second) in [(&good, &bad), (&bad, &good)] {
            let mut tcp = scene.connect();
            tcp.push(20, &first[20..]).unwrap();
            tcp.push(20, &second[20..]).unwrap();
            tcp.push(0, &good[..20]).unwrap();
            scene.assert_ended("differing tails", &mut tcp, &["tcp_overlap"]);
        }
        // One byte of overlap is enough.
        let mut tcp = scene.connect();
        tcp.push(30, &good[30..]).unwrap();
        let mut head = good[..31].to_vec();
        head[30] ^= 1;
        tcp.push(0, &head).unwrap();
        scene.assert_ended("one differing byte", &mut tcp, &["tcp_overlap"]);
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_retransmission_that_differs_from_what_was_judged_ends_the_flow(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut tcp = scene.connect();
        tcp.write(&allowed()).unwrap();
        assert!(scene.recorder.got(&allowed()));
        tcp.push(0, &evil()).unwrap();
        assert!(tcp.wait_reset().unwrap());
        assert_eq!(scene.reason(&tcp), "tcp_overlap");
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    fn an_honest_retransmission_is_no_conflict(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let good = allowed();
        let mut tcp = scene.connect();
        for _ in 0..3 {
            tcp.push(100, &good[100..]).unwrap();
        }
        tcp.push(0, &good[..150]).unwrap();
        assert!(scene.recorder.got(&good));
        tcp.push(0, &good).unwrap();
        assert!(tcp.wait_bytes(hello::server_flight().len()).unwrap());
        tcp.advance(good.len());
        tcp.write(&hello::client_finish()).unwrap();
        let all = hello::server_flight().len() + hello::client_finish().len();
        assert!(tcp.wait_bytes(all).unwrap());
        let all = [good, hello::client_finish()].concat();
        let exactly = || scene.recorder.conversations()[0].bytes == all;
        assert!(e2e::wait::holds(Duration::from_secs(5), exactly), "{:?}", scene.recorder.conversations());
    }
}

both_families! {
    /// A decoy is a packet that the firewall reads and the server does not: it must not decide anything.
    fn decoys_decide_nothing(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        type Lie = fn(&mut Tcp);
        let lies: [(&str, Lie); 4] = [
            ("a wrong checksum", |decoy| decoy.checksum_flip = 0x5555),
            ("a short life", |decoy| decoy.ttl = 3),
            ("an MD5 signature", |decoy| decoy.options = options::MD5.to_vec()),
            ("a number outside the window", |decoy| decoy.seq = decoy.seq.wrapping_sub(200_000)),
        ];
        for (what, lie) in lies {
            let tcp = scene.connect();
            let mut decoy = tcp.segment(0, flags::ACK | flags::PSH, &allowed());
            lie(&mut decoy);
            tcp.put(&decoy).unwrap();
            tcp.push(0, &evil()).unwrap();
            scene.outside.settle(Duration::from_millis(60));
            let last = scene.recorder.with_port(tcp.local.port()).map_or_else(Vec::new, |found| found.bytes);
            assert!(last.is_empty() || last == allowed(), "{what}: the server got {last:?}");
        }
        scene.assert_never_left(EVIL_MARK);
        let short_lived = scene.outside.matching(|seen| seen.to == scene.recorder.address && seen.ttl < 32);
        assert_eq!(short_lived, []);
    }
}
