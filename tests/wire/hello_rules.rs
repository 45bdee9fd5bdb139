//! What a client hello may say (EVASIONS 4 to 6, 32, 33, 35 to 38): a table of hellos and verdicts.

use e2e::hello::{ClientHello, ech, extension, record, server_name, sslv2, version};
use e2e::topology::{RECORDER, Topology};

use crate::scene::Scene;

fn named(name: &[u8]) -> Vec<u8> {
    let mut hello = ClientHello::new("");
    hello.names = vec![name.to_vec()];
    hello.record()
}

fn with(change: impl FnOnce(&mut ClientHello)) -> Vec<u8> {
    let mut hello = ClientHello::new(RECORDER.name);
    change(&mut hello);
    hello.record()
}

both_families! {
    fn a_malformed_name_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let long = format!("{}.allowed.example", "a".repeat(64));
        let longer = format!("{}allowed.example", "abc.".repeat(64));
        let names: [&[u8]; 11] = [
            b"recorder.allowed.example\0.evil.example",
            b"evil.example\0.allowed.example",
            b"recorder.allowed.example.",
            b"recorder .allowed.example",
            b"recorder..allowed.example",
            b".recorder.allowed.example",
            b"recorder.allowed.example\n",
            "r\u{e9}corder.allowed.example".as_bytes(),
            b"",
            long.as_bytes(),
            longer.as_bytes(),
        ];
        for name in names {
            let what = String::from_utf8_lossy(name).into_owned();
            scene.assert_refused(&what, &named(name), &["sni_malformed"]);
        }
        scene.assert_allowed("upper case", &named(b"RECORDER.Allowed.EXAMPLE"));
    }
}

both_families! {
    fn an_address_for_a_name_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for name in ["203.0.113.30", "2001:db8:77::30", "[2001:db8:77::30]", "0xcb00711e", "3405803806", "203.0.28958", "0313.0.0161.036"] {
            scene.assert_refused(name, &named(name.as_bytes()), &["sni_ip_literal"]);
        }
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_hello_without_a_name_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        scene.assert_refused("no name", &with(|hello| hello.names.clear()), &["sni_missing"]);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn more_than_one_name_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let other = b"evil.example".to_vec();
        for first in [true, false] {
            let names = with(|hello| hello.names.insert(usize::from(!first), other.clone()));
            scene.assert_refused("two names in one list", &names, &["sni_multiple"]);
        }
        let second = server_name(std::slice::from_ref(&other));
        let lists = with(|hello| hello.extensions.push((extension::SERVER_NAME, second)));
        scene.assert_refused("two lists of names", &lists, &["sni_multiple", "tls_malformed"]);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn an_encrypted_client_hello_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let hidden = with(|hello| hello.extensions.push((extension::ECH, ech())));
        scene.assert_refused("ECH", &hidden, &["ech"]);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_client_that_offers_old_versions_only_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for old in [0x0300, version::TLS10, version::TLS11] {
            let hello = ClientHello::old(RECORDER.name, old).record();
            scene.assert_refused("an old version", &hello, &["tls_version_client"]);
            let listed = with(|hello| hello.versions = vec![extension::GREASE, old]);
            scene.assert_refused("a list of old versions", &listed, &["tls_version_client"]);
        }
        // This server would answer with 1.3, which was not offered: only the hello is looked at.
        let plain = ClientHello::old(RECORDER.name, version::TLS12).record();
        scene.connect().write(&plain).unwrap();
        assert!(scene.recorder.got(&plain), "TLS 1.2 without the list");
        assert_eq!(scene.refused_count("tls_version_client"), 6);
    }
}

both_families! {
    fn meaningless_values_are_ignored(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let greasy = with(|hello| {
            hello.versions.insert(0, 0x7a7a);
            hello.ciphers.insert(0, 0x8a8a);
            hello.extensions.insert(0, (0x9a9a, Vec::new()));
            hello.extensions.push((0xdada, vec![0]));
        });
        scene.assert_allowed("GREASE", &greasy);
    }
}

both_families! {
    fn lengths_that_lie_are_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        scene.assert_refused("bytes behind the extensions", &with(|hello| hello.trailing = vec![0]), &["tls_malformed"]);
        let good = ClientHello::new(RECORDER.name).message();
        // The session id, the cipher list and the extension block each claim one byte more, or fewer, than they have.
        for at in [38, 72, 84] {
            for change in [1, 0xff] {
                let mut message = good.clone();
                message[at] = message[at].wrapping_add(change);
                let reasons = ["tls_malformed", "sni_missing", "tls_version_client"];
                scene.assert_refused("a length that lies", &record(22, &message), &reasons);
            }
        }
        let mut empty_list = ClientHello::new(RECORDER.name);
        empty_list.names.clear();
        empty_list.extensions.push((extension::SERVER_NAME, Vec::new()));
        scene.assert_refused("an empty list of names", &empty_list.record(), &["tls_malformed", "sni_malformed", "sni_missing"]);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_hello_of_ssl_2_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        scene.assert_refused("SSL 2.0", &sslv2(), &["sslv2_hello"]);
        assert_eq!(scene.payload_out(), []);
    }
}

both_families! {
    fn a_hello_beyond_64_kib_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let claim = [&[1, 0x01, 0x00, 0x01][..], &[0x5a; 200]].concat();
        scene.assert_refused("a message of 65,537 bytes", &record(22, &claim), &["hello_too_big"]);
        assert_eq!(scene.payload_out(), []);
    }
}

impl Scene<'_> {
    /// How many refusals the flow log gives this reason for.
    fn refused_count(&self, reason: &str) -> usize {
        self.daemon
            .logs()
            .matching(&[("outcome", "disallowed"), ("reason", reason)])
            .len()
    }
}
