//! A client that scans: what the resolver is asked because of it, and what another client notices.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::daemon::Daemon;
use e2e::dns::{Answer, DnsDouble, RecordType};
use e2e::moving;
use e2e::packet::flags;
use e2e::raw::{RawHost, RawTcp};
use e2e::topology::{DOUBLE, Family, RECORDER, Topology};

use crate::dns_scale::{POOL, PORT, apart, long};
use crate::scene::isn;

/// Waits until every one of `names` has been asked about and nobody asks any more.
fn asked_in_the_end(dns: &DnsDouble, names: &[String]) {
    let over = || {
        let asked = dns.asked();
        let about: HashSet<&str> = asked.iter().map(|asked| asked.name.as_str()).collect();
        let quiet = asked
            .last()
            .is_some_and(|last| last.at.elapsed() > Duration::from_secs(1));
        quiet && names.iter().all(|name| about.contains(name.as_str()))
    };
    assert!(
        e2e::wait::holds(Duration::from_secs(30), over),
        "the questions never end"
    );
}

/// The most names that were asked about within one second.
fn busiest_second(asked: &[e2e::dns::Asked]) -> usize {
    let within = |from: Instant| {
        let later = asked.iter().filter(move |asked| asked.at >= from);
        let names: HashSet<&str> = later
            .filter(|asked| asked.at - from < Duration::from_secs(1))
            .map(|asked| asked.name.as_str())
            .collect();
        names.len()
    };
    asked
        .iter()
        .map(|first| within(first.at))
        .max()
        .unwrap_or(0)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scan, looked at from all sides")]
fn one_clients_scan_does_not_starve_anothers_names() {
    const MOVERS: u16 = 100;
    const CALM: u16 = 20;
    const SECONDS: u64 = 12;
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let names: Vec<String> = (0..40)
        .map(|index| format!("n{index}.allowed.example"))
        .collect();
    let movers: Vec<String> = (0..MOVERS).map(|index| moving::mover(index).0).collect();
    for name in &names {
        dns.set(name, Answer::of([RECORDER.address(Family::V4)]).ttl(1));
    }
    moving::settle(&dns, MOVERS);
    let policy = apart(&names[..1], &names).replacen(
        "[[group]]\nid = \"few\"\n",
        &format!("[[group]]\nid = \"few\"\n{}", moving::rules(MOVERS)),
        1,
    );
    let daemon = Daemon::asking(&lab, &policy, &[dns.address()], "").unwrap();
    let all: Vec<String> = names.iter().chain(&movers).cloned().collect();
    asked_in_the_end(&dns, &all);
    let attacker = lab.attacker().unwrap();
    let outside = lab.capture_outside().unwrap();
    // What a look-up takes while nobody scans.
    let calm: Vec<Duration> = (0..CALM).map(|index| rescue(&lab, &dns, index)).collect();
    dns.clear_log();
    let scanning = AtomicBool::new(true);
    let (sent, rescued) = std::thread::scope(|scope| {
        let scan = scope.spawn(|| scan(&attacker, Duration::from_secs(SECONDS)));
        let rescues = scope.spawn(|| {
            let mut took = Vec::new();
            for index in CALM..MOVERS {
                if scanning.load(Ordering::Relaxed) {
                    took.push(rescue(&lab, &dns, index));
                }
            }
            took
        });
        let sent = scan.join().unwrap();
        scanning.store(false, Ordering::Relaxed);
        (sent, rescues.join().unwrap())
    });
    let of_scan: Vec<_> = dns
        .asked()
        .into_iter()
        .filter(|asked| names.contains(&asked.name))
        .collect();
    let busiest = busiest_second(&of_scan);
    let of = |all: &Vec<Duration>| [50, 99].map(|percent| moving::percentile(all.clone(), percent));
    let (calm, under_scan) = (of(&calm), of(&rescued));
    println!(
        "{sent} SYNs in {SECONDS} s: {} questions, {busiest} in the busiest second; a look-up of another client takes \
         {under_scan:?} in the median and at the 99th percentile, {calm:?} without the scan",
        of_scan.len()
    );
    outside.settle(Duration::from_millis(100));
    let leaked = outside.matching(|seen| {
        seen.is_tcp(flags::SYN)
            && matches!(seen.to.ip(), IpAddr::V4(to) if to.octets()[..2] == POOL.octets()[..2])
    });
    assert_eq!(leaked, [], "a packet reached a scanned address");
    assert!(sent > 100 * SECONDS, "no scan at all: {sent} SYNs");
    assert!(
        (1..=10).contains(&busiest),
        "{busiest} questions in a second"
    );
    assert!(
        of_scan
            .iter()
            .all(|asked| asked.record_type == RecordType::A)
    );
    assert!(
        under_scan[0] < Duration::from_millis(500),
        "{under_scan:?}, {calm:?} without the scan"
    );
    for counted in ["postern_rescued_total", "postern_dns_budget_total"] {
        assert!(daemon.metric(counted).unwrap() > 0.0, "{counted}");
    }
    // On a busy machine a few take longer, also without a scan.
    if long() {
        assert!(
            under_scan[1] < Duration::from_millis(50),
            "{under_scan:?}, {calm:?} without the scan"
        );
    }
}

/// A thousand SYNs a second, or as many as this machine can, each to another address nobody named; how many.
fn scan(attacker: &RawHost, lasting: Duration) -> u64 {
    let from = attacker.address(Family::V4);
    let begun = Instant::now();
    let mut sent = 0_u32;
    while begun.elapsed() < lasting {
        let port = u16::try_from(20_000 + sent % 20_000).unwrap();
        let scanned = IpAddr::V4(Ipv4Addr::from(u32::from(POOL) + sent % 60_000));
        let to = SocketAddr::new(scanned, PORT);
        let tcp = RawTcp::new(attacker, (from, port).into(), to, isn(port));
        tcp.put(&tcp.syn()).unwrap();
        sent += 1;
        // The first few at once, as no machine is too busy for.
        let due = Duration::from_millis(u64::from(sent.saturating_sub(10)));
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    sent.into()
}

/// How long a connection of the workload takes to a name that has just moved.
fn rescue(lab: &Topology, dns: &DnsDouble, index: u16) -> Duration {
    // A client may miss ten times a second.
    std::thread::sleep(Duration::from_millis(110));
    let server = moving::move_on(lab, dns, index, Duration::ZERO).unwrap();
    moving::connect(lab, server.local_addr().unwrap()).unwrap()
}
