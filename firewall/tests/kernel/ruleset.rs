//! Being in force, staying in force.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use firewall::lockdown::{self, Lockdown};
use firewall::marks::{self, QueueClass};
use firewall::netfilter::{self, NetfilterError};
use firewall::nfqueue::{Action, Queue, QueueError, QueueOptions};
use firewall::probe;
use firewall::ruleset::{Layout, QueueForm, Ruleset, replace_served};

use crate::wire::Tap;
use crate::world::{Answer, CLIENT, Place, SERVER, UPLINK, V4, V6, World, at, eventually, layout};

/// Passes handshakes, judges a flow at its first payload from the client.
pub(crate) fn judging(class: QueueClass, _packet: &[u8]) -> Answer {
    Answer::Give(match class {
        QueueClass::Original => Action::Continue(marks::judged(0x1_0007)),
        _ => Action::Continue(marks::VERDICT_PASS),
    })
}

/// A server that answers each line of each connection with the same line.
pub(crate) fn echo(world: &World, port: u16) {
    for family in [V4, V6] {
        let listener = world.within(Place::Internet, move || {
            TcpListener::bind(at(SERVER[family], port)).unwrap()
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
}

/// Connects from the client, giving up after half a second.
pub(crate) fn dial(world: &World, family: usize, port: u16) -> std::io::Result<TcpStream> {
    world.within(Place::Client, move || {
        let to = at(SERVER[family], port);
        let stream = TcpStream::connect_timeout(&to, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_millis(1_500)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

fn talks(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut buffer).is_ok()
}

#[test]
fn ruleset_reads_back_equal() {
    let world = World::new();
    for layout in [
        layout(),
        Layout {
            queues: 4,
            uplink: Some("up0".to_owned()),
            served: vec![
                "10.77.1.0/24".parse().unwrap(),
                "fd77:1::/64".parse().unwrap(),
            ],
            dhcp: false,
            ..layout()
        },
    ] {
        let ruleset = world.install(&layout);
        world.within(Place::Firewall, move || {
            // A second start, in place of the first.
            netfilter::install(&ruleset).unwrap();
            netfilter::check(&ruleset).unwrap();
            netfilter::repair(&ruleset).unwrap();
            let nets = [
                "198.18.0.0/15".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ];
            netfilter::apply("replacing the served prefixes", &replace_served(&nets)).unwrap();
            netfilter::apply("replacing the served prefixes", &replace_served(&[])).unwrap();
            netfilter::verify(&ruleset).unwrap();
        });
    }
    let rules = world.run(Place::Firewall, "iptables-nft -t mangle -S FORWARD");
    assert_eq!(rules.lines().count(), 2, "one policy, one rule: {rules}");
}

#[test]
fn foreign_edits_are_found_and_repaired() {
    let world = World::new();
    let ruleset = world.install(&layout());
    for edit in [
        "nft insert rule inet postern decide accept",
        "nft add rule inet postern undecided_tcp accept",
        "nft flush chain inet postern early",
        "nft add chain inet postern more",
        "iptables-nft -t mangle -F",
        "ip6tables-nft -t mangle -F",
    ] {
        world.run(Place::Firewall, edit);
        let ruleset = ruleset.clone();
        world.within(Place::Firewall, move || {
            let found = netfilter::verify(&ruleset);
            assert!(
                matches!(found, Err(NetfilterError::NotOurs(_))),
                "{edit}: {found:?}"
            );
            match netfilter::repair(&ruleset) {
                Ok(()) => {}
                // A chain that is not ours takes a new start.
                Err(NetfilterError::NotOurs(_)) => netfilter::install(&ruleset).unwrap(),
                Err(other) => panic!("{edit}: {other}"),
            }
            netfilter::verify(&ruleset).unwrap();
        });
    }
}

#[test]
fn probe_says_which_queue_form_the_kernel_has() {
    let world = World::new();
    let found = world.within(Place::Firewall, probe::probe).unwrap();
    let layout = Layout {
        queue_form: QueueForm::Native,
        ..layout()
    };
    let native = world.within(Place::Firewall, move || {
        netfilter::check(&Ruleset::render(&layout))
    });
    assert_eq!(found.queue_form == QueueForm::Native, native.is_ok());
    if let Err(error) = native {
        assert!(matches!(error, NetfilterError::Unsupported(_)), "{error}");
    }
    // Trying changes nothing.
    assert_eq!(world.run(Place::Firewall, "nft list tables inet"), "");
}

#[test]
fn queue_served_by_another_process_is_named() {
    let world = World::new();
    world.within(Place::Firewall, || {
        let _served = Queue::bind(3, &QueueOptions::default()).unwrap();
        let second = Queue::bind(3, &QueueOptions::default());
        assert!(matches!(second, Err(QueueError::Taken(3))), "{second:?}");
    });
}

#[test]
fn judged_flow_leaves_the_queue_and_survives_the_daemon() {
    let world = World::new();
    world.install(&layout());
    echo(&world, 443);
    for family in [V4, V6] {
        let decider = world.decide(judging);
        let mut stream = dial(&world, family, 443).unwrap();
        assert!(talks(&mut stream));
        let queued = decider.classes();
        assert_eq!(
            queued,
            [QueueClass::Syn, QueueClass::Reply, QueueClass::Original]
        );
        for _ in 0..200 {
            assert!(talks(&mut stream));
        }
        assert_eq!(decider.classes().len(), 3, "bulk reached the daemon");
        drop(decider);
        assert!(talks(&mut stream), "a judged flow needs no daemon");
        assert!(dial(&world, family, 443).is_err(), "a new one does");
    }
}

#[test]
fn both_families_are_masqueraded_and_route_is_not() {
    let world = World::new();
    for (egress, seen) in [
        (firewall::ruleset::Ipv6Egress::Masquerade, UPLINK),
        (
            firewall::ruleset::Ipv6Egress::Route,
            [UPLINK[V4], CLIENT[V6]],
        ),
    ] {
        world.install(&Layout {
            ipv6_egress: egress,
            ..layout()
        });
        let _decider = world.decide(judging);
        if egress == firewall::ruleset::Ipv6Egress::Route {
            world.ip(
                Place::Internet,
                "-6 route add fd77:1::/64 via 2001:db8:77::1",
            );
        }
        for family in [V4, V6] {
            let listener = world.within(Place::Internet, move || {
                TcpListener::bind(at(SERVER[family], 443)).unwrap()
            });
            let _client = dial(&world, family, 443).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), seen[family]);
        }
    }
}

#[test]
fn ipv6_off_is_refused_visibly() {
    let world = World::new();
    world.install(&Layout {
        ipv6_egress: firewall::ruleset::Ipv6Egress::Off,
        ..layout()
    });
    let _decider = world.decide(judging);
    echo(&world, 443);
    assert!(dial(&world, V4, 443).is_ok());
    let tap = Tap::open(&world, Place::Client);
    assert!(dial(&world, V6, 443).is_err());
    // Seen on the wire: between namespaces of one machine the error is back before connect() has
    // let go of its socket, which then takes it for a passing one.
    let prohibited = |packet: &Vec<u8>| packet[6] == 58 && packet[40..42] == [1, 1];
    assert!(tap.packets().iter().any(prohibited));
    assert!(world.counted("ipv6_off") > 0);
}

#[test]
fn missing_queue_rule_is_a_stop() {
    let world = World::new();
    world.install(&layout());
    let _decider = world.decide(judging);
    echo(&world, 443);
    for family in [V4, V6] {
        let mut judged = dial(&world, family, 443).unwrap();
        assert!(talks(&mut judged));
        let mut undecided = dial(&world, family, 443).unwrap();
        world.run(
            Place::Firewall,
            "iptables-nft -t mangle -F; ip6tables-nft -t mangle -F",
        );
        let before = world.counted("not_queued");
        assert!(!talks(&mut undecided), "a hello passed unread");
        assert!(dial(&world, family, 443).is_err());
        assert!(world.counted("not_queued") > before);
        assert!(talks(&mut judged));
        world.install(&layout());
    }
}

#[test]
fn lockdown_keeps_judged_flows_and_nothing_else() {
    let world = World::new();
    world.install(&layout());
    echo(&world, 443);
    let decider = world.decide(judging);
    let mut judged = dial(&world, V4, 443).unwrap();
    assert!(talks(&mut judged));
    let mut undecided = dial(&world, V6, 443).unwrap();
    let engaged = world.within(Place::Firewall, lockdown::engage).unwrap();
    assert_eq!(engaged, Lockdown::Ruleset);
    assert!(talks(&mut judged));
    assert!(!talks(&mut undecided));
    assert!(dial(&world, V4, 443).is_err());
    drop(decider);
    // The next start takes its place.
    world.install(&layout());
    let _decider = world.decide(judging);
    eventually("new flows pass again", || dial(&world, V4, 443).is_ok());
}

#[test]
fn metadata_service_is_for_its_users_only() {
    let world = World::new();
    let user = 54_321;
    world.ip(Place::Internet, "address add 169.254.169.254/32 dev fw0");
    world.ip(Place::Firewall, "route add 169.254.169.254 dev up0");
    world.ip(Place::Client, "route add 169.254.169.254 via 10.77.1.1");
    let mut wanted = layout();
    wanted.users.metadata = vec![user];
    world.install(&wanted);
    let _decider = world.decide(judging);
    let _service = world.within(Place::Internet, || {
        TcpListener::bind("169.254.169.254:80").unwrap()
    });
    let attempt = |place, user: u32| {
        let shell = "timeout 0.5 bash -c ': < /dev/tcp/169.254.169.254/80' 2>/dev/null";
        let command =
            format!("setpriv --reuid {user} --clear-groups {shell} && echo reached || true");
        world.run(place, &command).contains("reached")
    };
    assert!(attempt(Place::Firewall, user));
    assert!(!attempt(Place::Firewall, 0));
    assert!(!attempt(Place::Firewall, user + 1));
    assert!(world.counted("metadata") > 0);
    assert!(!attempt(Place::Client, 0), "nothing forwarded reaches it");
    assert!(world.counted("special_address") > 0);
}
