//! Promise 19: large hellos, from clients behind large frames, arrive (EVASIONS 11, 14).

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use e2e::hello::ClientHello;
use e2e::packet::flags;
use e2e::topology::{PUPPET, RECORDER, Topology};

use crate::scene::{Scene, isn};

both_families! {
    fn pq_hello_from_a_9001_mtu_client_arrives(family) {
        let lab = Topology::with_client_mtu(9001).unwrap();
        let scene = Scene::new(&lab, family);
        let hello = ClientHello::post_quantum(RECORDER.name).record();
        // A real client, whose kernel cuts as it likes.
        let to = scene.recorder.address;
        let mut stream = lab.client.enter(|| TcpStream::connect(to)).unwrap().unwrap();
        stream.write_all(&hello).unwrap();
        assert!(scene.recorder.got(&hello), "{:?}", scene.recorder.conversations());
        // One that ignores the segment size: told what fits, it cuts again, late and twice.
        let tcp = scene.connect();
        tcp.push(0, &hello).unwrap();
        let told = scene.attacker.receive(Duration::from_secs(3), |seen| {
            matches!((seen.protocol, seen.icmp), (1, Some((3, 4))) | (58, Some((2, 0))))
        });
        assert!(told.is_some(), "no word about the smaller link");
        let fits = 1400;
        tcp.push(fits, &hello[fits..]).unwrap();
        tcp.push(fits, &hello[fits..]).unwrap();
        tcp.push(0, &hello[..fits]).unwrap();
        let whole = || scene.recorder.with_port(tcp.local.port()).is_some_and(|found| found.bytes == hello);
        assert!(e2e::wait::holds(Duration::from_secs(5), whole));
    }
}

both_families! {
    fn segment_sizes_are_clamped_to_the_path(family) {
        let lab = Topology::with_client_mtu(9001).unwrap();
        let scene = Scene::new(&lab, family);
        let puppet = lab.puppet().unwrap();
        let port = scene.fresh_port();
        let local = std::net::SocketAddr::new(scene.attacker.address(family), port);
        let client = e2e::raw::RawTcp::new(&scene.attacker, local, PUPPET.at(family, 443), isn(port));
        let jumbo = vec![2, 4, 0x22, 0xf1];
        let mut syn = client.syn();
        syn.options.clone_from(&jumbo);
        client.put(&syn).unwrap();
        let arrived = puppet.receive(Duration::from_secs(5), |seen| seen.is_tcp(flags::SYN)).expect("the SYN");
        assert!(segment_size(&arrived.options) <= 1460);
        let mut server = e2e::raw::RawTcp::new(&puppet, arrived.to, arrived.from, 5_000);
        server.peer_next = arrived.seq.wrapping_add(1);
        let mut reply = server.segment(0, flags::SYN | flags::ACK, &[]);
        reply.seq = 5_000;
        reply.options = jumbo;
        server.put(&reply).unwrap();
        let answer = client.receive(Duration::from_secs(5), |seen| seen.has(flags::SYN | flags::ACK)).expect("SYN/ACK");
        assert!(segment_size(&answer.options) <= 1460);
    }
}

/// The verdict on a hello in two segments comes late: its first half is repeated and probed meanwhile.
mod a_late_verdict_is_never_a_refusal {
    use super::*;

    both_families! {
        fn whatever_the_client_repeats(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let hello = ClientHello::post_quantum(RECORDER.name).record();
            let (first, second) = hello.split_at(1400);
            let mut tcp = scene.connect();
            tcp.push(0, first).unwrap();
            // A tail loss probe, a repeated head, the last byte alone, all before the rest is there.
            tcp.push(1400, &second[..1]).unwrap();
            tcp.push(0, first).unwrap();
            tcp.push(hello.len() - 1, &hello[hello.len() - 1..]).unwrap();
            tcp.push(1400, second).unwrap();
            tcp.push(1400, second).unwrap();
            assert!(scene.recorder.got(&hello));
            assert!(tcp.wait_bytes(e2e::hello::server_flight().len()).unwrap(), "no answer");
            assert!(!tcp.reset);
            scene.daemon.logs().expect(&[("outcome", "allowed"), ("cat", "server")]).unwrap();
            assert_eq!(scene.daemon.logs().matching(&[("outcome", "disallowed")]).len(), 0);
        }
    }
}

fn segment_size(options: &[u8]) -> u16 {
    let at = options
        .windows(2)
        .position(|pair| pair == [2, 4])
        .expect("a segment size");
    u16::from_be_bytes([options[at + 2], options[at + 3]])
}
