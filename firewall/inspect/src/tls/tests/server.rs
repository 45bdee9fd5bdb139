//! What a server may answer.

use policy::Reason;

use super::build::*;
use crate::progress::Progress;
use crate::tls::{Limits, ServerAnswer, ServerHello, TlsVersion, server_hello};

fn answer(stream: &[u8], client: &Client) -> Progress<ServerAnswer> {
    server_hello(stream, &client.hello(), &Limits::default())
}

fn hello(server: &Server, client: &Client) -> ServerHello {
    let answer = answer(&server.stream(), client);
    let Progress::Complete(ServerAnswer::Hello(hello)) = answer else {
        panic!("{answer:?}");
    };
    hello
}

fn refusal(server: &Server, client: &Client) -> Reason {
    answer(&server.stream(), client).refusal().unwrap()
}

fn only(versions: &[u16]) -> Client {
    Client::default().with(43, u16s8(versions))
}

#[test]
fn the_selected_version_is_the_extensions_first() {
    let read = hello(&Server::default(), &Client::default());
    assert_eq!(read.version, TlsVersion::TLS1_3);
    assert_eq!(read.group, Some(29));
    assert!(!read.is_pqc() && !read.is_retry);
    let read = hello(&Server::tls12(), &Client::default());
    assert_eq!(read.version, TlsVersion::TLS1_2);
    assert_eq!(read.group, None);
    let mut bare = Server::tls12();
    bare.extensions = None;
    assert_eq!(hello(&bare, &Client::default()).version, TlsVersion::TLS1_2);
}

#[test]
fn a_post_quantum_group_selected_is_known() {
    let client = Client::default().with(51, key_shares(&[0x11ec]));
    let mut server = Server::plain();
    server.extensions = Some(vec![
        (43, vec![3, 4]),
        (51, [&[0x11, 0xec][..], &vec16(&[5; 1120])].concat()),
    ]);
    assert!(hello(&server, &client).is_pqc());
}

#[test]
fn an_old_version_is_the_servers_fault() {
    let client = only(&[0x0304, 0x0303, 0x0302, 0x0301]);
    for version in [0x0302, 0x0301, 0x0300] {
        let mut server = Server::tls12();
        server.legacy_version = version;
        assert_eq!(
            refusal(&server, &client),
            Reason::TlsVersionServer,
            "{version:x}"
        );
    }
}

#[test]
fn downgrade_sentinels_are_heeded() {
    let server = Server::tls12();
    let to_12 = server.clone().ending(b"DOWNGRD\x01");
    let below = server.clone().ending(b"DOWNGRD\x00");
    assert_eq!(refusal(&to_12, &Client::default()), Reason::TlsDowngrade);
    assert_eq!(refusal(&below, &Client::default()), Reason::TlsDowngrade);
    // A client that never offered 1.3 was not brought down by anybody.
    assert_eq!(hello(&to_12, &only(&[0x0303])).version, TlsVersion::TLS1_2);
    let mut old = below;
    old.legacy_version = 0x0302;
    assert_eq!(
        refusal(&old, &only(&[0x0303, 0x0302])),
        Reason::TlsDowngrade
    );
    // In TLS 1.3 the same bytes mean nothing.
    let modern = Server::default().ending(b"DOWNGRD\x01");
    assert_eq!(
        hello(&modern, &Client::default()).version,
        TlsVersion::TLS1_3
    );
}

#[test]
fn what_was_not_offered_cannot_be_selected() {
    assert_eq!(
        refusal(&Server::default(), &only(&[0x0303])),
        Reason::TlsMalformed,
        "version"
    );
    assert_eq!(
        refusal(&Server::tls12(), &only(&[0x0304])),
        Reason::TlsMalformed,
        "version"
    );
    let with = |change: fn(&mut Server)| {
        let mut server = Server::plain();
        change(&mut server);
        refusal(&server, &Client::default())
    };
    assert_eq!(
        with(|server| server.suite = 0x1302),
        Reason::TlsMalformed,
        "suite"
    );
    assert_eq!(
        with(|server| server.suite = 0xc02f),
        Reason::TlsMalformed,
        "1.2 suite in 1.3"
    );
    assert_eq!(with(|server| server.compression = 1), Reason::TlsMalformed);
    assert_eq!(
        with(|server| server.session_id = vec![]),
        Reason::TlsMalformed,
        "echo"
    );
    assert_eq!(
        with(|server| server.session_id = vec![0; 33]),
        Reason::TlsMalformed
    );
    let group = |group: u8| {
        let mut server = Server::plain();
        server.extensions = Some(vec![
            (43, vec![3, 4]),
            (51, [&[0, group][..], &vec16(&[5; 32])].concat()),
        ]);
        refusal(&server, &Client::default())
    };
    assert_eq!(group(24), Reason::TlsMalformed, "no share for it");
    let mut tls12 = Server::tls12();
    tls12.suite = 0x1301;
    assert_eq!(
        refusal(&tls12, &Client::default()),
        Reason::TlsMalformed,
        "1.3 suite in 1.2"
    );
}

