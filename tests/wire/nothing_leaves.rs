//! Promise 24: before the verdict nothing of the client's making crosses but a plain handshake (REDTEAM 5, 6).

use std::time::Duration;

use e2e::packet::{Tcp, flags, icmp, options};
use e2e::raw::RawTcp;
use e2e::topology::{Family, Topology};

use crate::scene::Scene;

/// Marks bytes that must not cross.
const SMUGGLED: &[u8] = b"SMUGGLED BEFORE ANY VERDICT";

mod nothing_leaves_before_the_verdict {
    use super::*;

    both_families! {
        fn in_an_icmp_error_about_an_undecided_flow(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let tcp = scene.connect();
            // "This packet from the server was too big for me", with a kilobyte of one's own behind the quotation.
            let quoted = Tcp::new(tcp.remote, tcp.local, tcp.peer_next, tcp.isn, flags::ACK, &SMUGGLED.repeat(38));
            for (kind, code) in errors(family) {
                let rest = [0, 0, 0x04, 0xb0];
                let packet = icmp(tcp.local.ip(), tcp.remote.ip(), kind, code, rest, &quoted.packet());
                scene.attacker.send(&packet).unwrap();
            }
            scene.assert_never_left(SMUGGLED);
            let crossed = scene.outside.matching(|seen| seen.icmp.is_some() && seen.to == with_port_0(&tcp));
            assert_eq!(crossed, []);
        }
    }

    both_families! {
        fn in_an_echo_request(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let (from, to) = (scene.attacker.address(family), scene.recorder.address.ip());
            let kind = if family == Family::V4 { 8 } else { 128 };
            scene.attacker.send(&icmp(from, to, kind, 0, [1, 2, 0, 1], SMUGGLED)).unwrap();
            let answer = scene.attacker.receive(Duration::from_secs(2), |seen| seen.icmp.is_some());
            assert!(answer.is_some_and(|seen| matches!(seen.icmp, Some((3, _) | (1, _)))), "no refusal");
            scene.assert_never_left(SMUGGLED);
        }
    }

    both_families! {
        fn in_tcp_options(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let tcp = scene.connect();
            for _ in 0..50 {
                let mut ack = tcp.segment(0, flags::ACK, &[]);
                ack.options = options::EXPERIMENT.to_vec();
                tcp.put(&ack).unwrap();
            }
            scene.outside.settle(Duration::from_millis(100));
            let marked = scene.outside.matching(|seen| seen.options.windows(8).any(|bytes| bytes == [0x5a; 8]));
            assert_eq!(marked, []);
        }
    }

    both_families! {
        /// Taking an option out takes out its first copy: bare acknowledgements are the place to try the next one.
        fn in_the_second_copy_of_a_tcp_option(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let twins: [&[u8]; 3] = [
                &[254, 10, 1, 1, 1, 1, 1, 1, 1, 1, 254, 10, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a],
                &[8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 8, 10, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a],
                &[5, 10, 1, 1, 1, 1, 1, 1, 1, 1, 5, 10, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a],
            ];
            for options in twins {
                let mut tcp = scene.connect();
                let mut ack = tcp.segment(0, flags::ACK, &[]);
                ack.options = options.to_vec();
                tcp.put(&ack).unwrap();
                assert!(tcp.wait_reset().unwrap(), "{options:?}: not refused");
            }
            scene.outside.settle(Duration::from_millis(100));
            let marked = scene.outside.matching(|seen| seen.options.windows(8).any(|bytes| bytes == [0x5a; 8]));
            assert_eq!(marked, []);
            // What is left of one copy is padding, and an honest selective acknowledgement has that shape.
            let mut tcp = scene.connect();
            let mut ack = tcp.segment(0, flags::ACK, &[]);
            ack.options = vec![1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
            tcp.put(&ack).unwrap();
            crate::scene::finish(&mut tcp, &crate::scene::allowed());
        }
    }

    both_families! {
        fn ahead_of_the_servers_answer(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            // Port 444 has no rule, 443 passes: in both cases the data runs ahead of any SYN/ACK.
            let tcp = scene.unconnected();
            tcp.put(&tcp.syn()).unwrap();
            tcp.push(0, SMUGGLED).unwrap();
            let mut acknowledged = tcp.segment(0, flags::ACK | flags::PSH, SMUGGLED);
            acknowledged.ack = 12_345;
            tcp.put(&acknowledged).unwrap();
            scene.assert_never_left(SMUGGLED);
        }
    }

    both_families! {
        fn in_packets_that_conntrack_calls_invalid(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let tcp = scene.connect();
            type Lie = fn(&mut Tcp);
            let lies: [Lie; 6] = [
                |data| data.checksum_flip = 1,
                |data| data.flags = 0,
                |data| data.flags = flags::SYN | flags::FIN,
                |data| data.data_offset = Some(2),
                |data| data.seq = data.seq.wrapping_add(3_000_000),
                |data| data.from.set_port(1),
            ];
            for lie in lies {
                let mut data = tcp.segment(0, flags::ACK | flags::PSH, SMUGGLED);
                lie(&mut data);
                tcp.put(&data).unwrap();
            }
            scene.assert_never_left(SMUGGLED);
            // The client's own address is a sign of a packet that nobody translated.
            let inner = scene.attacker.address(family);
            assert_eq!(scene.outside.matching(|seen| seen.from.ip() == inner), []);
        }
    }
}

both_families! {
    /// The other way, an error about an undecided flow is what makes large frames work.
    fn word_about_a_smaller_link_reaches_the_client_while_undecided(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let puppet = lab.puppet().unwrap();
        let (client, server) = std::thread::scope(|scope| {
            let server = scope.spawn(|| puppet.accept(443, 7_000).unwrap());
            let to = e2e::topology::PUPPET.at(family, 443);
            let client = scene.attacker.connect(scene.fresh_port(), to, 1_000_000).unwrap();
            (client, server.join().unwrap())
        });
        let quoted = Tcp::new(server.remote, server.local, server.peer_next, server.isn, flags::ACK, &[]);
        let (kind, code) = errors(family)[0];
        let packet = icmp(server.local.ip(), server.remote.ip(), kind, code, [0, 0, 0x05, 0x14], &quoted.packet());
        puppet.send(&packet).unwrap();
        let heard = scene.attacker.receive(Duration::from_secs(3), |seen| seen.icmp == Some((kind, code)));
        assert!(heard.is_some(), "the error did not reach {}", client.local);
    }
}

/// "Too big" first, then "unreachable", of one family.
fn errors(family: Family) -> [(u8, u8); 2] {
    match family {
        Family::V4 => [(3, 4), (3, 1)],
        Family::V6 => [(2, 0), (1, 0)],
    }
}

fn with_port_0(tcp: &RawTcp<'_>) -> std::net::SocketAddr {
    std::net::SocketAddr::new(tcp.remote.ip(), 0)
}
