//! The address gate against names that rotate and names that nobody listed: rates, and what the resolver was asked.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::daemon::Daemon;
use e2e::dns::{Answer, DnsDouble, RecordType};
use e2e::hello::{self, ClientHello};
use e2e::topology::{DOUBLE, Family, RECORDER, Topology};

const CDN: &str = "cdn.rotating.example";
pub(crate) const PORT: u16 = 443;
/// Addresses of the name that rotates; the internet's kernel answers for all of them.
pub(crate) const POOL: Ipv4Addr = Ipv4Addr::new(45, 60, 0, 0);
const POOL_SIZE: u32 = 1_000;
const AT_A_TIME: usize = 8;

/// Exact names for both clients.
pub(crate) fn inventory(names: &[String]) -> String {
    apart(names, names)
}

/// Exact names for the workload, and others for the hand-made client.
pub(crate) fn apart(workloads: &[String], attackers: &[String]) -> String {
    let mut text = String::from(
        "served = [\"10.77.0.0/16\"]\n[preferences]\nallow_private_answers = [\"203.0.113.0/24\"]\n\
         flow_log_verbosity = \"only_disallowed\"\n\
         [[client]]\naddress = \"10.77.1.10\"\ninstance = \"workload\"\ngroups = [\"few\"]\n\
         [[client]]\naddress = \"10.77.1.66\"\ninstance = \"attacker\"\ngroups = [\"web\"]\n\
",
    );
    for (group, names) in [("few", workloads), ("web", attackers)] {
        text.push_str(&format!("[[group]]\nid = \"{group}\"\n"));
        for some in names.chunks(100) {
            text.push_str(&format!(
                "[[group.rule]]\ndescription = \"postern:tls:{}\"\nprotocol = \"tcp\"\nports = \"{PORT}\"\n",
                some.join(",")
            ));
        }
    }
    text
}

pub(crate) fn pool() -> impl Iterator<Item = Ipv4Addr> {
    (1..=POOL_SIZE).map(|index| Ipv4Addr::from(u32::from(POOL) + index))
}

/// Serves a port of every address the internet has: reads a hello, answers, closes.
pub(crate) fn serve(lab: &Topology, port: u16, stop: &'static AtomicBool) {
    let listener = lab
        .internet
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .unwrap()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            std::thread::spawn(move || {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                if stream.read(&mut [0; 4096])? > 0 {
                    stream.write_all(&hello::server_flight())?;
                }
                Ok::<(), std::io::Error>(())
            });
        }
    });
}

/// How connections fared.
#[derive(Debug, Default)]
struct Tried {
    served: AtomicUsize,
    refused: AtomicUsize,
    /// Nobody answered in 15 s: four SYNs.
    silent: AtomicUsize,
    slow_ms: AtomicUsize,
}

impl Tried {
    /// The share that was not served.
    fn lost(&self) -> f64 {
        let [served, refused, silent] = [&self.served, &self.refused, &self.silent]
            .map(|count| count.load(Ordering::Relaxed) as f64);
        (refused + silent) / (served + refused + silent).max(1.0)
    }
}

/// `count` connections of the workload under [`CDN`], each to the first address of an answer of its own.
fn try_many(lab: &Topology, dns: &DnsDouble, count: usize) -> Tried {
    let tried = Tried::default();
    let left = AtomicUsize::new(count);
    let hello = ClientHello::new(CDN).record();
    let one = || {
        let Some(IpAddr::V4(address)) = dns.draw(CDN, RecordType::A).first().copied() else {
            panic!("the double draws nothing");
        };
        let begun = Instant::now();
        let to = SocketAddr::new(address.into(), PORT);
        let connected = TcpStream::connect_timeout(&to, Duration::from_secs(15));
        let outcome = connected.and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(&hello)?;
            stream.read(&mut [0; 1024])
        });
        let counter = match &outcome {
            Ok(1..) => &tried.served,
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => &tried.silent,
            _ => &tried.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let ms = usize::try_from(begun.elapsed().as_millis()).unwrap();
        tried.slow_ms.fetch_max(ms, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                lab.client
                    .enter(|| {
                        let next = || {
                            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                                left.checked_sub(1)
                            })
                        };
                        while next().is_ok() {
                            one();
                        }
                    })
                    .unwrap();
            });
        }
    });
    tried
}

