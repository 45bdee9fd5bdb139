//! Familiar pairs: what of a connection the kernel lets through by itself, and that nothing else changes by it.
//!
//! How many packets that saves is in `trips`, that nobody is familiar without a daemon in `fail_closed_matrix`.

use std::time::Duration;

use e2e::daemon::INVENTORY;
use e2e::hello::ClientHello;
use e2e::packet::{Seen, Tcp, flags, options};
use e2e::peer::{Recorder, Script};
use e2e::raw::RawTcp;
use e2e::topology::{MIRROR, PUPPET, RECORDER, Topology};

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil, finish};

/// How long a packet is given to be let through.
const MOMENT: Duration = Duration::from_millis(150);

/// As long as a daemon that does nothing counts as awake, and some.
const ASLEEP: Duration = Duration::from_millis(400);

/// What is done to a SYN before it is sent.
type Change<'c> = &'c dyn Fn(&mut Tcp);

/// Whether the kernel lets a SYN through by itself: it leaves, and the daemon is asked about its answer only.
fn passes_unasked(scene: &Scene<'_>, change: impl Fn(&mut Tcp)) -> bool {
    finish(&mut scene.connect(), &allowed());
    let tcp = scene.unconnected();
    let mut syn = tcp.syn();
    change(&mut syn);
    let before = scene.daemon.queued_packets().unwrap();
    tcp.put(&syn).unwrap();
    let left = !syns_from(scene, tcp.local.port()).is_empty();
    let asked = scene.daemon.queued_packets().unwrap() - before;
    assert!(!left || asked > 0, "an answer that the daemon has not seen");
    left && asked == 1
}

/// SYNs that crossed the outer link from a port. Translation keeps ports that nobody else has.
fn syns_from(scene: &Scene<'_>, port: u16) -> Vec<Seen> {
    scene.outside.settle(MOMENT);
    let syn = |seen: &Seen| seen.is_tcp(flags::SYN) && seen.from.port() == port;
    scene.outside.matching(syn)
}

