//! Promise 21: a verdict belongs to one connection, never to its addresses and ports.

use std::time::Duration;

use e2e::daemon::INVENTORY;
use e2e::hello;
use e2e::packet::flags;
use e2e::peer::Script;
use e2e::raw::RawTcp;
use e2e::topology::Topology;

use crate::scene::{EVIL_MARK, Scene, allowed, evil, finish};

/// Starts again from the same port and asserts that an evil hello gets nowhere and that an honest one does.
fn assert_judged_afresh(scene: &Scene<'_>, tcp: &mut RawTcp<'_>) {
    tcp.restart(tcp.isn.wrapping_add(0x0100_0000));
    tcp.handshake().unwrap();
    tcp.write(&evil()).unwrap();
    assert!(
        tcp.wait_reset().unwrap(),
        "the second connection was not refused"
    );
    scene.assert_never_left(EVIL_MARK);
    assert_eq!(scene.reason(tcp), "name_not_allowed");
    tcp.restart(tcp.isn.wrapping_add(0x0100_0000));
    tcp.handshake().unwrap();
    tcp.write(&allowed()).unwrap();
    assert!(
        tcp.wait_bytes(hello::server_flight().len()).unwrap(),
        "an honest third connection fails"
    );
}

mod a_verdict_is_never_inherited {
    use super::*;

    both_families! {
        /// Variant A: the server resets a judged connection, the client begins again from the same port.
        fn after_a_reset_by_the_server(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::with(&lab, family, INVENTORY, Script::Abort);
            let mut tcp = scene.connect();
            tcp.write(&allowed()).unwrap();
            assert!(tcp.wait_bytes(hello::server_flight().len()).unwrap());
            tcp.write(&hello::client_finish()).unwrap();
            assert!(tcp.wait_reset().unwrap());
            assert_judged_afresh(&scene, &mut tcp);
        }
    }

    both_families! {
        /// Variant B: the client makes conntrack believe in a connection whose server is gone.
        fn after_a_reset_that_conntrack_does_not_see(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let mut tcp = scene.connect();
            finish(&mut tcp, &allowed());
            let sent = allowed().len() + hello::client_finish().len();
            tcp.write(&hello::protected(b"ten")[..8]).unwrap();
            // An old acknowledgement moves conntrack's idea of what was acknowledged last, then the reset the server
            // believes and conntrack ignores.
            tcp.put(&tcp.segment(sent - 1, flags::ACK, &[])).unwrap();
            tcp.put(&tcp.segment(sent + 8, flags::RST, &[])).unwrap();
            assert!(scene.recorder.reset_port(tcp.local.port()));
            assert_judged_afresh(&scene, &mut tcp);
        }
    }

    both_families! {
        fn after_a_reset_by_the_client(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let mut tcp = scene.connect();
            finish(&mut tcp, &allowed());
            let sent = allowed().len() + hello::client_finish().len();
            tcp.put(&tcp.segment(sent, flags::RST, &[])).unwrap();
            assert!(scene.recorder.reset_port(tcp.local.port()));
            assert_judged_afresh(&scene, &mut tcp);
        }
    }

    both_families! {
        fn after_an_orderly_close(family) {
            let lab = Topology::new().unwrap();
            let scene = Scene::new(&lab, family);
            let mut tcp = scene.connect();
            finish(&mut tcp, &allowed());
            tcp.close().unwrap();
            assert!(tcp.closed, "the server did not close");
            scene.outside.settle(Duration::from_millis(30));
            assert_judged_afresh(&scene, &mut tcp);
        }
    }
}

both_families! {
    fn a_syn_on_a_live_connection_does_not_reopen_it(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut tcp = scene.connect();
        finish(&mut tcp, &allowed());
        scene.outside.settle(Duration::from_millis(50));
        let old = scene.outside.matching(|seen| seen.to == scene.recorder.address && seen.is_tcp(flags::SYN)).len();
        let mut syn = tcp.syn();
        syn.seq = syn.seq.wrapping_add(0x0200_0000);
        tcp.put(&syn).unwrap();
        scene.outside.settle(Duration::from_millis(80));
        let new = scene.outside.matching(|seen| seen.to == scene.recorder.address && seen.is_tcp(flags::SYN)).len();
        assert_eq!(old, new, "a SYN on a connection that is not new was forwarded");
    }
}
