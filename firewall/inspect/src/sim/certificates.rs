//! What the certificate witness knows, and what that does to flows.

use super::Certificate::{Asked, Invalid, Unasked, Unseen, Valid};
use super::samples::*;
use super::*;

const ENFORCE: &str = "certificate_check = \"enforce\"";

fn policy(preferences: &str) -> Snapshot {
    let rules = [("postern:tls:api.example.com", "tcp", "443")];
    snapshot(&rules, preferences, 1)
}

fn world(preferences: &str, certificate: Certificate) -> World {
    let mut world = World::new(policy(preferences));
    world.directory.certificate = Some(certificate);
    world
}

/// How an ordinary TLS 1.3 connection fares.
fn connect(world: &mut World) -> Option<Reason> {
    let conn = Conn::tls().open(world);
    conn.send(world, 0, &hello());
    if world.refusal().is_some() {
        assert!(conn.at_server(world).is_empty(), "refused bytes left");
    }
    conn.reply(world, 0, &server_flight_13(29));
    let at = u32::try_from(hello().len()).unwrap();
    conn.send(world, at, &client_finished_13());
    world.refusal()
}

#[test]
fn first_flow_is_not_delayed_and_has_its_server_asked() {
    for preferences in ["", ENFORCE] {
        let mut world = world(preferences, Unasked);
        assert_eq!(connect(&mut world), None);
        assert_eq!(world.inspector.counters().judged, 1);
        let server = "203.0.113.5:443".parse().unwrap();
        assert_eq!(world.certify, [(name("api.example.com"), server)]);
    }
}

#[test]
fn bad_certificate_refuses_the_next_flow_under_enforce() {
    let mut world = world(ENFORCE, Invalid);
    assert_eq!(connect(&mut world), Some(Reason::CertificateInvalid));
    assert_eq!(world.records[0].category, Category::Client);
    assert!(world.certify.is_empty(), "it is known already");
}

#[test]
fn bad_certificate_is_said_under_observe() {
    let mut world = world("", Invalid);
    assert_eq!(connect(&mut world), None);
    let line = world.line(Category::Client).unwrap();
    assert_eq!(line.would_reason, Some(Reason::CertificateInvalid));
}

#[test]
fn bad_certificate_ends_a_flow_that_is_being_judged() {
    let mut world = world(ENFORCE, Unasked);
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello());
    conn.reply(&mut world, 0, &server_flight_13(29));
    world.directory.certificate = Some(Invalid);
    let at = u32::try_from(hello().len()).unwrap();
    let last = conn.send(&mut world, at, &client_finished_13());
    assert_eq!(world.verdict(last), Some(Verdict::Drop));
    assert_eq!(world.refusal(), Some(Reason::CertificateInvalid));
    assert_eq!(conn.at_server(&world), hello(), "no protected byte left");
    assert_eq!(world.resets.len(), 2);
}

#[test]
fn unseen_certificate_counts_against_addresses_known_from_history_only() {
    for (certificate, is_history, reason) in [
        (Unseen, false, None),
        (Unseen, true, Some(Reason::CertificateInvalid)),
        (Asked, true, None),
        (Unasked, true, None),
        (Valid, true, None),
        (Invalid, false, Some(Reason::CertificateInvalid)),
    ] {
        let mut world = world(ENFORCE, certificate);
        world.directory.is_history = is_history;
        assert_eq!(connect(&mut world), reason, "{certificate:?} {is_history}");
    }
}

#[test]
fn nobody_is_asked_about_flows_that_pass_without_a_name() {
    let rules = [("postern:address:odd", "tcp", "443")];
    for policy in [
        policy("certificate_check = \"off\""),
        policy("see_thru = \"2030-01-01\"\ncertificate_check = \"enforce\""),
        snapshot(&rules, &format!("address_rules = \"allow\"\n{ENFORCE}"), 1),
    ]
    .map(Arc::new)
    {
        for certificate in [Unasked, Invalid] {
            let mut world = World::new(Arc::clone(&policy));
            world.directory.certificate = Some(certificate);
            let server = if policy.exact_names().next().is_some() {
                "203.0.113.5:443"
            } else {
                "198.51.100.5:443"
            };
            let conn = Conn::new("10.0.0.1:40000", server).open(&mut world);
            conn.send(&mut world, 0, &hello());
            assert_eq!(conn.at_server(&world), hello(), "{:?}", world.records);
            assert!(world.certify.is_empty());
        }
    }
}

#[test]
fn mismatch_that_is_only_observed_asks_nobody() {
    let mut world = World::new(policy(&format!(
        "address_mismatch = \"observe\"\n{ENFORCE}"
    )));
    world.directory.certificate = Some(Unasked);
    world.directory.bound.clear();
    world.bind("api.example.com", "203.0.113.9");
    let conn = Conn::tls();
    conn.syn(&mut world);
    world.answer("api.example.com", Answer::Failed);
    assert!(world.certify.is_empty());
}
