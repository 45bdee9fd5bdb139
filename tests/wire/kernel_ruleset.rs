//! Promise 10: what someone else changes in the ruleset is put right, or Postern ends and nothing new leaves.

use std::time::Duration;

use e2e::daemon::get;
use e2e::packet::flags;
use e2e::topology::Topology;
use e2e::wait;

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil, finish};

/// A change is announced by the kernel and put right within a moment; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(40);

/// The table as the kernel has it, without counts and set elements.
fn listing(lab: &Topology) -> String {
    let args = ["-s", "-t", "list", "table", "inet", "postern"];
    lab.firewall.run("nft", &args).unwrap()
}

/// Makes these changes of the ruleset in one transaction.
fn edit(lab: &Topology, commands: &str) {
    lab.firewall.feed("nft", &["-f", "-"], commands).unwrap();
}

both_families! {
    fn kernel_ruleset_is_ours_or_we_exit(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let attacker = lab.attacker().unwrap();
        let mut judged = attacker.connect(41_000, scene.recorder.address, 77).unwrap();
        finish(&mut judged, &allowed());
        let ours = listing(&lab);
        // Rules that open, rules that are gone, a policy that opens; then all of it asleep.
        let edits = [
            "insert rule inet postern decide accept\nflush chain inet postern undecided_tcp\n\
             add rule inet postern guard_out accept\nadd chain inet postern decide { policy accept; }\n",
            "add table inet postern { flags dormant; }\n",
        ];
        for change in edits {
            edit(&lab, change);
            assert_ne!(listing(&lab), ours, "{change}: not a change");
            assert!(wait::holds(PATIENCE, || listing(&lab) == ours), "{change}: {}", listing(&lab));
            assert_echo(&mut judged, b"judged flows live through it");
            scene.assert_refused(change, &evil(), &["name_not_allowed"]);
            scene.assert_allowed(change, &allowed());
        }
        // A chain of someone else in our table is not ours to delete.
        edit(&lab, "add chain inet postern foreign { type filter hook forward priority 10; policy accept; }\n");
        let status = scene.daemon.ended().unwrap();
        assert_eq!(status.code(), Some(1), "{}", scene.daemon.output());
        assert!(!listing(&lab).contains("foreign"), "{}", listing(&lab));
        scene.assert_nothing_new_leaves("in lockdown");
        assert_echo(&mut judged, b"judged flows outlive the daemon");
        scene.daemon.restart().unwrap();
        assert_eq!(listing(&lab), ours);
        scene.assert_another_is_served("after a new start");
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    /// Whatever is taken away, and how often: the latch is closed while the ruleset is gone, and it comes back.
    fn a_ruleset_taken_away_opens_nothing_and_comes_back(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let ours = listing(&lab);
        let mut judged = scene.judged();
        // What a restart of nftables.service does, and what a script does that knows our name.
        for change in ["flush ruleset\n", "delete table inet postern\n"] {
            for round in 0..5 {
                edit(&lab, change);
                // Into the gap, while the daemon is putting it back.
                for _ in 0..10 {
                    scene.put_new_flows();
                }
                // The queue rule comes after the table; health is red until both are verified.
                let whole = || present(&lab).as_ref() == Some(&ours) && get(&lab.firewall, 1042, "/healthz").is_ok();
                assert!(wait::holds(PATIENCE, whole), "{change}: not put back");
                assert_echo(&mut judged, format!("judged flows live through {change:?} {round}").as_bytes());
            }
            scene.assert_refused(change, &evil(), &["name_not_allowed"]);
            scene.assert_another_is_served(change);
        }
        assert!(scene.daemon.output().contains("by=\"nft (process "), "nobody is named");
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    /// Without a daemon that could put anything back: it stands still.
    fn a_ruleset_taken_away_leaves_the_latch_closed(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        scene.daemon.pause().unwrap();
        edit(&lab, "flush ruleset\n");
        assert_eq!(present(&lab), None);
        scene.assert_nothing_new_leaves("with the latch alone");
        assert_echo(&mut judged, b"judged flows need the latch only");
        // A second connection of the same five-tuple begins with a SYN, which has no verdict.
        let before = scene.outside.matching(|seen| seen.from.port() == judged.local.port() && seen.flags & flags::SYN != 0).len();
        judged.put(&judged.syn()).unwrap();
        scene.outside.settle(Duration::from_millis(150));
        let after = scene.outside.matching(|seen| seen.from.port() == judged.local.port() && seen.flags & flags::SYN != 0).len();
        assert_eq!(before, after, "a bare SYN rode on a judged entry");
        for attempt in ["delete table inet postern_latch\n", "add rule inet postern_latch forward accept\n"] {
            assert!(lab.firewall.feed("nft", &["-f", "-"], attempt).is_err(), "{attempt}: the latch is anybody's");
        }
        scene.daemon.resume().unwrap();
        assert!(wait::holds(PATIENCE, || present(&lab).is_some()), "not put back");
        scene.assert_another_is_served("after the repair");
        scene.assert_never_left(EVIL_MARK);
    }
}

/// The table, if it is there at all.
fn present(lab: &Topology) -> Option<String> {
    let args = ["-s", "-t", "list", "table", "inet", "postern"];
    lab.firewall.run("nft", &args).ok()
}
