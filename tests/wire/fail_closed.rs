//! Promise 23 and its neighbours: whatever is missing, nothing unjudged leaves (REDTEAM 4).

use std::time::Duration;

use e2e::packet::flags;
use e2e::topology::Topology;

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil, finish};

/// Removes what hands packets to the daemon, in whichever form it is there.
fn remove_queue_rules(lab: &Topology) {
    for program in ["iptables-nft", "ip6tables-nft"] {
        lab.firewall
            .output(program, &["-t", "mangle", "-F"])
            .unwrap();
    }
    let listing = lab.firewall.run("nft", &["-a", "list", "ruleset"]).unwrap();
    let (mut table, mut chain) = (String::new(), String::new());
    for line in listing.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", family, name, ..] => table = format!("{family} {name}"),
            ["chain", name, ..] => chain = name.to_owned(),
            _ => {}
        }
        let Some((rule, handle)) = line.rsplit_once("# handle ") else {
            continue;
        };
        if rule.contains("queue ") || rule.contains("NFQUEUE") {
            let command = format!("delete rule {table} {chain} handle {handle}");
            lab.firewall.output("nft", &[&command]).unwrap();
        }
    }
}

both_families! {
    fn missing_queue_rule_is_a_stop(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        let mut half = scene.connect();
        half.write(&evil()[..40]).unwrap();
        // The daemon may put the rule back at any time; it is taken away while packets come.
        for _ in 0..10 {
            remove_queue_rules(&lab);
            half.push(40, &evil()[40..]).unwrap();
            let tcp = scene.unconnected();
            tcp.put(&tcp.syn()).unwrap();
            tcp.put(&tcp.segment(0, flags::ACK | flags::PSH, &evil())).unwrap();
        }
        scene.assert_never_left(EVIL_MARK);
        assert_echo(&mut judged, b"judged flows need no queue");
    }
}

both_families! {
    fn kill_at_any_moment_and_nothing_new_leaves(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let good = allowed();
        // One flow at each stage when it dies.
        let port = scene.fresh_port();
        let (attacker, address) = (&lab.attacker().unwrap(), scene.recorder.address);
        let connect = |offset: u16| attacker.connect(port + 100 + offset, address, 0x3000_0000).unwrap();
        let shaken = connect(0);
        let half = connect(1);
        half.push(0, &good[..90]).unwrap();
        let mut released = connect(2);
        released.write(&good).unwrap();
        assert!(released.wait_bytes(1).unwrap());
        let mut judged = connect(3);
        finish(&mut judged, &good);
        // The capture may still be reading what has crossed already.
        scene.outside.settle(Duration::from_millis(100));
        let before = scene.payload_out().len();
        scene.daemon.kill().unwrap();
        // Fresh, at every stage, and the rest of what was held.
        shaken.push(0, &good).unwrap();
        half.push(90, &good[90..]).unwrap();
        half.push(0, &evil()).unwrap();
        released.write(&e2e::hello::protected(b"unjudged")).unwrap();
        let local = std::net::SocketAddr::new(attacker.address(family), port + 200);
        let fresh = e2e::raw::RawTcp::new(attacker, local, address, 1);
        fresh.put(&fresh.syn()).unwrap();
        fresh.push(0, &evil()).unwrap();
        scene.outside.settle(Duration::from_millis(150));
        assert_eq!(scene.payload_out().len(), before, "payload left with no daemon");
        assert_eq!(scene.outside.matching(|seen| seen.to == address && seen.from.port() == port + 200), []);
        assert_echo(&mut judged, b"with no daemon");
        scene.daemon.restart().unwrap();
        assert_echo(&mut judged, b"with a new one");
        scene.assert_never_left(EVIL_MARK);
        scene.assert_never_left(b"unjudged");
        let mut tcp = connect(300);
        finish(&mut tcp, &good);
    }
}

both_families! {
    /// What was decided is on disk, judged flows go on, and the way stays shut for all others.
    fn a_clean_stop_loses_no_line_and_no_judged_flow_and_nothing_new_leaves(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let attacker = lab.attacker().unwrap();
        let mut judged = attacker.connect(41_000, scene.recorder.address, 77).unwrap();
        finish(&mut judged, &allowed());
        let half = attacker.connect(41_001, scene.recorder.address, 78).unwrap();
        half.push(0, &evil()[..40]).unwrap();
        let status = scene.daemon.stop().unwrap();
        assert!(status.success(), "{status}\n{}", scene.daemon.output());
        let lines = scene.daemon.logs().matching(&[("spt", "41000"), ("cat", "client"), ("outcome", "allowed")]);
        assert_eq!(lines.len(), 1, "the line of a judged flow");
        half.push(40, &evil()[40..]).unwrap();
        scene.assert_nothing_new_leaves("after a clean stop");
        assert_echo(&mut judged, b"with nobody there");
        scene.daemon.restart().unwrap();
        assert_echo(&mut judged, b"with somebody again");
        scene.assert_another_is_served("after the stop");
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    /// Between death and restart a SYN is not answered; its retransmission is.
    fn a_connection_begun_while_the_daemon_is_dead_waits(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        scene.daemon.kill().unwrap();
        let to = scene.recorder.address;
        let client = lab.client.enter(move || {
            std::thread::spawn(move || std::net::TcpStream::connect_timeout(&to, Duration::from_secs(15)))
        });
        scene.outside.settle(Duration::from_millis(200));
        assert_eq!(scene.outside.matching(|seen| seen.to == to), [], "a SYN left with no daemon");
        scene.daemon.restart().unwrap();
        assert!(client.unwrap().join().unwrap().is_ok(), "the waiting connection was not served");
    }
}
