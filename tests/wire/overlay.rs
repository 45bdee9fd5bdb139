//! The overlay: a file on the appliance that is laid over what is published (DESIGN, section 4.3).

use std::fs;
use std::time::{Duration, Instant};

use e2e::daemon::{Daemon, INVENTORY};
use e2e::peer::Script;
use e2e::publisher::Publisher;
use e2e::topology::{Family, Topology};
use e2e::wait;

use crate::scene::{Scene, allowed, evil};

/// What is published: the network of the clients is in no group.
fn published() -> String {
    let (rules, _) = INVENTORY.split_once("[[client]]").unwrap();
    let client = |net: &str| {
        format!("[[client]]\naddress = \"{net}\"\ninstance = \"subnet\"\ngroups = []\n")
    };
    format!("{rules}{}{}", client("10.77.1.0/24"), client("fd77:1::/64"))
}

/// The hand-made client, by its own address, in a group of what is published.
const OVERLAY: &str = r#"
[[client]]
address = "10.77.1.66"
instance = "on-premises"
groups = ["web"]

[[client]]
address = "fd77:1::66"
instance = "on-premises"
groups = ["web"]
"#;

struct Laid<'t> {
    scene: Scene<'t>,
    publisher: Publisher,
}

impl<'t> Laid<'t> {
    fn new(lab: &'t Topology, family: Family) -> Self {
        let daemon = Daemon::without_policy(lab).unwrap();
        let mut publisher = daemon.publisher().unwrap();
        publisher.publish(&published()).unwrap();
        let scene = Scene::around(lab, family, daemon, Script::Tls);
        Self { scene, publisher }
    }

    /// Asserts that the hand-made client's SYN is refused.
    fn assert_shut(&self, what: &str) {
        let to = self.scene.recorder.address;
        let dialled = self.scene.attacker.connect(self.scene.fresh_port(), to, 7);
        let refusal = dialled.expect_err(what).to_string();
        assert!(refusal.contains("refused the SYN"), "{what}: {refusal}");
    }

    /// By atomic rename.
    fn replace(&self, overlay: &str) {
        let fresh = self.scene.lab.file("overlay.toml.new");
        fs::write(&fresh, overlay).unwrap();
        fs::rename(&fresh, self.scene.lab.file("overlay.toml")).unwrap();
    }

    fn write_in_place(&self, overlay: &str) {
        fs::write(self.scene.lab.file("overlay.toml"), overlay).unwrap();
    }

    /// Changes the overlay and asserts that the change is in force within a second.
    fn adopt_by(&self, what: &str, change: impl FnOnce(&Self)) {
        let before = self.scene.daemon.generation().unwrap();
        let started = Instant::now();
        change(self);
        let adopted = || self.scene.daemon.generation().unwrap() > before;
        // One second is promised; asking takes a part of a busy machine's next.
        assert!(
            wait::holds(Duration::from_secs(2), adopted),
            "{what}: {:?}",
            started.elapsed()
        );
    }
}

both_families! {
    fn an_overlay_is_adopted_by_rename_and_in_place_and_taken_back(family) {
        let lab = Topology::new().unwrap();
        let laid = Laid::new(&lab, family);
        laid.assert_shut("in no group");
        laid.adopt_by("rename", |laid| laid.replace(OVERLAY));
        laid.scene.assert_allowed("the longest prefix wins", &allowed());
        let port = laid.scene.judged().local.port().to_string();
        let line = laid.scene.daemon.logs().expect(&[("spt", &port), ("cat", "client")]).unwrap();
        assert_eq!((line.text("instance"), line.text("gid")), ("on-premises".to_owned(), "web".to_owned()));
        laid.scene.assert_refused("and adds no name", &evil(), &["name_not_allowed"]);
        laid.adopt_by("in place", |laid| laid.write_in_place(&OVERLAY.replace("web", "git")));
        laid.assert_shut("another group");
        // A rule of its own, in a group of its own.
        let own = OVERLAY.replace("\"web\"", "\"mine\"")
            + "[[group]]\nid = \"mine\"\n[[group.rule]]\n\
               description = \"postern:tls:recorder.allowed.example\"\nprotocol = \"tcp\"\nports = \"443\"\n";
        laid.adopt_by("a group of its own", |laid| laid.replace(&own));
        laid.scene.assert_allowed("a group of its own", &allowed());
        laid.adopt_by("removed", |laid| fs::remove_file(laid.scene.lab.file("overlay.toml")).unwrap());
        laid.assert_shut("without it");
    }
}

both_families! {
    fn a_broken_overlay_is_refused_whole_and_the_last_good_one_stays(family) {
        let lab = Topology::new().unwrap();
        let mut laid = Laid::new(&lab, family);
        laid.adopt_by("rename", |laid| laid.replace(OVERLAY));
        let before = laid.scene.daemon.generation().unwrap();
        laid.replace(&OVERLAY.replacen("instance", "instnace", 1));
        let fault = laid.scene.daemon.logs().expect_in("config", &[("cat", "fault"), ("object", "overlay")]).unwrap();
        assert!(fault.text("message").contains("line 4: unknown key \"instnace\""), "{fault:?}");
        assert_eq!(laid.scene.daemon.generation().unwrap(), before);
        laid.scene.assert_allowed("the last good one", &allowed());
        // Over a restart, and over whatever is published next.
        laid.scene.daemon.kill().unwrap();
        laid.scene.daemon.restart().unwrap();
        laid.scene.assert_allowed("the last good one after a restart", &allowed());
        let mut publisher = laid.scene.daemon.publisher().unwrap();
        publisher.publish(&published().replace("mirror.allowed.example", "api.allowed.example")).unwrap();
        laid.scene.assert_allowed("the last good one over a new policy", &allowed());
        laid.adopt_by("repaired", |laid| laid.replace(&OVERLAY.replace("web", "git")));
        laid.assert_shut("the repaired one");
        drop(publisher);
        drop(laid.publisher);
    }
}

#[test]
fn equal_prefixes_add_up_with_a_fault() {
    let lab = Topology::new().unwrap();
    let laid = Laid::new(&lab, Family::V4);
    let same = OVERLAY.replace("10.77.1.66", "10.77.1.0/24");
    laid.adopt_by("rename", |laid| laid.replace(&same));
    laid.scene.assert_allowed("both groups count", &allowed());
    let fault = [("cat", "fault"), ("gid", "10.77.1.0/24")];
    laid.scene
        .daemon
        .logs()
        .expect_in("config", &fault)
        .unwrap();
}

#[test]
fn an_overlay_without_a_published_policy_opens_nothing() {
    let lab = Topology::new().unwrap();
    fs::write(lab.file("overlay.toml"), OVERLAY).unwrap();
    let daemon = Daemon::without_policy(&lab).unwrap();
    let scene = Scene::around(&lab, Family::V4, daemon, Script::Tls);
    scene.assert_nothing_new_leaves("nothing is published");
    let mut publisher = scene.daemon.publisher().unwrap();
    publisher.publish(&published()).unwrap();
    scene.assert_allowed("laid over the first policy", &allowed());
}
