//! SSH carries no name: the address dialled must belong to an allowed one (EVASIONS 52, 53).

use std::time::Duration;

use e2e::daemon::INVENTORY;
use e2e::hello;
use e2e::peer::{Recorder, Script, SshServer};
use e2e::topology::{EVIL, GIT, RECORDER, Topology};

use crate::scene::{Scene, isn};

const VERSION: &str = "SSH-2.0-OpenSSH_9.2\r\n";

both_families! {
    fn ssh_reaches_the_address_of_an_allowed_name_and_no_other(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let git = SshServer::start(&lab.internet, &lab.file("git"), GIT.at(family, 22)).unwrap();
        let evil = SshServer::start(&lab.internet, &lab.file("evil"), EVIL.at(family, 22)).unwrap();
        let (good, bad) = (GIT.address(family).to_string(), EVIL.address(family).to_string());
        assert_eq!(git.log_in(&lab.client, &[], &good).unwrap().trim(), "welcome");
        assert_eq!(evil.log_in(&lab.client, &[], &bad).unwrap(), "");
        let to_evil = scene.outside.matching(|seen| seen.to == EVIL.at(family, 22));
        assert_eq!(to_evil, [], "a packet left for an address nobody named");
        let logs = scene.daemon.logs();
        logs.expect(&[("outcome", "allowed"), ("proto", "ssh"), ("proto_v", "2.0"), ("dst", &good)]).unwrap();
        logs.expect(&[("outcome", "disallowed"), ("reason", "address_not_of_name"), ("dst", &bad)]).unwrap();
    }
}

both_families! {
    /// The real server's key is not the pinned one: nobody logs in, whoever holds the address.
    fn a_server_without_the_pinned_key_is_refused(family) {
        let lab = Topology::new().unwrap();
        let pin = format!("ssh:{}=SHA256:{}", GIT.name, "A".repeat(43));
        let inventory = INVENTORY.replacen(&format!("ssh:{}", GIT.name), &pin, 1);
        assert_ne!(inventory, INVENTORY);
        let scene = Scene::with(&lab, family, &inventory, Script::Tls);
        let git = SshServer::start(&lab.internet, &lab.file("git"), GIT.at(family, 22)).unwrap();
        let address = GIT.address(family).to_string();
        assert_eq!(git.log_in(&lab.client, &[], &address).unwrap(), "");
        scene.daemon.logs().expect(&[("outcome", "disallowed"), ("reason", "ssh_host_key")]).unwrap();
    }
}

both_families! {
    fn an_old_or_odd_client_version_does_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let server = Recorder::start(&lab.internet, RECORDER.at(family, 22), Script::Silent).unwrap();
        let long = format!("SSH-2.0-{}\r\n", "x".repeat(300));
        let cases = [
            ("SSH-1.99-old\r\n", "ssh_version"),
            ("SSH-1.5-old\r\n", "ssh_version"),
            ("SSH-2.0-null\0byte\r\n", "ssh_malformed"),
            (long.as_str(), "ssh_malformed"),
        ];
        for (line, reason) in cases {
            let port = scene.fresh_port();
            let mut tcp = scene.attacker.connect(port, server.address, isn(port)).unwrap();
            tcp.write(&hello::ssh(line)).unwrap();
            assert!(tcp.wait_reset().unwrap(), "{line:?}");
            assert_eq!(scene.reason(&tcp), reason, "{line:?}");
        }
        assert_eq!(server.received(), b"");
    }
}

both_families! {
    fn an_old_server_version_does_not_reach_the_client(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for (site, line) in [(RECORDER, "SSH-1.99-old\r\n"), (GIT, "SSH-1.5-old\r\n")] {
            let greeting = Script::Greet(line.as_bytes().to_vec());
            let server = Recorder::start(&lab.internet, site.at(family, 22), greeting).unwrap();
            let port = scene.fresh_port();
            let mut tcp = scene.attacker.connect(port, server.address, isn(port)).unwrap();
            assert!(tcp.wait_reset().unwrap());
            assert_eq!(tcp.received, b"");
            assert_eq!(scene.reason(&tcp), "ssh_version");
        }
    }
}

both_families! {
    /// The server speaks first and the client waits for it.
    fn a_greeting_passes_before_the_client_has_spoken(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let greeting = [b"authorised use only\r\n", VERSION.as_bytes()].concat();
        let server = Recorder::start(&lab.internet, GIT.at(family, 22), Script::Greet(greeting.clone())).unwrap();
        let port = scene.fresh_port();
        let mut tcp = scene.attacker.connect(port, server.address, isn(port)).unwrap();
        assert!(tcp.wait_bytes(greeting.len()).unwrap(), "the greeting did not arrive");
        assert_eq!(tcp.received, greeting);
        tcp.write(VERSION.as_bytes()).unwrap();
        assert!(server.got(VERSION.as_bytes()));
    }
}

both_families! {
    fn a_tunnel_behind_an_ssh_greeting_does_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::with(&lab, family, INVENTORY, Script::Tls);
        let server = Recorder::start(&lab.internet, GIT.at(family, 22), Script::Greet(VERSION.into())).unwrap();
        let port = scene.fresh_port();
        let mut tcp = scene.attacker.connect(port, server.address, isn(port)).unwrap();
        assert!(tcp.wait_bytes(VERSION.len()).unwrap());
        tcp.write(VERSION.as_bytes()).unwrap();
        tcp.write(b"TUNNELLED instead of a key exchange").unwrap();
        assert!(tcp.pump(Duration::from_secs(12), |tcp| tcp.reset).unwrap());
        scene.assert_never_left(b"TUNNELLED");
        assert_eq!(scene.reason(&tcp), "ssh_malformed");
    }
}
