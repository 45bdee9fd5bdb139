//! `postern explain --live`: what the running daemon would say of a connection, and the same connection made.

use e2e::daemon::postern;
use e2e::topology::{Asker, EVIL, RECORDER, Topology};
use serde_json::Value;

use crate::scene::{Scene, allowed, evil};

/// Asks the running daemon; the exit code and the answer.
pub(crate) fn explain(lab: &Topology, arguments: &[&str]) -> (Option<i32>, Value) {
    let config = lab.file("postern.toml");
    let fixed = [
        "explain",
        "--live",
        "--json",
        "--config",
        config.to_str().unwrap(),
    ];
    let output = postern(&lab.firewall, &[&fixed, arguments].concat()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code(), answer.expect(&said))
}

/// Whether a step says this.
pub(crate) fn says(answer: &Value, what: &str) -> bool {
    let steps = answer["steps"].as_array().unwrap();
    steps
        .iter()
        .any(|step| step.as_str().unwrap().contains(what))
}

both_families! {
    fn explain_says_what_happens_then(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let client = Asker::Attacker.address(family).to_string();
        let (right, wrong) = (RECORDER.address(family).to_string(), EVIL.address(family).to_string());
        scene.assert_allowed("so that it is bound", &allowed());
        let (code, answer) = explain(&lab, &[&client, "tls", RECORDER.name, &right]);
        assert_eq!(code, Some(0), "{answer}");
        assert_eq!((&answer["allowed"], &answer["gid"]), (&Value::Bool(true), &Value::from("web")), "{answer}");
        assert!(says(&answer, &format!("{right} is an address of {}", RECORDER.name)) && says(&answer, "from 203.0.113.53:53, learnt"), "{answer}");
        let (code, answer) = explain(&lab, &[&client, "tls", RECORDER.name, &wrong]);
        assert_eq!((code, &answer["reason"]), (Some(1), &Value::from("address_not_of_name")), "{answer}");
        assert!(says(&answer, &format!("{wrong} is no address of {}", RECORDER.name)) && says(&answer, &right), "{answer}");
        let (code, answer) = explain(&lab, &[&client, "tls", "evil.example"]);
        assert_eq!((code, &answer["reason"]), (Some(1), &Value::from("name_not_allowed")), "{answer}");
        scene.assert_refused("as it was said", &evil(), &["name_not_allowed"]);
        // A port that no rule has, and a near miss.
        let (code, answer) = explain(&lab, &[&client, "tls", &format!("{}:9999", RECORDER.name)]);
        assert_eq!((code, &answer["reason"]), (Some(1), &Value::from("port_not_allowed")), "{answer}");
        assert!(says(&answer, "on other ports"), "{answer}");
        // A protocol that there is no such word for is wrong usage.
        let usage = postern(&lab.firewall, &["explain", "--live", &client, "ftp", "a.example"]).unwrap();
        assert_eq!(usage.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&usage.stderr).contains("tls"), "the words are not listed");
    }
}
