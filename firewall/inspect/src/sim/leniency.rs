//! See-thru, `address` rules and observed mismatches: what passes although no name allows it.

use super::samples::*;
use super::*;

#[test]
fn see_thru_judges_as_usual_and_says_what_it_would_have_done() {
    let seen = |payload: &[u8]| {
        let mut world = World::new(snapshot(&[], "see_thru = \"2026-12-01\"", 1));
        let conn = Conn::tls().open(&mut world);
        conn.send(&mut world, 0, payload);
        assert_eq!(conn.at_server(&world), payload);
        let line = world.line(Category::Client).unwrap().clone();
        assert!(line.is_allowed());
        let see_thru = line.see_thru.as_ref().unwrap();
        assert_eq!((see_thru.exerted, see_thru.days_remaining), (true, 9));
        line.would_reason
    };
    let http = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    assert_eq!(seen(&hello()), Some(Reason::NoRule));
    assert_eq!(seen(http), Some(Reason::PlaintextHttp));
    assert_eq!(
        seen(b"EHLO mail.example\r\n"),
        Some(Reason::ProtocolUnknown)
    );
    let nameless = Hello {
        name_extensions: 0,
        ..Hello::default()
    }
    .bytes();
    assert_eq!(seen(&nameless), Some(Reason::SniMissing));
    let old = Hello {
        versions: vec![],
        legacy: 0x0302,
        ..Hello::default()
    }
    .bytes();
    assert_eq!(seen(&old), Some(Reason::TlsVersionClient));
}

#[test]
fn see_thru_does_not_relax_hygiene() {
    let mut world = World::new(snapshot(&[], "see_thru = \"2026-12-01\"", 1));
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello()[..100]);
    conn.send(&mut world, 50, &[0; 100]);
    assert_eq!(world.refusal(), Some(Reason::TcpOverlap));
}

#[test]
fn an_address_rule_carries_any_protocol_and_servers_that_speak_first() {
    let rules = [("postern:address:mail", "tcp", "25")];
    let policy = || snapshot(&rules, "address_rules = \"allow\"", 1);
    let mut world = World::new(policy());
    let conn = Conn::new("10.0.0.1:1", "198.51.100.25:25").open(&mut world);
    let token = conn.reply(&mut world, 0, b"220 mail.example ESMTP\r\n");
    assert_eq!(world.verdict(token), Some(Verdict::Judged));
    let line = world.line(Category::Client).unwrap();
    assert!(line.is_allowed() && line.would_reason.is_none() && line.see_thru.is_none());
    let mut world = World::new(policy());
    let conn = Conn::new("10.0.0.1:1", "198.51.100.25:25").open(&mut world);
    let token = conn.send(&mut world, 0, b"\x00\x01binary");
    assert_eq!(world.verdict(token), Some(Verdict::Judged));
    let mut world = World::new(policy());
    Conn::new("10.0.0.1:1", "203.0.113.25:25").syn(&mut world);
    assert!(world.refusal().is_some(), "outside the rule's CIDR");
}

#[test]
fn a_client_of_few_words_is_not_held_for_long_where_any_may_pass() {
    let rules = [("postern:address:odd", "tcp", "7")];
    let mut world = World::new(snapshot(&rules, "address_rules = \"allow\"", 1));
    let conn = Conn::new("10.0.0.1:1", "198.51.100.7:7").open(&mut world);
    let token = conn.send(&mut world, 0, b"S");
    assert_eq!(world.verdict(token), None);
    world.wait(1_000);
    assert_eq!(world.verdict(token), Some(Verdict::Judged));
}

#[test]
fn a_mismatch_is_only_observed_when_the_preference_says_so() {
    let rules = [
        ("postern:tls:api.example.com", "tcp", "443"),
        ("postern:ssh:git.example.com", "tcp", "22"),
    ];
    let observe = || snapshot(&rules, "address_mismatch = \"observe\"", 1);
    let mut world = World::new(observe());
    let conn = Conn::new("10.0.0.1:1", "203.0.113.99:443").open(&mut world);
    conn.send(&mut world, 0, &hello());
    world.answer("api.example.com", Answer::Resolved);
    let line = world.line(Category::Client).unwrap();
    assert!(line.is_allowed());
    assert_eq!(line.would_reason, Some(Reason::AddressNotOfName));
    let mut world = World::new(observe());
    let conn = Conn::new("10.0.0.1:1", "203.0.113.99:22").open(&mut world);
    conn.send(&mut world, 0, b"SSH-2.0-c\r\n");
    world.answer("git.example.com", Answer::Resolved);
    let line = world.line(Category::Client).unwrap();
    assert!(line.is_allowed());
    assert_eq!(line.would_reason, Some(Reason::AddressNotOfName));
}
