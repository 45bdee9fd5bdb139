//! What a server may answer (EVASIONS 38 to 41): a server on an allowed name's own address is not trusted either.

use std::time::Duration;

use e2e::daemon::INVENTORY;
use e2e::hello::{self, ClientHello, ServerHello, record, version};
use e2e::packet::contains;
use e2e::peer::Script;
use e2e::topology::{Family, RECORDER, Topology};

use crate::scene::{Scene, allowed};

/// Sends a hello to a server that answers `answer`, and asserts that the client never sees it.
fn assert_answer_refused(family: Family, answer: &[u8], reasons: &[&str]) {
    let lab = Topology::new().unwrap();
    let scene = Scene::with(&lab, family, INVENTORY, Script::Once(answer.to_vec()));
    let inside = lab.capture_inside().unwrap();
    let mut tcp = scene.connect();
    tcp.write(&allowed()).unwrap();
    assert!(scene.recorder.got(&allowed()));
    assert!(tcp.wait_reset().unwrap(), "the client was not reset");
    assert!(
        scene.recorder.reset_port(tcp.local.port()),
        "the server was not reset"
    );
    assert_eq!(tcp.received, b"", "the answer reached the client");
    assert_eq!(
        inside.matching(|seen| seen.to == tcp.local && !seen.payload.is_empty()),
        []
    );
    let line = scene.refusal(&tcp);
    assert!(
        reasons.contains(&line.text("reason").as_str()),
        "{}",
        line.0
    );
}

both_families! {
    fn a_server_that_selects_an_old_version_is_refused(family) {
        for old in [version::TLS10, version::TLS11] {
            let answer = [ServerHello::old(old).record(), hello::protected(b"more")].concat();
            assert_answer_refused(family, &answer, &["tls_version_server"]);
        }
    }
}

both_families! {
    fn a_server_that_was_talked_down_is_refused(family) {
        assert_answer_refused(family, &ServerHello::downgraded().record(), &["tls_downgrade"]);
    }
}

both_families! {
    fn a_server_that_does_not_speak_tls_is_refused(family) {
        let reasons = ["server_not_tls"];
        assert_answer_refused(family, b"HTTP/1.1 200 OK\r\n\r\n", &reasons);
        assert_answer_refused(family, b"SSH-2.0-OpenSSH_9.2\r\n", &reasons);
        assert_answer_refused(family, &hello::protected(b"not a hello"), &["server_not_tls", "tls_malformed"]);
    }
}

both_families! {
    fn an_alert_passes_and_ends_the_flow(family) {
        let lab = Topology::new().unwrap();
        let alert = hello::alert(40);
        let scene = Scene::with(&lab, family, INVENTORY, Script::Once(alert.clone()));
        let mut tcp = scene.connect();
        tcp.write(&allowed()).unwrap();
        assert!(tcp.wait_bytes(alert.len()).unwrap(), "the alert did not arrive");
        assert_eq!(tcp.received, alert);
        // What the client says after it is no TLS any more.
        tcp.write(b"and now for something else").unwrap();
        scene.outside.settle(Duration::from_millis(100));
        assert!(!contains(&scene.recorder.received(), b"something else"));
    }
}

both_families! {
    /// An honest hello, an honest answer, then a tunnel.
    fn bytes_without_framing_after_the_hello_do_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let junk = [
            b"EXFILTRATED, no framing at all".to_vec(),
            [&[23, 9, 9, 0, 20][..], b"EXFILTRATED, version"].concat(),
            [&[23, 3, 3, 0xff, 0xff][..], b"EXFILTRATED, too long"].concat(),
            [&[99, 3, 3, 0, 20][..], b"EXFILTRATED, any type"].concat(),
        ];
        for bytes in junk {
            let mut tcp = scene.connect();
            tcp.write(&allowed()).unwrap();
            assert!(tcp.wait_bytes(hello::server_flight().len()).unwrap());
            tcp.write(&bytes).unwrap();
            assert!(tcp.wait_reset().unwrap(), "{bytes:?}");
            let reason = scene.reason(&tcp);
            assert!(["record_abuse", "tls_malformed"].contains(&reason.as_str()), "{reason}");
        }
        scene.assert_never_left(b"EXFILTRATED");
    }
}

both_families! {
    fn a_second_hello_with_another_name_is_refused(family) {
        let lab = Topology::new().unwrap();
        let retry = ServerHello::retry_request().record();
        let scene = Scene::with(&lab, family, INVENTORY, Script::Once(retry.clone()));
        let mut tcp = scene.connect();
        tcp.write(&allowed()).unwrap();
        assert!(tcp.wait_bytes(retry.len()).unwrap(), "the retry request did not arrive: {}", scene.reason(&tcp));
        // Even a name that would be allowed here by itself: it is not the one that was judged.
        tcp.write(&[hello::change_cipher_spec(), ClientHello::new("puppet.allowed.example").record()].concat()).unwrap();
        assert!(tcp.wait_reset().unwrap());
        scene.assert_never_left(b"puppet.allowed.example");
    }
}

both_families! {
    fn a_second_hello_with_the_same_name_passes(family) {
        let lab = Topology::new().unwrap();
        let retry = ServerHello::retry_request().record();
        let scene = Scene::with(&lab, family, INVENTORY, Script::Once(retry.clone()));
        let mut tcp = scene.connect();
        tcp.write(&allowed()).unwrap();
        assert!(tcp.wait_bytes(retry.len()).unwrap());
        let mut second = ClientHello::new(RECORDER.name);
        second.extensions.push((hello::extension::COOKIE, vec![0, 2, 7, 7]));
        let second = [hello::change_cipher_spec(), record(22, &second.message())].concat();
        tcp.write(&second).unwrap();
        assert!(scene.recorder.got(&[allowed(), second].concat()));
    }
}
