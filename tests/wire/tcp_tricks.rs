//! TCP played loosely (EVASIONS 17 to 21, 24 to 27, 29): only a plain handshake and a plain stream carry a hello.

use std::time::{Duration, Instant};

use e2e::hello::ClientHello;
use e2e::packet::{Seen, flags, options};
use e2e::topology::{PUPPET, RECORDER, Topology};

use crate::scene::{EVIL_MARK, Scene, allowed, evil, isn};

both_families! {
    /// The state of a flow is not torn down by a reset or a close that its server does not believe.
    fn a_fake_end_does_not_open_the_flow(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for end in [flags::RST, flags::RST | flags::ACK, flags::FIN | flags::ACK] {
            let tcp = scene.connect();
            let mut fake = tcp.segment(0, end, &[]);
            fake.seq = fake.seq.wrapping_add(20_000);
            tcp.put(&fake).unwrap();
            let mut broken = tcp.segment(0, end, &[]);
            broken.checksum_flip = 0x1111;
            tcp.put(&broken).unwrap();
            tcp.push(0, &evil()).unwrap();
        }
        scene.outside.settle(Duration::from_millis(100));
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn data_after_a_close_does_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let tcp = scene.connect();
        tcp.put(&tcp.segment(0, flags::FIN | flags::ACK, &[])).unwrap();
        tcp.push(1, &evil()).unwrap();
        tcp.push(0, &evil()).unwrap();
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_close_with_half_a_hello_releases_nothing(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let tcp = scene.connect();
        let half = &allowed()[..80];
        tcp.put(&tcp.segment(0, flags::FIN | flags::PSH | flags::ACK, half)).unwrap();
        scene.outside.settle(Duration::from_millis(100));
        assert_eq!(scene.payload_out(), []);
        let whole = allowed();
        let tcp = scene.connect();
        tcp.put(&tcp.segment(0, flags::FIN | flags::PSH | flags::ACK, &whole)).unwrap();
        assert!(scene.recorder.got(&whole), "a hello and a close in one segment");
    }
}

both_families! {
    /// A client that dies in the middle of its hello: its own reset cannot overtake the bytes that are held, so the
    /// server is told in its place, and does not keep a connection nobody has for as long as a hello may take.
    fn a_reset_behind_half_a_hello_ends_it_for_the_server_too(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let tcp = scene.connect();
        let begun = Instant::now();
        tcp.push(0, &allowed()[..80]).unwrap();
        tcp.put(&tcp.segment(80, flags::RST | flags::ACK, &[])).unwrap();
        let at_server = |seen: &Seen| seen.to == scene.recorder.address && seen.from.port() == tcp.local.port();
        let told = scene.outside.wait_for(|seen| at_server(seen) && seen.has(flags::RST));
        let told = told.expect("the server was not told");
        assert!(begun.elapsed() < HELLO_TIME / 2, "{:?}", begun.elapsed());
        let syn = scene.outside.matching(|seen| at_server(seen) && seen.is_tcp(flags::SYN));
        assert_eq!(told.seen.seq, syn[0].seq.wrapping_add(1), "which got no byte");
        assert_eq!(scene.reason(&tcp), "hello_incomplete");
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_second_syn_with_another_number_decides_nothing(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut tcp = scene.connect();
        let mut other = tcp.syn();
        other.seq = other.seq.wrapping_add(100_000);
        tcp.put(&other).unwrap();
        scene.outside.settle(Duration::from_millis(50));
        let mut hidden = tcp.segment(0, flags::ACK | flags::PSH, &evil());
        hidden.seq = other.seq.wrapping_add(1);
        tcp.put(&hidden).unwrap();
        tcp.write(&evil()).unwrap();
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_syn_with_data_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for bytes in [allowed(), evil()] {
            let mut tcp = scene.unconnected();
            let mut syn = tcp.syn();
            syn.payload = bytes;
            syn.options.extend(options::FAST_OPEN);
            tcp.put(&syn).unwrap();
            assert!(tcp.wait_reset().unwrap(), "not refused");
            assert_eq!(scene.reason(&tcp), "syn_data");
        }
        scene.outside.settle(Duration::from_millis(50));
        assert_eq!(scene.payload_out(), []);
        assert!(scene.recorder.conversations().is_empty());
    }
}

both_families! {
    fn urgent_data_before_the_verdict_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut tcp = scene.connect();
        let mut urgent = tcp.segment(0, flags::ACK | flags::PSH | flags::URG, &allowed());
        urgent.urgent = 10;
        tcp.put(&urgent).unwrap();
        scene.assert_ended("urgent data", &mut tcp, &["tcp_urgent"]);
        // Without payload it says nothing, and gets nowhere.
        let tcp = scene.connect();
        let mut empty = tcp.segment(0, flags::ACK | flags::URG, &[]);
        empty.urgent = 1;
        tcp.put(&empty).unwrap();
        scene.outside.settle(Duration::from_millis(50));
        assert_eq!(scene.outside.matching(|seen| seen.is_tcp(flags::URG)), []);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_wrong_data_offset_does_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for words in [0, 4, 15] {
            let tcp = scene.connect();
            let mut odd = tcp.segment(0, flags::ACK | flags::PSH, &evil()[..30]);
            odd.data_offset = Some(words);
            tcp.put(&odd).unwrap();
            scene.outside.settle(Duration::from_millis(100));
            let before = scene.outside.matching(|seen| seen.to == scene.recorder.address && !seen.payload.is_empty());
            assert_eq!(before, []);
        }
        scene.assert_never_left(&evil()[..30]);
    }
}

both_families! {
    fn nonsense_flags_do_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for nonsense in [0, flags::SYN | flags::FIN, flags::SYN | flags::RST, flags::FIN, 0x3f] {
            let tcp = scene.connect();
            tcp.put(&tcp.segment(0, nonsense, &evil())).unwrap();
        }
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    /// The server answers a SYN with a bare SYN of its own, so that each side believes the other began.
    fn a_split_handshake_goes_nowhere(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let inside = lab.capture_inside().unwrap();
        let puppet = lab.puppet().unwrap();
        let port = scene.fresh_port();
        let local = std::net::SocketAddr::new(scene.attacker.address(family), port);
        let client = e2e::raw::RawTcp::new(&scene.attacker, local, PUPPET.at(family, 443), isn(port));
        client.put(&client.syn()).unwrap();
        let syn = puppet.receive(Duration::from_secs(5), |seen| seen.is_tcp(flags::SYN)).expect("the SYN");
        let server = e2e::raw::RawTcp::new(&puppet, syn.to, syn.from, 77_000);
        server.put(&server.syn()).unwrap();
        scene.outside.settle(Duration::from_millis(80));
        let arrived = inside.matching(|seen| seen.to == local && seen.flags & (flags::SYN | flags::ACK) == flags::SYN);
        assert_eq!(arrived, [], "the server's SYN reached the client");
        let mut reply = client.syn();
        reply.flags = flags::SYN | flags::ACK;
        reply.ack = 77_001;
        client.put(&reply).unwrap();
        let mut data = client.segment(0, flags::ACK | flags::PSH, &evil());
        data.ack = 77_001;
        client.put(&data).unwrap();
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    fn data_on_the_third_packet_is_judged_like_any(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for (bytes, passes) in [(allowed(), true), (evil(), false)] {
            let mut tcp = scene.unconnected();
            tcp.put(&tcp.syn()).unwrap();
            let answer = tcp.receive(Duration::from_secs(5), |seen| seen.has(flags::SYN | flags::ACK)).unwrap();
            tcp.peer_next = answer.seq.wrapping_add(1);
            tcp.write(&bytes).unwrap();
            if passes {
                assert!(scene.recorder.got(&bytes));
            } else {
                assert!(tcp.wait_reset().unwrap());
                assert_eq!(scene.reason(&tcp), "name_not_allowed");
            }
        }
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    fn a_stream_without_a_beginning_does_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for bytes in [allowed(), evil(), e2e::hello::protected(b"evil.example")] {
            let mut tcp = scene.unconnected();
            tcp.peer_next = 4_000;
            tcp.push(0, &bytes).unwrap();
            tcp.push(bytes.len(), &bytes).unwrap();
        }
        scene.outside.settle(Duration::from_millis(100));
        assert_eq!(scene.outside.matching(|seen| seen.to == scene.recorder.address), []);
    }
}

both_families! {
    fn the_first_byte_decides_the_protocol(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let good = ClientHello::new(RECORDER.name).record();
        let junk = [&b"\0\0\0\0"[..], &good].concat();
        scene.assert_refused("TLS after junk", &junk, &["protocol_unknown"]);
        scene.assert_refused("bytes of no protocol", b"\x05\x01\x00", &["protocol_unknown"]);
        let mail = b"EHLO evil.example\r\n";
        scene.assert_refused("mail", mail, &["protocol_unknown"]);
        let wrapped = [&b"GET / HTTP/1.1\r\nHost: recorder.allowed.example\r\n\r\n"[..], &good].concat();
        scene.assert_refused("TLS after HTTP", &wrapped, &["plaintext_http"]);
        let proxy = b"CONNECT recorder.allowed.example:443 HTTP/1.1\r\n\r\n";
        scene.assert_refused("a proxy request", proxy, &["plaintext_http", "protocol_unknown"]);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    /// The server's answer went another way: what the client sends next is dropped, by the kernel or by us, and counted.
    fn a_flow_of_which_one_side_is_seen_carries_nothing_and_is_counted(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let _silent = lab.puppet().unwrap();
        let local = std::net::SocketAddr::new(scene.attacker.address(family), scene.fresh_port());
        let mut tcp = e2e::raw::RawTcp::new(&scene.attacker, local, PUPPET.at(family, 443), 7);
        tcp.put(&tcp.syn()).unwrap();
        let of_it = |seen: &Seen| seen.from.port() == local.port() && seen.to == tcp.remote;
        assert!(scene.outside.wait_for(of_it).is_some(), "its SYN did not leave");
        tcp.peer_next = 9_001;
        tcp.put(&tcp.segment(0, flags::ACK, &[])).unwrap();
        tcp.push(0, &evil()).unwrap();
        // What answers a late segment of the server's, and is the only thing the kernel does not call invalid itself.
        tcp.put(&tcp.segment(0, flags::RST, &[])).unwrap();
        let counted = || scene.daemon.metric("postern_asymmetric_total").unwrap() > 0.0;
        assert!(e2e::wait::holds(e2e::wait::PATIENCE, counted), "not counted");
        scene.outside.settle(Duration::from_millis(50));
        let left = scene.outside.matching(|seen| seen.from.port() == local.port() && seen.to == tcp.remote);
        assert!(left.iter().all(|seen| seen.is_tcp(flags::SYN)), "{left:?}");
    }
}

/// How long a client may take for its hello (`inspect::Limits::hello_ms`).
const HELLO_TIME: Duration = Duration::from_secs(10);
