//! The connection table, live.

use std::io::{Read, Write};
use std::net::TcpStream;

use firewall::conntrack::{Conntrack, DestroyListener, Entry, MarkFilter, Tuple};
use firewall::marks;

use crate::ruleset::{dial, echo, judging};
use crate::wire::{Tap, echo_request, send};
use crate::world::{CLIENT, Place, SERVER, UPLINK, V4, V6, World, at, eventually, layout};

/// A connection that has said something and heard it back.
fn echoed(world: &World, family: usize) -> (TcpStream, Tuple) {
    let mut stream = dial(world, family, 443).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    let flow = Tuple {
        protocol: 6,
        source: stream.local_addr().unwrap(),
        destination: stream.peer_addr().unwrap(),
    };
    (stream, flow)
}

#[test]
fn entries_are_read_marked_and_deleted_by_their_original_tuple() {
    let world = World::new();
    world.install(&layout());
    echo(&world, 443);
    let _decider = world.decide(judging);
    for family in [V4, V6] {
        let (_stream, flow) = echoed(&world, family);
        world.within(Place::Firewall, move || {
            let mut table = Conntrack::open().unwrap();
            let entry = table.get(&flow).unwrap().expect("the flow is there");
            assert_eq!(entry.original, flow);
            assert_eq!(entry.reply.destination.ip().to_string(), UPLINK[family]);
            assert_eq!(marks::judged_generation(entry.mark), Some(7));
            assert!(entry.assured && entry.out.packets >= 3 && entry.out.bytes > 5);
            assert!(entry.timestamps.start_ns > 0);

            // Only the bits under the mask change.
            assert!(
                table
                    .set_mark(&flow, marks::CT_KILL, marks::CT_KILL)
                    .unwrap()
            );
            let entry = table.get(&flow).unwrap().unwrap();
            assert_eq!(entry.mark, marks::judged(7) | marks::CT_KILL);

            let filter = MarkFilter {
                value: marks::CT_KILL,
                mask: marks::CT_KILL,
            };
            let mut dumped = Vec::new();
            table
                .dump(Some(filter), |entry| dumped.push(entry.original))
                .unwrap();
            assert_eq!(dumped, [flow]);

            assert!(table.delete(&flow).unwrap());
            assert!(!table.delete(&flow).unwrap(), "gone is as good");
            assert!(!table.set_mark(&flow, 1, 1).unwrap());
            assert_eq!(table.get(&flow).unwrap(), None);
        });
    }
}

#[test]
fn echo_request_entries_are_found_too() {
    let world = World::new();
    world.install(&layout());
    let _decider = world.decide(|_, _| {
        crate::world::Answer::Give(firewall::nfqueue::Action::Continue(marks::judged(1)))
    });
    for family in [V4, V6] {
        let [from, to] = [at(CLIENT[family], 0).ip(), at(SERVER[family], 0).ip()];
        let tap = Tap::open(&world, Place::Client);
        send(&world, to, echo_request(from, to, 1));
        eventually("the echo comes back", || tap.holds(b"echo"));
        world.within(Place::Firewall, move || {
            let mut table = Conntrack::open().unwrap();
            let mut found = Vec::new();
            table
                .dump(None, |entry| {
                    if entry.original.source.ip() == at(CLIENT[family], 0).ip() {
                        found.push(entry.original);
                    }
                })
                .unwrap();
            let [flow] = found[..] else {
                panic!("{found:?}");
            };
            assert!(table.delete(&flow).unwrap());
        });
    }
}

#[test]
fn end_of_a_flow_is_reported_with_its_counts() {
    let world = World::new();
    world.install(&layout());
    echo(&world, 443);
    let _decider = world.decide(judging);
    for family in [V4, V6] {
        let mut stream = dial(&world, family, 443).unwrap();
        let flow = Tuple {
            protocol: 6,
            source: stream.local_addr().unwrap(),
            destination: stream.peer_addr().unwrap(),
        };
        let (ready, listening) = std::sync::mpsc::channel();
        let waiting = world.start(Place::Firewall, move || {
            let mut listener = DestroyListener::open().unwrap();
            ready.send(()).unwrap();
            let mut ended: Vec<Entry> = Vec::new();
            eventually("the end is reported", || {
                let report = listener.receive(|entry| ended.push(entry)).unwrap();
                assert!(!report.overrun && report.unreadable == 0);
                ended.iter().any(|entry| entry.original == flow)
            });
            ended
                .into_iter()
                .find(|entry| entry.original == flow)
                .unwrap()
        });
        listening.recv().unwrap();
        stream.write_all(&[b'x'; 1_000]).unwrap();
        stream.read_exact(&mut [0; 1_000]).unwrap();
        world.within(Place::Firewall, move || {
            assert!(Conntrack::open().unwrap().delete(&flow).unwrap());
        });
        let entry = waiting.join().unwrap();
        assert!(entry.out.bytes >= 1_000 && entry.back.bytes >= 1_000);
        assert!(entry.timestamps.stop_ns > entry.timestamps.start_ns);
        assert_eq!(marks::judged_generation(entry.mark), Some(7));
    }
}

#[test]
fn entry_whose_time_is_up_leaves_when_it_is_met() {
    let world = World::new();
    world.install(&layout());
    echo(&world, 443);
    let _decider = world.decide(judging);
    world.within(Place::Firewall, || {
        let time_out = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
        std::fs::write(time_out, "1").unwrap();
    });
    for family in [V4, V6] {
        let (_stream, flow) = echoed(&world, family);
        world.within(Place::Firewall, move || {
            let mut listener = DestroyListener::open().unwrap();
            let mut table = Conntrack::open().unwrap();
            // More than go into one call, of which the kernel knows one.
            let mut all: Vec<Tuple> = (1..100)
                .map(|port| {
                    let mut other = flow;
                    other.source.set_port(port);
                    other
                })
                .collect();
            all.insert(40, flow);
            let mut ended = Vec::new();
            eventually("the end is reported", || {
                table.meet(&all).unwrap();
                listener
                    .receive(|entry| ended.push(entry.original))
                    .unwrap();
                !ended.is_empty()
            });
            assert_eq!(ended, [flow]);
            assert_eq!(table.get(&flow).unwrap(), None);
        });
    }
}
