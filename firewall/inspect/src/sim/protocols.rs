//! The server's side and the other protocols: answers, proofs, SSH, plain HTTP, leniency.

use super::samples::*;
use super::*;

/// A flow whose hello has passed.
fn greeted(world: &mut World, bytes: &[u8]) -> Conn {
    let conn = Conn::tls().open(world);
    conn.send(world, 0, bytes);
    assert_eq!(conn.at_server(world), bytes, "{:?}", world.records);
    conn
}

fn at(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

/// How a server's first bytes are judged.
fn answered(bytes: &[u8]) -> Option<Reason> {
    let mut world = World::new(ordinary());
    let conn = greeted(&mut world, &hello());
    conn.reply(&mut world, 0, bytes);
    let reason = world.refusal();
    if reason.is_some() {
        assert_eq!(
            world.payload_to(conn.client),
            0,
            "refused bytes reached the client"
        );
        assert_eq!(world.records.last().unwrap().category, Category::Server);
        assert_eq!(
            world.records.last().unwrap().src,
            conn.server,
            "server lines are swapped"
        );
    }
    reason
}

#[test]
fn an_ordinary_tls13_connection_takes_five_trips_and_its_bulk_none() {
    for (conn, bytes, group) in [
        (Conn::tls(), hello(), 29),
        (Conn::tls_v6(), hello(), 29),
        (Conn::tls(), pq_hello(), 4588),
    ] {
        let mut world = World::new(ordinary());
        conn.open(&mut world);
        conn.send(&mut world, 0, &bytes);
        let flight = conn.reply(&mut world, 0, &server_flight_13(group));
        assert_eq!(world.verdict(flight), Some(Verdict::Pass));
        let last = conn.send(&mut world, at(&bytes), &client_finished_13());
        assert_eq!(world.verdict(last), Some(Verdict::Judged));
        assert_eq!(world.inspector.counters().packets, 5);
        assert_eq!(
            world.inspector.undecided(),
            0,
            "a judged flow takes no memory here"
        );
        assert_eq!(world.inspector.held(), (0, 0));
        let [client, server] = &world.records[..] else {
            panic!("{:?}", world.records)
        };
        assert_eq!(client.category, Category::Client);
        assert_eq!(client.dhost.as_deref(), Some("api.example.com"));
        assert_eq!((client.proto_v, client.pqc), ("1.3", group == 4588));
        assert_eq!(client.gid.as_deref(), Some("web"));
        assert_eq!(client.rule.as_deref(), Some("1"));
        assert_eq!(client.instance.as_deref(), Some("web-1"));
        assert_eq!((server.category, server.proto_v), (Category::Server, "1.3"));
        assert_eq!(server.pqc, group == 4588);
        assert!(server.is_allowed() && server.see_thru.is_none());
    }
}

#[test]
fn tls12_is_judged_until_both_sides_are_encrypted() {
    let mut world = World::new(ordinary());
    let conn = greeted(&mut world, &hello());
    let first = [server_hello_12([6; 8]), server_rest_12()].concat();
    conn.reply(&mut world, 0, &first);
    let key = conn.send(&mut world, at(&hello()), &client_rest_12());
    assert_eq!(world.verdict(key), Some(Verdict::Pass));
    let finished = conn.reply(&mut world, at(&first), &server_finished_12());
    assert_eq!(world.verdict(finished), Some(Verdict::Judged));
    assert_eq!(world.line(Category::Server).unwrap().proto_v, "1.2");
}

#[test]
fn row_38_downgrades_and_old_versions_of_the_server_are_refused() {
    assert_eq!(
        answered(&server_hello_12(*b"DOWNGRD\x01")),
        Some(Reason::TlsDowngrade)
    );
    assert_eq!(
        answered(&server_hello_12(*b"DOWNGRD\x00")),
        Some(Reason::TlsDowngrade)
    );
    let mut old = server_hello_12([6; 8]);
    old[10] = 2;
    assert_eq!(answered(&old), Some(Reason::TlsVersionServer));
}

#[test]
fn row_39_a_server_that_answers_otherwise_is_refused() {
    assert_eq!(answered(b"SSH-2.0-OpenSSH\r\n"), Some(Reason::ServerNotTls));
    assert_eq!(
        answered(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Some(Reason::ServerNotTls)
    );
    assert_eq!(answered(&record(23, &[0; 40])), Some(Reason::ServerNotTls));
}

#[test]
fn an_alert_passes_and_nothing_may_follow_it() {
    let mut world = World::new(ordinary());
    let conn = greeted(&mut world, &hello());
    let token = conn.reply(&mut world, 0, &alert(40));
    assert_eq!(world.verdict(token), Some(Verdict::Pass));
    assert!(world.line(Category::Server).unwrap().is_allowed());
    let fin = conn.reply_flags(&mut world, at(&alert(40)), FIN | ACK, b"");
    assert_eq!(world.verdict(fin), Some(Verdict::Pass));
    let fin = conn.send_flags(&mut world, at(&hello()), FIN | ACK, b"");
    assert_eq!(world.verdict(fin), Some(Verdict::Pass));
    assert_eq!(world.inspector.undecided(), 0);

    let mut world = World::new(ordinary());
    let conn = greeted(&mut world, &hello());
    conn.reply(&mut world, 0, &alert(40));
    conn.reply(&mut world, at(&alert(40)), b"tunnel");
    assert!(world.refusal().is_some());
    assert_eq!(conn.at_client(&world), alert(40));
}

#[test]
fn row_40_bytes_that_are_no_records_after_an_allowed_hello_never_leave() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &hello());
    conn.send(&mut world, at(&hello()), b"now for something different");
    assert_eq!(world.refusal(), Some(Reason::TlsMalformed));
    assert_eq!(conn.at_server(&world), hello());
}

