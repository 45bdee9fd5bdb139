//! The measuring instruments, checked over plain forwarding before anything is asked of Postern.

use e2e::hello::{self, ClientHello};
use e2e::lab::{Ending, Servers, attempts};
use e2e::packet::flags;
use e2e::peer::{Authority, Recorder, Script, SshServer, TlsServer};
use e2e::topology::{API, FAMILIES, GIT, PUPPET, RECORDER, Topology};

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
        tcp.advance(hello.len());
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
    let ca = authority.certificate();
    for (family, flag) in FAMILIES.into_iter().zip(["-4", "-6"]) {
        let _tls = TlsServer::start(
            &lab.internet,
            &authority,
            API.name,
            API.at(family, 443),
            &[],
        )
        .unwrap();
        let curl = [
            "-sS",
            flag,
            "--max-time",
            "5",
            "--cacert",
            ca.to_str().unwrap(),
            "https://api.allowed.example/",
        ];
        let page = lab.client.run("curl", &curl).unwrap();
        assert!(page.contains("Ciphers supported"), "{page}");
        let folder = lab.file(&format!("ssh-{flag}"));
        let ssh = SshServer::start(&lab.internet, &folder, GIT.at(family, 22)).unwrap();
        assert_eq!(
            ssh.log_in(&lab.client, &[flag], GIT.name).unwrap().trim(),
            "welcome"
        );
        assert!(ssh.fingerprint().unwrap().starts_with("SHA256:"));
    }
}

/// What the lab shows refused is only worth showing if it works where nobody refuses it.
#[test]
fn every_attempt_of_the_lab_succeeds_where_nobody_judges() {
    let lab = Topology::new().unwrap();
    lab.forward_plainly().unwrap();
    let servers = Servers::start(&lab).unwrap();
    for attempt in attempts::all() {
        // Nothing serves QUIC here, and the server on that port does not answer plain HTTP.
        let answerable = !matches!(attempt.ending, Ending::Refused("quic" | "plaintext_http"));
        let served = attempt.drive(&lab, &servers).unwrap();
        assert_eq!(served, answerable, "{attempt:?}");
    }
}
