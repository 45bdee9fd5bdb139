//! Ten thousand names, and what a look-up adds to a connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use e2e::daemon::Daemon;
use e2e::dns::{Answer, DnsDouble};
use e2e::hello::{self, ClientHello};
use e2e::moving;
use e2e::topology::{DOUBLE, Topology};

const NAMES: u32 = 10_000;
/// One name in so many is in use.
const USED: u32 = 10;
const TTLS: [u32; 3] = [5, 60, 300];
const PORT: u16 = 443;
const FIRST: Ipv4Addr = Ipv4Addr::new(45, 60, 0, 1);

fn name(index: u32) -> String {
    format!("n{index}.many.example")
}

fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) + index)
}

/// A workload that may reach what `rules` say.
fn inventory(rules: &str) -> String {
    format!(
        "served = [\"10.77.0.0/16\"]\n[preferences]\nallow_private_answers = [\"203.0.113.0/24\"]\n\
         flow_log_verbosity = \"only_disallowed\"\n\
         [[client]]\naddress = \"10.77.1.10\"\ninstance = \"workload\"\ngroups = [\"web\"]\n\
         [[group]]\nid = \"web\"\n{rules}"
    )
}

fn rules() -> String {
    let all: Vec<String> = (0..NAMES).map(name).collect();
    let rule = |some: &[String]| {
        format!(
            "[[group.rule]]\ndescription = \"postern:tls:{}\"\nprotocol = \"tcp\"\nports = \"{PORT}\"\n",
            some.join(",")
        )
    };
    all.chunks(100).map(rule).collect()
}

/// Answers one hello after the other, on every address the internet has.
fn serve(lab: &Topology) {
    let listener = lab
        .internet
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .unwrap()
        .unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream?;
                if stream.read(&mut [0; 4096])? > 0 {
                    stream.write_all(&hello::server_flight())?;
                }
                Ok::<(), std::io::Error>(())
            });
        }
    });
}

/// A connection of the workload under a name; whether it was served.
fn use_name(lab: &Topology, index: u32) -> bool {
    let to = SocketAddr::from((address(index), PORT));
    let hello = ClientHello::new(&name(index)).record();
    let exchange = || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(15))?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.write_all(&hello)?;
        stream.read(&mut [0; 64])
    };
    lab.client
        .enter(exchange)
        .unwrap()
        .is_ok_and(|read| read > 0)
}

/// Processor time and resident memory of some processes together, in seconds and bytes.
fn usage(pids: &[u32]) -> (f64, u64) {
    let (mut ticks, mut pages) = (0_u64, 0_u64);
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        // utime, stime and rss: the 14th, 15th and 24th field of proc_pid_stat(5), the third of which comes first here.
        let field = |at: usize| {
            after_name
                .split(' ')
                .nth(at - 3)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        ticks += field(14) + field(15);
        pages += field(24);
    }
    // A hundred ticks a second on every Linux; pages of 4 KiB.
    (
        f64::from(u32::try_from(ticks).unwrap()) / 100.0,
        pages * 4_096,
    )
}

