//! SYNs that are held: whose names are asked for, how long, and what an answer means to whom.

use super::*;

#[test]
fn a_bound_destination_opens_and_an_unbound_one_waits_for_its_names() {
    let mut world = World::new(ordinary());
    Conn::tls().open(&mut world);
    let unbound = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    let syn = unbound.syn(&mut world);
    assert_eq!(world.verdict(syn), None);
    let asked: Vec<_> = world
        .queries
        .iter()
        .map(|query| query.sought.name.as_str().to_owned())
        .collect();
    assert_eq!(asked.len(), 2);
    assert!(asked.contains(&"api.example.com".to_owned()));
    let again = unbound.syn(&mut world);
    assert_eq!(
        world.verdict(again),
        Some(Verdict::Drop),
        "later copies are dropped"
    );
    world.bind("api.example.com", "203.0.113.99");
    world.answer("api.example.com", Answer::Resolved);
    assert_eq!(world.verdict(syn), Some(Verdict::Pass));
    assert_eq!(world.inspector.counters().rescued, 1);
}

#[test]
fn no_packet_to_an_unnamed_address_for_exact_rules() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    world.answer("api.example.com", Answer::Resolved);
    assert_eq!(world.verdict(syn), None, "one look-up is still under way");
    world.answer("www.example.com", Answer::Failed);
    assert_eq!(world.verdict(syn), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::AddressNotOfName));
    assert!(world.wire.is_empty());
    let reset = world.resets[0];
    assert_eq!((reset.dst, reset.seq), (conn.client, 0));
    assert_eq!(reset.ack, conn.isn.wrapping_add(1));
    assert_eq!(world.resets.len(), 1, "the server must not hear of it");
}

#[test]
fn first_answer_with_the_address_opens_and_no_answer_before_the_last_shuts() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    let other = Conn::new("10.0.0.1:40002", "203.0.113.98:443").syn(&mut world);
    world.answer("www.example.com", Answer::Failed);
    world.answer("api.example.com", Answer::Partial);
    assert_eq!(world.verdict(syn), None, "not this address yet");
    world.bind("api.example.com", "203.0.113.99");
    world.answer("api.example.com", Answer::Partial);
    assert_eq!(world.verdict(syn), Some(Verdict::Pass));
    assert_eq!(world.verdict(other), None, "the look-up goes on");
    world.answer("api.example.com", Answer::Resolved);
    assert_eq!(world.verdict(other), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::AddressNotOfName));
}

#[test]
fn names_without_an_address_are_unresolvable() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    conn.syn(&mut world);
    world.answer("api.example.com", Answer::Failed);
    world.answer("www.example.com", Answer::Failed);
    assert_eq!(world.refusal(), Some(Reason::NameUnresolvable));
}

#[test]
fn a_silent_resolver_costs_one_second() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    world.wait(999);
    assert_eq!(world.verdict(syn), None);
    world.wait(1);
    assert_eq!(world.verdict(syn), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::NameUnresolvable));
}

#[test]
fn one_look_up_serves_all_who_wait_for_it() {
    let mut world = World::new(ordinary());
    for port in 40_001..40_010 {
        let conn = Conn::new(&format!("10.0.0.1:{port}"), "203.0.113.99:443");
        conn.syn(&mut world);
    }
    assert_eq!(world.queries.len(), 2);
    world.bind("www.example.com", "203.0.113.99");
    world.answer("www.example.com", Answer::Resolved);
    assert_eq!(world.wire.len(), 9);
    assert_eq!(world.inspector.waiting.len(), 0);
}

#[test]
fn held_syns_of_a_client_are_few_and_the_rest_is_dropped_silently() {
    let mut world = World::new(ordinary());
    for port in 1..=40_u16 {
        let conn = Conn::new(&format!("10.0.0.1:{port}"), "203.0.113.99:443");
        conn.syn(&mut world);
    }
    assert_eq!(world.in_flight.len(), 32);
    assert_eq!(world.inspector.counters().dns_budget, 8);
    assert!(world.records.is_empty() && world.resets.is_empty());
    let other = Conn::new("10.0.0.2:1", "203.0.113.99:443").syn(&mut world);
    assert_eq!(
        world.verdict(other),
        None,
        "another client has its own places"
    );
}

