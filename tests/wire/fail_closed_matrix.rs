//! Promise 6: one test per way to fail, what still passes and what no longer does.
//!
//! The rows about the sidecar and its cloud are in `tests/cloud`, a reboot is in `tests/boot`.

use std::time::Duration;

use e2e::daemon::{Daemon, get};
use e2e::hello::ClientHello;
use e2e::peer::{Recorder, Script};
use e2e::topology::{RECORDER, Topology, WEB};
use e2e::wait;

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil, finish};

/// What the boot loads before any interface is up.
const LOCKDOWN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../firewall/packaging/nft/lockdown.nft"
);

/// What a daemon, a resolver or a disk may take to be noticed on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

both_families! {
    fn daemon_killed_and_nothing_new_leaves(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let attacker = lab.attacker().unwrap();
        let mut judged = attacker.connect(41_000, scene.recorder.address, 77).unwrap();
        finish(&mut judged, &allowed());
        scene.daemon.kill().unwrap();
        scene.assert_nothing_new_leaves("with no daemon");
        assert_echo(&mut judged, b"judged flows continue");
        scene.daemon.restart().unwrap();
        assert_echo(&mut judged, b"and go on continuing");
        scene.assert_another_is_served("after the restart");
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    /// The ruleset of the boot is all there is; the daemon's takes its place.
    fn daemon_never_started_and_nothing_leaves(family) {
        let lab = Topology::new().unwrap();
        let outside = lab.capture_outside().unwrap();
        let attacker = lab.attacker().unwrap();
        let send = |port: u16| {
            let local = std::net::SocketAddr::new(attacker.address(family), port);
            let tcp = e2e::raw::RawTcp::new(&attacker, local, RECORDER.at(family, 443), 5);
            tcp.put(&tcp.syn()).unwrap();
            tcp.push(0, &evil()).unwrap();
        };
        let left = |port: u16| outside.matching(|seen| seen.from.port() == port);
        send(4_000);
        assert!(outside.wait_for(|seen| seen.from.port() == 4_000).is_some(), "the lab does not forward");
        lab.firewall.run("nft", &["-f", LOCKDOWN]).unwrap();
        send(4_001);
        outside.settle(Duration::from_millis(150));
        assert_eq!(left(4_001), [], "packets left under the ruleset of the boot");
        let scene = Scene::new(&lab, family);
        scene.assert_another_is_served("once the daemon runs");
    }
}

both_families! {
    fn policy_absent_and_nothing_leaves(family) {
        let lab = Topology::new().unwrap();
        let daemon = Daemon::without_policy(&lab).unwrap();
        let scene = Scene::around(&lab, family, daemon, Script::Tls);
        scene.assert_nothing_new_leaves("without a policy");
        assert!(scene.daemon.queued_packets().unwrap() > 0, "no daemon has seen them");
        // Replacing the appliance cannot cure it, so it is not called ill.
        assert!(get(&lab.firewall, 1042, "/healthz").unwrap().contains("no_policy"));
        assert_eq!(scene.daemon.status().unwrap()["mode"], "lockdown");
    }
}

both_families! {
    fn policy_broken_at_reload_and_the_last_good_one_stays(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        let generation = scene.daemon.generation().unwrap();
        let faults = || scene.daemon.logs().lines("config").iter().filter(|line| line.text("cat") == "fault").count();
        for broken in ["[[group]\n", "served = [\"everything\"]\n", ""] {
            let before = faults();
            if broken.is_empty() {
                // The file is gone altogether.
                std::fs::remove_file(lab.file("inventory.toml")).unwrap();
            } else {
                scene.daemon.replace(broken).unwrap();
            }
            assert!(wait::holds(PATIENCE, || faults() > before), "{broken:?} was not said");
            assert_eq!(scene.daemon.generation().unwrap(), generation, "{broken:?}");
            assert_echo(&mut judged, b"still allowed");
            scene.assert_allowed("the last good policy", &allowed());
            scene.assert_refused("the last good policy", &evil(), &["name_not_allowed"]);
        }
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    fn resolver_down_and_bound_names_keep_working(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        let deaf = "table inet deaf { chain input { type filter hook input priority 0; \
                    udp dport 53 drop; tcp dport 53 drop; }; }";
        lab.internet.feed("nft", &["-f", "-"], deaf).unwrap();
        // A pattern allows it and nobody has asked for it yet.
        let new = ClientHello::new(WEB.name).record();
        scene.assert_refused("a new name", &new, &["name_unresolvable"]);
        scene.assert_never_left(WEB.name.as_bytes());
        assert_echo(&mut judged, b"a judged flow asks nobody");
        scene.assert_another_is_served("a bound name");
        // It answers again, and so does the name at its own address.
        lab.internet.run("nft", &["delete", "table", "inet", "deaf"]).unwrap();
        let server = Recorder::start(&lab.internet, WEB.at(family, 443), Script::Tls).unwrap();
        let served = wait::holds(PATIENCE, || {
            let mut tcp = scene.attacker.connect(scene.fresh_port(), server.address, 7).unwrap();
            tcp.write(&new).unwrap();
            tcp.wait_bytes(1).unwrap()
        });
        assert!(served, "the name stays refused when its resolver is back");
    }
}

both_families! {
    fn spool_full_and_traffic_is_unaffected(family) {
        let lab = Topology::new().unwrap();
        let spool = lab.file("state/spool");
        std::fs::create_dir_all(&spool).unwrap();
        let spool = spool.to_str().unwrap();
        lab.firewall.run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", spool]).unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        // Ends when the disk does.
        let fill = format!("of={spool}/fill");
        let filled = lab.firewall.output("dd", &["if=/dev/zero", &fill, "bs=512"]).unwrap();
        assert!(!filled.status.success(), "the disk has no end");
        let losses = || scene.daemon.status().unwrap()["losses"]["lines_spool_full"].as_u64().unwrap();
        let counted = wait::holds(PATIENCE, || {
            scene.assert_allowed("with a full spool", &allowed());
            let mut tcp = scene.connect();
            tcp.write(&evil()).unwrap();
            assert!(tcp.wait_reset().unwrap(), "a full spool stops refusals");
            losses() > 0
        });
        assert!(counted, "lost lines are not counted");
        assert!(scene.daemon.metric("postern_log_lines_lost_total").unwrap() > 0.0);
        assert_echo(&mut judged, b"judged flows too");
        assert_eq!(get(&lab.firewall, 1042, "/healthz").unwrap().trim(), "ok");
        scene.assert_never_left(EVIL_MARK);
        // With room again, lines are written again.
        lab.firewall.run("rm", &[&format!("{spool}/fill")]).unwrap();
        let lines = || scene.daemon.status().unwrap()["spool"]["flow"]["lines"].as_u64().unwrap();
        let before = lines();
        let written = wait::holds(PATIENCE, || {
            scene.assert_allowed("with room again", &allowed());
            lines() > before
        });
        assert!(written, "no line is written when there is room again");
    }
}

both_families! {
    /// The daemon stands still while one flow's packets come, until the kernel's queue is full.
    fn queue_overrun_and_others_are_served_after_it(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        let flood = scene.connect();
        let before = scene.payload_out().len();
        scene.daemon.pause().unwrap();
        let dropped = || scene.daemon.queues().unwrap().iter().map(|queue| queue.dropped).sum::<u64>();
        let full = (0..400).any(|_| {
            for _ in 0..500 {
                flood.push(0, &evil()).unwrap();
            }
            dropped() > 0
        });
        assert!(full, "200,000 packets did not fill a queue");
        scene.assert_nothing_new_leaves("with a full queue");
        assert_eq!(scene.payload_out().len(), before, "payload left past a full queue");
        assert_echo(&mut judged, b"judged flows need no queue");
        scene.daemon.resume().unwrap();
        scene.assert_another_is_served("after the overrun");
        scene.assert_never_left(EVIL_MARK);
        let counted = || scene.daemon.status().unwrap()["losses"]["packets_queue_full"].as_u64().unwrap() > 0;
        assert!(wait::holds(PATIENCE, counted), "the overrun is not counted");
    }
}

both_families! {
    /// Many flows of one client, all of them pieces behind a hole.
    fn one_client_floods_and_another_is_served(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        let limited = || scene.daemon.status().unwrap()["refused"]["client_limit"].as_u64().unwrap_or(0);
        let mut flows = Vec::new();
        for _ in 0..24 {
            let tcp = scene.connect();
            for piece in 1..400 {
                tcp.push(piece * 20, &[0x16; 10]).unwrap();
            }
            flows.push(tcp);
        }
        assert!(wait::holds(PATIENCE, || limited() > 0), "one client holds as much as it likes");
        scene.assert_another_is_served("beside the flood");
        assert_echo(&mut judged, b"judged flows too");
        assert_eq!(scene.recorder.conversations().iter().filter(|one| one.bytes.starts_with(&[0x16; 10])).count(), 0);
    }
}

both_families! {
    fn foreign_edit_is_repaired_and_refusals_go_on(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        let listing = || lab.firewall.run("nft", &["-s", "-t", "list", "table", "inet", "postern"]).unwrap();
        let ours = listing();
        lab.firewall.run("nft", &["insert rule inet postern decide accept"]).unwrap();
        assert!(wait::holds(PATIENCE, || listing() == ours), "{}", listing());
        assert_echo(&mut judged, b"through the edit and its repair");
        scene.assert_refused("after the repair", &evil(), &["name_not_allowed"]);
        scene.assert_allowed("after the repair", &allowed());
        scene.assert_never_left(EVIL_MARK);
        assert!(scene.daemon.output().contains("repairing the ruleset"), "nobody was told");
    }
}
