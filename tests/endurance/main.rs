//! What takes minutes, or all of a machine: reload and restart at scale, memory over time, many names. Run by
//! `cargo suite --long` with an optimised Postern; what is measured is printed.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops, and a measurement is said"
)]

mod names;

use std::fmt::Write;
use std::time::{Duration, Instant};

use e2e::daemon::{Daemon, INVENTORY};
use e2e::load::{
    Attempt, Fate, Held, Load, LoadServer, Outcome, Plan, Publication, publish_in_turn,
    wrong_verdicts,
};
use e2e::publisher::{document, draft};
use e2e::topology::{CLIENT_IF, Family, MIRROR, RECORDER, Site, Topology};
use e2e::wait;

/// Addresses the load comes from.
const SOURCES: u8 = 100;

/// Gives the client's machine those addresses.
fn add_sources(lab: &Topology) {
    let mut commands = String::new();
    for host in 100..100 + SOURCES {
        writeln!(commands, "addr add 10.77.2.{host}/32 dev {CLIENT_IF}").unwrap();
    }
    lab.client.ip(&commands).unwrap();
    lab.client
        .sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        .unwrap();
}

/// The usual policy with the load's clients, 20,000 further rules in 1,000 groups, and 50,000 further clients.
fn large() -> String {
    let mut text = INVENTORY.to_owned();
    let client =
        "[[client]]\naddress = \"10.77.2.0/24\"\ninstance = \"load\"\ngroups = [\"web\"]\n";
    text.push_str(client);
    for group in 0..1_000 {
        writeln!(text, "[[group]]\nid = \"g{group}\"").unwrap();
        for rule in 0..20 {
            writeln!(
                text,
                "[[group.rule]]\ndescription = \"postern:tls:n{rule}.g{group}.example.net\"\n\
                 protocol = \"tcp\"\nports = \"443\""
            )
            .unwrap();
        }
    }
    for number in 0..50_000_u32 {
        let [_, high, middle, low] = (0x0a80_0000 + number).to_be_bytes();
        writeln!(
            text,
            "[[client]]\naddress = \"10.{high}.{middle}.{low}\"\ninstance = \"i-{number}\"\ngroups = [\"g{}\"]",
            number % 1_000
        )
        .unwrap();
    }
    text.replacen("served = [", "served = [\"10.128.0.0/9\", ", 1)
}

fn plan(site: Site, per_second: u32, seconds: u64) -> Plan {
    Plan {
        to: site.at(Family::V4, 443),
        from: (100..100 + SOURCES)
            .map(|host| [10, 77, 2, host].into())
            .collect(),
        names: vec![site.name.to_owned()],
        per_second,
        lasting: Duration::from_secs(seconds),
        threads: 32,
    }
}

/// A whole number from the environment, for a shorter or a heavier run.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// 20,000 rules and 50,000 clients are replaced while connections come as fast as this machine makes them, at most
/// 5,000 a second. Adoption, promised within 200 ms, is measured and bounded loosely: this machine may do other work.
#[test]
fn reload_at_scale() {
    let lab = Topology::new().unwrap();
    add_sources(&lab);
    let daemon = Daemon::without_policy(&lab).unwrap();
    let mut publisher = daemon.publisher().unwrap();
    let with = document(&draft(&large()).unwrap()).unwrap();
    let fewer = large().replace(
        "old.allowed.example,recorder.allowed.example,",
        "old.allowed.example,",
    );
    let without = document(&draft(&fewer).unwrap()).unwrap();
    publish_in_turn(&mut publisher, [&with, &without], 2, Duration::from_secs(3)).unwrap();
    let _servers = [RECORDER, MIRROR].map(|site| {
        humbly(|| LoadServer::start(&lab.internet, site.at(Family::V4, 443), 48).unwrap())
    });
    let rate = u32::try_from(setting("POSTERN_LOAD_RATE", 5_000)).unwrap();
    let load = |site, seconds| {
        humbly(|| Load::start(&lab.client, &plan(site, rate / 2, seconds)).unwrap())
    };
    // Connections and nothing more, from a client that waits for nobody: what they take is what two packets take.
    let asking = Plan {
        names: Vec::new(),
        threads: 8,
        ..plan(MIRROR, 500, 8)
    };
    let calm = load(MIRROR, 4).finish();
    let (toggled, steady) = (load(RECORDER, 8), load(MIRROR, 8));
    let asked = at_priority(-15, || Load::start(&lab.client, &asking).unwrap());
    let turns = publish_in_turn(
        &mut publisher,
        [&with, &without],
        5,
        Duration::from_millis(1_500),
    )
    .unwrap();
    let (toggled, steady, asked) = (toggled.finish(), steady.finish(), asked.finish());
    let times = |of: fn(&Publication) -> Duration| turns.iter().map(of).max().unwrap();
    let answered = times(|turn| turn.adopted - turn.asked);
    let slowest = turns
        .iter()
        .map(|turn| in_force_after(&daemon, turn.generation))
        .max()
        .unwrap();
    let (judged, wrong) = wrong_verdicts(&toggled, &turns);
    eprintln!(
        "in force everywhere after at most {slowest:?}, answered after {answered:?}; {:.0} connections/s; {judged} judged \
         under one policy, {} wrong",
        toggled.rate() + steady.rate(),
        wrong.len(),
    );
    say_latencies("SYN to answer", &calm, &steady, &turns);
    say_latencies("SYN to SYN/ACK", &calm.only(|_| false), &asked, &turns);
    assert_eq!(asked.count(Fate::Served), asked.attempts.len());
    assert!(wrong.is_empty(), "{:?}", wrong.first());
    assert_eq!(steady.count(Fate::Reset), 0, "{:?}", steady.by_name());
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    every_end_is_said_or_counted(&daemon);
}