#[test]
fn a_client_without_budget_is_dropped_silently() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    world.answer("api.example.com", Answer::OverBudget);
    assert_eq!(
        world.verdict(syn),
        None,
        "the other name is still asked about"
    );
    world.answer("www.example.com", Answer::Resolved);
    assert_eq!(world.verdict(syn), Some(Verdict::Drop));
    assert!(world.records.is_empty() && world.resets.is_empty());
    let again = conn.syn(&mut world);
    assert_eq!(
        world.verdict(again),
        None,
        "the retransmission tries afresh"
    );
}

#[test]
fn a_name_that_has_more_addresses_than_were_learnt_in_time_is_waited_for() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    world.answer("www.example.com", Answer::Resolved);
    world.answer("api.example.com", Answer::Partial);
    assert_eq!(world.verdict(syn), None, "it goes on");
    world.answer("api.example.com", Answer::Unsettled);
    assert_eq!(world.verdict(syn), Some(Verdict::Drop));
    assert!(world.records.is_empty() && world.resets.is_empty());
    assert_eq!(world.inspector.counters().dns_unsettled, 1);
    let again = conn.syn(&mut world);
    world.bind("api.example.com", "203.0.113.99");
    world.answer("api.example.com", Answer::Partial);
    assert_eq!(world.verdict(again), Some(Verdict::Pass));
    assert_eq!(world.inspector.waiting.len(), 0);
}

#[test]
fn a_look_up_that_never_ends_its_samples_is_no_refusal() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    world.answer("api.example.com", Answer::Partial);
    world.wait(1_000);
    assert_eq!(world.verdict(syn), Some(Verdict::Drop));
    assert!(world.records.is_empty() && world.resets.is_empty());
}

/// The last look-up of a name that has addresses failed: the address is still the wrong one.
#[test]
fn a_failed_look_up_of_a_name_with_addresses_is_a_mismatch() {
    for (known, reason) in [
        (Known::Answered, Reason::AddressNotOfName),
        (Known::Failed, Reason::NameUnresolvable),
    ] {
        let mut world = World::new(ordinary());
        world.directory.known.insert(name("api.example.com"), known);
        Conn::new("10.0.0.1:40001", "203.0.113.99:443").syn(&mut world);
        world.answer("api.example.com", Answer::Failed);
        world.answer("www.example.com", Answer::Failed);
        assert_eq!(world.refusal(), Some(reason), "{known:?}");
    }
}

/// `allow_private_answers` was shortened, or the address has become a client's: a revocation
/// applies at the swap, whatever was learnt before.
#[test]
fn an_address_that_may_no_longer_be_bound_is_not() {
    let rules = [
        ("postern:tls:*.example.com", "tcp", "443"),
        ("postern:ssh:*.example.com", "tcp", "22"),
    ];
    for (server, first) in [
        ("192.168.0.5:443", samples::hello()),
        ("192.168.0.5:22", b"SSH-2.0-test\r\n".to_vec()),
    ] {
        let mut world = World::new(snapshot(&rules, "", 1));
        world.bind("api.example.com", "192.168.0.5");
        let conn = Conn::new("10.0.0.1:40000", server).open(&mut world);
        conn.send(&mut world, 0, &first);
        assert_eq!(world.payload_to(conn.server), 0, "{server}");
        assert!(world.refusal().is_some(), "{server}");
    }
}

