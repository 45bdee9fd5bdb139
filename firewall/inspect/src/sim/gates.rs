//! Who may knock: sources, destinations, other protocols.

use super::samples::*;
use super::*;

#[test]
fn new_client_waits_and_is_not_reset() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.9.9:40000", "203.0.113.5:443");
    for _ in 0..3 {
        let syn = conn.syn(&mut world);
        assert_eq!(world.verdict(syn), Some(Verdict::Drop));
        world.wait(1_000);
    }
    assert_eq!(world.unknown.len(), 1);
    assert!(world.resets.is_empty() && world.records.is_empty());
    world.wait(12_000);
    conn.syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::ClientUnknown));
    assert_eq!(world.resets.len(), 1);
}

#[test]
fn a_client_that_no_inventory_knows_is_refused_at_once() {
    let mut world = World::new(ordinary());
    let conn = Conn::new("10.0.9.9:40000", "203.0.113.5:443");
    conn.syn(&mut world);
    let addr = conn.client.ip();
    world.call(|inspector, env| inspector.handle_no_such_client(env, addr));
    conn.syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::ClientUnknown));
}

#[test]
fn a_source_outside_the_served_prefixes_is_refused() {
    let mut world = World::new(ordinary());
    Conn::new("192.0.2.7:40000", "203.0.113.5:443").syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::ClientUnknown));
    assert!(world.unknown.is_empty());
}

#[test]
fn ports_without_a_rule_are_refused_at_the_syn() {
    let mut world = World::new(ordinary());
    Conn::new("10.0.0.1:40000", "203.0.113.5:8443").syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::PortNotAllowed));
    let mut world = World::new(snapshot(&[], "", 1));
    Conn::tls().syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::NoRule));
}

#[test]
fn private_and_forbidden_destinations_are_not_global() {
    for server in ["10.1.2.3:443", "169.254.169.254:443", "127.0.0.1:443"] {
        let mut world = World::new(ordinary());
        Conn::new("10.0.0.1:40000", server).syn(&mut world);
        assert_eq!(world.refusal(), Some(Reason::AddressNotGlobal), "{server}");
    }
}

#[test]
fn see_thru_never_opens_the_metadata_service() {
    let mut world = World::new(snapshot(&[], "see_thru = \"2030-01-01\"", 1));
    Conn::new("10.0.0.1:40000", "169.254.169.254:80").syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::AddressNotGlobal));
}

#[test]
fn unknown_clients_pass_under_see_thru_and_are_logged() {
    let mut world = World::new(snapshot(&[], "see_thru = \"2030-01-01\"", 1));
    let conn = Conn::new("10.0.9.9:40000", "203.0.113.5:443").open(&mut world);
    conn.send(&mut world, 0, &hello());
    let line = world.line(Category::Client).unwrap();
    assert!(line.is_allowed());
    assert_eq!(line.would_reason, Some(Reason::ClientUnknown));
    let see_thru = line.see_thru.as_ref().unwrap();
    assert!(see_thru.exerted);
    assert_eq!(&*see_thru.gid, "%default");
}

#[test]
fn a_full_table_refuses_and_spares_other_clients_from_one() {
    let limits = Limits {
        flows: 8,
        flows_per_client: 4,
        ..Limits::default()
    };
    let mut world = World::with_limits(ordinary(), limits);
    for port in 1..=4_u16 {
        Conn::new(&format!("10.0.0.1:{port}"), "203.0.113.5:443").open(&mut world);
    }
    Conn::new("10.0.0.1:5", "203.0.113.5:443").syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::ClientLimit));
    world.records.clear();
    for port in 1..=4_u16 {
        Conn::new(&format!("10.0.0.2:{port}"), "203.0.113.5:443").open(&mut world);
    }
    Conn::new("10.0.0.2:5", "203.0.113.5:443").syn(&mut world);
    assert_eq!(world.refusal(), Some(Reason::TableFull));
}

/// DESIGN, section 7: one client floods, the others are served.
#[test]
fn one_client_cannot_have_the_hellos_of_others_refused() {
    let limits = Limits {
        bytes: 100_000,
        bytes_per_client: 20_000,
        segments: 100,
        segments_per_client: 20,
        ..Limits::default()
    };
    for piece in [&pq_hello()[..1_000], &hello()[..1]] {
        let mut world = World::with_limits(ordinary(), limits.clone());
        for port in 1..=200_u16 {
            let conn = Conn::new(&format!("10.0.0.1:{port}"), "203.0.113.5:443").open(&mut world);
            conn.send(&mut world, 0, piece);
            let (bytes, segments) = world.inspector.held();
            assert!(bytes <= 20_000 && segments <= 20);
        }
        let refused = Outcome::Disallowed(Reason::ClientLimit);
        assert!(world.records.iter().all(|record| record.outcome == refused));
        assert!(!world.records.is_empty());
        let other = Conn::new("10.0.0.2:40000", "203.0.113.5:443").open(&mut world);
        other.send(&mut world, 0, &hello());
        assert_eq!(other.at_server(&world), hello());
    }
}

