//! Promise 10: what someone else changes in the ruleset is put right, or Postern ends and nothing new leaves.

use std::time::Duration;

use e2e::topology::Topology;
use e2e::wait;

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil, finish};

/// The ruleset is looked at every 5 s; a busy machine takes longer.
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
    fn a_ruleset_taken_away_ends_the_daemon_in_lockdown(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        edit(&lab, "delete table inet postern\n");
        let status = scene.daemon.ended().unwrap();
        assert_eq!(status.code(), Some(1), "{}", scene.daemon.output());
        assert!(listing(&lab).contains("lockdown"), "{}", listing(&lab));
        scene.assert_nothing_new_leaves("in lockdown");
        scene.daemon.restart().unwrap();
        scene.assert_refused("after a new start", &evil(), &["name_not_allowed"]);
        scene.assert_another_is_served("after a new start");
    }
}
