//! Promise 22: what the kernel orders is what was judged; nothing else may give the bytes another order (REDTEAM 2).

use std::time::Duration;

use e2e::packet::{flags, options};
use e2e::topology::{PUPPET, Topology};

use crate::scene::{Scene, isn};

/// MSS, window scale, SACK-permitted, timestamps.
const KEPT: [u8; 4] = [2, 3, 4, 8];

both_families! {
    fn multipath_tcp_cannot_reorder_what_was_judged(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let inside = lab.capture_inside().unwrap();
        let puppet = lab.puppet().unwrap();
        let to = PUPPET.at(family, 443);
        let port = scene.fresh_port();
        let local = std::net::SocketAddr::new(scene.attacker.address(family), port);
        let mut client = e2e::raw::RawTcp::new(&scene.attacker, local, to, isn(port));
        let mut syn = client.syn();
        syn.options = [&options::MSS[..], &[4, 2, 1, 3, 3, 7], &options::MP_CAPABLE, &options::FAST_OPEN].concat();
        client.put(&syn).unwrap();
        let arrived = puppet.receive(Duration::from_secs(5), |seen| seen.is_tcp(flags::SYN)).expect("the SYN");
        assert!(arrived.option_kinds().iter().all(|kind| KEPT.contains(kind)), "{:?}", arrived.option_kinds());
        assert!(arrived.option_kinds().contains(&2) && arrived.option_kinds().contains(&3));
        // A server that answers as if it had been asked.
        let mut server = e2e::raw::RawTcp::new(&puppet, arrived.to, arrived.from, 90_000);
        server.peer_next = arrived.seq.wrapping_add(1);
        let mut reply = server.segment(0, flags::SYN | flags::ACK, &[]);
        reply.seq = 90_000;
        let key = [30, 12, 0x01, 0x01, 1, 2, 3, 4, 5, 6, 7, 8];
        reply.options = [&options::MSS[..], &key, &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
        server.put(&reply).unwrap();
        let answer = client.receive(Duration::from_secs(5), |seen| seen.has(flags::SYN | flags::ACK)).expect("SYN/ACK");
        assert!(answer.option_kinds().iter().all(|kind| KEPT.contains(kind)), "{:?}", answer.option_kinds());
        // The third packet and the hello, with keys and with a mapping that moves the bytes to another place.
        client.peer_next = answer.seq.wrapping_add(1);
        let mut ack = client.segment(0, flags::ACK, &[]);
        ack.options = [&[30, 20, 0x01, 0x01][..], &[7; 16]].concat();
        client.put(&ack).unwrap();
        let bytes = e2e::hello::ClientHello::new(PUPPET.name).record();
        let mut data = client.segment(0, flags::ACK | flags::PSH, &bytes);
        data.options = [&[30, 20, 0x20, 0x05][..], &[0, 0, 0, 9, 0, 0, 3, 0, 0, 0, 0, 1, 1, 0, 0, 0]].concat();
        client.put(&data).unwrap();
        let hello = scene.outside.wait_for(|seen| seen.to == to && !seen.payload.is_empty()).expect("the hello");
        assert_eq!(hello.seen.payload, bytes);
        let marked = |seen: &e2e::packet::Seen| seen.option_kinds().contains(&30);
        assert_eq!(scene.outside.matching(|seen| seen.to == to && marked(seen)), []);
        assert_eq!(inside.matching(|seen| seen.to == local && marked(seen)), []);
    }
}

both_families! {
    /// What takes an option out takes out its first copy; a second must not get through behind it.
    fn an_option_that_comes_twice_does_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for kind in [options::MP_CAPABLE.to_vec(), vec![254, 10, 1, 2, 3, 4, 5, 6, 7, 8], vec![3, 3, 7], vec![8, 10, 0, 0, 0, 1, 0, 0, 0, 0]] {
            let mut tcp = scene.unconnected();
            let mut syn = tcp.syn();
            syn.options = [&options::MSS[..], &kind, &kind].concat();
            tcp.put(&syn).unwrap();
            assert!(tcp.wait_reset().unwrap(), "{kind:?}: not refused");
            assert_eq!(scene.reason(&tcp), "tcp_state", "{kind:?}");
        }
        scene.outside.settle(Duration::from_millis(50));
        assert_eq!(scene.outside.matching(|seen| seen.is_tcp(flags::SYN) && seen.from.port() >= 20_000), []);
    }
}
