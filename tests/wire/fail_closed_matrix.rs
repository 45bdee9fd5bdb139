//! Promise 6: one test per way to fail, what still passes and what no longer does.
//!
//! The rows about the sidecar and its cloud are in `tests/cloud`, a reboot is in `tests/boot`.

use std::time::Duration;

use e2e::daemon::{Daemon, INVENTORY, get};
use e2e::hello::ClientHello;
use e2e::peer::{Recorder, Script};
use e2e::topology::{RECORDER, Topology, WEB};
use e2e::wait;
use ipc::control::SourceState;

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
        // Noticed by whoever probes health and by whoever scrapes.
        assert!(get(&lab.firewall, 1042, "/healthz").is_err() && scene.daemon.metric("postern_data_plane_ok").is_err());
        scene.daemon.restart().unwrap();
        assert_eq!(scene.daemon.metric("postern_data_plane_ok").unwrap(), 1.0);
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
        assert_eq!(scene.daemon.metric("postern_policy_in_force").unwrap(), 0.0);
        assert_eq!(scene.daemon.metric("postern_data_plane_ok").unwrap(), 1.0);
        let mode = |line: &e2e::flowlog::Line| line.text("cat") == "status";
        let noted = wait::holds(PATIENCE, || scene.daemon.logs().lines("config").iter().any(mode));
        assert!(noted, "the config log does not say how it is");
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
    /// Whoever publishes is gone, with its cloud: what it published last is enforced, over a restart as well.
    fn publisher_gone_and_the_last_good_policy_is_enforced(family) {
        let lab = Topology::new().unwrap();
        let daemon = Daemon::without_policy(&lab).unwrap();
        let mut publisher = daemon.publisher().unwrap();
        publisher.source(SourceState::Current).unwrap();
        publisher.publish(INVENTORY).unwrap();
        drop(publisher);
        let mut scene = Scene::around(&lab, family, daemon, Script::Tls);
        let generation = scene.daemon.generation().unwrap();
        let attacker = lab.attacker().unwrap();
        let mut judged = attacker.connect(41_000, scene.recorder.address, 77).unwrap();
        finish(&mut judged, &allowed());
        for what in ["with nobody to publish", "after a restart"] {
            scene.assert_allowed(what, &allowed());
            scene.assert_refused(what, &evil(), &["name_not_allowed"]);
            assert_echo(&mut judged, what.as_bytes());
            assert_eq!(get(&lab.firewall, 1042, "/healthz").unwrap().trim(), "ok", "{what}");
            assert_eq!(scene.daemon.generation().unwrap(), generation, "{what}");
            let aging = || scene.daemon.metric("postern_policy_age_seconds").unwrap() > 0.0;
            assert!(wait::holds(PATIENCE, aging), "nobody can tell how old the policy is, {what}");
            scene.daemon.kill().unwrap();
            scene.daemon.restart().unwrap();
        }
        scene.assert_never_left(EVIL_MARK);
        let lines = || scene.daemon.status().unwrap()["spool"]["flow"]["lines"].as_u64().unwrap();
        scene.assert_allowed("to the last", &allowed());
        assert!(wait::holds(PATIENCE, || lines() > 0), "logs do not wait in the spool");
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
        let said = |object: &str| scene.daemon.logs().lines("config").iter().any(|line| line.0.to_string().contains(object));
        let noticed = wait::holds(PATIENCE, || {
            said("resolver_down") && scene.daemon.metric("postern_witness_answering").unwrap() == 0.0
        });
        assert!(noticed, "a dead resolver is not noticed");
        assert!(get(&lab.firewall, 1042, "/healthz").unwrap().starts_with("ok"), "a resolver's trouble turned health red");
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
    /// Promise 9, and the row of a full spool.
    fn full_log_counts_and_never_stalls_a_packet(family) {
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
        assert!(scene.daemon.metric("postern_queue_drops_total").unwrap() > 0.0);
    }
}

