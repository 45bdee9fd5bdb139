//! Promise 1: every packet that is queued gets one verdict, and what passes passes once.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::topology::Topology;

use crate::scene::{EVIL_MARK, Scene, allowed, evil, finish};

both_families! {
    fn every_packet_gets_one_verdict(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let (good, bad) = (allowed(), evil());
        // Allowed, refused, repeated, out of order, abandoned, contradicted.
        for round in 0..5 {
            finish(&mut scene.connect(), &good);
            let tcp = scene.connect();
            tcp.push(0, &bad).unwrap();
            tcp.push(0, &bad).unwrap();
            let tcp = scene.connect();
            for at in (0..good.len()).rev().step_by(10 + round) {
                tcp.push(at, &good[at..(at + 10 + round).min(good.len())]).unwrap();
            }
            tcp.push(0, &good).unwrap();
            let tcp = scene.connect();
            tcp.push(50, &good[50..]).unwrap();
            tcp.push(50, &bad[50..]).unwrap();
            let tcp = scene.connect();
            tcp.push(0, &good[..50]).unwrap();
            tcp.put(&tcp.segment(50, e2e::packet::flags::RST, &[])).unwrap();
        }
        // None waits, none was dropped for want of room, and the daemon answered as many as the kernel asked about.
        let idle = || scene.daemon.queues().unwrap().iter().all(|queue| queue.waiting == 0);
        assert!(e2e::wait::holds(Duration::from_secs(14), idle), "{:?}", scene.daemon.queues().unwrap());
        let queues = scene.daemon.queues().unwrap();
        assert!(queues.iter().map(|queue| queue.queued).sum::<u64>() > 100, "{queues:?}");
        assert!(queues.iter().all(|queue| queue.dropped == 0), "{queues:?}");
        scene.assert_never_left(EVIL_MARK);
        // What was released was released once: no byte of a hello crosses twice, but for what the client sent again
        // after the verdict.
        let mut times: BTreeMap<(u16, u32), usize> = BTreeMap::new();
        for seen in scene.payload_out().iter().filter(|seen| seen.payload.len() < good.len()) {
            *times.entry((seen.from.port(), seen.seq)).or_default() += 1;
        }
        let twice: Vec<_> = times.into_iter().filter(|(_, count)| *count > 1).collect();
        assert_eq!(twice, []);
    }
}
