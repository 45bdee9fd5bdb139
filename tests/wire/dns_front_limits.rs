//! How much anybody may have of the DNS front: beyond that there is no answer, it is counted, and others are served.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::dns::{Answer, RecordType, Stub};
use e2e::topology::{Asker, CLIENT_IF, Family, RECORDER, Topology};

use crate::dns_front::{ENFORCED, Fronted, near, workload};

/// A second client, with other groups.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 77);

/// Types of records that pass through the front.
const TYPES: [RecordType; 10] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::HTTPS,
    RecordType::SVCB,
    RecordType::CNAME,
    RecordType::PTR,
    RecordType::MX,
    RecordType::SRV,
    RecordType::NS,
    RecordType::SOA,
];

/// A socket of the workload that asks the front.
fn socket(lab: &Topology) -> UdpSocket {
    let bind = || {
        let socket = UdpSocket::bind((Asker::Workload.address(Family::V4), 0))?;
        socket.connect(near(Family::V4))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok::<_, std::io::Error>(socket)
    };
    lab.client.enter(bind).unwrap().unwrap()
}

/// Sends a question; the id is its own.
fn put(socket: &UdpSocket, name: &str, id: u16) {
    put_for(socket, name, RecordType::A, id);
}

fn put_for(socket: &UdpSocket, name: &str, record_type: RecordType, id: u16) {
    let mut question = Stub::question(name, record_type, Some(1_232)).unwrap();
    question[..2].copy_from_slice(&id.to_be_bytes());
    socket.send(&question).unwrap();
}

/// How many answers come until there are `most` or none comes for two seconds.
fn count(socket: &UdpSocket, most: usize) -> usize {
    let mut buffer = [0; 2_048];
    (0..most)
        .take_while(|_| socket.recv(&mut buffer).is_ok())
        .count()
}

#[test]
fn equal_questions_are_asked_once_and_the_budget_is_kept() {
    let lab = Topology::new().unwrap();
    // Ten questions a second, and half of them for the front. What asks is as good as a cloud's resolver, which nothing
    // else limits.
    let config = "max_qps = 10\nresolver_sources = [\"10.77.1.10\"]";
    let front = Fronted::with(&lab, ENFORCED, config);
    let here = RECORDER.address(Family::V4);
    let slow = Answer::of([here]).delayed(Duration::from_millis(500));
    front.dns.set("slow.wild.example", slow);
    let socket = socket(&lab);
    (0..50).for_each(|id| put(&socket, "slow.wild.example", id));
    assert_eq!(count(&socket, 50), 50);
    assert_eq!(front.dns.asked_for("slow.wild.example").len(), 1);
    // And once more out of memory.
    put(&socket, "slow.wild.example", 51);
    assert_eq!(count(&socket, 1), 1);
    assert_eq!(front.dns.asked_for("slow.wild.example").len(), 1);

    let began = Instant::now();
    for id in 0..60 {
        let name = format!("n{id}.wild.example");
        front.dns.set(&name, Answer::of([here]));
        put(&socket, &name, id);
    }
    let answered = count(&socket, 60);
    let allowed = 5 + 5 * (began.elapsed().as_secs() as usize + 1);
    assert!(
        answered <= allowed,
        "{answered} of 60 at once, {allowed} allowed"
    );
    for metric in [
        "postern_dns_front_over_budget_total",
        "postern_dns_front_cached_total",
    ] {
        let raised = || front.daemon.metric(metric).unwrap() > 0.0;
        assert!(
            e2e::wait::holds(Duration::from_secs(10), raised),
            "{metric}"
        );
    }
    let told = workload(&lab, Family::V4)
        .insist("n59.wild.example", RecordType::A)
        .unwrap();
    assert_eq!(told.addresses(), [here]);
}

#[test]
fn one_source_that_floods_the_front_is_limited_and_others_are_served() {
    let lab = Topology::new().unwrap();
    lab.client
        .ip(&format!("addr add {OTHER}/24 dev {CLIENT_IF}\n"))
        .unwrap();
    let front = Fronted::new(&lab);
    front.dns.set(
        "others.good.example",
        Answer::of([RECORDER.address(Family::V4)]),
    );
    let socket = socket(&lab);
    let began = Instant::now();
    for id in 0..2_000 {
        put(&socket, "evil.example", id);
    }
    let stub = Stub::new(&lab.client, OTHER.into(), near(Family::V4));
    assert_eq!(
        stub.insist("others.good.example", RecordType::A)
            .unwrap()
            .addresses()
            .len(),
        1
    );
    let answered = count(&socket, 2_000);
    let allowed = 400 + 200 * (began.elapsed().as_secs() as usize + 1);
    assert!(
        answered <= allowed,
        "{answered} answered, {allowed} allowed"
    );
    for metric in [
        "postern_dns_front_limited_total",
        "postern_dns_front_unlogged_total",
        "postern_dns_front_refused_total",
    ] {
        let raised = || front.daemon.metric(metric).unwrap() > 0.0;
        assert!(
            e2e::wait::holds(Duration::from_secs(10), raised),
            "{metric}"
        );
    }
    let lines = front.daemon.logs().lines("dns").len();
    assert!(lines < answered, "{lines} lines about {answered} answers");
}

