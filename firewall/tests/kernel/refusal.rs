//! Refusing so that both ends know at once.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use firewall::conntrack::{Conntrack, Tuple};
use firewall::marks::{self, QueueClass};
use firewall::nfqueue::Action;
use firewall::raw::{RawSender, Segment, SegmentKind};

use crate::ruleset::{dial, echo};
use crate::wire::{ACK, Crafted, SYN, tcp};
use crate::world::{
    Answer, CLIENT, Place, SERVER, V4, V6, World, at, eventually, is_reset, layout,
};

/// Drops the first payload and resets both ends with the numbers it carries.
fn refusing(family: usize) -> impl FnMut(QueueClass, &[u8]) -> Answer + Send + 'static {
    let mut sender = None;
    move |class, bytes| {
        if class != QueueClass::Original {
            return Answer::Give(Action::Continue(marks::VERDICT_PASS));
        }
        // Opened here: the decider's thread is the one inside the firewall's namespace.
        let sender = sender.get_or_insert_with(|| RawSender::open().unwrap());
        let (header, payload) = tcp(bytes).unwrap();
        let client = at(CLIENT[family], header.source_port);
        let server = at(SERVER[family], header.destination_port);
        let end = header
            .sequence_number
            .wrapping_add(u32::try_from(payload.len()).unwrap());
        for segment in [
            Segment {
                source: client,
                destination: server,
                sequence: header.sequence_number,
                kind: SegmentKind::Reset {
                    acknowledge: Some(header.acknowledgment_number),
                },
            },
            Segment {
                source: server,
                destination: client,
                sequence: header.acknowledgment_number,
                kind: SegmentKind::Reset {
                    acknowledge: Some(end),
                },
            },
        ] {
            sender.send(&segment).unwrap();
        }
        Answer::Give(Action::Drop)
    }
}

#[test]
fn both_ends_are_reset_within_ten_milliseconds() {
    // Small, and two segments in one GSO packet.
    for hello in [vec![b'x'; 300], vec![b'x'; 2_500]] {
        for family in [V4, V6] {
            let world = World::new();
            world.install(&layout());
            let _decider = world.decide(refusing(family));
            let listener = world.within(Place::Internet, move || {
                TcpListener::bind(at(SERVER[family], 443)).unwrap()
            });
            let mut times: Vec<Duration> = (0..5)
                .map(|_| refused_connection(&world, &listener, family, &hello))
                .collect();
            times.sort();
            // The typical one: a machine that runs other tests meanwhile may be late once.
            assert!(times[2] < Duration::from_millis(10), "{times:?}");
        }
    }
}

/// Sends a hello that is refused and returns how long it took until both ends knew.
fn refused_connection(
    world: &World,
    listener: &TcpListener,
    family: usize,
    hello: &[u8],
) -> Duration {
    let mut client = dial(world, family, 443).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    assert_ne!(peer.ip().to_string(), CLIENT[family], "through masquerade");
    let waiting = std::thread::spawn(move || (server.read(&mut [0; 9]), Instant::now()));
    let start = Instant::now();
    client.write_all(hello).unwrap();
    let at_client = client.read(&mut [0; 9]);
    let client_time = start.elapsed();
    let (at_server, end) = waiting.join().unwrap();
    assert!(is_reset(&at_client), "client: {at_client:?}");
    assert!(is_reset(&at_server), "server: {at_server:?}");
    client_time.max(end.duration_since(start))
}

#[test]
fn refused_datagrams_are_answered_at_once_and_every_time() {
    let world = World::new();
    world.install(&layout());
    let decider = world.decide(|_, _| Answer::Give(Action::Continue(marks::VERDICT_REJECT)));
    for family in [V4, V6] {
        let refused = world.within(Place::Client, move || {
            let mut refused = 0;
            for _ in 0..60 {
                let socket = UdpSocket::bind(at(CLIENT[family], 0)).unwrap();
                let wait = Some(Duration::from_millis(300));
                socket.set_read_timeout(wait).unwrap();
                socket.connect(at(SERVER[family], 443)).unwrap();
                socket.send(b"quic").unwrap();
                let answer = socket.recv(&mut [0; 9]);
                let kind = answer.map_err(|error| error.kind());
                refused += usize::from(kind == Err(std::io::ErrorKind::ConnectionRefused));
            }
            refused
        });
        assert_eq!(refused, 60, "family {family}");
    }
    assert!(
        decider
            .classes()
            .iter()
            .all(|class| *class == QueueClass::NonTcp)
    );
    assert_eq!(world.counted("refused"), 120);
}

#[test]
fn refusals_beyond_the_limit_are_silent() {
    let world = World::new();
    let mut wanted = layout();
    wanted.limits.refusals_per_second = 10;
    wanted.limits.refusals_burst = 10;
    world.install(&wanted);
    let _decider = world.decide(|_, _| Answer::Give(Action::Continue(marks::VERDICT_REJECT)));
    world.within(Place::Client, || {
        for _ in 0..60 {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", at(SERVER[V4], 443)).unwrap();
        }
    });
    eventually("the rest is dropped", || {
        world.counted("refusal_limit") >= 40
    });
    assert!(world.counted("refused") >= 10);
}

