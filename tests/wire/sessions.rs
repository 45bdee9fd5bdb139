//! `flow_log_verbosity = "sessions"`: one merged line per flow.

use e2e::daemon::INVENTORY;
use e2e::flowlog::Line;
use e2e::hello::{self, ClientHello, ServerHello};
use e2e::peer::Script;
use e2e::raw::RawTcp;
use e2e::topology::{RECORDER, Topology};
use e2e::wait;

use crate::scene::{Scene, allowed, evil};

fn sessions() -> String {
    INVENTORY.replace(
        "[preferences]",
        "[preferences]\nflow_log_verbosity = \"sessions\"",
    )
}

/// Every line about a connection.
fn lines(scene: &Scene<'_>, tcp: &RawTcp<'_>) -> Vec<Line> {
    let port = tcp.local.port().to_string();
    let all = scene.daemon.logs().lines("flow").into_iter();
    all.filter(|line| line.text("spt") == port || line.text("dpt") == port)
        .collect()
}

both_families! {
    fn a_flow_has_one_line_of_both_sides(family) {
        let lab = Topology::new().unwrap();
        let answer = [ServerHello::old(0x0303).record(), hello::record(22, &[14, 0, 0, 0])].concat();
        let scene = Scene::with(&lab, family, &sessions(), Script::Once(answer));
        let mut answered = scene.connect();
        answered.write(&allowed()).unwrap();
        assert!(wait::holds(wait::PATIENCE, || !lines(&scene, &answered).is_empty()));
        let mut refused = scene.connect();
        refused.write(&evil()).unwrap();
        assert!(refused.wait_reset().unwrap());
        assert_eq!(scene.reason(&refused), "name_not_allowed");
        let one = lines(&scene, &answered);
        assert_eq!(one.len(), 1, "{one:?}");
        let line = &one[0];
        // The client's line, with the version that the server chose of those it offered.
        assert_eq!(
            (line.text("cat"), line.text("outcome"), line.text("dhost"), line.text("proto_v")),
            ("client".to_owned(), "allowed".to_owned(), RECORDER.name.to_owned(), "1.2".to_owned())
        );
        assert_eq!(lines(&scene, &refused).len(), 1);
    }
}

both_families! {
    fn a_flow_that_its_server_spoils_has_the_line_of_its_refusal_alone(family) {
        let lab = Topology::new().unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
        let scene = Scene::with(&lab, family, &sessions(), Script::Once(answer));
        let mut tcp = scene.connect();
        tcp.write(&allowed()).unwrap();
        assert!(tcp.wait_reset().unwrap());
        assert_eq!(scene.reason(&tcp), "server_not_tls");
        assert_eq!(lines(&scene, &tcp).len(), 1);
    }
}

both_families! {
    fn a_claim_that_nobody_answers_is_said_when_its_flow_ends(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::with(&lab, family, &sessions(), Script::Silent);
        let hello = ClientHello::new(RECORDER.name).record();
        let mut tcp = scene.connect();
        tcp.write(&hello).unwrap();
        assert!(scene.recorder.got(&hello));
        assert_eq!(lines(&scene, &tcp).len(), 0);
        // What it has sent is acknowledged, so that the number of its reset is the next one.
        let reset = tcp.segment(hello.len(), e2e::packet::flags::RST | e2e::packet::flags::ACK, &[]);
        tcp.put(&reset).unwrap();
        assert!(wait::holds(wait::PATIENCE, || lines(&scene, &tcp).len() == 1));
        assert_eq!(lines(&scene, &tcp)[0].text("outcome"), "allowed");
    }
}
