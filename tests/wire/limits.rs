//! Promise 5: what is held before a verdict is bounded, and full means closed (EVASIONS 28, 30).

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use e2e::daemon::{Daemon, INVENTORY};
use e2e::hello::record;
use e2e::topology::Topology;
use e2e::wait;

use crate::scene::{Scene, allowed, finish};

/// A hello that claims 60,000 bytes and has sent `bytes` of them.
fn unfinished(bytes: usize) -> Vec<u8> {
    let message = [&[1, 0x00, 0xea, 0x60][..], &vec![0x5a; bytes]].concat();
    message
        .chunks(16_384)
        .flat_map(|chunk| record(22, chunk))
        .collect()
}

both_families! {
    fn undecided_memory_is_bounded_and_full_is_closed(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let before = scene.daemon.resident_bytes().unwrap();
        // One flow: everything past the bound is refused, in order or behind a hole.
        let mut tcp = scene.connect();
        let long = unfinished(80_000);
        for (index, piece) in long.chunks(1_400).enumerate() {
            tcp.push(index * 1_400, piece).unwrap();
        }
        assert!(tcp.wait_reset().unwrap(), "80,000 bytes were held");
        let reason = scene.reason(&tcp);
        assert!(["hello_too_big", "record_abuse", "tls_malformed"].contains(&reason.as_str()), "{reason}");
        let mut tcp = scene.connect();
        for index in 1..600 {
            tcp.push(index * 20, &[0x16; 10]).unwrap();
        }
        assert!(tcp.wait_reset().unwrap(), "599 separate pieces were held");
        // Many flows of one client: some are refused, the memory stays, and others are served.
        let mut flows = Vec::new();
        let opening = unfinished(30_000);
        for index in 0..400 {
            let port = 42_000 + index;
            let Ok(tcp) = scene.attacker.connect(port, scene.recorder.address, 9) else { break };
            for (index, piece) in opening.chunks(1_400).enumerate() {
                tcp.push(index * 1_400, piece).unwrap();
            }
            flows.push(tcp);
        }
        let full = scene.daemon.logs().lines("flow");
        let full = full.iter().filter(|line| ["client_limit", "table_full"].contains(&line.text("reason").as_str()));
        let grown = scene.daemon.resident_bytes().unwrap().saturating_sub(before);
        assert!(grown < 96 << 20, "{grown} bytes more for {} flows, {} refused", flows.len(), full.count());
        assert_eq!(scene.payload_out(), []);
        let to = scene.recorder.address;
        let stream = lab.client.enter(|| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(10)));
        let mut stream = stream.unwrap().expect("another client is not served");
        std::io::Write::write_all(&mut stream, &allowed()).unwrap();
        assert!(scene.recorder.got(&allowed()), "another client's hello is not served");
    }
}

both_families! {
    fn a_flow_at_every_bound_leaves_room_for_the_next(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for _ in 0..20 {
            let mut tcp = scene.connect();
            tcp.write(&unfinished(500)).unwrap();
            tcp.put(&tcp.segment(2_000, e2e::packet::flags::RST | e2e::packet::flags::ACK, &[])).unwrap();
        }
        let mut tcp = scene.connect();
        finish(&mut tcp, &allowed());
    }
}

/// Peers that the control socket serves at once.
const PEERS: usize = 64;

#[test]
fn a_peer_too_many_is_hung_up_on() {
    let lab = Topology::new().unwrap();
    let daemon = Daemon::without_policy(&lab).unwrap();
    let mut peers: Vec<_> = (0..PEERS).map(|_| daemon.publisher().unwrap()).collect();
    let mut more = UnixStream::connect(lab.file("control.sock")).unwrap();
    more.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    assert_eq!(more.read(&mut [0; 8]).unwrap(), 0, "one more is served");
    // The others are, and a place that is given up is taken again.
    assert_eq!(peers[0].publish(INVENTORY).unwrap(), 1);
    peers.pop();
    assert!(wait::holds(wait::PATIENCE, || daemon.publisher().is_ok()));
}
