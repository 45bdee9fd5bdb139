//! A new policy and flows nobody hears of: judged again a few at a time, and by one policy each.

use super::samples::*;
use super::*;
use crate::REJUDGED_AT_ONCE;

/// TLS to one name on two ports.
fn both_ports(generation: u64) -> Snapshot {
    let rules = ["443", "8443"].map(|port| ("postern:tls:api.example.com", "tcp", port));
    snapshot(&rules, "", generation)
}

/// The same with the second port withdrawn.
fn one_port(generation: u64) -> Snapshot {
    snapshot(
        &[("postern:tls:api.example.com", "tcp", "443")],
        "",
        generation,
    )
}

/// The flow from a port of the client to a port of the server.
fn flow(from: u16, to: u16) -> Conn {
    let conn = Conn::tls();
    Conn {
        client: SocketAddr::new(conn.client.ip(), from),
        server: SocketAddr::new(conn.server.ip(), to),
        ..conn
    }
}

fn roomy(flows: u16) -> Limits {
    Limits {
        flows: 2 * usize::from(flows),
        flows_per_client: 2 * usize::from(flows),
        ..Limits::default()
    }
}

/// Twice 60,000 undecided flows, half of which the new policy refuses. The adoption looks at none, each go at a few,
/// and whoever sends meanwhile is judged by the new policy at once.
#[test]
fn a_full_table_is_judged_again_a_few_flows_at_a_time() {
    const FLOWS: u16 = 60_000;
    let mut world = World::with_limits(both_ports(1), roomy(FLOWS));
    for from in 1..=FLOWS {
        flow(from, 443).syn(&mut world);
        flow(from, 8443).syn(&mut world);
    }
    let (kept, lost) = (flow(FLOWS, 443), flow(FLOWS, 8443));
    for conn in [kept, lost] {
        conn.syn_ack(&mut world);
    }
    assert_eq!(world.inspector.undecided(), 2 * usize::from(FLOWS));

    world.swap(one_port(2));
    assert!(world.resets.is_empty() && world.inspector.has_backlog());
    let hello = hello();
    let late = lost.send(&mut world, 0, &hello);
    assert_eq!(world.verdict(late), Some(Verdict::Drop));
    let last = world.records.last().unwrap();
    assert_eq!(last.outcome, Outcome::Disallowed(Reason::PolicyChanged));
    let sound = kept.send(&mut world, 0, &hello);
    assert_eq!(world.verdict(sound), Some(Verdict::Pass));
    assert_eq!(world.records.last().unwrap().generation, 2);

    let mut goes = 0_usize;
    while world.inspector.has_backlog() {
        let resets = world.resets.len();
        assert!(world.rejudge() <= REJUDGED_AT_ONCE);
        assert!(world.resets.len() - resets <= 2 * REJUDGED_AT_ONCE);
        goes += 1;
    }
    let looked_at = 2 * usize::from(FLOWS);
    assert!(goes <= looked_at / REJUDGED_AT_ONCE + 2, "{goes} goes");
    assert_eq!(world.inspector.undecided(), usize::from(FLOWS));
    assert_eq!(world.inspector.counters().refused, u64::from(FLOWS));
    let to_clients = world
        .resets
        .iter()
        .filter(|reset| reset.src.ip() == lost.server.ip());
    let of: Vec<u16> = to_clients.map(|reset| reset.src.port()).collect();
    assert_eq!(of, vec![8443; usize::from(FLOWS)]);
}

/// A policy after every go: the pass goes on where it is, and no flow waits for ever.
#[test]
fn policies_in_quick_succession_leave_no_refused_flow_alive() {
    const FLOWS: u16 = 1_000;
    let mut world = World::with_limits(both_ports(1), roomy(FLOWS));
    for from in 1..=FLOWS {
        flow(from, 443).syn(&mut world);
        flow(from, 8443).syn(&mut world);
    }
    let goes = 2 * 2 * usize::from(FLOWS) / REJUDGED_AT_ONCE + 2;
    for generation in (2..).take(goes) {
        world.swap(one_port(generation));
        world.rejudge();
    }
    assert_eq!(world.inspector.undecided(), usize::from(FLOWS));
}

/// What its client sends before the first copy is decided does not make it look judged.
#[test]
fn a_held_syn_is_judged_again_whatever_follows_it() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:1", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    assert_eq!(world.verdict(syn), None);
    world.bind("new.example.com", "203.0.113.99");
    let rules = [("postern:tls:new.example.com", "tcp", "443")];
    world.swap(snapshot(&rules, "", 2));
    let early = conn.send(&mut world, 0, &hello());
    assert_eq!(world.verdict(early), Some(Verdict::Drop));
    world.rejudge();
    assert_eq!(world.verdict(syn), Some(Verdict::Pass));
}

/// Promise 13 across a reload: the SYN had been let through, and its copy goes to an address that
/// nobody names any more.
#[test]
fn a_syn_sent_again_under_another_policy_is_judged_like_a_first() {
    for rejudged in [false, true] {
        let mut world = World::new(ordinary());
        let conn = Conn::tls();
        let first = conn.syn(&mut world);
        assert_eq!(world.verdict(first), Some(Verdict::Pass));
        let rules = [("postern:tls:new.example.com", "tcp", "443")];
        world.swap(snapshot(&rules, "", 2));
        if rejudged {
            world.rejudge();
        }
        let again = conn.syn(&mut world);
        assert_eq!(world.verdict(again), None, "rejudged: {rejudged}");
        assert_eq!(
            world.queries.last().unwrap().sought.name,
            name("new.example.com")
        );
        world.answer("new.example.com", Answer::Failed);
        assert_eq!(world.verdict(again), Some(Verdict::Drop));
        assert_eq!(world.refusal(), Some(Reason::NameUnresolvable));
    }
}

/// Its names were those of the old policy, and each is answered. The new one has another, whose answer may allow it.
#[test]
fn a_syn_held_over_a_change_of_policy_is_not_refused_for_the_names_of_the_old_one() {
    let rules = ["api.example.com", "new.example.com"]
        .map(|name| (format!("postern:tls:{name}"), "tcp", "443"));
    let rules = rules
        .each_ref()
        .map(|(text, ip, port)| (text.as_str(), *ip, *port));
    for rejudged in [true, false] {
        let mut world = World::new(snapshot(&rules[..1], "", 1));
        let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
        let held = conn.syn(&mut world);
        world.swap(snapshot(&rules, "", 2));
        if rejudged {
            world.rejudge();
        }
        world.answer("api.example.com", Answer::Resolved);
        assert_eq!(world.verdict(held), Some(Verdict::Drop));
        assert!(world.resets.is_empty() && world.records.is_empty());
        let again = conn.syn(&mut world);
        world.bind("new.example.com", "203.0.113.99");
        world.answer("new.example.com", Answer::Resolved);
        assert_eq!(
            world.verdict(again),
            Some(Verdict::Pass),
            "rejudged: {rejudged}"
        );
    }
}
