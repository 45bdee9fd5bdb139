//! Promise 11: one bad annotation spares the rest.

use e2e::daemon::INVENTORY;
use e2e::peer::Script;
use e2e::topology::Topology;

use crate::scene::{EVIL_MARK, Scene, allowed, evil};

const BROKEN: &str = r#"
[[group]]
id = "broken"
  [[group.rule]]
  description = "postern:tls:evil.example., *.example, bad name, recorder.allowed.example"
  protocol = "tcp"
  ports = "443"
  [[group.rule]]
  description = "postern:nonsense:evil.example"
  protocol = "tcp"
  ports = "443"
  [[group.rule]]
  description = "postern:tls:@no-such-list"
  protocol = "tcp"
  ports = "443"
"#;

both_families! {
    fn one_bad_annotation_spares_the_rest(family) {
        let lab = Topology::new().unwrap();
        // The clients are in the broken group alone: its one good entry is all they have.
        let inventory = format!("{INVENTORY}{BROKEN}").replace("[\"web\", \"git\"]", "[\"broken\"]");
        let scene = Scene::with(&lab, family, &inventory, Script::Tls);
        scene.assert_allowed("the good entry", &allowed());
        scene.assert_refused("a broken entry", &evil(), &["name_not_allowed"]);
        scene.assert_never_left(EVIL_MARK);
        let faults = || scene.daemon.logs().lines("config").into_iter().filter(|line| line.is(&[("cat", "fault")])).count();
        assert!(e2e::wait::holds(e2e::wait::PATIENCE, || faults() >= 3), "{} faults in the config log", faults());
    }
}
