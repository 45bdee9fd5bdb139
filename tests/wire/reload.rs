//! Reloads: what the new policy refuses ends, nothing else does (promises 7, 8).

use std::time::{Duration, Instant, SystemTime};

use e2e::daemon::{Daemon, INVENTORY};
use e2e::hello::{self, ClientHello};
use e2e::packet::{Seen, flags, icmp, ip, udp};
use e2e::peer::{Recorder, Script};
use e2e::raw::{RawHost, RawTcp};
use e2e::topology::{Family, MIRROR, PUPPET, RECORDER, Topology};

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil, finish};

both_families! {
    fn a_broken_inventory_on_reload_changes_nothing(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let before = scene.daemon.generation().unwrap();
        scene.daemon.replace("[[group]]\nid = \"x\"\nruels = 1\n").unwrap();
        let fault = [("cat", "fault")];
        scene.daemon.logs().expect_in("config", &fault).unwrap();
        assert_eq!(scene.daemon.generation().unwrap(), before);
        scene.assert_allowed("the last good policy", &allowed());
        scene.assert_refused("the last good policy", &evil(), &["name_not_allowed"]);
    }
}

both_families! {
    fn reload_ends_flows_no_longer_allowed_and_no_others(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut kept = scene.judged();
        let mut ended = scene.judged();
        // The second flow's client loses its groups; the address of the first keeps them.
        let mirror = Recorder::start(
            &lab.internet,
            MIRROR.at(family, 443),
            Script::Tls,
        )
        .unwrap();
        let port = scene.fresh_port();
        let mut other = scene.attacker.connect(port, mirror.address, 5).unwrap();
        let hello = ClientHello::new(MIRROR.name).record();
        finish(&mut other, &hello);
        scene.daemon.reload(&INVENTORY.replace(",mirror.allowed.example", "")).unwrap();
        assert!(other.pump(Duration::from_secs(3), |tcp| tcp.reset).unwrap(), "the flow was not ended");
        assert!(mirror.was_reset());
        assert_echo(&mut kept, b"still allowed");
        assert_echo(&mut ended, b"still allowed");
        let line = scene.refusal_of("policy_changed");
        assert_eq!(line.text("dst"), mirror.address.ip().to_string());
    }
}

both_families! {
    /// A probe would begin a connection there, and its server wait for what nobody sends.
    fn reload_probes_nothing_that_its_own_ends_have_closed(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mirror = Recorder::start(
            &lab.internet,
            MIRROR.at(family, 443),
            Script::Tls,
        )
        .unwrap();
        let hello = ClientHello::new(MIRROR.name).record();
        let ports = [scene.fresh_port(), scene.fresh_port()];
        let [mut open, mut closed] =
            ports.map(|port| scene.attacker.connect(port, mirror.address, 5).unwrap());
        finish(&mut open, &hello);
        finish(&mut closed, &hello);
        closed.reset_at_end().unwrap();
        assert!(mirror.reset_port(ports[1]));
        let outside = lab.capture_outside().unwrap();
        scene.daemon.reload(&INVENTORY.replace(",mirror.allowed.example", "")).unwrap();
        assert!(open.pump(Duration::from_secs(3), |tcp| tcp.reset).unwrap(), "the flow was not ended");
        let probed = |port: u16| {
            let syn = |seen: &Seen| seen.to == mirror.address && seen.from.port() == port && seen.is_tcp(flags::SYN);
            !outside.matching(syn).is_empty()
        };
        assert!(probed(ports[0]), "whose server had to be asked");
        assert!(!probed(ports[1]));
        let line = scene.refusal_of("policy_changed");
        assert_eq!(line.text("spt"), ports[0].to_string());
    }
}

both_families! {
    /// The old interface is gone; the new one has the same groups and was not the one that asked.
    fn flows_of_an_address_end_when_another_instance_has_it(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        let other = INVENTORY.replace("instance = \"attacker\"", "instance = \"successor\"");
        scene.daemon.reload(&other).unwrap();
        assert!(judged.pump(Duration::from_secs(3), |tcp| tcp.reset).unwrap(), "the flow was not ended");
        let line = scene.refusal_of("policy_changed");
        assert_eq!(line.text("instance"), "attacker");
        // The successor opens its own, under its own name.
        scene.assert_allowed("the successor", &allowed());
        let logs = scene.daemon.logs();
        logs.expect(&[("outcome", "allowed"), ("instance", "successor")]).unwrap();
    }
}