/// As before, with packets so large that the buffer is full before the queue is, over which its thread receives them.
#[test]
fn full_socket_of_a_queue_and_others_are_served_after_it() {
    let lab = Topology::new().unwrap();
    let scene = Scene::new(&lab, e2e::topology::Family::V4);
    let mut judged = scene.judged();
    let flood = scene.connect();
    let before = scene.payload_out().len();
    let large = [&evil()[..], &[0; 1_100]].concat();
    scene.daemon.pause().unwrap();
    let dropped = || {
        let queues = scene.daemon.queues().unwrap();
        queues.iter().map(|queue| queue.undelivered).sum::<u64>()
    };
    let full = (0..200).any(|_| {
        for _ in 0..500 {
            flood.push(0, &large).unwrap();
        }
        dropped() > 0
    });
    assert!(full, "100,000 packets did not fill a socket");
    scene.assert_nothing_new_leaves("with a full socket");
    assert_eq!(
        scene.payload_out().len(),
        before,
        "payload left past a full socket"
    );
    assert_echo(&mut judged, b"judged flows need no queue");
    scene.daemon.resume().unwrap();
    scene.assert_another_is_served("after the overrun");
    scene.assert_never_left(EVIL_MARK);
    let counted = || scene.daemon.metric("postern_queue_overruns_total").unwrap() > 0.0;
    assert!(wait::holds(PATIENCE, counted), "the overrun is not counted");
    let losses = &scene.daemon.status().unwrap()["losses"];
    assert!(losses["packets_queue_full"].as_u64().unwrap() > 0);
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
        assert!(scene.daemon.metric("postern_refused_total").unwrap() > 0.0);
        assert!(wait::holds(PATIENCE, || scene.daemon.metric("postern_suppressed_total").unwrap() > 0.0), "a flood of lines");
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
        let counted = || scene.daemon.metric("postern_ruleset_repairs_total").unwrap() > 0.0;
        assert!(wait::holds(PATIENCE, counted), "the repair is not counted");
    }
}

both_families! {
    /// A disk that has turned read-only, as one does that fails.
    fn spool_read_only_and_traffic_is_unaffected(family) {
        let lab = Topology::new().unwrap();
        let spool = lab.file("state/spool");
        std::fs::create_dir_all(&spool).unwrap();
        let spool = spool.to_str().unwrap();
        lab.firewall.run("mount", &["-t", "tmpfs", "tmpfs", spool]).unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        // Files that are open stay writable on a mount that is remounted; a segment closes after 2 s.
        lab.firewall.run("mount", &["-o", "remount,ro", spool]).or_else(|_| {
            lab.firewall.run("mount", &["--bind", "-o", "ro", spool, spool])
        }).unwrap();
        let lost = || scene.daemon.metric("postern_log_lines_lost_total").unwrap() > 0.0;
        let counted = wait::holds(PATIENCE, || {
            scene.assert_allowed("with a read-only spool", &allowed());
            lost()
        });
        assert!(counted, "lost lines are not counted\n{}", scene.daemon.output());
        let mut tcp = scene.connect();
        tcp.write(&evil()).unwrap();
        assert!(tcp.wait_reset().unwrap(), "a read-only spool stops refusals");
        assert_echo(&mut judged, b"judged flows too");
        assert_eq!(get(&lab.firewall, 1042, "/healthz").unwrap().trim(), "ok");
        scene.assert_never_left(EVIL_MARK);
        lab.firewall.run("mount", &["-o", "remount,rw", spool]).unwrap();
        let lines = || scene.daemon.metric("postern_log_lines_total").unwrap();
        let before = lines();
        let written = wait::holds(PATIENCE, || {
            scene.assert_allowed("writable again", &allowed());
            lines() > before
        });
        assert!(written, "no line is written on a disk that is well again");
    }
}