/// The witness learns on another thread: what is known of a name changes from one look at it to the
/// next, also in the middle of putting names in order.
#[test]
fn bindings_that_change_while_names_are_put_in_order_end_no_queue() {
    #[derive(Default)]
    struct Restless(std::cell::Cell<u32>);
    impl Bindings for Restless {
        fn is_bound(&self, _: &Name, _: IpAddr, _: Time) -> bool {
            false
        }
        fn names_of(&self, _: IpAddr, _: Time, _: &mut dyn FnMut(&Name)) {}
        fn is_global(&self, _: IpAddr) -> bool {
            true
        }
        fn is_known(&self, _: &Name) -> Known {
            let turn = self
                .0
                .get()
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            self.0.set(turn);
            if turn >> 31 == 0 {
                Known::Unasked
            } else {
                Known::Failed
            }
        }
    }
    let names: Vec<String> = (0..200).map(|n| format!("n{n:03}.example.com")).collect();
    let rules: Vec<String> = names
        .chunks(10)
        .map(|some| format!("postern:tls:{}", some.join(",")))
        .collect();
    let rules: Vec<_> = rules
        .iter()
        .map(|rule| (rule.as_str(), "tcp", "443"))
        .collect();
    let policy = snapshot(&rules, "", 1);
    let restless = Restless::default();
    let env = Env {
        now: Time::default(),
        policy: &policy,
        bindings: &restless,
    };
    let mut inspector = Inspector::new(Limits::default());
    for port in 1..60_u16 {
        let client = SocketAddr::from(([10, 0, 0, 1 + u8::from(port % 2 == 0)], port));
        let syn = tcp(client, "203.0.113.66:443".parse().unwrap(), 7, 0, SYN, b"");
        inspector.handle_packet(&env, u32::from(port), Class::Syn, &syn);
    }
    assert!(inspector.undecided() > 0);
}

/// A client that may reach more names than one SYN may ask for, one of which has moved.
#[test]
fn every_name_gets_its_turn_to_be_asked_for() {
    let names: Vec<String> = (0..50).map(|n| format!("n{n:02}.example.com")).collect();
    let rule = format!("postern:tls:{}", names.join(","));
    let mut world = World::new(snapshot(&[(&rule, "tcp", "443")], "", 1));
    for text in &names {
        world.directory.known.insert(name(text), Known::Answered);
    }
    let conn = Conn::new("10.0.0.1:40000", "203.0.113.66:443");
    let mut looked_up = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let syn = conn.syn(&mut world);
        for (expected, why) in [(6, Why::Gate), (14, Why::Search)] {
            let asked: Vec<_> = world.queries.drain(..).collect();
            assert_eq!(asked.len(), expected);
            for query in asked {
                assert_eq!(query.why, why);
                world.call(|inspector, env| {
                    inspector.handle_answer(env, &query.sought, Answer::Resolved);
                });
                looked_up.insert(query.sought.name);
            }
            world.wait(150);
        }
        assert_eq!(
            world.verdict(syn),
            Some(Verdict::Drop),
            "the SYN comes again"
        );
    }
    assert_eq!(looked_up.len(), 50);
    assert!(world.records.is_empty(), "and is never refused meanwhile");
}

/// Many destinations in a moment are a scan: it has few names asked for, and is never told why.
#[test]
fn a_scan_has_the_likeliest_names_asked_for_and_no_others() {
    let names: Vec<String> = (0..18).map(|n| format!("n{n:02}.example.com")).collect();
    let rule = format!("postern:tls:{}", names.join(","));
    let mut world = World::new(snapshot(&[(&rule, "tcp", "443")], "", 1));
    for last in 1..=30_u8 {
        let to = format!("203.0.113.{}:443", 100 + last);
        Conn::new(&format!("10.0.0.1:{}", 40_000 + u32::from(last)), &to).syn(&mut world);
        world.wait(1);
    }
    assert_eq!(world.queries.len(), 6);
    for query in std::mem::take(&mut world.queries) {
        world.call(|inspector, env| {
            inspector.handle_answer(env, &query.sought, Answer::Resolved);
        });
    }
    world.wait(1_000);
    assert_eq!(world.queries.len(), 0);
    assert!(world.wire.is_empty() && world.records.is_empty() && world.resets.is_empty());
    // Another client of the same group has its own question asked, and all of them.
    Conn::new("10.0.0.2:1", "203.0.113.99:443").syn(&mut world);
    world.wait(150);
    assert_eq!(world.queries.len(), 18);
}

