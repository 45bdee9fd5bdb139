//! What a connection costs: packets that reach userspace, counted by the kernel's own queue.

use std::time::Duration;

use e2e::daemon::INVENTORY;
use e2e::hello;
use e2e::topology::Topology;

use crate::scene::{Scene, allowed, assert_echo, finish};

both_families! {
    fn a_connection_takes_five_trips_a_familiar_one_four_and_one_per_held_segment(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        // The first connection may bring look-ups with it.
        finish(&mut scene.connect(), &allowed());
        // Everybody is a stranger to a new policy.
        let other = INVENTORY.replace(",mirror.allowed.example", "");
        scene.daemon.reload(&other).unwrap();
        assert_eq!(trips(&scene, &allowed(), 1), 5, "packets to userspace for a hello in one segment");
        scene.daemon.reload(INVENTORY).unwrap();
        assert_eq!(trips(&scene, &allowed(), 4), 5 + 3, "packets to userspace for a hello in four segments");
        // On a machine that is too busy a pair is a stranger again before its next connection.
        assert!((0..9).any(|_| trips(&scene, &allowed(), 1) == 4), "packets to userspace of a familiar pair");
        assert!((0..9).any(|_| trips(&scene, &allowed(), 4) == 4 + 3), "the same for a hello in four segments");
    }
}

/// Packets that the queues got for one connection: SYN, SYN/ACK, hello, the server's answer, the client's first protected
/// data. The hello is sent in so many pieces.
pub(crate) fn trips(scene: &Scene<'_>, hello: &[u8], pieces: usize) -> u64 {
    let start = scene.daemon.queued_packets().unwrap();
    let mut tcp = scene.connect();
    let cut = hello.len() / pieces;
    for index in 0..pieces - 1 {
        tcp.push(index * cut, &hello[index * cut..(index + 1) * cut])
            .unwrap();
    }
    tcp.advance((pieces - 1) * cut);
    finish(&mut tcp, &hello[(pieces - 1) * cut..]);
    scene.daemon.queued_packets().unwrap() - start
}

both_families! {
    fn no_packet_of_a_judged_flow_reaches_userspace(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut tcp = scene.judged();
        let start = scene.daemon.queued_packets().unwrap();
        assert!(start >= 5, "the kernel counts {start} queued packets");
        for _ in 0..50 {
            assert_echo(&mut tcp, &[0x42; 1_300]);
        }
        assert_eq!(scene.daemon.queued_packets().unwrap() - start, 0);
    }
}

both_families! {
    fn bulk_of_a_real_connection_stays_in_the_kernel(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let to = scene.recorder.address;
        let mut stream = lab.client.enter(|| std::net::TcpStream::connect(to)).unwrap().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut exchange = |out: &[u8], back: usize| {
            std::io::Write::write_all(&mut stream, out).unwrap();
            std::io::Read::read_exact(&mut stream, &mut vec![0; back]).unwrap();
        };
        exchange(&allowed(), hello::server_flight().len());
        exchange(&hello::client_finish(), hello::client_finish().len());
        let start = scene.daemon.queued_packets().unwrap();
        assert!(start >= 5, "the kernel counts {start} queued packets");
        for _ in 0..40 {
            exchange(&[0x17; 50_000], 50_000);
        }
        assert_eq!(scene.daemon.queued_packets().unwrap() - start, 0, "after two megabytes each way");
    }
}