/// What a reload costs the connections that meet it.
#[expect(clippy::print_stderr, reason = "the figures are the point")]
fn say_latencies(what: &str, calm: &Outcome, steady: &Outcome, turns: &[Publication]) {
    let meets = |one: &Attempt, turn: &Publication| {
        one.at <= turn.adopted && one.at + one.took >= turn.asked
    };
    let during = |one: &Attempt| turns.iter().any(|turn| meets(one, turn));
    for (when, outcome) in [
        ("without a reload", calm),
        ("between reloads", &steady.only(|one| !during(one))),
        ("during one", &steady.only(during)),
    ] {
        let count = outcome.attempts.len();
        if count > 0 {
            let [median, most, nearly_all, all] =
                [500, 990, 999, 1_000].map(|part| outcome.latency(part));
            eprintln!(
                "{what} {when}: {median:?}, p99 {most:?}, p99.9 {nearly_all:?}, longest {all:?} of {count}"
            );
        }
    }
}

/// How long after it was there whole every packet was judged by this generation, as the daemon says.
fn in_force_after(daemon: &Daemon<'_>, generation: u64) -> Duration {
    let output = daemon.output();
    let of_it = format!("generation={generation} ");
    let said = output
        .lines()
        .find(|line| line.contains("a policy is in force") && line.contains(&of_it));
    let ms = said.and_then(|line| line.rsplit_once("ms=")?.1.trim().parse().ok());
    Duration::from_millis(ms.unwrap())
}

/// Does something in a thread that lets everybody else go first, as all threads do that it starts. Client and server
/// are on this machine too, and an appliance has its processors to itself: what it leaves, the load takes.
fn humbly<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    at_priority(19, what)
}

/// Does something in a thread of this niceness, which the threads it starts have too.
fn at_priority<T: Send>(niceness: i8, what: impl FnOnce() -> T + Send) -> T {
    let step = || {
        let own = nix::unistd::gettid().to_string();
        let stepped = std::process::Command::new("renice")
            .args(["-n", &niceness.to_string(), "-p", &own])
            .output();
        assert!(stepped.unwrap().status.success(), "renice");
        what()
    };
    std::thread::scope(|scope| scope.spawn(step).join()).unwrap()
}