#[test]
fn row_40_a_second_hello_behind_the_first_is_refused() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let both = [hello(), hello_for("evi.example.com")].concat();
    conn.send(&mut world, 0, &both);
    assert!(world.refusal().is_some());
    assert_eq!(
        world.payload_to(conn.server),
        0,
        "one packet, so not even the good part left"
    );
}

#[test]
fn row_41_the_second_hello_must_carry_the_same_name() {
    let first = hello();
    let second = |name: &'static [u8]| {
        Hello {
            names: vec![name],
            shares: vec![(23, 65)],
            ..Hello::default()
        }
        .bytes()
    };
    let retry = [retry_request(23), record(20, &[1])].concat();
    for (name, reason) in [
        (&b"api.example.com"[..], None),
        (b"www.example.com", Some(Reason::SniMultiple)),
    ] {
        let mut world = World::new(ordinary());
        let conn = greeted(&mut world, &first);
        conn.reply(&mut world, 0, &retry);
        assert_eq!(conn.at_client(&world), retry);
        let again = [record(20, &[1]), second(name)].concat();
        let before = world.payload_to(conn.server);
        conn.send(&mut world, at(&first), &again);
        assert_eq!(world.refusal(), reason);
        if reason.is_some() {
            assert_eq!(world.payload_to(conn.server), before);
        } else {
            let mut hello = server_hello_13(23);
            // The share of secp256r1 is 65 bytes; the grammar does not care.
            hello.extend(record(23, &[9; 100]));
            conn.reply(&mut world, at(&retry), &hello);
            let end = at(&first) + at(&again);
            let last = conn.send(&mut world, end, &record(23, &[9; 53]));
            assert_eq!(
                world.verdict(last),
                Some(Verdict::Judged),
                "{:?}",
                world.records
            );
        }
    }
}

#[test]
fn row_43_early_data_leaves_only_with_an_allowed_hello() {
    let early = |name: &'static [u8]| {
        let hello = Hello {
            names: vec![name],
            early_data: true,
            ..Hello::default()
        }
        .bytes();
        [hello, record(20, &[1]), record(23, &[9; 300])].concat()
    };
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &early(b"evi.example.com"));
    assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));
    assert_eq!(world.payload_to(conn.server), 0);

    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(&mut world, 0, &early(b"api.example.com"));
    assert_eq!(conn.at_server(&world), early(b"api.example.com"));
}

#[test]
fn a_ssh_connection_is_judged_by_its_address() {
    let mut world = World::new(ordinary());
    let conn = Conn::ssh().open(&mut world);
    let banner = b"SSH-2.0-OpenSSH_9.2\r\n";
    let greeting = conn.reply(&mut world, 0, banner);
    assert_eq!(
        world.verdict(greeting),
        Some(Verdict::Pass),
        "a client may wait for it"
    );
    let client = [&b"SSH-2.0-client\r\n"[..], &ssh_kexinit()].concat();
    conn.send(&mut world, 0, &client);
    let line = world.line(Category::Client).unwrap();
    assert_eq!(
        (line.dhost.as_deref(), line.proto_v),
        (Some("git.example.com"), "2.0")
    );
    let mut server = at(banner);
    conn.reply(&mut world, server, &ssh_kexinit());
    server += at(&ssh_kexinit());
    let mut sent = at(&client);
    conn.send(&mut world, sent, &ssh_ecdh_init());
    sent += at(&ssh_ecdh_init());
    let reply = [ssh_ecdh_reply(), ssh_new_keys(), vec![7; 64]].concat();
    conn.reply(&mut world, server, &reply);
    let last = conn.send(&mut world, sent, &[ssh_new_keys(), vec![9; 64]].concat());
    assert_eq!(
        world.verdict(last),
        Some(Verdict::Judged),
        "{:?}",
        world.records
    );
    assert!(world.line(Category::Server).unwrap().is_allowed());
}