both_families! {
    /// What has anything in it but who and where goes to the daemon.
    fn a_syn_with_anything_else_in_it_is_asked_about(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let linux = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
        let plain: [(&str, Change<'_>); 3] = [
            ("a plain SYN", &|_| {}),
            ("a SYN of Linux", &|syn| syn.options = linux.to_vec()),
            ("one that offers ECN", &|syn| syn.flags |= flags::ECE | flags::CWR),
        ];
        for (what, change) in plain {
            // On a machine that is too busy the pair is a stranger again by then.
            let passes = (0..9).any(|_| passes_unasked(&scene, change));
            assert!(passes, "{what} is asked about");
        }
        let unusual: [(&str, Change<'_>); 9] = [
            ("no options", &|syn| syn.options.clear()),
            ("another order", &|syn| syn.options = [&[1, 1, 4, 2][..], &options::MSS].concat()),
            ("two sizes", &|syn| syn.options = [options::MSS, options::MSS].concat()),
            ("fast open", &|syn| syn.options = [&options::MSS[..], &[34, 2, 1, 1]].concat()),
            ("multipath", &|syn| syn.options = [&options::MSS[..], &[30, 4, 0, 1]].concat()),
            ("a push", &|syn| syn.flags |= flags::PSH),
            ("an urgent pointer", &|syn| syn.urgent = 7),
            ("data", &|syn| syn.payload = evil()),
            ("few hops", &|syn| syn.ttl = 31),
        ];
        for (what, change) in unusual {
            assert!(!passes_unasked(&scene, change), "{what}: let through by the kernel");
        }
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    fn a_familiar_pair_is_judged_like_any_other(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        finish(&mut scene.connect(), &allowed());
        scene.assert_refused("a name of another rule", &evil(), &["name_not_allowed"]);
        finish(&mut scene.connect(), &allowed());
        scene.assert_refused("plain bytes", b"GET / HTTP/1.1\r\n\r\n", &["plaintext_http"]);
        scene.assert_never_left(EVIL_MARK);
        let mut tcp = scene.judged();
        assert_echo(&mut tcp, b"and allowed like any other");
        let counted = || scene.daemon.metric("postern_familiar_total").unwrap() >= 3.0;
        assert!(e2e::wait::holds(e2e::wait::PATIENCE, counted), "none of them was familiar");
    }
}

both_families! {
    /// The first byte of a hello is the one behind the number that the server acknowledged.
    fn a_hello_that_begins_elsewhere_is_refused(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        finish(&mut scene.connect(), &allowed());
        let mut tcp = scene.connect();
        let hello = allowed();
        tcp.push(evil().len(), &hello).unwrap();
        tcp.push(0, &evil()).unwrap();
        scene.assert_ended("a hello behind another one", &mut tcp, &["name_not_allowed"]);
        scene.assert_never_left(EVIL_MARK);
    }
}

both_families! {
    /// Familiar are one client, one server and one port of it.
    fn nobody_else_is_familiar(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        finish(&mut scene.connect(), &allowed());
        let nobody = PUPPET.at(family, 443);
        for to in [RECORDER.at(family, 8443), nobody] {
            let tcp = RawTcp::new(&scene.attacker, scene.unconnected().local, to, 5);
            let before = scene.daemon.queued_packets().unwrap();
            tcp.put(&tcp.syn()).unwrap();
            let asked = || scene.daemon.queued_packets().unwrap() > before;
            assert!(e2e::wait::holds(e2e::wait::PATIENCE, asked), "{to} was let through by the kernel");
        }
        let before = scene.daemon.queued_packets().unwrap();
        scene.assert_another_is_served("as ever");
        // The other client's first connection: SYN, SYN/ACK, hello, answer.
        assert!(scene.daemon.queued_packets().unwrap() - before >= 4, "another client was let through by the kernel");
    }
}

/// Sends a SYN towards the recorder at a moment in which the daemon counts as awake for another server's sake; whether it
/// left, and whether the daemon was asked.
fn dialled_beside(scene: &Scene<'_>, mirror: &Recorder) -> (bool, bool) {
    // What the recorder's own connection made of the daemon is over.
    std::thread::sleep(ASLEEP);
    let mut other = scene
        .attacker
        .connect(scene.fresh_port(), mirror.address, 5)
        .unwrap();
    finish(&mut other, &ClientHello::new(MIRROR.name).record());
    let tcp = scene.unconnected();
    let before = scene.daemon.queued_packets().unwrap();
    tcp.put(&tcp.syn()).unwrap();
    let left = !syns_from(scene, tcp.local.port()).is_empty();
    (
        left,
        scene.daemon.queued_packets().unwrap() - before > u64::from(left),
    )
}

both_families! {
    /// What a policy no longer names is dialled no more, from the moment it is in force. The daemon is awake for another
    /// server: what stops the SYN is that its pair is forgotten.
    fn a_new_policy_makes_strangers(family) {
        let lab = Topology::new().unwrap();
        // With a pattern on the port a SYN may go anywhere.
        let exact = INVENTORY.replace("*.wild.example", "other.allowed.example");
        let scene = Scene::with(&lab, family, &exact, Script::Tls);
        let mirror = Recorder::start(&lab.internet, MIRROR.at(family, 443), Script::Tls).unwrap();
        let passes = || {
            finish(&mut scene.connect(), &allowed());
            dialled_beside(&scene, &mirror) == (true, false)
        };
        assert!((0..9).any(|_| passes()), "the pair is not familiar under its own policy");
        finish(&mut scene.connect(), &allowed());
        scene.daemon.reload(&exact.replace(RECORDER.name, "elsewhere.allowed.example")).unwrap();
        let (left, asked) = dialled_beside(&scene, &mirror);
        assert!(!left, "a SYN left under a policy that names nobody there");
        assert!(asked, "nobody has seen it");
    }
}

both_families! {
    /// A server that no longer listens says so to the client, in one step.
    fn a_server_that_refuses_is_heard(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        finish(&mut scene.connect(), &allowed());
        let closed = "table inet closed { chain input { type filter hook input priority 0; \
                      tcp flags & (syn | ack) == syn reject with tcp reset; }; }";
        lab.internet.feed("nft", &["-f", "-"], closed).unwrap();
        let tcp = scene.unconnected();
        tcp.put(&tcp.syn()).unwrap();
        let answer = tcp.receive(MOMENT * 4, |seen| seen.has(flags::RST));
        assert!(answer.is_some(), "the client is left waiting");
    }
}

both_families! {
    /// A daemon that stands still is asked about nobody, and vouches for nobody.
    fn nobody_is_familiar_to_a_daemon_that_stands_still(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mut judged = scene.judged();
        scene.daemon.pause().unwrap();
        std::thread::sleep(ASLEEP);
        scene.assert_nothing_new_leaves("with a daemon that stands still");
        assert_echo(&mut judged, b"judged flows need no daemon");
        scene.daemon.resume().unwrap();
        scene.assert_another_is_served("when it goes on");
    }
}

both_families! {
    /// The pair of a name that may also be reached elsewhere stays what it is: two servers are two pairs.
    fn each_server_of_a_client_is_familiar_by_itself(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let mirror = Recorder::start(&lab.internet, MIRROR.at(family, 443), Script::Tls).unwrap();
        finish(&mut scene.connect(), &allowed());
        let hello = ClientHello::new(MIRROR.name).record();
        let trips = || {
            let start = scene.daemon.queued_packets().unwrap();
            let mut tcp = scene.attacker.connect(scene.fresh_port(), mirror.address, 5).unwrap();
            finish(&mut tcp, &hello);
            scene.daemon.queued_packets().unwrap() - start
        };
        assert!(trips() >= 5, "the first of its server is let through by the kernel");
        assert!((0..9).any(|_| trips() == 4), "never familiar");
    }
}
