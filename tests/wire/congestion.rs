//! Explicit congestion notification, old (RFC 3168) and accurate (RFC 9768): honest clients offer it in their SYN.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use e2e::hello;
use e2e::packet::flags;
use e2e::topology::Topology;

use crate::scene::{Scene, allowed, assert_echo, evil, finish};

/// AccECN's option with its order 0: three counters of three bytes (RFC 9768, section 3.2.3).
const COUNTERS: [u8; 12] = [172, 11, 0, 0, 1, 0, 0, 1, 0, 0, 1, 1];

both_families! {
    /// Kernels on both ends agree on it through us, and it costs no connection.
    fn kernels_that_offer_congestion_notification_get_it(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for namespace in [&lab.client, &lab.internet] {
            namespace.run("sysctl", &["-qw", "net.ipv4.tcp_ecn=1"]).unwrap();
        }
        let to = scene.recorder.address;
        let limit = Duration::from_secs(20);
        let mut stream = lab.client.enter(|| TcpStream::connect_timeout(&to, limit)).unwrap().unwrap();
        stream.set_read_timeout(Some(limit)).unwrap();
        stream.write_all(&allowed()).unwrap();
        let mut answer = vec![0; hello::server_flight().len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, hello::server_flight());
        let offers = scene.outside.matching(|seen| seen.to == to && seen.has(flags::SYN | flags::ECE | flags::CWR));
        assert!(!offers.is_empty(), "the offer was taken out");
        let answers = scene.outside.matching(|seen| seen.from == to && seen.has(flags::SYN | flags::ACK | flags::ECE));
        assert!(!answers.is_empty(), "the server did not agree");
    }
}

both_families! {
    /// Its bits pass; its option is overwritten until the verdict, and the client does without it.
    fn accurate_notification_is_no_obstacle_and_no_way_past(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let offer = |tcp: &mut e2e::raw::RawTcp<'_>| {
            let mut syn = tcp.syn();
            syn.flags |= flags::ECE | flags::CWR;
            syn.reserved = 1;
            tcp.put(&syn).unwrap();
            let answer = tcp.receive(Duration::from_secs(10), |seen| seen.has(flags::SYN | flags::ACK)).unwrap();
            tcp.peer_next = answer.seq.wrapping_add(1);
            let mut ack = tcp.segment(0, flags::ACK, &[]);
            ack.options = COUNTERS.to_vec();
            ack.reserved = 1;
            tcp.put(&ack).unwrap();
        };
        let mut tcp = scene.unconnected();
        offer(&mut tcp);
        finish(&mut tcp, &allowed());
        assert_echo(&mut tcp, b"judged");
        let mut tcp = scene.unconnected();
        offer(&mut tcp);
        let mut first = tcp.segment(0, flags::ACK | flags::PSH | flags::ECE, &evil());
        first.options = COUNTERS.to_vec();
        tcp.put(&first).unwrap();
        assert!(tcp.wait_reset().unwrap(), "not refused");
        let counted = scene.outside.matching(|seen| seen.to == scene.recorder.address && seen.options.contains(&172));
        assert_eq!(counted, [], "an option left that may carry anything");
        scene.assert_never_left(crate::scene::EVIL_MARK);
    }
}
