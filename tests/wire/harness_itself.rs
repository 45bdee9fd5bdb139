//! The measuring instruments, checked over plain forwarding before anything is asked of Postern.

use e2e::hello::{self, ClientHello};
use e2e::packet::flags;
use e2e::peer::{Authority, Recorder, Script, SshServer, TlsServer};
use e2e::topology::{API, Asker, FAMILIES, GIT, PUPPET, RECORDER, Topology};

#[test]
fn a_hand_made_client_talks_through_plain_forwarding() {
    let lab = Topology::new().unwrap();
    lab.forward_plainly().unwrap();
    let attacker = lab.attacker().unwrap();
    for family in FAMILIES {
        let recorder =
            Recorder::start(&lab.internet, RECORDER.at(family, 443), Script::Tls).unwrap();
        let capture = lab.capture_outside().unwrap();
        let mut tcp = attacker.connect(40_000, recorder.address, 1000).unwrap();
        let hello = ClientHello::new(RECORDER.name).record();
        tcp.push(10, &hello[10..]).unwrap();
        tcp.push(0, &hello[..10]).unwrap();
        tcp.advance(hello.len() as u32);
        assert!(recorder.got(&hello), "{family:?}");
        assert!(tcp.wait_bytes(hello::server_flight().len()).unwrap());
        assert_eq!(tcp.received, hello::server_flight());
        assert!(
            capture
                .wait_for(|seen| seen.is_tcp(flags::PSH) && seen.carries(b"certificate"))
                .is_some()
        );
    }
}

#[test]
fn a_hand_made_server_talks_through_plain_forwarding() {
    let lab = Topology::new().unwrap();
    lab.forward_plainly().unwrap();
    let (attacker, puppet) = (lab.attacker().unwrap(), lab.puppet().unwrap());
    for family in FAMILIES {
        let (mut client, mut server) = std::thread::scope(|scope| {
            let server = scope.spawn(|| puppet.accept(443, 7_000).unwrap());
            let client = attacker
                .connect(40_001, PUPPET.at(family, 443), 2_000)
                .unwrap();
            (client, server.join().unwrap())
        });
        client.write(b"ping").unwrap();
        assert!(server.wait_bytes(4).unwrap());
        server.write(b"pong").unwrap();
        assert!(client.wait_bytes(4).unwrap());
        assert_eq!(
            (&server.received[..], &client.received[..]),
            (&b"ping"[..], &b"pong"[..])
        );
    }
}

#[test]
fn real_clients_reach_real_servers_by_name() {
    let lab = Topology::new().unwrap();
    lab.forward_plainly().unwrap();
    let authority = Authority::new(lab.files.path()).unwrap();
    for family in FAMILIES {
        let _tls = TlsServer::start(
            &lab.internet,
            &authority,
            API.name,
            API.at(family, 443),
            &[],
        )
        .unwrap();
        let folder = lab.file(&format!("ssh-{family:?}"));
        let ssh = SshServer::start(&lab.internet, &folder, GIT.at(family, 22)).unwrap();
        let version = if family == e2e::topology::Family::V4 {
            "-4"
        } else {
            "-6"
        };
        let ca = authority.certificate();
        let page = lab
            .client
            .run(
                "curl",
                &[
                    "-sS",
                    version,
                    "--max-time",
                    "5",
                    "--cacert",
                    ca.to_str().unwrap(),
                    "https://api.allowed.example/",
                ],
            )
            .unwrap();
        assert!(page.contains("Ciphers supported"), "{page}");
        let key = ssh.client_key();
        let said = lab
            .client
            .run(
                "ssh",
                &[
                    version,
                    "-F",
                    "none",
                    "-o",
                    "BatchMode=yes",
                    "-o",
                    "StrictHostKeyChecking=no",
                    "-o",
                    "UserKnownHostsFile=/dev/null",
                    "-i",
                    key.to_str().unwrap(),
                    "root@git.allowed.example",
                ],
            )
            .unwrap();
        assert_eq!(said.trim(), "welcome");
        assert!(ssh.fingerprint().unwrap().starts_with("SHA256:"));
    }
    assert_ne!(
        Asker::Workload.address(FAMILIES[0]),
        Asker::Attacker.address(FAMILIES[0])
    );
}
