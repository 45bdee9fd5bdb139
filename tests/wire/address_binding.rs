//! The name claimed and the address dialled belong together (EVASIONS 1, 7, 8, 9; promise 13).

use std::time::Duration;

use e2e::hello::ClientHello;
use e2e::packet::flags;
use e2e::peer::{Recorder, Script};
use e2e::raw::RawTcp;
use e2e::topology::{API, EVIL, MIRROR, NAMELESS, REBOUND, RECORDER, Site, Topology};

use crate::scene::{Scene, allowed, isn};

/// Claims `name` at `site`, port 443, and asserts that both ends are reset and nothing arrives.
fn assert_forged(scene: &Scene<'_>, name: &str, site: Site) {
    let server =
        Recorder::start(&scene.lab.internet, site.at(scene.family, 443), Script::Tls).unwrap();
    let port = scene.fresh_port();
    let mut tcp = scene
        .attacker
        .connect(port, server.address, isn(port))
        .unwrap();
    tcp.write(&ClientHello::new(name).record()).unwrap();
    assert!(tcp.wait_reset().unwrap(), "the client was not reset");
    assert!(server.was_reset(), "the server was not reset");
    assert_eq!(server.received(), b"");
    assert_eq!(scene.reason(&tcp), "address_not_of_name");
    let line = scene.refusal(&tcp);
    assert_eq!(
        (line.text("dhost"), line.text("dst")),
        (name.to_owned(), server.address.ip().to_string())
    );
}

both_families! {
    fn an_allowed_name_does_not_open_an_address_nobody_named(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        assert_forged(&scene, API.name, NAMELESS);
    }
}

both_families! {
    fn an_allowed_name_does_not_open_the_address_of_another(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        assert_forged(&scene, API.name, MIRROR);
        assert_forged(&scene, "web.wild.example", EVIL);
    }
}

both_families! {
    fn a_pattern_opens_the_address_its_name_resolves_to_and_no_other(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let site = e2e::topology::WEB;
        let server = Recorder::start(&lab.internet, site.at(family, 443), Script::Tls).unwrap();
        let port = scene.fresh_port();
        let mut tcp = scene.attacker.connect(port, server.address, isn(port)).unwrap();
        let hello = ClientHello::new(site.name).record();
        tcp.write(&hello).unwrap();
        assert!(server.got(&hello));
        // `*` is one label's worth, and never none.
        for name in ["a.web.wild.example", "wild.example", "web.wild.example.evil.example"] {
            scene.assert_refused(name, &ClientHello::new(name).record(), &["name_not_allowed"]);
        }
    }
}

both_families! {
    /// An allowed name whose owner points it at the metadata service, or at the inside: strangers' answers bind nothing.
    fn an_answer_in_private_space_binds_nothing(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        scene.assert_refused("rebound", &ClientHello::new(REBOUND).record(), &["address_not_of_name", "name_unresolvable"]);
        let inner = if family == e2e::topology::Family::V4 { "169.254.169.254:443" } else { "[fd77:1::1]:443" };
        let mut tcp = scene.unconnected();
        tcp.remote = inner.parse().unwrap();
        tcp.put(&tcp.syn()).unwrap();
        scene.outside.settle(Duration::from_millis(100));
        let leaked = scene.outside.matching(|seen| seen.to.ip() == tcp.remote.ip());
        assert_eq!(leaked, [], "a packet to the inside left");
    }
}

both_families! {
    fn no_packet_to_an_unnamed_address_for_exact_rules(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for site in [NAMELESS, EVIL, MIRROR] {
            let to = site.at(family, 8443);
            let port = scene.fresh_port();
            let local = std::net::SocketAddr::new(scene.attacker.address(family), port);
            let mut tcp = RawTcp::new(&scene.attacker, local, to, isn(port));
            // As a kernel would: again and again until somebody answers.
            let refused = e2e::wait::holds(Duration::from_secs(6), || {
                tcp.put(&tcp.syn()).unwrap();
                tcp.pump(Duration::from_millis(300), |tcp| tcp.reset).unwrap()
            });
            assert!(refused, "the SYN was not refused");
            assert_eq!(scene.outside.matching(|seen| seen.to.ip() == to.ip()), [], "a packet left");
            let reason = scene.reason(&tcp);
            assert_eq!(reason, "address_not_of_name");
        }
        let server = Recorder::start(&lab.internet, RECORDER.at(family, 8443), Script::Tls).unwrap();
        let port = scene.fresh_port();
        let mut tcp = scene.attacker.connect(port, server.address, isn(port)).unwrap();
        tcp.write(&allowed()).unwrap();
        assert!(server.got(&allowed()));
    }
}

both_families! {
    fn a_port_without_a_rule_is_refused_before_a_packet_leaves(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut tcp = scene.unconnected();
        tcp.remote.set_port(9_443);
        tcp.put(&tcp.syn()).unwrap();
        assert!(tcp.wait_reset().unwrap());
        assert_eq!(scene.outside.matching(|seen| seen.to == tcp.remote && seen.is_tcp(flags::SYN)), []);
        let reason = scene.reason(&tcp);
        assert!(["port_not_allowed", "no_rule"].contains(&reason.as_str()), "{reason}");
    }
}

#[test]
fn unlisted_names_are_never_resolved() {
    let lab = Topology::new().unwrap();
    let scene = Scene::new(&lab, e2e::topology::Family::V4);
    for name in [
        "evil.example",
        "c2VjcmV0.evil.example",
        "secret-data.allowed.example",
    ] {
        scene.assert_refused(
            name,
            &ClientHello::new(name).record(),
            &["name_not_allowed"],
        );
    }
    // A name of the policy was asked for, so the log of the resolver works.
    assert!(e2e::wait::holds(Duration::from_secs(3), || lab
        .questions()
        .contains(&API.name.to_owned())));
    let stray: Vec<String> = lab
        .questions()
        .into_iter()
        .filter(|name| name.contains("evil") || name.contains("secret"))
        .collect();
    assert_eq!(stray, Vec::<String>::new());
    let asked = scene.outside.matching(|seen| {
        seen.to.port() == 53 && (seen.carries(b"evil") || seen.carries(b"secret-data"))
    });
    assert_eq!(asked, []);
}