/// What resolvers are asked on behalf of clients is shared: who asks much leaves half of it to the others.
#[test]
fn one_source_that_has_resolvers_asked_much_does_not_spend_the_share_of_others() {
    let lab = Topology::new().unwrap();
    lab.client
        .ip(&format!("addr add {OTHER}/24 dev {CLIENT_IF}\n"))
        .unwrap();
    // Five questions a second for the front, of which one is modest.
    let front = Fronted::with(&lab, ENFORCED, "max_qps = 10");
    let socket = socket(&lab);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Some fifty a second, none of which is remembered.
        scope.spawn(|| {
            for round in 0..1_000 {
                for (id, record_type) in (round * 10..).zip(TYPES) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    put_for(&socket, &format!("n{round}.wild.example"), record_type, id);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        let stub = Stub::new(&lab.client, OTHER.into(), near(Family::V4));
        let mut answered = Vec::new();
        for record_type in TYPES.into_iter().take(5) {
            std::thread::sleep(Duration::from_millis(1_300));
            answered.push(
                stub.ask("others.good.example", record_type)
                    .unwrap()
                    .is_some(),
            );
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(answered, [true; 5], "{}", front.daemon.output());
    });
    let over = front.daemon.metric("postern_dns_front_over_budget_total");
    assert!(over.unwrap() > 0.0, "nobody asked much");
}

#[test]
fn connections_to_the_front_are_few_of_each_source() {
    let lab = Topology::new().unwrap();
    lab.client
        .ip(&format!("addr add {OTHER}/24 dev {CLIENT_IF}\n"))
        .unwrap();
    let front = Fronted::new(&lab);
    front.dns.set(
        "others.good.example",
        Answer::of([RECORDER.address(Family::V4)]),
    );
    let connect =
        || (0..40).map(|_| TcpStream::connect_timeout(&near(Family::V4), Duration::from_secs(20)));
    let streams = lab
        .client
        .enter(|| connect().collect::<Result<Vec<_>, _>>())
        .unwrap()
        .unwrap();
    let is_closed = |stream: &TcpStream| {
        stream
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        matches!((&*stream).read(&mut [0; 1]), Ok(0))
    };
    let closed = || streams.iter().filter(|stream| is_closed(stream)).count();
    assert!(
        e2e::wait::holds(Duration::from_secs(5), || closed() == 24),
        "{} of 40 closed",
        closed()
    );
    let stub = Stub::new(&lab.client, OTHER.into(), near(Family::V4));
    let told = stub.ask_tcp("others.good.example", RecordType::A).unwrap();
    assert!(told.is_some(), "{}", front.daemon.output());
    // What says nothing is closed after ten seconds, and its place is free.
    assert!(e2e::wait::holds(Duration::from_secs(30), || closed() == 40));
    let told = workload(&lab, Family::V4)
        .ask_tcp("listed.good.example", RecordType::A)
        .unwrap();
    assert!(told.is_some());
}

/// Printed for the README: what asking the front costs.
#[test]
fn answer_out_of_memory_takes_no_longer_than_a_resolver_nearby() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    front.dns.set(
        "fast.wild.example",
        Answer::of([RECORDER.address(Family::V4)]).ttl(60),
    );
    let socket = socket(&lab);
    let mut buffer = [0; 2_048];
    let mut times: Vec<Duration> = (0..300)
        .map(|id| {
            // Below what one source may ask in a second.
            std::thread::sleep(Duration::from_millis(6));
            let began = Instant::now();
            put(&socket, "fast.wild.example", id);
            assert!(
                socket.recv(&mut buffer).is_ok(),
                "{}",
                front.daemon.output()
            );
            began.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "answers out of memory: p50 {:?}, p99 {:?}",
        times[150], times[297]
    );
    assert!(times[150] < Duration::from_millis(20), "{:?}", times[150]);
    assert_eq!(front.dns.asked_for("fast.wild.example").len(), 1);
}