#[test]
fn row_52_only_identification_lines_of_a_server_pass_before_the_client_is_judged() {
    let mut world = World::new(ordinary());
    let conn = Conn::ssh().open(&mut world);
    let mixed = [&b"SSH-2.0-x\r\n"[..], &ssh_kexinit()].concat();
    let token = conn.reply(&mut world, 0, &mixed);
    assert_eq!(world.verdict(token), None);
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    let token = conn.reply(&mut world, 0, b"SSH-2.0-x\r\n");
    assert_eq!(world.verdict(token), None, "no ssh name is bound here");
    for (line, reason) in [
        (&b"SSH-1.99-OpenSSH\r\n"[..], Reason::SshVersion),
        (b"SSH-1.5-x\r\n", Reason::SshVersion),
        (b"SSH-2.0-a\0b\r\n", Reason::SshMalformed),
    ] {
        let mut world = World::new(ordinary());
        let conn = Conn::ssh().open(&mut world);
        conn.reply(&mut world, 0, line);
        assert_eq!(world.refusal(), Some(reason));
        let mut world = World::new(ordinary());
        let conn = Conn::ssh().open(&mut world);
        conn.send(&mut world, 0, line);
        assert_eq!(world.refusal(), Some(reason));
        assert_eq!(world.payload_to(conn.server), 0);
    }
}

#[test]
fn row_53_ssh_to_an_address_without_an_ssh_name_is_refused() {
    let rules = [
        ("postern:ssh:git.example.com", "tcp", "22"),
        ("postern:tls:*.example.com", "tcp", "22"),
    ];
    let mut world = World::new(snapshot(&rules, "", 1));
    let conn = Conn::new("10.0.0.1:1", "203.0.113.99:22").open(&mut world);
    conn.send(&mut world, 0, b"SSH-2.0-client\r\n");
    assert_eq!(
        world.queries.last().unwrap().sought.name.as_str(),
        "git.example.com"
    );
    world.answer("git.example.com", Answer::Resolved);
    assert_eq!(world.refusal(), Some(Reason::AddressNotOfName));
    assert_eq!(world.payload_to(conn.server), 0);
}

/// A shared address bears hundreds of names of others, all before ours in whatever order.
#[test]
fn an_ssh_name_is_found_among_hundreds_of_others_of_its_address() {
    for rules in [
        vec![("postern:ssh:git.example.com", "tcp", "22")],
        vec![
            ("postern:ssh:git.example.com", "tcp", "22"),
            ("postern:tls:*.example.com", "tcp", "22"),
        ],
    ] {
        let mut world = World::new(snapshot(&rules, "", 1));
        for index in 0..300 {
            world.bind(&format!("a{index:03}.example.com"), "203.0.113.22");
        }
        let conn = Conn::ssh().open(&mut world);
        let client = [&b"SSH-2.0-c\r\n"[..], &ssh_kexinit()].concat();
        conn.send(&mut world, 0, &client);
        assert_eq!(world.refusal(), None);
        let line = world.line(Category::Client).unwrap();
        assert_eq!(line.dhost.as_deref(), Some("git.example.com"));
        assert_eq!(conn.at_server(&world), client);
    }
}

/// Who owns a zone makes up names of it as it likes.
#[test]
fn names_an_ssh_flow_is_judged_by_are_few_however_many_its_address_bears() {
    let rules = [("postern:ssh:*.example.com", "tcp", "22")];
    let mut world = World::new(snapshot(&rules, "", 1));
    for index in 0..5_000 {
        world.bind(&format!("a{index:04}.example.com"), "203.0.113.22");
    }
    let conn = Conn::ssh();
    let (client, server) = (conn.client, conn.server);
    let mut names = 0;
    world.call(|_, env| names = crate::ssh_names(env, &FlowKey { client, server }).len());
    assert_eq!(names, 64);
}

