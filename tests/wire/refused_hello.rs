//! Promise 2: nothing of a hello that is refused ever leaves, and both ends learn at once.

use std::time::Duration;

use e2e::hello::ClientHello;
use e2e::packet::{Seen, flags};
use e2e::topology::{RECORDER, Topology};

use crate::scene::{EVIL_MARK, Scene, evil};

both_families! {
    fn refused_hello_never_reaches_the_wire(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        scene.assert_refused("a name no rule lists", &evil(), &["name_not_allowed"]);
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn both_ends_are_reset_within_ten_milliseconds(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let inside = lab.capture_inside().unwrap();
        // The best of five: the machine that runs this may be busy, the promise is about Postern.
        let best = (0..5)
            .map(|_| {
                let mut tcp = scene.connect();
                let local = tcp.local;
                tcp.write(&evil()).unwrap();
                assert!(tcp.wait_reset().unwrap());
                assert!(scene.recorder.reset_port(tcp.local.port()));
                let sent = inside.wait_for(|seen| seen.from == local && !seen.payload.is_empty()).unwrap();
                let client = inside.wait_for(|seen| seen.to == local && seen.has(flags::RST)).unwrap();
                let is_reset = |seen: &Seen| seen.from.port() == local.port() && seen.has(flags::RST);
                let server = scene.outside.wait_for(is_reset).unwrap();
                client.at.max(server.at) - sent.at
            })
            .min()
            .unwrap();
        assert!(best < Duration::from_millis(10), "{best:?}");
    }
}

both_families! {
    fn a_refused_segment_sent_again_still_does_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut tcp = scene.connect();
        tcp.write(&evil()).unwrap();
        scene.assert_ended("a name no rule lists", &mut tcp, &["name_not_allowed"]);
        for _ in 0..3 {
            tcp.push(0, &evil()).unwrap();
            tcp.push(40, &ClientHello::new(RECORDER.name).record()).unwrap();
        }
        scene.outside.settle(Duration::from_millis(100));
        assert_eq!(scene.payload_out(), []);
    }
}
