//! What a connection costs: packets that reach userspace, counted by the kernel's own queue.

use std::time::Duration;

use e2e::hello;
use e2e::topology::Topology;

use crate::scene::{Scene, allowed, assert_echo, finish};

both_families! {
    fn a_connection_takes_five_trips_and_one_per_held_segment(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        // The first connection may bring look-ups with it.
        finish(&mut scene.connect(), &allowed());
        let start = scene.daemon.queued_packets().unwrap();
        let mut tcp = scene.connect();
        finish(&mut tcp, &allowed());
        let plain = scene.daemon.queued_packets().unwrap() - start;
        // SYN, SYN/ACK, hello, the server's answer, the client's first protected data.
        assert_eq!(plain, 5, "packets to userspace for a hello in one segment");
        let start = scene.daemon.queued_packets().unwrap();
        let mut tcp = scene.connect();
        let good = allowed();
        let cut = good.len() / 4;
        for index in 0..3 {
            tcp.push(index * cut, &good[index * cut..(index + 1) * cut]).unwrap();
        }
        tcp.advance(3 * cut);
        finish(&mut tcp, &good[3 * cut..]);
        let held = scene.daemon.queued_packets().unwrap() - start;
        assert_eq!(held, 5 + 3, "packets to userspace for a hello in four segments");
    }
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