/// Whether each part runs as long as the promise says, in real time.
pub(crate) fn long() -> bool {
    std::env::var_os("E2E_LONG").is_some()
}

/// The form without the DNS front: the rate is measured, printed, and published in the README.
#[test]
fn rotating_dns_is_never_refused() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let lab = Topology::new().unwrap();
    lab.internet
        .ip(&format!("route add local {POOL}/22 dev lo\n"))
        .unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    // A smaller pool is known sooner: the short form waits for that instead of ten minutes.
    let size = if long() { POOL_SIZE } else { POOL_SIZE / 4 };
    let pool: HashSet<IpAddr> = pool().take(size as usize).map(IpAddr::from).collect();
    let answer = Answer::of(pool.iter().copied()).at_a_time(AT_A_TIME).ttl(5);
    dns.set(CDN, answer);
    serve(&lab, PORT, &STOP);
    let daemon = Daemon::asking(&lab, &inventory(&[CDN.to_owned()]), &[dns.address()], "").unwrap();
    let (some, minutes) = if long() { (10_000, 10) } else { (400, 0) };
    let cold = try_many(&lab, &dns, some);
    let warm_at = Instant::now() + Duration::from_secs(60 * minutes);
    // Somebody goes on using it meanwhile, as somebody does.
    let given_up_at = Instant::now() + Duration::from_secs(120);
    let is_known = || {
        let asked = dns.asked_for(CDN).into_iter();
        let seen: HashSet<IpAddr> = asked.flat_map(|asked| asked.addresses).collect();
        seen.len() == pool.len() || Instant::now() > given_up_at
    };
    while Instant::now() < warm_at || !(long() || is_known()) {
        try_many(&lab, &dns, 16);
        std::thread::sleep(Duration::from_secs(1));
    }
    let before = daemon.metric("postern_refused_total").unwrap();
    let warm = try_many(&lab, &dns, some);
    println!("cold start: {cold:?}, {:.2} % lost", 100.0 * cold.lost());
    println!(
        "after {minutes} min: {warm:?}, {:.2} % lost",
        100.0 * warm.lost()
    );
    let overlap = overlap(&dns);
    println!(
        "an answer of a client's and the firewall's share {:.1} %",
        100.0 * overlap
    );
    assert!(overlap < 0.6, "the two ask independently");
    assert!(warm.lost() < 0.01, "{warm:?}");
    // On a busy machine the first look-ups take as long as anything else.
    let cold_most = if long() { 0.05 } else { 0.2 };
    assert!(cold.lost() < cold_most, "{cold:?}");
    let refused = daemon.metric("postern_refused_total").unwrap() - before;
    assert!(refused <= 0.01 * some as f64, "{refused} refusals counted");
    assert!(daemon.metric("postern_dns_names_rotating").unwrap() > 0.0);
    STOP.store(true, Ordering::Relaxed);
}

/// How much an answer as a client gets it has in common with the firewall's newest, on average.
fn overlap(dns: &DnsDouble) -> f64 {
    let firewalls: Vec<HashSet<IpAddr>> = dns
        .asked_for(CDN)
        .into_iter()
        .filter(|asked| asked.record_type == RecordType::A)
        .map(|asked| asked.addresses.into_iter().collect())
        .collect();
    let newest = firewalls.iter().rev().take(200);
    let shares: Vec<f64> = newest
        .map(|ours| {
            let theirs = dns.draw(CDN, RecordType::A);
            theirs
                .iter()
                .filter(|address| ours.contains(address))
                .count() as f64
                / theirs.len() as f64
        })
        .collect();
    shares.iter().sum::<f64>() / shares.len() as f64
}