both_families! {
    /// What has no ports is carried by the kernel like everything else, and has to be found again.
    fn reload_ends_what_is_not_tcp_too(family) {
        let lab = Topology::new().unwrap();
        let rule = "description = \"postern:tls:*.wild.example\"\n  protocol = \"tcp\"\n  ports = \"443\"";
        let open = INVENTORY.replace(rule, "description = \"postern:see-thru:2099-12-31\"\n  protocol = \"all\"\n  ports = \"all\"");
        assert_ne!(open, INVENTORY);
        let scene = Scene::with(&lab, family, &open, Script::Tls);
        let (from, to) = (scene.attacker.address(family), RECORDER.address(family));
        let kind = if family == Family::V4 { 8 } else { 128 };
        let flows = [
            icmp(from, to, kind, 0, [0, 7, 0, 1], b"CARRIED"),
            udp(std::net::SocketAddr::new(from, 32_000), std::net::SocketAddr::new(to, 4_500), b"CARRIED"),
            ip(from, to, 47, &[&[0, 0, 0x88, 0xb5][..], b"CARRIED"].concat()),
        ];
        let carried = || scene.outside.matching(|seen| seen.carries(b"CARRIED")).len();
        for (index, flow) in flows.iter().enumerate() {
            scene.attacker.send(flow).unwrap();
            assert!(e2e::wait::holds(Duration::from_secs(5), || carried() > index), "flow {index} does not pass");
        }
        scene.daemon.reload(INVENTORY).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let before = carried();
        for flow in &flows {
            scene.attacker.send(flow).unwrap();
        }
        scene.outside.settle(Duration::from_millis(100));
        assert_eq!(carried(), before, "a flow outlived the rule that let it pass");
    }
}