#[test]
fn other_protocols_are_refused_by_name_and_rejected() {
    let client = "10.0.0.1:5000".parse().unwrap();
    let host: SocketAddr = "203.0.113.5:443".parse().unwrap();
    let cases = [
        (udp(client, host, b"quic"), Reason::Quic, Verdict::Reject),
        (
            udp(client, "203.0.113.5:123".parse().unwrap(), b"ntp"),
            Reason::Udp,
            Verdict::Reject,
        ),
        (
            ip(client.ip(), host.ip(), 1, 64, &[8; 16]),
            Reason::Icmp,
            Verdict::Reject,
        ),
        (
            ip(client.ip(), host.ip(), 47, 64, &[0; 16]),
            Reason::IpProtocol,
            Verdict::Drop,
        ),
    ];
    for (packet, reason, verdict) in cases {
        let mut world = World::new(ordinary());
        let token = world.packet(Class::NonTcp, packet);
        assert_eq!(world.verdict(token), Some(verdict), "{reason}");
        assert_eq!(world.refusal(), Some(reason));
    }
}

#[test]
fn an_address_rule_and_see_thru_pass_other_protocols() {
    let rules = [("postern:address:ntp", "udp", "123")];
    let mut world = World::new(snapshot(&rules, "address_rules = \"allow\"", 1));
    let client = "10.0.0.1:5000".parse().unwrap();
    let inside = udp(client, "198.51.100.7:123".parse().unwrap(), b"ntp");
    let token = world.packet(Class::NonTcp, inside);
    assert_eq!(world.verdict(token), Some(Verdict::Judged));
    let outside = udp(client, "203.0.113.7:123".parse().unwrap(), b"ntp");
    let token = world.packet(Class::NonTcp, outside);
    assert_eq!(world.verdict(token), Some(Verdict::Reject));

    let mut world = World::new(snapshot(&[], "see_thru = \"2030-01-01\"", 1));
    let token = world.packet(
        Class::NonTcp,
        udp(client, "203.0.113.7:123".parse().unwrap(), b""),
    );
    assert_eq!(world.verdict(token), Some(Verdict::Judged));
    assert_eq!(world.records[0].would_reason, Some(Reason::Udp));
}

/// A resolver asks for both kinds of address at once, from one port.
#[test]
fn packets_sent_together_are_one_flow_in_the_log() {
    let rules = [("postern:address:dns", "udp", "53")];
    let open = |generation| snapshot(&rules, "address_rules = \"allow\"", generation);
    let mut world = World::new(open(1));
    let client = "10.0.0.1:5000".parse().unwrap();
    let server = "198.51.100.7:53".parse().unwrap();
    for kind in [b"A".as_slice(), b"AAAA"] {
        let token = world.packet(Class::NonTcp, udp(client, server, kind));
        assert_eq!(world.verdict(token), Some(Verdict::Judged));
    }
    assert_eq!(world.records.len(), 1);
    // From another port, or under another policy, it is another decision.
    let other = "10.0.0.1:5001".parse().unwrap();
    world.packet(Class::NonTcp, udp(other, server, b"A"));
    assert_eq!(world.records.len(), 2);
    world.adopt(open(2));
    world.packet(Class::NonTcp, udp(client, server, b"A"));
    assert_eq!(world.records.len(), 3);
    // So it is a while later, and refused where nothing allows it any more.
    world.wait(Limits::default().decided_ms + 1);
    world.packet(Class::NonTcp, udp(client, server, b"A"));
    assert_eq!(world.records.len(), 4);
    world.adopt(snapshot(&[], "", 3));
    let token = world.packet(Class::NonTcp, udp(client, server, b"A"));
    assert_eq!(world.verdict(token), Some(Verdict::Reject));
}

#[test]
fn refusals_of_one_client_do_not_flood_the_log() {
    let mut world = World::new(ordinary());
    for port in 1..=500_u16 {
        Conn::new(&format!("10.0.0.1:{port}"), "203.0.113.5:8443").syn(&mut world);
    }
    assert_eq!(world.records.len(), 10);
    assert_eq!(
        world.resets.len(),
        500,
        "every refusal is visible to its client"
    );
    world.wait(1_000);
    Conn::new("10.0.0.1:501", "203.0.113.5:8443").syn(&mut world);
    assert_eq!(world.records.last().unwrap().suppressed, 490);
}

/// With the DNS front a pattern is as strict as a name, and what it covers is served all the same: TLS and SSH.
#[test]
fn names_under_a_pattern_are_served_behind_the_dns_front() {
    let rules = [
        ("postern:tls:*.example.com", "tcp", "443"),
        ("postern:ssh:*.example.com", "tcp", "22"),
    ];
    let mut world = World::new(snapshot(&rules, "dns_front = \"enforce\"", 1));
    let tls = Conn::tls().open(&mut world);
    tls.send(&mut world, 0, &hello());
    assert_eq!(tls.at_server(&world), hello(), "{:?}", world.records);
    let ssh = Conn::ssh().open(&mut world);
    ssh.reply(&mut world, 0, b"SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(ssh.at_client(&world), b"SSH-2.0-OpenSSH_9.2\r\n");
    ssh.send(&mut world, 0, b"SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(ssh.at_server(&world), b"SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(world.refusal(), None);
    // An address nobody was told is not even dialled.
    let stranger = Conn::new("10.0.0.1:40001", "203.0.113.77:443");
    let syn = stranger.syn(&mut world);
    assert_eq!(world.verdict(syn), Some(Verdict::Drop));
}
