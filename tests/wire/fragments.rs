//! IP itself played loosely (EVASIONS 22 to 24): fragments are judged whole, options and extension headers not at all.

use std::time::Duration;

use e2e::packet::{flags, fragment_pair};
use e2e::topology::{Family, Topology};

use crate::scene::{EVIL_MARK, Scene, allowed, evil};

both_families! {
    fn fragments_are_judged_whole(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for (id, first) in [(1, 64), (2, 24), (3, 128)] {
            let mut tcp = scene.connect();
            let good = allowed();
            let [head, tail] = tcp.segment(0, flags::ACK | flags::PSH, &good).fragments(first, id);
            scene.attacker.send(&tail).unwrap();
            scene.attacker.send(&head).unwrap();
            assert!(scene.recorder.got(&good), "a whole hello in fragments");
            assert!(tcp.wait_bytes(1).unwrap());
            let mut tcp = scene.connect();
            let [head, tail] = tcp.segment(0, flags::ACK | flags::PSH, &evil()).fragments(first, id + 10);
            scene.attacker.send(&head).unwrap();
            scene.attacker.send(&tail).unwrap();
            scene.assert_ended("a refused hello in fragments", &mut tcp, &["name_not_allowed"]);
        }
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    fn overlapping_fragments_do_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        for (id, swap) in [(21, false), (22, true)] {
            let tcp = scene.connect();
            let good = tcp.segment(0, flags::ACK | flags::PSH, &allowed()).segment();
            let bad = tcp.segment(0, flags::ACK | flags::PSH, &evil()).segment();
            let (from, to) = (tcp.local.ip(), tcp.remote.ip());
            let pieces = fragment_pair(from, to, 6, 64, id, (0, &good[..160], true), (80, &bad[80..], false));
            for packet in if swap { [&pieces[1], &pieces[0]] } else { [&pieces[0], &pieces[1]] } {
                scene.attacker.send(packet).unwrap();
            }
        }
        scene.outside.settle(Duration::from_millis(100));
        assert_eq!(scene.payload_out(), []);
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    /// RFC 1858: the flags of TCP in the second fragment, out of sight of whoever reads only the first.
    fn a_tiny_first_fragment_does_not_leave(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let tcp = scene.connect();
        let [head, tail] = tcp.segment(0, flags::ACK | flags::PSH, &evil()).fragments(8, 31);
        scene.attacker.send(&head).unwrap();
        scene.attacker.send(&tail).unwrap();
        scene.assert_never_left(EVIL_MARK);
        // An overlap of eight bytes rewrites the sequence and acknowledgement numbers of the first fragment.
        let tcp = scene.connect();
        let bytes = tcp.segment(0, flags::ACK | flags::PSH, &evil()).segment();
        let (from, to) = (tcp.local.ip(), tcp.remote.ip());
        for packet in fragment_pair(from, to, 6, 64, 32, (0, &bytes[..24], true), (8, &bytes[8..], false)) {
            scene.attacker.send(&packet).unwrap();
        }
        scene.assert_never_left(EVIL_MARK);
        assert_eq!(scene.payload_out(), []);
    }
}

#[test]
fn ipv4_options_do_not_leave() {
    let lab = Topology::new().unwrap();
    let scene = Scene::new(&lab, Family::V4);
    // No-operation, record route, loose source route, router alert.
    let route = [131, 7, 4, 203, 0, 113, 20];
    for options in [
        &[1, 1, 1, 1][..],
        &[7, 7, 4, 0, 0, 0, 0],
        &route,
        &[148, 4, 0, 0],
    ] {
        let mut tcp = scene.unconnected();
        let mut syn = tcp.syn();
        syn.ip_extra = options.to_vec();
        tcp.put(&syn).unwrap();
        tcp = scene.connect();
        let mut data = tcp.segment(0, flags::ACK | flags::PSH, &allowed());
        data.ip_extra = options.to_vec();
        tcp.put(&data).unwrap();
    }
    scene.outside.settle(Duration::from_millis(100));
    assert_eq!(scene.payload_out(), []);
    let with_options = scene
        .outside
        .packets()
        .into_iter()
        .filter(|packet| packet.bytes[0] == 0x46 || packet.bytes[0] == 0x47);
    assert_eq!(with_options.count(), 0);
    assert_logged(&scene, "ip_options");
}

/// The flow log has a line about a packet that never was part of a flow.
fn assert_logged(scene: &Scene<'_>, reason: &str) {
    let src = scene.attacker.address(scene.family).to_string();
    let line = [
        ("outcome", "disallowed"),
        ("reason", reason),
        ("src", src.as_str()),
    ];
    scene.daemon.logs().expect(&line).unwrap();
}

#[test]
fn ipv6_extension_headers_do_not_leave() {
    let lab = Topology::new().unwrap();
    let scene = Scene::new(&lab, Family::V6);
    // Hop-by-hop, routing (type 0, nothing left), destination options: each says TCP comes next.
    let padding = vec![6, 0, 1, 4, 0, 0, 0, 0];
    let routing = vec![6, 0, 0, 0, 0, 0, 0, 0];
    for (number, header) in [(0, padding.clone()), (43, routing), (60, padding)] {
        let tcp = scene.unconnected();
        let mut syn = tcp.syn();
        (syn.first_extension, syn.ip_extra) = (number, header.clone());
        tcp.put(&syn).unwrap();
        let tcp = scene.connect();
        for bytes in [allowed(), evil()] {
            let mut data = tcp.segment(0, flags::ACK | flags::PSH, &bytes);
            (data.first_extension, data.ip_extra) = (number, header.clone());
            tcp.put(&data).unwrap();
        }
    }
    scene.outside.settle(Duration::from_millis(100));
    assert_eq!(scene.payload_out(), []);
    let extended = scene
        .outside
        .packets()
        .into_iter()
        .filter(|packet| matches!(packet.bytes.get(6), Some(0 | 43 | 60)));
    assert_eq!(
        extended
            .filter(|packet| !packet.outgoing)
            .filter(|packet| packet.seen.protocol == 6)
            .count(),
        0
    );
    assert_logged(&scene, "extension_header");
}