#[test]
fn new_flows_beyond_the_limit_do_not_reach_the_queue() {
    let world = World::new();
    let mut wanted = layout();
    wanted.limits.new_flows_per_second = 10;
    wanted.limits.new_flows_burst = 10;
    world.install(&wanted);
    let decider = world.decide(|_, _| Answer::Give(Action::Drop));
    world.within(Place::Client, || {
        for family in [V4, V6] {
            for _ in 0..60 {
                let socket = UdpSocket::bind(at(CLIENT[family], 0)).unwrap();
                socket.send_to(b"x", at(SERVER[family], 443)).unwrap();
            }
        }
    });
    eventually("the rest is dropped", || {
        world.counted("new_flow_limit") >= 80
    });
    assert!(decider.classes().len() <= 40);
}

#[test]
fn syn_refused_while_held_resets_the_client_of_an_unconfirmed_entry() {
    for family in [V4, V6] {
        let world = World::new();
        world.install(&layout());
        let mut sender = None;
        let _decider = world.decide(move |class, bytes| {
            assert_eq!(class, QueueClass::Syn);
            let sender = sender.get_or_insert_with(|| RawSender::open().unwrap());
            let (header, _) = tcp(bytes).unwrap();
            let segment = Segment {
                source: at(SERVER[family], header.destination_port),
                destination: at(CLIENT[family], header.source_port),
                sequence: 0,
                kind: SegmentKind::Reset {
                    acknowledge: Some(header.sequence_number.wrapping_add(1)),
                },
            };
            sender.send(&segment).unwrap();
            Answer::Give(Action::Drop)
        });
        let start = Instant::now();
        let refused = dial(&world, family, 443).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        // The client has not even sent its SYN again.
        assert!(start.elapsed() < Duration::from_millis(900));
    }
}

#[test]
fn kill_probe_makes_an_idle_server_tell_its_numbers() {
    for family in [V4, V6] {
        let world = World::new();
        world.install(&layout());
        echo(&world, 443);
        let decider = world.decide(|class, _| {
            Answer::Give(match class {
                QueueClass::Kill => Action::Drop,
                QueueClass::Original => Action::Continue(marks::judged(1)),
                _ => Action::Continue(marks::VERDICT_PASS),
            })
        });
        let mut stream = dial(&world, family, 443).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        let client = stream.local_addr().unwrap();
        let server = stream.peer_addr().unwrap();
        let flow = Tuple {
            protocol: 6,
            source: client,
            destination: server,
        };
        world.within(Place::Firewall, move || {
            let mut table = Conntrack::open().unwrap();
            let kill = marks::CT_KILL | marks::VERDICT_MASK;
            assert!(table.set_mark(&flow, marks::CT_KILL, kill).unwrap());
            let probe = Segment {
                source: client,
                destination: server,
                sequence: 1,
                kind: SegmentKind::Probe,
            };
            RawSender::open().unwrap().send(&probe).unwrap();
        });
        eventually("the challenge is queued", || {
            !decider.packets(QueueClass::Kill).is_empty()
        });
        let (challenge, payload) = tcp(&decider.packets(QueueClass::Kill)[0]).unwrap();
        assert!(challenge.ack && !challenge.syn && !challenge.rst && payload.is_empty());
        // The numbers are those of the flow: the next segment of the client continues at the one.
        let hello = tcp(&decider.packets(QueueClass::Original)[0]).unwrap().0;
        let next = hello.sequence_number.wrapping_add(5);
        assert_eq!(challenge.acknowledgment_number, next);
        assert_eq!(
            challenge.sequence_number,
            hello.acknowledgment_number.wrapping_add(5)
        );
        // And what the client says next is not carried any more.
        stream.write_all(b"more!").unwrap();
        assert!(stream.read(&mut [0; 5]).is_err());
    }
}

#[test]
fn bare_syn_on_an_old_entry_is_queued_as_such_and_starts_afresh_after_a_delete() {
    for family in [V4, V6] {
        let world = World::new();
        world.install(&layout());
        echo(&world, 443);
        let decider = world.decide(move |class, bytes| {
            Answer::Give(match class {
                QueueClass::StaleSyn => {
                    let header = tcp(bytes).unwrap().0;
                    let flow = Tuple {
                        protocol: 6,
                        source: at(CLIENT[family], header.source_port),
                        destination: at(SERVER[family], header.destination_port),
                    };
                    assert!(Conntrack::open().unwrap().delete(&flow).unwrap());
                    Action::Drop
                }
                QueueClass::Original => Action::Continue(marks::judged(1)),
                _ => Action::Continue(marks::VERDICT_PASS),
            })
        });
        let mut stream = dial(&world, family, 443).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        let syn = Crafted::new(stream.local_addr().unwrap(), at(SERVER[family], 443), SYN);
        syn.send(&world);
        eventually("the SYN is stale", || {
            decider.classes().contains(&QueueClass::StaleSyn)
        });
        let before = decider.packets(QueueClass::Syn).len();
        syn.send(&world);
        eventually("the SYN is new", || {
            decider.packets(QueueClass::Syn).len() > before
        });
        // What is left of the old connection has no entry of its own any more.
        let mut ack = syn.clone();
        ack.flags = ACK;
        ack.send(&world);
    }
}