#[test]
fn a_pinned_host_key_must_match() {
    let right = policy::HostKeyPin::of_key(&ssh_host_key()).to_string();
    let wrong = policy::HostKeyPin::of_key(b"another").to_string();
    for (pin, reason) in [(right, None), (wrong, Some(Reason::SshHostKey))] {
        let entry = format!("postern:ssh:git.example.com={pin}");
        let mut world = World::new(snapshot(&[(&entry, "tcp", "22")], "", 1));
        let conn = Conn::ssh().open(&mut world);
        let client = [&b"SSH-2.0-c\r\n"[..], &ssh_kexinit(), &ssh_ecdh_init()].concat();
        conn.send(&mut world, 0, &client);
        let greeting = [&b"SSH-2.0-s\r\n"[..], &ssh_kexinit()].concat();
        conn.reply(&mut world, 0, &greeting);
        conn.reply(
            &mut world,
            at(&greeting),
            &[ssh_ecdh_reply(), ssh_new_keys()].concat(),
        );
        assert_eq!(world.refusal(), reason, "{:?}", world.records);
        let arrived = if reason.is_some() {
            greeting.len()
        } else {
            greeting.len() + 16
        };
        assert!(conn.at_client(&world).len() >= arrived);
        assert_eq!(
            conn.at_client(&world).len() == greeting.len(),
            reason.is_some()
        );
    }
}

#[test]
fn plain_http_is_logged_with_its_request_line() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls().open(&mut world);
    conn.send(
        &mut world,
        0,
        b"GET /latest?token=x HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8\r\n\r\n",
    );
    let record = &world.records[0];
    assert_eq!(record.outcome, Outcome::Disallowed(Reason::PlaintextHttp));
    let http = record.http.as_ref().unwrap();
    assert_eq!(
        (&*http.method, &*http.path, &*http.user_agent),
        ("GET", "/latest", "curl/8")
    );
    assert_eq!(record.dhost.as_deref(), Some("api.example.com"));
}

#[test]
fn listed_http_is_judged_request_by_request() {
    let rules = [("postern:http:www.example.com", "tcp", "80")];
    let policy = || snapshot(&rules, "plaintext_http = \"allow_listed\"", 1);
    let get = |host: &str| format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let mut world = World::new(policy());
    let conn = Conn::new("10.0.0.1:1", "203.0.113.5:80").open(&mut world);
    let first = get("www.example.com");
    conn.send(&mut world, 0, &first);
    assert_eq!(conn.at_server(&world), first);
    let token = conn.reply(&mut world, 0, b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(
        world.verdict(token),
        Some(Verdict::Pass),
        "never handed over"
    );
    assert_eq!(
        world
            .line(Category::Server)
            .unwrap()
            .http
            .as_ref()
            .unwrap()
            .code,
        Some(204)
    );
    let post =
        b"POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    let mut sent = at(&first);
    conn.send(&mut world, sent, &post);
    sent += at(&post);
    assert_eq!(world.refusal(), None);
    conn.send(&mut world, sent, &get("api.example.com"));
    assert_eq!(world.refusal(), Some(Reason::NameNotAllowed));
    assert_eq!(conn.at_server(&world), [first, post].concat());
    let mut world = World::new(policy());
    let conn = Conn::new("10.0.0.1:1", "203.0.113.5:80").open(&mut world);
    conn.send(
        &mut world,
        0,
        b"POST / HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(world.refusal(), Some(Reason::PlaintextHttp));
}

#[test]
fn an_http_connection_is_not_limited_by_what_is_kept() {
    let rules = [("postern:http:www.example.com", "tcp", "80")];
    let mut world = World::new(snapshot(&rules, "plaintext_http = \"allow_listed\"", 1));
    let conn = Conn::new("10.0.0.1:1", "203.0.113.5:80").open(&mut world);
    let head = b"GET /x HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    let (mut sent, mut received) = (0, 0);
    for _ in 0..4_000 {
        conn.send(&mut world, sent, head);
        sent += at(head);
        let answer = b"HTTP/1.1 200 OK\r\n\r\n";
        let seq = conn.server_isn.wrapping_add(1 + received);
        let ack = conn.isn.wrapping_add(1 + sent);
        let bytes = tcp(conn.server, conn.client, seq, ack, PSH | ACK, answer);
        world.packet(Class::Reply, bytes);
        received += at(answer);
    }
    assert_eq!(world.refusal(), None);
    assert_eq!(world.payload_to(conn.server), 4_000 * head.len());
    assert!(world.inspector.held().0 < 1_000);
}
