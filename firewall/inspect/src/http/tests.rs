//! Request and status lines, honest and not.

use proptest::prelude::*;

use super::*;

const CURL: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/testdata/curl-http.client.bin"
));
const PYTHON: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/testdata/curl-http.server.bin"
));

fn read(head: &[u8]) -> Request {
    request(head).complete().unwrap()
}

fn seen(head: &[u8]) -> Option<Box<Request>> {
    let refused = request(head).refusal().unwrap();
    assert_eq!(refused.reason, Reason::PlaintextHttp);
    refused.seen
}

#[test]
fn a_captured_request_is_read() {
    let request = read(CURL);
    assert_eq!((request.method, &*request.path), ("GET", "/none"));
    assert_eq!(request.host.log_text(), "api.allowed.example");
    assert_eq!(&*request.user_agent, "curl/7.88.1");
    assert_eq!(request.bytes, CURL.len());
    assert_eq!(status(PYTHON), Progress::Complete(404));
}

#[test]
fn every_prefix_is_incomplete_and_nothing_longer_changes_the_answer() {
    for length in 0..CURL.len() {
        assert_eq!(request(&CURL[..length]), Progress::Incomplete, "{length}");
    }
    assert_eq!(read(&[CURL, b"GET / HTTP/1.1\r\n"].concat()), read(CURL));
    for length in 0..12 {
        assert_eq!(status(&PYTHON[..length]), Progress::Incomplete, "{length}");
    }
}

#[test]
fn the_request_line_alone_is_enough_for_the_log() {
    assert_eq!(request_so_far(b"GET /a?b HTTP/1.1\r"), None);
    let request = request_so_far(b"GET /a?b HTTP/1.1\r\nHost: x.exa").unwrap();
    assert_eq!(&*request.path, "/a");
    assert_eq!(request.host, Host::Absent);
    let request = request_so_far(b"GET /a HTTP/1.1\r\nHost: x.example\r\nUser-").unwrap();
    assert_eq!(request.host.log_text(), "x.example");
}

#[test]
fn methods_are_registered_tokens_before_a_space() {
    assert_eq!(method(b"GET "), Method::Known("GET"));
    assert_eq!(method(b"GE"), Method::Partial);
    assert_eq!(method(b"get "), Method::Unknown);
    assert_eq!(method(b"GET\t/"), Method::Unknown);
    assert_eq!(method(b"UPDATEREDIRECTREF"), Method::Partial);
    assert_eq!(
        method(b"UPDATEREDIRECTREF /"),
        Method::Known("UPDATEREDIRECTREF")
    );
    assert_eq!(method(b"UPDATEREDIRECTREFX"), Method::Unknown);
    assert!(METHODS.iter().all(|method| method.len() <= METHOD_MAX));
}

#[test]
fn hosts_are_names_and_there_is_one() {
    let host = |headers: &str| read(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).host;
    assert_eq!(
        host("Host: Api.Allowed.Example:8080\r\n").log_text(),
        "api.allowed.example"
    );
    assert_eq!(host(""), Host::Absent);
    assert_eq!(host("Host:\r\n"), Host::Absent);
    assert!(matches!(host("Host: 192.0.2.1:80\r\n"), Host::IpLiteral(_)));
    assert!(matches!(
        host("Host: [2001:db8::1]:80\r\n"),
        Host::IpLiteral(_)
    ));
    assert!(matches!(host("Host: a b\r\n"), Host::Malformed(_)));
    assert!(matches!(
        host("Host: user@a.example\r\n"),
        Host::Malformed(_)
    ));
    assert!(matches!(
        host("Host: a.example\r\nhost: a.example\r\n"),
        Host::Multiple(_)
    ));
}

#[test]
fn an_absolute_target_must_agree_with_the_host() {
    let request = read(b"GET http://a.example:80/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(request.host.log_text(), "a.example");
    assert_eq!(&*request.path, "/x");
    let other = read(b"GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n");
    assert!(matches!(other.host, Host::Multiple(_)));
    let alone = read(b"GET HTTP://a.example HTTP/1.1\r\n\r\n");
    assert_eq!((alone.host.log_text(), &*alone.path), ("a.example", ""));
    let tunnel = read(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n");
    assert_eq!(tunnel.host.log_text(), "a.example");
}

#[test]
fn malformed_heads_are_refused_with_what_was_read() {
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/3",
        "GET /\u{0} HTTP/1.1",
        "GET /",
        "GET / x HTTP/1.1",
    ] {
        assert_eq!(seen(format!("{line}\r\n\r\n").as_bytes()), None, "{line}");
    }
    for header in [
        "Host : a.example",
        " folded: x",
        "x",
        "x: a\u{1}",
        "a: b\rHost: c",
        ": x",
    ] {
        let head = format!("GET /p HTTP/1.1\r\nUser-Agent: u\r\n{header}\r\n\r\n");
        let request = seen(head.as_bytes()).unwrap();
        assert_eq!(
            (&*request.path, &*request.user_agent),
            ("/p", "u"),
            "{header}"
        );
    }
    assert!(seen(b"GET /p HTTP/1.1\r\nA: b\nHost: c\r\n\r\n").is_some());
}

#[test]
fn a_head_is_at_most_16_kib() {
    let mut head = b"GET /p HTTP/1.1\r\nHost: a.example\r\nX: ".to_vec();
    head.resize(HEAD_MAX - 1, b'x');
    assert_eq!(request(&head), Progress::Incomplete);
    head.push(b'x');
    assert_eq!(seen(&head).unwrap().host.log_text(), "a.example");
    head.truncate(HEAD_MAX - 4);
    head.extend(b"\r\n\r\n");
    assert_eq!(read(&head).bytes, HEAD_MAX);
}

#[test]
fn the_preface_of_http_2_is_http() {
    let request = read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(request.is_http2_preface());
    assert_eq!(&*request.path, "*");
}

#[test]
fn text_for_the_log_is_short_and_printable() {
    let head = [
        b"GET /",
        &[b'a'; 400][..],
        b" HTTP/1.1\r\nUser-Agent: \xff\xfe\"\\\r\n\r\n",
    ]
    .concat();
    let request = read(&head);
    assert_eq!(request.path.len(), 253);
    assert_eq!(&*request.user_agent, "\\xff\\xfe\"\\x5c");
}

#[test]
fn a_status_line_is_strict() {
    assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Progress::Complete(200));
    assert_eq!(status(b"HTTP/1.0 404"), Progress::Complete(404));
    for bad in [
        &b"HTTP/2 200 OK"[..],
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 099 x",
        b"ICY 200 OK\r\n",
    ] {
        assert_eq!(status(bad), Progress::Refused(Reason::ProtocolUnknown));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _request = request(&[b"GET / HTTP/1.1\r\n", &bytes[..], b"\r\n\r\n"].concat());
        let _line = request_so_far(&bytes);
        let _status = status(&bytes);
        let _detected = crate::detect::detect(&bytes);
    }
}