both_families! {
    /// Sixteen queues have a sixteenth of the table each, and one pair of addresses is always one queue: one client
    /// fills its queue's share with SYNs that nobody answers.
    fn flow_table_full_and_new_flows_are_refused(family) {
        let lab = Topology::new().unwrap();
        let daemon = Daemon::with_config(&lab, INVENTORY, "queues = 16").unwrap();
        let scene = Scene::around(&lab, family, daemon, Script::Tls);
        let mut judged = scene.judged();
        let nobody = std::net::SocketAddr::new(e2e::topology::PUPPET.address(family), 443);
        let _silent = lab.puppet().unwrap();
        let full = || scene.daemon.status().unwrap()["refused"]["table_full"].as_u64().unwrap_or(0) > 0;
        let syn = |port: u16| {
            let local = std::net::SocketAddr::new(scene.attacker.address(family), port);
            let tcp = e2e::raw::RawTcp::new(&scene.attacker, local, nobody, 7);
            tcp.put(&tcp.syn()).unwrap();
        };
        let mut port = 1_024;
        let filled = wait::holds(PATIENCE, || {
            // The ruleset lets one source begin a thousand a second, and two thousand at once.
            for _ in 0..200 {
                port = (port + 1).min(60_000);
                syn(port);
            }
            full()
        });
        assert!(filled, "{port} SYNs did not fill a table of 4,096");
        // One more is refused before its SYN leaves.
        let left = || scene.outside.matching(|seen| seen.to == nobody && seen.flags & e2e::packet::flags::SYN != 0).len();
        scene.outside.settle(Duration::from_millis(300));
        let before = left();
        for more in 0..50 {
            syn(port + 1 + more);
        }
        scene.outside.settle(Duration::from_millis(300));
        assert_eq!(left(), before, "SYNs left past a full table");
        assert!(before <= 4_096, "{before} flows in a table of 4,096");
        assert_echo(&mut judged, b"judged flows are in no table");
        assert!(scene.daemon.metric("postern_refused_total").unwrap() > 0.0);
        assert!(scene.daemon.metric("postern_flows_undecided").unwrap() >= 4_000.0);
        assert_eq!(get(&lab.firewall, 1042, "/healthz").unwrap().trim(), "ok");
    }
}

/// Whether the kernel calls its clock unsynchronised, asked without our own code.
pub(crate) fn clock_is_unsynchronised() -> bool {
    let number = if cfg!(target_arch = "x86_64") {
        159
    } else {
        171
    };
    // `status` of `struct timex`, and STA_UNSYNC.
    let script = format!(
        "my $t = \"\\0\" x 512; exit 2 if syscall({number}, $t) < 0; exit(unpack(\"x40 l\", $t) & 64 ? 0 : 1)"
    );
    let status = std::process::Command::new("perl")
        .args(["-e", &script])
        .status()
        .unwrap();
    assert_ne!(status.code(), Some(2), "adjtimex is refused to this test");
    status.success()
}

#[test]
fn clock_unsynchronised_and_it_is_said() {
    let lab = Topology::new().unwrap();
    let scene = Scene::new(&lab, e2e::topology::Family::V4);
    let unsynchronised = clock_is_unsynchronised();
    let metric = || scene.daemon.metric("postern_clock_synchronised").unwrap();
    assert!(wait::holds(PATIENCE, || metric()
        == f64::from(u8::from(!unsynchronised))));
    let said = || {
        let lines = scene.daemon.logs().lines("config");
        lines
            .iter()
            .any(|line| line.0.to_string().contains("clock_unsynchronised"))
    };
    assert!(
        wait::holds(PATIENCE, || said() == unsynchronised),
        "the config log says otherwise"
    );
    // No certificate is judged by it; names and addresses are.
    scene.assert_allowed("whatever the clock", &allowed());
    scene.assert_refused("whatever the clock", &evil(), &["name_not_allowed"]);
    assert_eq!(get(&lab.firewall, 1042, "/healthz").unwrap().trim(), "ok");
}