both_families! {
    fn verdict_names_its_generation(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        scene.assert_refused("not yet", &evil(), &["name_not_allowed"]);
        let first = scene.daemon.generation().unwrap();
        scene.daemon.reload(&INVENTORY.replace("recorder.allowed.example", "api.allowed.example")).unwrap();
        let second = scene.daemon.generation().unwrap();
        scene.assert_refused("no longer", &allowed(), &["name_not_allowed"]);
        let logs = scene.daemon.logs();
        for (generation, host) in [(first, "evil.example"), (second, "recorder.allowed.example")] {
            let generation = generation.to_string();
            let line = logs.expect(&[("outcome", "disallowed"), ("dhost", host), ("generation", &generation)]).unwrap();
            assert_eq!(line.text("policy_id").len(), 16);
        }
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    /// REDTEAM, finding 12: neither end sends anything, and both learn of it within a second.
    fn idle_flows_end_at_both_ends_within_a_second(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let address = MIRROR.at(family, 443);
        let mirror = Recorder::start(&lab.internet, address, Script::Tls).unwrap();
        let hello = ClientHello::new(MIRROR.name).record();
        let mut flows = Vec::new();
        for _ in 0..20 {
            let port = scene.fresh_port();
            let mut tcp = scene.attacker.connect(port, address, u32::from(port)).unwrap();
            finish(&mut tcp, &hello);
            flows.push(tcp);
        }
        let inside = lab.capture_inside().unwrap();
        scene.daemon.reload(&INVENTORY.replace(",mirror.allowed.example", "")).unwrap();
        let adopted = Instant::now();
        let all_reset = || {
            let all = mirror.conversations();
            all.len() == 20 && all.iter().all(|one| one.ended_by_reset == Some(true))
        };
        assert!(e2e::wait::holds(Duration::from_secs(1), all_reset), "servers after {:?}", adopted.elapsed());
        for tcp in &flows {
            let reset = inside.wait_for(|seen| seen.to == tcp.local && seen.has(flags::RST));
            let reset = reset.expect("the client was not reset");
            // The exact number is the one a careful client believes (RFC 5961, section 3.2).
            assert_eq!(reset.seen.seq, tcp.peer_next, "{}", tcp.local);
        }
        assert!(adopted.elapsed() < Duration::from_secs(3), "{:?}", adopted.elapsed());
        let said = || scene.daemon.logs().matching(&[("reason", "policy_changed")]).len();
        assert!(e2e::wait::holds(e2e::wait::PATIENCE, || said() == 20), "{} lines", said());
    }
}

both_families! {
    /// Half a hello each, and nobody says more: who is refused by the new policy learns of it, and nobody else.
    fn silent_undecided_flows_end_at_both_ends_within_a_second(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let other = Recorder::start(&lab.internet, RECORDER.at(family, 8443), Script::Tls).unwrap();
        let hello = allowed();
        let half_said = |to| {
            let port = scene.fresh_port();
            let mut tcp = scene.attacker.connect(port, to, u32::from(port)).unwrap();
            tcp.write(&hello[..40]).unwrap();
            tcp
        };
        let doomed: Vec<_> = (0..30).map(|_| half_said(other.address)).collect();
        let mut kept: Vec<_> = (0..5).map(|_| half_said(scene.recorder.address)).collect();
        let (inside, outside) = (lab.capture_inside().unwrap(), &scene.outside);
        let (without, _) = INVENTORY.split_once("  [[group.rule]]\n  description = \"postern:tls:recorder.allowed.example,puppet").unwrap();
        let (_, rest) = INVENTORY.split_once("ports = \"8443\"\n").unwrap();
        scene.daemon.reload(&format!("{without}{rest}")).unwrap();
        let adopted = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        for tcp in &doomed {
            let to_client = inside.wait_for(|seen| seen.to == tcp.local && seen.has(flags::RST));
            let to_client = to_client.expect("the client was not reset");
            assert_eq!(to_client.seen.seq, tcp.peer_next, "{}", tcp.local);
            let to_server = outside.wait_for(|seen| seen.to == other.address && seen.from.port() == tcp.local.port() && seen.has(flags::RST));
            let to_server = to_server.expect("the server was not reset");
            for at in [to_client.at, to_server.at] {
                assert!(at < adopted + Duration::from_secs(1), "{:?} after the adoption", at - adopted);
            }
        }
        assert_eq!(scene.refusal_of("policy_changed").text("dpt"), "8443");
        for tcp in &mut kept {
            tcp.write(&hello[40..]).unwrap();
            assert!(tcp.wait_bytes(1).unwrap(), "a flow that both policies allow was ended");
        }
        let untouched = |seen: &Seen| seen.has(flags::RST) && seen.from == scene.recorder.address;
        assert_eq!(inside.matching(untouched), []);
    }
}

both_families! {
    /// A server that answers no probe cannot keep a flow: its next packet, and its client's, end it.
    fn a_flow_whose_server_is_silent_ends_at_its_next_packet(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let puppet = lab.puppet().unwrap();
        let port = scene.fresh_port();
        let (mut client, mut server) = scene.join(&puppet, port);
        scene.daemon.reload(&INVENTORY.replace(",puppet.allowed.example", "")).unwrap();
        let probe = |seen: &Seen| seen.to == PUPPET.at(family, 443) && seen.is_tcp(flags::SYN);
        // The handshake's own SYN, and at least one probe.
        assert!(e2e::wait::holds(Duration::from_secs(2), || scene.outside.matching(probe).len() > 1));
        assert!(!client.reset);
        client.write(&hello::protected(EVIL_MARK)).unwrap();
        assert!(client.wait_reset().unwrap());
        assert!(server.wait_reset().unwrap());
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    /// A workload that has just started: nothing of it leaves and nothing answers it until it is known, then it is
    /// served as if it had always been.
    fn new_client_waits_and_is_not_reset(family) {
        let lab = Topology::new().unwrap();
        let daemon = Daemon::without_policy(&lab).unwrap();
        let mut publisher = daemon.publisher().unwrap();
        let (others, _) = INVENTORY.split_once("[[client]]\naddress = \"10.77.1.66\"").unwrap();
        publisher.publish(others).unwrap();
        let scene = Scene::around(&lab, family, daemon, Script::Tls);
        let inside = lab.capture_inside().unwrap();
        let mut tcp = scene.unconnected();
        for _ in 0..3 {
            tcp.put(&tcp.syn()).unwrap();
            assert!(tcp.receive(Duration::from_millis(200), |_| true).is_none(), "it was answered");
        }
        assert_eq!(scene.outside.matching(|seen| seen.to == tcp.remote), [], "its SYN left");
        publisher.publish(INVENTORY).unwrap();
        tcp.handshake().unwrap();
        finish(&mut tcp, &allowed());
        let resets = inside.matching(|seen| seen.to == tcp.local && seen.has(flags::RST));
        assert_eq!(resets, [], "it was reset");
    }
}

impl Scene<'_> {
    /// A judged flow from the hand-made client to the hand-made server: both ends of it.
    fn join<'h>(&'h self, puppet: &'h RawHost, port: u16) -> (RawTcp<'h>, RawTcp<'h>) {
        let to = PUPPET.at(self.family, 443);
        let (mut client, mut server) = std::thread::scope(|scope| {
            let server = scope.spawn(|| puppet.accept(443, 7_000).unwrap());
            let client = self.attacker.connect(port, to, 90).unwrap();
            (client, server.join().unwrap())
        });
        let hello = ClientHello::new(PUPPET.name).record();
        client.write(&hello).unwrap();
        assert!(server.wait_bytes(hello.len()).unwrap());
        let flight = hello::server_flight();
        server.write(&flight).unwrap();
        assert!(client.wait_bytes(flight.len()).unwrap());
        let finish = hello::client_finish();
        client.write(&finish).unwrap();
        assert!(server.wait_bytes(hello.len() + finish.len()).unwrap());
        let before = self.daemon.queued_packets().unwrap();
        server
            .write(&hello::protected(b"carried by the kernel"))
            .unwrap();
        assert!(client.wait_bytes(flight.len() + 1).unwrap());
        assert_eq!(self.daemon.queued_packets().unwrap(), before, "not judged");
        (client, server)
    }

    fn refusal_of(&self, reason: &str) -> e2e::flowlog::Line {
        self.daemon.logs().expect(&[("reason", reason)]).unwrap()
    }
}
