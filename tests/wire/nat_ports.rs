//! The translation runs out of source ports: refused, and not left hanging.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use e2e::packet::flags::SYN;
use e2e::raw::RawTcp;
use e2e::topology::{Asker, PUPPET, Topology};
use e2e::wait;

use crate::clients::dial_from;
use crate::scene::{Scene, allowed};
use crate::trips::trips;

/// The ports a connection from one of them may be translated to (Linux, `nf_nat_l4proto_unique_tuple`): as few as
/// there are.
const PORTS: std::ops::RangeInclusive<u16> = 600..=1_023;

both_families! {
    /// One client has every port of the range towards one server, in connections that nobody answers. Another client's
    /// SYN finds none, and neither does its repetition.
    fn without_a_port_for_it_a_connection_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let _silent = lab.puppet().unwrap();
        let to = PUPPET.at(family, 443);
        // The kernel forgets an unanswered connection after ten seconds: sent again, they stay.
        let occupy = || {
            for port in PORTS {
                let local = SocketAddr::new(scene.attacker.address(family), port);
                let tcp = RawTcp::new(&scene.attacker, local, to, 7);
                tcp.put(&tcp.syn()).unwrap();
            }
        };
        let is_occupied = || {
            let syns = scene.outside.matching(|seen| seen.to == to && seen.flags & SYN != 0);
            let ports: BTreeSet<u16> = syns.iter().map(|seen| seen.from.port()).collect();
            ports.len() == PORTS.count()
        };
        occupy();
        assert!(wait::holds(wait::PATIENCE, is_occupied), "not every port is taken");
        assert!((0..9).any(|_| trips(&scene, &allowed(), 1) == 4), "nobody is familiar when there are ports");
        lab.client.sysctl("net.ipv4.tcp_syn_retries", "2").unwrap();
        let refused = wait::holds(wait::PATIENCE, || {
            occupy();
            let dialled = dial_from(&lab, Asker::Workload, 700, to);
            dialled.unwrap_err().kind() == std::io::ErrorKind::ConnectionRefused
        });
        assert!(refused, "a connection without a port is left hanging");
        let src = Asker::Workload.address(family).to_string();
        let line = [("outcome", "disallowed"), ("reason", "nat_ports"), ("src", &src), ("spt", "700")];
        scene.daemon.logs().expect(&line).unwrap();
        // A SYN that the kernel lets through by itself could not be refused for it.
        let strangers = || (0..3).all(|_| trips(&scene, &allowed(), 1) == 5);
        assert!(wait::holds(wait::PATIENCE, strangers), "somebody is familiar when ports have run out");
        // Any other server still has ports for it.
        assert!(dial_from(&lab, Asker::Workload, 700, scene.recorder.address).is_ok());
    }
}