#[test]
fn signalling_suites_are_not_suites() {
    let mut client = Client::plain();
    client.suites.extend([0x00ff, 0x5600]);
    for suite in [0x00ff, 0x5600] {
        let mut server = Server::tls12();
        server.suite = suite;
        assert_eq!(refusal(&server, &client), Reason::TlsMalformed);
    }
}

#[test]
fn supported_versions_selects_tls_1_3_and_nothing_else() {
    for selected in [vec![3, 3], vec![3, 4, 0], vec![3], vec![0x7f, 0x1c]] {
        let mut server = Server::plain();
        server.extensions = Some(vec![(43, selected)]);
        assert_eq!(refusal(&server, &Client::default()), Reason::TlsMalformed);
    }
    let mut server = Server::plain();
    server.legacy_version = 0x0302;
    assert_eq!(refusal(&server, &Client::default()), Reason::TlsMalformed);
    server.legacy_version = 0x0304;
    server.extensions = Some(vec![]);
    assert_eq!(refusal(&server, &Client::default()), Reason::TlsMalformed);
}

#[test]
fn a_retry_request_is_known_by_its_random() {
    let read = hello(&Server::retry(24), &Client::default());
    assert!(read.is_retry);
    assert_eq!(read.group, Some(24));
    assert_eq!(
        refusal(&Server::retry(29), &Client::default()),
        Reason::TlsMalformed,
        "has a share"
    );
    assert_eq!(
        refusal(&Server::retry(23), &Client::default()),
        Reason::TlsMalformed,
        "unsupported"
    );
}

#[test]
fn an_alert_instead_of_a_hello_is_an_answer() {
    let fatal = record(21, &[2, 40]);
    for length in 0..fatal.len() {
        assert_eq!(
            answer(&fatal[..length], &Client::default()),
            Progress::Incomplete
        );
    }
    let Progress::Complete(ServerAnswer::Alert(alert)) = answer(&fatal, &Client::default()) else {
        panic!();
    };
    assert_eq!((alert.description, alert.bytes), (40, 7));
}

#[test]
fn a_warning_may_stand_before_the_hello() {
    let warned = [record(21, &[1, 112]), Server::tls12().stream()].concat();
    let Progress::Complete(ServerAnswer::Hello(hello)) = answer(&warned, &Client::default()) else {
        panic!();
    };
    assert_eq!(hello.bytes, warned.len());
    let nagging = record(21, &[1, 112]).repeat(6);
    assert_eq!(
        answer(&nagging, &Client::default()),
        Progress::Refused(Reason::ServerNotTls)
    );
}

#[test]
fn anything_else_is_not_tls() {
    for stream in [
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"SSH-2.0-x\r\n",
        &[23, 3, 3, 0, 9],
        &[22, 9],
        &record(22, &message(1, &[0; 40])),
        &record(22, &message(11, &[0; 40])),
        &[21, 3, 3, 0, 3],
        &[21, 3, 3, 0, 2, 7],
        &[20, 3, 3, 0, 1, 1],
    ] {
        let read = answer(stream, &Client::default());
        assert_eq!(read, Progress::Refused(Reason::ServerNotTls), "{stream:x?}");
    }
}

#[test]
fn a_tls_1_3_hello_ends_its_record() {
    let mut longer = Server::default().message();
    longer.extend([8, 0, 0, 2, 0, 0]);
    let read = answer(&record(22, &longer), &Client::default());
    assert_eq!(read, Progress::Refused(Reason::TlsMalformed));
    let mut longer = Server::tls12().message();
    longer.extend([14, 0, 0, 0]);
    let Progress::Complete(ServerAnswer::Hello(hello)) =
        answer(&record(22, &longer), &Client::default())
    else {
        panic!();
    };
    assert_eq!(hello.bytes, 5 + Server::tls12().message().len());
}
