//! Restarts: judged flows live and stay known, all others end cleanly (promise 15).

use std::time::Duration;

use e2e::daemon::INVENTORY;
use e2e::hello::{self, ClientHello};
use e2e::peer::{Recorder, Script};
use e2e::topology::{MIRROR, Topology};
use e2e::wait;

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil, finish};

both_families! {
    fn daemon_restart_drops_no_judged_flow(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let attacker = lab.attacker().unwrap();
        let mut flows: Vec<_> = (0..5)
            .map(|index| {
                let mut tcp = attacker.connect(41_000 + index, scene.recorder.address, 77).unwrap();
                finish(&mut tcp, &allowed());
                tcp
            })
            .collect();
        scene.daemon.kill().unwrap();
        scene.daemon.restart().unwrap();
        for tcp in &mut flows {
            assert_echo(tcp, b"after the restart");
        }
    }
}

both_families! {
    /// What a flow was allowed for is known to the process after the one that allowed it: the next
    /// policy ends it by name, and no other.
    fn a_flow_from_before_a_kill_ends_by_name_at_the_next_policy(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let address = MIRROR.at(family, 443);
        let mirror = Recorder::start(&lab.internet, address, Script::Tls).unwrap();
        let attacker = lab.attacker().unwrap();
        let mut kept = attacker.connect(41_000, scene.recorder.address, 77).unwrap();
        finish(&mut kept, &allowed());
        let mut ended = attacker.connect(41_001, address, 78).unwrap();
        finish(&mut ended, &ClientHello::new(MIRROR.name).record());
        let before = scene.daemon.generation().unwrap();
        crate::end_records::await_kept(&lab, 2);
        for _ in 0..2 {
            scene.daemon.kill().unwrap();
            scene.daemon.restart().unwrap();
        }
        assert_eq!(scene.daemon.generation().unwrap(), before);
        scene.daemon.reload(&INVENTORY.replace(",mirror.allowed.example", "")).unwrap();
        assert!(ended.pump(Duration::from_secs(3), |tcp| tcp.reset).unwrap(), "it was not ended");
        assert!(mirror.was_reset(), "its server was not told");
        let line = scene.daemon.logs().expect(&[("reason", "policy_changed")]).unwrap();
        assert_eq!(line.text("dhost"), MIRROR.name);
        assert_echo(&mut kept, b"allowed before and after");
    }
}

both_families! {
    /// Flows that were not judged yet have no verdict to live by: each is reset at both ends when
    /// either says something, and nothing of what it says arrives.
    fn flows_in_mid_handshake_end_cleanly_after_a_kill(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let attacker = lab.attacker().unwrap();
        let to = scene.recorder.address;
        let hello = evil();
        let mut connected = attacker.connect(41_000, to, 1).unwrap();
        let mut half_said = attacker.connect(41_001, to, 2).unwrap();
        half_said.write(&hello[..40]).unwrap();
        let mut answered = attacker.connect(41_002, to, 3).unwrap();
        answered.write(&allowed()).unwrap();
        assert!(answered.wait_bytes(hello::server_flight().len()).unwrap());
        let dialled = |port: u16| scene.recorder.with_port(port).is_some();
        assert!(wait::holds(wait::PATIENCE, || (41_000..41_003).all(dialled)));
        scene.daemon.kill().unwrap();
        scene.daemon.restart().unwrap();
        connected.write(&hello).unwrap();
        half_said.write(&hello[40..]).unwrap();
        answered.write(&hello::protected(EVIL_MARK)).unwrap();
        for tcp in [&mut connected, &mut half_said, &mut answered] {
            let port = tcp.local.port();
            assert!(tcp.wait_reset().unwrap(), "client of {port}");
            assert!(scene.recorder.reset_port(port), "server of {port}");
        }
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.refusal(&connected).text("reason"), "tcp_state");
        // Their ports are as good as any others now.
        let mut again = attacker.connect(41_000, to, 900).unwrap();
        finish(&mut again, &allowed());
    }
}

both_families! {
    /// A connection opened while no daemon runs waits for its SYN to be repeated.
    fn a_new_connection_waits_for_the_daemon(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        scene.daemon.kill().unwrap();
        scene.assert_nothing_new_leaves("no daemon");
        scene.daemon.restart().unwrap();
        scene.assert_allowed("the daemon is back", &allowed());
    }
}
