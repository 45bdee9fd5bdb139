//! `postern flows`: what the running daemon has just said of connections, for whoever sits at the appliance.

use e2e::daemon::postern;
use e2e::topology::{RECORDER, Topology};
use serde_json::Value;

use crate::scene::{Scene, allowed, evil};

/// What the command prints.
fn flows(lab: &Topology, arguments: &[&str]) -> String {
    let config = lab.file("postern.toml");
    let fixed = ["flows", "--config", config.to_str().unwrap()];
    let output = postern(&lab.firewall, &[&fixed, arguments].concat()).unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

both_families! {
    fn flows_shows_who_was_allowed_and_who_was_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        scene.assert_allowed("the recorder", &allowed());
        scene.assert_refused("somebody else", &evil(), &["name_not_allowed"]);
        let is_there = || {
            let table = flows(&lab, &[]);
            table.contains(" refused name_not_allowed") && table.contains(RECORDER.name)
        };
        assert!(e2e::wait::holds(e2e::wait::PATIENCE, is_there), "{}", flows(&lab, &[]));
        let refused = flows(&lab, &["--refused"]);
        assert!(refused.contains("evil.example"), "{refused}");
        assert!(!refused.contains(" allowed "), "{refused}");
        let lines = flows(&lab, &["--json", "--refused"]);
        let outcomes: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["outcome"].take())
            .collect();
        assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| outcome == "disallowed"), "{lines}");
    }
}