/// A queue thread that did not run for a while has not read what came meanwhile: it may be a scan.
#[test]
fn a_thread_that_comes_late_reads_its_queue_before_it_asks_for_more() {
    let names: Vec<String> = (0..18).map(|n| format!("n{n:02}.example.com")).collect();
    let rule = format!("postern:tls:{}", names.join(","));
    let mut world = World::new(snapshot(&[(&rule, "tcp", "443")], "", 1));
    Conn::new("10.0.0.1:1", "203.0.113.99:443").syn(&mut world);
    world.now.mono_ms += 500;
    world.call(Inspector::handle_timeout);
    assert_eq!(world.queries.len(), 6);
    world.wait(150);
    assert_eq!(world.queries.len(), 18);
}

/// A name of which one look-up is under way on behalf of a client that may not have another.
#[test]
fn a_client_without_budget_takes_no_answer_from_another() {
    let mut world = World::new(ordinary());
    let scanner = Conn::new("10.0.0.1:40001", "203.0.113.98:443").syn(&mut world);
    let honest = Conn::new("10.0.0.2:40001", "203.0.113.99:443").syn(&mut world);
    assert_eq!(world.queries.len(), 4, "each asks on its own behalf");
    let spent = Answer::Spent("10.0.0.1".parse().unwrap());
    for name in ["api.example.com", "www.example.com"] {
        world.answer(name, spent);
    }
    assert_eq!(world.verdict(scanner), Some(Verdict::Drop));
    assert_eq!(world.verdict(honest), None, "its own look-up goes on");
    world.bind("www.example.com", "203.0.113.99");
    world.answer("www.example.com", Answer::Resolved);
    assert_eq!(world.verdict(honest), Some(Verdict::Pass));
    assert!(world.records.is_empty() && world.resets.is_empty());
    assert_eq!(world.inspector.waiting.len(), 0);
}

/// What is asked for IPv4 says nothing of IPv6.
#[test]
fn an_answer_of_the_other_family_ends_no_wait() {
    let mut world = World::new(ordinary());
    let syn = Conn::new("[fd00::1]:40001", "[2001:db8::99]:443").syn(&mut world);
    assert!(world.queries.iter().all(|query| query.sought.ipv6));
    for name in ["api.example.com", "www.example.com"] {
        world.answer(name, Answer::Failed);
    }
    assert_eq!(world.verdict(syn), None);
}

#[test]
fn a_name_that_has_just_entered_the_policy_is_waited_for() {
    let mut world = World::new(ordinary());
    world
        .directory
        .known
        .insert(name("api.example.com"), Known::Priming);
    let conn = Conn::new("10.0.0.1:40001", "203.0.113.99:443");
    let syn = conn.syn(&mut world);
    // Its own look-up has ended; the first one, which asks for more, has not.
    world.answer("www.example.com", Answer::Resolved);
    world.answer("api.example.com", Answer::Failed);
    assert_eq!(world.verdict(syn), Some(Verdict::Drop));
    assert!(
        world.records.is_empty() && world.resets.is_empty(),
        "silently"
    );
    world
        .directory
        .known
        .insert(name("api.example.com"), Known::Answered);
    world.bind("api.example.com", "203.0.113.99");
    let again = conn.syn(&mut world);
    assert_eq!(world.verdict(again), Some(Verdict::Pass));

    let mut world = World::new(snapshot(
        &[("postern:tls:*.example.com", "tcp", "443")],
        "",
        1,
    ));
    world
        .directory
        .known
        .insert(name("api.example.com"), Known::Priming);
    let conn = conn.open(&mut world);
    let hello = samples::hello();
    conn.send(&mut world, 0, &hello);
    world.wait(1_000);
    assert!(world.records.is_empty() && world.in_flight.is_empty());
    world.bind("api.example.com", "203.0.113.99");
    conn.send(&mut world, 0, &hello);
    assert_eq!(conn.at_server(&world), hello);
}