/// Sustained: at most 400 questions a second, a tenth of one processor and 200 MB, daemon and witness together.
#[test]
fn ten_thousand_names_a_tenth_of_them_in_use() {
    let seconds = super::setting("POSTERN_NAMES_SECONDS", 60);
    let lab = Topology::new().unwrap();
    lab.internet
        .ip("route add local 45.60.0.0/16 dev lo\n")
        .unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    for index in 0..NAMES {
        let ttl = TTLS[(index / USED) as usize % TTLS.len()];
        dns.set(&name(index), Answer::of([address(index)]).ttl(ttl));
    }
    serve(&lab);
    let daemon = Daemon::asking(&lab, &inventory(&rules()), &[dns.address()], "").unwrap();
    let begun = Instant::now();
    let bound = || daemon.metric("postern_names_bound").unwrap() >= f64::from(NAMES);
    assert!(
        e2e::wait::holds(Duration::from_secs(300), bound),
        "{}",
        daemon.output()
    );
    let primed = begun.elapsed();
    for index in (0..NAMES).step_by(USED as usize) {
        assert!(use_name(&lab, index), "{}", name(index));
    }
    dns.clear_log();
    let pids = [daemon.pid(), daemon.witness_pid().unwrap()];
    let (cpu_before, _) = usage(&pids);
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let (cpu, bytes) = usage(&pids);
    let share = (cpu - cpu_before) / begun.elapsed().as_secs_f64();
    let asked = dns.asked();
    let busiest = busiest_second(&asked.iter().map(|one| one.at).collect::<Vec<_>>());
    let per_second = asked.len() as f64 / begun.elapsed().as_secs_f64();
    eprintln!(
        "{NAMES} names answered after {primed:?}; with {} in use {per_second:.0} questions a second, {busiest} in the \
         busiest; {:.1} % of a processor, {} MB",
        NAMES / USED,
        share * 100.0,
        bytes >> 20
    );
    let idle = asked.iter().filter(|one| {
        let index: u32 = one
            .name
            .trim_start_matches('n')
            .split('.')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        !index.is_multiple_of(USED)
    });
    assert_eq!(idle.count(), 0, "names nobody uses are asked about");
    assert!(
        per_second <= 400.0 && busiest <= 800,
        "{per_second}, {busiest}"
    );
    assert!(share < 0.1, "{share}");
    assert!(bytes < 200 << 20, "{bytes}");
}

/// The most moments within one second.
fn busiest_second(at: &[Instant]) -> usize {
    let mut recent = std::collections::VecDeque::new();
    let mut most = 0;
    for now in at {
        recent.retain(|earlier: &Instant| *now - *earlier < Duration::from_secs(1));
        recent.push_back(*now);
        most = most.max(recent.len());
    }
    most
}

/// What one question and its answer take from the firewall's machine, the double's own slowness included.
fn round_trip(lab: &Topology, dns: &DnsDouble, name: &str) -> Duration {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let exchange = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let begun = Instant::now();
        socket.send_to(&question, dns.address())?;
        socket.recv(&mut [0; 512])?;
        Ok::<_, std::io::Error>(begun.elapsed())
    };
    // From where no ruleset stands in the way, on the same link.
    lab.internet.enter(exchange).unwrap().unwrap()
}

/// A connection whose name has moved takes no longer, at the 99th percentile, than one whose name has not, a round trip
/// to the resolver and two milliseconds.
#[test]
fn a_rescue_costs_one_round_trip_and_two_milliseconds() {
    const MOVERS: u16 = 200;
    const AWAY: Duration = Duration::from_millis(20);
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    moving::settle(&dns, MOVERS);
    let policy = inventory(&moving::rules(MOVERS));
    let daemon = Daemon::asking(&lab, &policy, &[dns.address()], "").unwrap();
    let bound = || daemon.metric("postern_names_bound").unwrap() >= f64::from(MOVERS);
    assert!(
        e2e::wait::holds(Duration::from_secs(60), bound),
        "{}",
        daemon.output()
    );
    let (mut rescued, mut hits, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..MOVERS {
        // A client may miss ten times a second.
        std::thread::sleep(Duration::from_millis(110));
        let server = moving::move_on(&lab, &dns, index, AWAY).unwrap();
        let to = server.local_addr().unwrap();
        trips.push(round_trip(&lab, &dns, &moving::mover(index).0));
        rescued.push(moving::connect(&lab, to).unwrap());
        hits.push(moving::connect(&lab, to).unwrap());
    }
    let of = |all: &Vec<Duration>, percent| moving::percentile(all.clone(), percent);
    eprintln!(
        "rescued: p50 {:?} p99 {:?}; known: p50 {:?} p99 {:?}; a round trip to the resolver: p50 {:?} p99 {:?}",
        of(&rescued, 50),
        of(&rescued, 99),
        of(&hits, 50),
        of(&hits, 99),
        of(&trips, 50),
        of(&trips, 99),
    );
    let most = of(&hits, 99) + of(&trips, 99) + Duration::from_millis(2);
    assert!(of(&rescued, 99) <= most, "more than {most:?}");
}
