//! The witness process against resolvers and zones that lie, stall or overflow: what it believes, how long it takes, and
//! that it goes on. The same zones behind a whole Postern are in `dns_bad_input`.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use e2e::dns::{Answer, DnsDouble, Fault, Lie, RecordType, ResponseCode, UNREADABLE};
use e2e::witness::WitnessProcess;
use ipc::witness::{ADDRESSES_PER_ANSWER_MAX, AnswerOutcome, ToWitness};

const TRUTH: [u8; 4] = [198, 51, 100, 1];
const EVIL: [u8; 4] = [198, 51, 100, 66];

fn ip(octets: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

/// A resolver and a witness that asks it.
fn pair() -> (DnsDouble, WitnessProcess) {
    let dns = DnsDouble::on_loopback().unwrap();
    dns.set("honest.example", Answer::of([TRUTH]));
    let witness = WitnessProcess::start(&[dns.address()]).unwrap();
    (dns, witness)
}

fn many(count: u32) -> Vec<Ipv4Addr> {
    (0..count)
        .map(|n| Ipv4Addr::from(0x0808_0000 + n))
        .collect()
}

/// What a look-up may take when nobody answers: its budget of 900 ms, and slack for a busy machine.
const BOUND: Duration = Duration::from_secs(4);

#[test]
fn spoofed_answers_are_passed_over_and_the_true_one_is_taken() {
    let (dns, mut witness) = pair();
    for lie in [
        Lie::WrongId(ip(EVIL)),
        Lie::WrongPort(ip(EVIL)),
        Lie::WrongQuestion(ip(EVIL)),
    ] {
        dns.set("victim.example", Answer::of([TRUTH]).lying(lie));
        let found = witness.look_up("victim.example", 3).unwrap();
        assert_eq!(found.addresses(), [ip(TRUTH)], "{lie:?}");
    }
}

#[test]
fn answer_whose_question_lost_its_case_counts_over_tcp_only() {
    let (dns, mut witness) = pair();
    dns.set(
        "victim.example",
        Answer::of([TRUTH]).lying(Lie::LostCase(ip(EVIL))),
    );
    let found = witness.look_up("victim.example", 1).unwrap();
    assert_eq!(found.addresses(), [ip(TRUTH)]);
    // A server that keeps no case at all is asked over TCP, where nobody can inject an answer.
    dns.set("careless.example", Answer::of([TRUTH]).lying(Lie::NoCase));
    let found = witness.look_up("careless.example", 1).unwrap();
    assert_eq!(found.addresses(), [ip(TRUTH)]);
    assert!(
        dns.asked_for("careless.example")
            .iter()
            .any(|asked| asked.tcp)
    );
}

#[test]
fn unreadable_answers_name_no_address_and_end_nothing() {
    let (dns, mut witness) = pair();
    for lie in UNREADABLE {
        dns.set("victim.example", Answer::of([EVIL]).lying(lie));
        let found = witness.look_up("victim.example", 3).unwrap();
        let failed = [
            AnswerOutcome::ServerFailure,
            AnswerOutcome::TimedOut,
            AnswerOutcome::NoAddress,
        ];
        assert!(failed.contains(&found.outcome), "{lie:?}: {found:?}");
        assert_eq!(found.addresses(), Vec::<IpAddr>::new(), "{lie:?}");
        assert!(found.took < BOUND, "{lie:?}: {:?}", found.took);
        assert_eq!(
            witness.look_up("honest.example", 1).unwrap().addresses(),
            [ip(TRUTH)],
            "{lie:?}"
        );
    }
    let health = witness
        .health_when(|health| health.failed + health.timed_out > 0)
        .unwrap();
    assert!(health.failed + health.timed_out > 0);
}

#[test]
fn error_codes_are_told_apart_and_no_code_names_an_address() {
    let (dns, mut witness) = pair();
    for (code, outcome) in [
        (ResponseCode::NXDomain, AnswerOutcome::NoSuchName),
        (ResponseCode::ServFail, AnswerOutcome::ServerFailure),
        (ResponseCode::Refused, AnswerOutcome::ServerFailure),
        (ResponseCode::NotImp, AnswerOutcome::ServerFailure),
        (ResponseCode::NoError, AnswerOutcome::NoAddress),
    ] {
        dns.set("failing.example", Answer::code(code));
        let found = witness.look_up("failing.example", 1).unwrap();
        assert_eq!(
            (found.outcome, found.addresses()),
            (outcome, vec![]),
            "{code:?}"
        );
    }
}

#[test]
fn truncated_answer_is_asked_for_over_tcp_and_the_connection_is_used_again() {
    let (dns, mut witness) = pair();
    let addresses = many(4_000);
    dns.set("large.example", Answer::of(addresses.clone()).ttl(5));
    for _ in 0..5 {
        let found = witness.look_up("large.example", 1).unwrap();
        assert_eq!(found.addresses().len(), addresses.len());
    }
    let asked = dns.asked_for("large.example");
    let tcp: Vec<_> = asked.iter().filter(|asked| asked.tcp).collect();
    assert_eq!(tcp.len(), 5, "one large answer per look-up");
    let connections: HashSet<_> = tcp.iter().map(|asked| asked.from).collect();
    assert_eq!(connections.len(), 1);
    assert!(
        asked
            .iter()
            .all(|asked| asked.payload.is_some_and(|payload| payload >= 1_232))
    );
}

#[test]
fn truncated_answer_behind_a_dead_tcp_port_is_a_failure_in_time() {
    let (dns, mut witness) = pair();
    dns.set_fault(Fault::NoTcp);
    dns.set("large.example", Answer::of([EVIL]).truncated());
    let found = witness.look_up("large.example", 3).unwrap();
    assert_eq!(found.addresses(), Vec::<IpAddr>::new());
    assert!(found.took < BOUND, "{:?}", found.took);
    assert_eq!(
        witness.look_up("honest.example", 1).unwrap().addresses(),
        [ip(TRUTH)]
    );
}

#[test]
fn ten_thousand_addresses_are_bounded_in_messages_and_memory() {
    let (dns, mut witness) = pair();
    witness.look_up("honest.example", 3).unwrap();
    let before = witness.peak_bytes().unwrap();
    dns.set(
        "huge.example",
        Answer::of(many(10_000)).at_a_time(4_000).ttl(1),
    );
    for _ in 0..5 {
        let found = witness.look_up("huge.example", 3).unwrap();
        assert_eq!(found.outcome, AnswerOutcome::Resolved);
        // As many samples as came in time, on a busy machine one.
        assert!(found.addresses().len() >= 4_000);
        for part in &found.parts {
            assert!(part.addresses.len() <= ADDRESSES_PER_ANSWER_MAX);
        }
    }
    let grown = witness.peak_bytes().unwrap() - before;
    assert!(grown < 48 << 20, "{grown} bytes for answers of 64 KiB");
    assert_eq!(
        witness.look_up("honest.example", 1).unwrap().addresses(),
        [ip(TRUTH)]
    );
}

#[test]
fn resolver_that_hangs_or_answers_late_costs_the_budget_and_no_more() {
    let (dns, mut witness) = pair();
    dns.set(
        "late.example",
        Answer::of([EVIL]).delayed(Duration::from_secs(2)),
    );
    let found = witness.look_up("late.example", 3).unwrap();
    assert_eq!(
        (found.outcome, found.addresses()),
        (AnswerOutcome::TimedOut, vec![])
    );
    assert!(found.took < BOUND, "{:?}", found.took);
    dns.set_fault(Fault::Hang);
    let found = witness.look_up("honest.example", 3).unwrap();
    assert_eq!(found.outcome, AnswerOutcome::TimedOut);
    assert!(found.took < BOUND, "{:?}", found.took);
    dns.set_fault(Fault::None);
    assert_eq!(
        witness.look_up("honest.example", 1).unwrap().addresses(),
        [ip(TRUTH)]
    );
    let health = witness.health_when(|health| health.timed_out > 0).unwrap();
    assert!(health.timed_out >= 2, "{health:?}");
}

#[test]
fn resolver_that_loses_every_other_question_is_asked_again_inside_the_budget() {
    let (dns, mut witness) = pair();
    dns.set_fault(Fault::Flap(2));
    for _ in 0..5 {
        let found = witness.look_up("honest.example", 1).unwrap();
        assert_eq!(found.addresses(), [ip(TRUTH)]);
    }
}

#[test]
fn first_answer_goes_out_before_the_slowest() {
    let (dns, mut witness) = pair();
    let slow = Answer::of([TRUTH]);
    dns.set(
        "mixed.example",
        slow.and("mixed.example. 60 HTTPS 1 . ipv4hint=198.51.100.2"),
    );
    let second = DnsDouble::on_loopback().unwrap();
    second.set(
        "mixed.example",
        Answer::of([[198, 51, 100, 3]]).delayed(Duration::from_millis(400)),
    );
    let mut both = WitnessProcess::start(&[dns.address(), second.address()]).unwrap();
    let found = both.look_up("mixed.example", 2).unwrap();
    assert!(found.parts.len() > 1 && found.parts[0].more, "{found:?}");
    assert!(
        found.parts[0]
            .addresses
            .iter()
            .all(|seen| seen.address != ip([198, 51, 100, 3]))
    );
    let unique: HashSet<IpAddr> = found.addresses().into_iter().collect();
    assert_eq!(
        unique.len(),
        found.addresses().len(),
        "no address is told twice"
    );
    assert!(unique.contains(&ip(TRUTH)) && unique.contains(&ip([198, 51, 100, 2])));
    assert_eq!(
        witness
            .look_up("honest.example", 1)
            .unwrap()
            .parts
            .last()
            .map(|last| last.more),
        Some(false)
    );
}

#[test]
fn samples_go_to_different_resolvers_and_each_address_says_whose_it_is() {
    let (first, second) = (
        DnsDouble::on_loopback().unwrap(),
        DnsDouble::on_loopback().unwrap(),
    );
    first.set("views.example", Answer::of([TRUTH]).ttl(20));
    second.set("views.example", Answer::of([[198, 51, 100, 2]]).ttl(90));
    let mut witness = WitnessProcess::start(&[first.address(), second.address()]).unwrap();
    let found = witness.look_up("views.example", 2).unwrap();
    assert_eq!(found.addresses(), [ip(TRUTH), ip([198, 51, 100, 2])]);
    for part in &found.parts {
        for seen in &part.addresses {
            let source = &part.sources[usize::from(seen.source)];
            let (server, ttl_s) = if seen.address == ip(TRUTH) {
                (&first, 20)
            } else {
                (&second, 90)
            };
            assert_eq!(
                (source.upstream.clone(), source.record_type.as_str()),
                (server.address().to_string(), "A")
            );
            assert_eq!(seen.ttl_s, ttl_s);
        }
    }
}

#[test]
fn dead_first_resolver_is_remembered_and_found_again_when_it_is_back() {
    let (first, second) = (
        DnsDouble::on_loopback().unwrap(),
        DnsDouble::on_loopback().unwrap(),
    );
    for dns in [&first, &second] {
        dns.set("*.example", Answer::of([TRUTH]));
    }
    first.set_fault(Fault::Hang);
    let mut witness = WitnessProcess::start(&[first.address(), second.address()]).unwrap();
    let found = witness.look_up("n0.example", 1).unwrap();
    assert_eq!(
        found.addresses(),
        [ip(TRUTH)],
        "the second answers in its stead"
    );
    let health = witness.health_when(|health| health.suspended == 1).unwrap();
    assert!(health.failed_over > 0, "{health:?}");
    // From now on it is probed at most, and no look-up waits for it: of twenty, all but a few are below the 200 ms that
    // a silent resolver costs once.
    let mut waits: Vec<Duration> = (1..=20)
        .map(|n| witness.look_up(&format!("n{n}.example"), 1).unwrap().took)
        .collect();
    waits.sort();
    assert!(waits[10] < Duration::from_millis(190), "{waits:?}");
    first.set_fault(Fault::None);
    first.clear_log();
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut n = 100;
    while first
        .asked()
        .iter()
        .filter(|asked| asked.record_type == RecordType::A)
        .count()
        < 5
    {
        assert!(
            Instant::now() < deadline,
            "the first resolver is not used again"
        );
        n += 1;
        witness.look_up(&format!("n{n}.example"), 1).unwrap();
    }
}

#[test]
fn resolver_that_refuses_or_fails_is_followed_by_the_next_at_once() {
    let (first, second) = (
        DnsDouble::on_loopback().unwrap(),
        DnsDouble::on_loopback().unwrap(),
    );
    second.set("honest.example", Answer::of([TRUTH]));
    let mut witness = WitnessProcess::start(&[first.address(), second.address()]).unwrap();
    for code in [ResponseCode::Refused, ResponseCode::ServFail] {
        first.set_fault(Fault::Code(code));
        let found = witness.look_up("honest.example", 1).unwrap();
        assert_eq!(found.addresses(), [ip(TRUTH)], "{code:?}");
    }
    // That a name does not exist is an answer: nobody else is asked for another.
    first.set_fault(Fault::None);
    second.clear_log();
    assert_eq!(
        witness.look_up("nowhere.example", 1).unwrap().outcome,
        AnswerOutcome::NoSuchName
    );
    assert_eq!(second.asked_for("nowhere.example"), []);
}

#[test]
fn alias_counts_inside_one_answer_only_and_its_target_is_never_asked_for() {
    let (dns, mut witness) = pair();
    dns.set(
        "whole.example",
        Answer::of([TRUTH]).via("edge.example").ttl(20),
    );
    let found = witness.look_up("whole.example", 1).unwrap();
    assert_eq!(found.addresses(), [ip(TRUTH)]);
    dns.set(
        "split.example",
        Answer::records_of(&["split.example. 60 CNAME far.example."]),
    );
    dns.set("far.example", Answer::of([EVIL]));
    let looped = [
        "loop.example. 60 CNAME pool.example.",
        "pool.example. 60 CNAME loop.example.",
    ];
    dns.set("loop.example", Answer::records_of(&looped));
    for name in ["split.example", "loop.example"] {
        let found = witness.look_up(name, 3).unwrap();
        assert_eq!(
            (found.outcome, found.addresses()),
            (AnswerOutcome::NoAddress, vec![]),
            "{name}"
        );
    }
    assert_eq!(dns.asked_for("far.example"), []);
}

#[test]
fn records_about_others_and_additional_records_bind_nothing() {
    let (dns, mut witness) = pair();
    let poisoned = Answer::of([TRUTH])
        .and("honest.example. 60 A 198.51.100.66")
        .and_additional("victim.example. 60 A 198.51.100.66")
        .and_additional("honest.example. 60 A 198.51.100.66");
    dns.set("victim.example", poisoned);
    assert_eq!(
        witness.look_up("victim.example", 3).unwrap().addresses(),
        [ip(TRUTH)]
    );
    assert_eq!(
        witness.look_up("honest.example", 3).unwrap().addresses(),
        [ip(TRUTH)]
    );
}

#[test]
fn service_records_bring_their_hints_and_the_targets_in_their_answer() {
    let (dns, mut witness) = pair();
    let hints = Answer::of([TRUTH])
        .and("svc.example. 30 HTTPS 1 . alpn=h3 ipv4hint=198.51.100.7 ipv6hint=2001:db8::7");
    dns.set("svc.example", hints);
    let found = witness.look_up("svc.example", 1).unwrap();
    assert_eq!(
        found.addresses(),
        [
            ip(TRUTH),
            ip([198, 51, 100, 7]),
            "2001:db8::7".parse().unwrap()
        ]
    );
    let alias = Answer::records_of(&["alias.example. 30 HTTPS 0 target.example."])
        .and_additional("target.example. 30 A 198.51.100.8")
        .and_additional("alias.example. 30 A 198.51.100.66");
    dns.set("alias.example", alias);
    dns.set("target.example", Answer::of([EVIL]));
    let found = witness.look_up("alias.example", 1).unwrap();
    assert_eq!(found.addresses(), [ip([198, 51, 100, 8])]);
    assert_eq!(dns.asked_for("target.example"), []);
}

#[test]
fn questions_cannot_be_foreseen() {
    let (dns, mut witness) = pair();
    dns.set("*.example", Answer::of([TRUTH]));
    for n in 0..60 {
        witness
            .look_up(&format!("a-rather-long-label-{n}.example"), 1)
            .unwrap();
    }
    let asked: Vec<_> = dns.asked().into_iter().filter(|asked| !asked.tcp).collect();
    assert!(asked.len() >= 180);
    let ports: HashSet<u16> = asked.iter().map(|asked| asked.from.port()).collect();
    let ids: HashSet<u16> = asked.iter().map(|asked| asked.id).collect();
    let mixed = asked
        .iter()
        .filter(|asked| asked.written != asked.name)
        .count();
    // Of 180 draws out of 28,000 or 65,536 a few collide.
    assert!(ports.len() > 150, "{} ports", ports.len());
    assert!(ids.len() > 150, "{} ids", ids.len());
    assert!(
        mixed > 170,
        "{mixed} of {} questions in mixed case",
        asked.len()
    );
}

#[test]
fn silent_resolver_is_sent_no_more_than_the_budget_with_every_retransmission() {
    const QPS: u32 = 60;
    let dns = DnsDouble::on_loopback().unwrap();
    dns.set_fault(Fault::Hang);
    let mut witness = WitnessProcess::with_budget(&[dns.address()], QPS).unwrap();
    let names = (0..2_000).map(|n| format!("n{n}.example")).collect();
    witness.say(&ToWitness::Watch { names }).unwrap();
    let started = Instant::now();
    let lasted = Duration::from_secs(8);
    while started.elapsed() < lasted {
        // Answers and counters come at least once a second.
        witness.hear().unwrap();
    }
    let seconds = started.elapsed().as_secs_f64() + 1.0;
    let sent = dns.count();
    assert!(
        sent as f64 <= f64::from(QPS) * seconds,
        "{sent} in {seconds} s"
    );
    assert!(sent > 50, "{sent}");
}

#[test]
fn addresses_beyond_what_one_answer_may_bring_are_counted() {
    let (dns, mut witness) = pair();
    let v6 = (0..200_u128).map(|n| IpAddr::V6((0x2001_4860 << 96 | n).into()));
    let all: Vec<IpAddr> = many(4_050).into_iter().map(IpAddr::V4).chain(v6).collect();
    dns.set("both.example", Answer::of(all));
    let names = vec!["both.example".to_owned()];
    witness.say(&ToWitness::Watch { names }).unwrap();
    let health = witness
        .health_when(|health| health.addresses_dropped > 0)
        .unwrap();
    assert_eq!(
        health.addresses_dropped,
        4_250 - ADDRESSES_PER_ANSWER_MAX as u64
    );
}
