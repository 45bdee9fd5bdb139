//! Everything that is neither TLS nor SSH over TCP: refused at once and visibly, or dropped.

use std::time::{Duration, Instant};

use e2e::daemon::INVENTORY;
use e2e::lab::is_unreachable;
use e2e::packet::{icmp, ip, udp};
use e2e::peer::Script;
use e2e::topology::{Family, RECORDER, Topology};

use crate::scene::Scene;

both_families! {
    fn quic_is_told_at_once_that_the_port_is_closed(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let to = RECORDER.at(family, 443);
        // Sixty in a third of a second: the kernel's own limits must not swallow the answers.
        let mut took = Vec::new();
        for index in 0..60 {
            let from = std::net::SocketAddr::new(scene.attacker.address(family), 30_000 + index);
            let started = Instant::now();
            scene.attacker.send(&udp(from, to, &[0xc3; 1200])).unwrap();
            let answer = scene.attacker.receive(Duration::from_secs(2), is_unreachable);
            assert!(answer.is_some(), "datagram {index} was not answered");
            took.push(started.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        took.sort();
        assert!(took[50] < Duration::from_millis(100), "{took:?}");
        assert_eq!(scene.outside.matching(|seen| seen.protocol == 17 && seen.to == to), []);
        let src = scene.attacker.address(family).to_string();
        scene.daemon.logs().expect(&[("outcome", "disallowed"), ("reason", "quic"), ("src", &src), ("dpt", "443")]).unwrap();
    }
}

both_families! {
    fn other_datagrams_are_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for port in [53, 123, 853, 51_820] {
            let to = RECORDER.at(family, port);
            let from = std::net::SocketAddr::new(scene.attacker.address(family), 31_000);
            scene.attacker.send(&udp(from, to, b"anything")).unwrap();
            assert!(scene.attacker.receive(Duration::from_secs(2), is_unreachable).is_some(), "port {port}");
            let dpt = port.to_string();
            scene.daemon.logs().expect(&[("outcome", "disallowed"), ("reason", "udp"), ("dpt", &dpt)]).unwrap();
        }
        // Only the firewall's own resolver asks, and only what is in the policy.
        let to = RECORDER.address(family);
        assert_eq!(scene.outside.matching(|seen| seen.protocol == 17 && seen.to.ip() == to), []);
    }
}

both_families! {
    /// As a resolver's for both kinds of address: the second may reach the daemon before the first has left it.
    fn datagrams_sent_together_are_one_flow_in_the_log(family) {
        let lab = Topology::new().unwrap();
        let rule = "description = \"postern:tls:*.wild.example\"\n  protocol = \"tcp\"\n  ports = \"443\"";
        let open = INVENTORY.replace(rule, "description = \"postern:see-thru:2099-12-31\"\n  protocol = \"udp\"\n  ports = \"all\"");
        assert_ne!(open, INVENTORY);
        let scene = Scene::with(&lab, family, &open, Script::Tls);
        let to = RECORDER.at(family, 9_999);
        let from = |port| std::net::SocketAddr::new(scene.attacker.address(family), port);
        for port in 31_000..31_020 {
            for datagram in [b"A".as_slice(), b"AAAA"] {
                scene.attacker.send(&udp(from(port), to, datagram)).unwrap();
            }
        }
        let arrived = || scene.outside.matching(|seen| seen.protocol == 17 && seen.to == to).len();
        // The kernel drops one of two now and then, when it finds at the end that both began the same entry.
        assert!(e2e::wait::holds(Duration::from_secs(5), || arrived() >= 20), "{} arrived", arrived());
        // All have these addresses, and so the same queue: with the last flow's line, all are there.
        scene.attacker.send(&udp(from(31_020), to, b"last")).unwrap();
        let logs = scene.daemon.logs();
        logs.expect(&[("outcome", "allowed"), ("spt", "31020")]).unwrap();
        for port in 31_000..31_020 {
            let spt = port.to_string();
            logs.expect(&[("outcome", "allowed"), ("spt", &spt)]).unwrap();
            let lines = logs.lines("flow").into_iter().filter(|line| line.is(&[("spt", &spt)])).count();
            assert_eq!(lines, 1, "port {port}");
        }
    }
}

both_families! {
    fn an_echo_request_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let (from, to) = (scene.attacker.address(family), RECORDER.address(family));
        let kind = if family == Family::V4 { 8 } else { 128 };
        scene.attacker.send(&icmp(from, to, kind, 0, [0, 7, 0, 1], b"payload")).unwrap();
        assert!(scene.attacker.receive(Duration::from_secs(2), is_unreachable).is_some());
        assert_eq!(scene.outside.matching(|seen| seen.icmp == Some((kind, 0))), []);
        let src = from.to_string();
        scene.daemon.logs().expect(&[("outcome", "disallowed"), ("reason", "icmp"), ("src", &src)]).unwrap();
    }
}

both_families! {
    fn other_ip_protocols_are_dropped(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let (from, to) = (scene.attacker.address(family), RECORDER.address(family));
        // IP in IP, GRE, ESP, SCTP, UDP-Lite, IPv6 in IPv4.
        let protocols = [4, 47, 50, 132, 136, 41];
        for protocol in protocols {
            scene.attacker.send(&ip(from, to, protocol, b"TUNNELLED through another protocol")).unwrap();
        }
        scene.assert_never_left(b"TUNNELLED");
        assert_eq!(scene.outside.matching(|seen| protocols.contains(&seen.protocol)), []);
        let src = from.to_string();
        scene.daemon.logs().expect(&[("outcome", "disallowed"), ("reason", "ip_protocol"), ("src", &src)]).unwrap();
    }
}

both_families! {
    fn plain_http_is_refused_and_its_request_line_logged(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let request = b"GET /secret/path?token=1 HTTP/1.1\r\nHost: recorder.allowed.example\r\nUser-Agent: wire-test/1\r\n\r\n";
        let mut tcp = scene.connect();
        tcp.write(request).unwrap();
        scene.assert_ended("plain HTTP on 443", &mut tcp, &["plaintext_http"]);
        scene.assert_never_left(b"/secret/path");
        let line = scene.refusal(&tcp);
        let fields = [("proto", "http"), ("http_method", "GET"), ("http_path", "/secret/path"), ("http_user_agent", "wire-test/1")];
        assert!(line.is(&fields), "{}", line.0);
        assert_eq!(line.text("dhost"), "recorder.allowed.example");
    }
}