/// A megabyte pushed out as names: none of it is asked for, whoever claims it.
#[test]
fn a_megabyte_of_names_reaches_no_resolver() {
    const BYTES: usize = 1 << 20;
    static STOP: AtomicBool = AtomicBool::new(false);
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let here = RECORDER.address(Family::V4);
    dns.set("api.allowed.example", Answer::of([here]));
    dns.set("*.secret.example", Answer::of([here]));
    serve(&lab, PORT, &STOP);
    let listed = vec!["api.allowed.example".to_owned()];
    let daemon = Daemon::asking(&lab, &inventory(&listed), &[dns.address()], "").unwrap();
    let label = "x".repeat(55);
    let name = |index: usize| format!("{index:08}{label}.{label}.{label}.{label}.secret.example");
    let each = name(0).len();
    let next = AtomicUsize::new(0);
    let to = SocketAddr::new(here, PORT);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                lab.client
                    .enter(|| {
                        while next.load(Ordering::Relaxed) * each < BYTES {
                            let hello =
                                ClientHello::new(&name(next.fetch_add(1, Ordering::Relaxed)))
                                    .record();
                            let mut stream =
                                TcpStream::connect_timeout(&to, Duration::from_secs(15)).unwrap();
                            stream.write_all(&hello).unwrap();
                            stream
                                .set_read_timeout(Some(Duration::from_secs(15)))
                                .unwrap();
                            let read = stream.read(&mut [0; 64]);
                            assert!(!matches!(read, Ok(1..)), "it was served");
                        }
                    })
                    .unwrap();
            });
        }
    });
    STOP.store(true, Ordering::Relaxed);
    // Of one client ten a second are logged, and the rest is counted.
    let total = |name: &str| daemon.metric(name).unwrap();
    let refused = total("postern_refused_total") + total("postern_suppressed_total");
    assert!(refused * each as f64 >= BYTES as f64, "{refused} refusals");
    let stray: Vec<String> = dns
        .asked()
        .into_iter()
        .map(|asked| asked.name)
        .filter(|name| name != "api.allowed.example")
        .collect();
    assert_eq!(stray, Vec::<String>::new());
    assert!(
        !dns.asked_for("api.allowed.example").is_empty(),
        "the log of the double works"
    );
}

/// What was bound before the daemon was killed is bound after it, without a resolver.
#[test]
fn a_restart_without_a_resolver_refuses_nobody_whose_address_was_known() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let here = RECORDER.address(Family::V4);
    dns.set("api.allowed.example", Answer::of([here]).ttl(1));
    serve(&lab, PORT, &STOP);
    let listed = vec!["api.allowed.example".to_owned()];
    let mut daemon = Daemon::asking(&lab, &inventory(&listed), &[dns.address()], "").unwrap();
    let served = || {
        lab.client
            .enter(|| {
                let hello = ClientHello::new("api.allowed.example").record();
                let mut stream = TcpStream::connect_timeout(
                    &SocketAddr::new(here, PORT),
                    Duration::from_secs(5),
                )?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(&hello)?;
                stream.read(&mut [0; 64])
            })
            .unwrap()
            .is_ok_and(|read| read > 0)
    };
    assert!(
        e2e::wait::holds(Duration::from_secs(10), served),
        "{}",
        daemon.output()
    );
    let file = lab.file("state").join("bindings.jsonl");
    let written =
        || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&here.to_string()));
    assert!(
        e2e::wait::holds(Duration::from_secs(20), written),
        "nothing was written down"
    );
    daemon.kill().unwrap();
    dns.set_fault(e2e::dns::Fault::Hang);
    daemon.restart().unwrap();
    assert!(served(), "{}", daemon.output());
    // A file that is none of ours is passed over, and the daemon starts.
    daemon.kill().unwrap();
    std::fs::write(&file, b"\0\xff not ours\n").unwrap();
    daemon.restart().unwrap();
    assert!(
        daemon.output().contains("reading the bindings kept"),
        "{}",
        daemon.output()
    );
    assert!(!served(), "nothing is known and nobody answers");
    STOP.store(true, Ordering::Relaxed);
}