/// The daemon is killed under the load of [`reload_at_scale`] and started again with its 20,000 rules and 50,000
/// clients.
#[test]
fn restart_at_scale() {
    let lab = Topology::new().unwrap();
    add_sources(&lab);
    let mut daemon = Daemon::without_policy(&lab).unwrap();
    let policy = document(&draft(&large()).unwrap()).unwrap();
    daemon
        .publisher()
        .unwrap()
        .publish_document(policy)
        .unwrap();
    let judged = usize::try_from(setting("POSTERN_HELD", 300)).unwrap();
    let server = |site: Site, threads, patience| {
        let address = site.at(Family::V4, 443);
        humbly(|| LoadServer::with_patience(&lab.internet, address, threads, patience).unwrap())
    };
    let _keeps = server(RECORDER, judged, Duration::from_secs(120));
    let _answers = server(MIRROR, 64, Duration::from_secs(20));
    let mut held = Held::open(&lab.client, &plan(RECORDER, 1, 1), judged).unwrap();
    let rate = u32::try_from(setting("POSTERN_LOAD_RATE", 5_000)).unwrap();
    let load = humbly(|| Load::start(&lab.client, &plan(MIRROR, rate, 8)).unwrap());
    assert!(wait::holds(Duration::from_secs(20), || load.begun() > u64::from(rate)));
    let killed = Instant::now();
    daemon.kill().unwrap();
    daemon.restart().unwrap();
    let back = Instant::now();
    let outcome = load.finish();
    let waited = outcome.only(|one| one.at > killed && one.at < back);
    let longest = waited
        .attempts
        .iter()
        .map(|one| one.took)
        .max()
        .unwrap_or_default();
    let cut = outcome.only(|one| one.fate == Fate::Reset);
    let alive = held.alive();
    eprintln!(
        "back after {:?}; {:.0} connections/s; {} began meanwhile, the slowest took {longest:?}; {} in mid-handshake were \
         reset; {alive} of {judged} judged flows carry on",
        back - killed,
        outcome.rate(),
        waited.attempts.len(),
        cut.attempts.len(),
    );
    assert_eq!(alive, held.len(), "judged flows were lost");
    drop(held);
    assert_eq!(outcome.count(Fate::Failed), 0, "{:?}", outcome.by_name());
    for one in &outcome.attempts {
        let in_handshake = one.at < killed && one.at + Duration::from_secs(2) > killed;
        assert!(one.fate == Fate::Served || in_handshake, "{one:?}");
    }
    every_end_is_said_or_counted(&daemon);
}

/// What is not said is counted: no flow goes missing without a trace. A flow whose handshake the kill has cut may have
/// its claim's line from the process before and, instead of an end, the line of its refusal from this one.
#[expect(clippy::print_stderr, reason = "the figures are the point")]
fn every_end_is_said_or_counted(daemon: &Daemon<'_>) {
    let begun = || {
        daemon
            .logs()
            .matching(&[("cat", "client"), ("outcome", "allowed")])
            .len()
    };
    let lost = || daemon.metric("postern_flows_forgotten_total").unwrap();
    let cut = || {
        let refused = [("outcome", "disallowed"), ("reason", "tcp_state")];
        daemon.logs().matching(&refused).len()
    };
    let ended = || daemon.logs().lines("end").len() + cut();
    let accounted = || ended() + format!("{:.0}", lost()).parse::<usize>().unwrap();
    let all = wait::holds(Duration::from_secs(60), || accounted() >= begun());
    eprintln!(
        "{} allowed, {} ends, {} of them refusals, {} lost",
        begun(),
        ended(),
        cut(),
        lost()
    );
    assert!(
        all,
        "{} of {} flows are accounted for",
        accounted(),
        begun()
    );
}

/// Resident memory at the end of ten minutes is at most 1.1 times that after two. `POSTERN_SOAK_SECONDS` makes it
/// shorter, for trying it out; the first look is then at a fifth of it.
#[test]
fn memory_does_not_grow() {
    let lab = Topology::new().unwrap();
    add_sources(&lab);
    let inventory = format!(
        "{INVENTORY}\n[[client]]\naddress = \"10.77.2.0/24\"\ninstance = \"load\"\ngroups = [\"web\"]\n"
    );
    let daemon = Daemon::start(&lab, &inventory).unwrap();
    let _server = LoadServer::start(&lab.internet, MIRROR.at(Family::V4, 443), 32).unwrap();
    let seconds = setting("POSTERN_SOAK_SECONDS", 600);
    let started = Instant::now();
    let load = Load::start(&lab.client, &plan(MIRROR, 500, seconds)).unwrap();
    let first_look = Duration::from_secs(seconds / 5);
    let mut early = None;
    let mut turn = 0_u32;
    while started.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(2));
        // A policy that changes all the while, as one of a cloud does.
        turn += 1;
        let other = "[[client]]\naddress = \"10.77.3.1\"\ngroups = [\"web\"]\n";
        let fresh = format!("{inventory}\n{other}instance = \"other-{turn}\"\n");
        daemon.replace(&fresh).unwrap();
        if early.is_none() && started.elapsed() >= first_look {
            early = Some(daemon.resident_bytes().unwrap());
        }
    }
    let late = daemon.resident_bytes().unwrap();
    let outcome = load.finish();
    let early = early.expect("a first look");
    eprintln!(
        "{} connections; {early} bytes after {first_look:?}, {late} at the end",
        outcome.attempts.len()
    );
    assert_eq!(outcome.count(Fate::Reset), 0);
    assert!(late * 10 <= early * 11, "{early} bytes became {late}");
}
