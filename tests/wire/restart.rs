//! Restarts and reloads: judged flows live, others are ended where that is known (promises 7, 8, 15).

use std::time::Duration;

use e2e::daemon::INVENTORY;
use e2e::packet::{icmp, ip, udp};
use e2e::topology::{Family, Topology};

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil};

both_families! {
    fn daemon_restart_drops_no_judged_flow(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let attacker = lab.attacker().unwrap();
        let mut flows: Vec<_> = (0..5)
            .map(|index| {
                let mut tcp = attacker.connect(41_000 + index, scene.recorder.address, 77).unwrap();
                crate::scene::finish(&mut tcp, &allowed());
                tcp
            })
            .collect();
        scene.daemon.kill().unwrap();
        scene.daemon.restart().unwrap();
        for tcp in &mut flows {
            assert_echo(tcp, b"after the restart");
        }
    }
}

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
        let mirror = e2e::peer::Recorder::start(
            &lab.internet,
            e2e::topology::MIRROR.at(family, 443),
            e2e::peer::Script::Tls,
        )
        .unwrap();
        let port = scene.fresh_port();
        let mut other = scene.attacker.connect(port, mirror.address, 5).unwrap();
        let hello = e2e::hello::ClientHello::new(e2e::topology::MIRROR.name).record();
        crate::scene::finish(&mut other, &hello);
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
    /// What has no ports is carried by the kernel like everything else, and has to be found again.
    fn reload_ends_what_is_not_tcp_too(family) {
        let lab = Topology::new().unwrap();
        let rule = "description = \"postern:tls:*.wild.example\"\n  protocol = \"tcp\"\n  ports = \"443\"";
        let open = INVENTORY.replace(rule, "description = \"postern:see-thru:2099-12-31\"\n  protocol = \"all\"\n  ports = \"all\"");
        assert_ne!(open, INVENTORY);
        let scene = Scene::with(&lab, family, &open, e2e::peer::Script::Tls);
        let (from, to) = (scene.attacker.address(family), e2e::topology::RECORDER.address(family));
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

impl Scene<'_> {
    fn refusal_of(&self, reason: &str) -> e2e::flowlog::Line {
        self.daemon.logs().expect(&[("reason", reason)]).unwrap()
    }
}
