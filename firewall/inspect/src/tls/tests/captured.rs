//! Hellos of real programs: every prefix, every split, every flipped bit, a second opinion.

use proptest::prelude::*;
use rustls::server::Acceptor;

use super::build::{HOST, records};
use crate::progress::Progress;
use crate::tls::{ClientHello, Ech, Limits, ServerAnswer, TlsVersion, client_hello, server_hello};

macro_rules! captured {
    ($name:literal) => {
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/testdata/",
            $name,
            ".bin"
        ))
    };
}
pub(super) use captured;

/// Client streams whose hello is acceptable, and whether it offers a post-quantum share.
pub(super) const CLIENTS: [(&str, &[u8], bool); 11] = [
    ("openssl 1.3", captured!("openssl-tls13.client"), false),
    ("openssl 1.2", captured!("openssl-tls12.client"), false),
    ("openssl retry", captured!("openssl-retry.client"), false),
    (
        "openssl early data",
        captured!("openssl-early-data.client"),
        false,
    ),
    (
        "openssl client certificate",
        captured!("openssl-client-certificate12.client"),
        false,
    ),
    (
        "openssl to an old server",
        captured!("openssl-server11.client"),
        false,
    ),
    ("curl", captured!("curl-tls13.client"), false),
    ("rustls", captured!("rustls-mlkem.client"), true),
    ("go", captured!("go-tls13.client"), false),
    ("chromium", captured!("chromium.client"), true),
    ("firefox", captured!("firefox.client"), true),
];

pub(super) fn read(stream: &[u8]) -> ClientHello {
    client_hello(stream, &Limits::default()).complete().unwrap()
}

#[test]
fn captured_hellos_are_accepted() {
    for (tool, stream, pqc) in CLIENTS {
        let hello = read(stream);
        assert_eq!(hello.fault(), None, "{tool}");
        assert_eq!(hello.server_name.log_text(), HOST, "{tool}");
        assert_eq!(hello.is_pqc_offered(), pqc, "{tool}");
    }
    assert_eq!(read(captured!("chromium.client")).ech, Ech::Present);
    assert!(read(captured!("openssl-early-data.client")).early_data);
}

#[test]
fn every_prefix_is_incomplete_and_nothing_longer_changes_the_answer() {
    for (tool, stream, _) in CLIENTS {
        let hello = read(stream);
        for length in 0..hello.bytes {
            let partial = client_hello(&stream[..length], &Limits::default());
            assert_eq!(partial, Progress::Incomplete, "{tool} {length}");
        }
        let exact = &stream[..hello.bytes];
        for tail in [
            &[0u8; 40][..],
            exact,
            b"GET / HTTP/1.1\r\n\r\n",
            &[22, 3, 1, 0, 0],
        ] {
            assert_eq!(read(&[exact, tail].concat()), hello, "{tool}");
        }
    }
}

#[test]
fn an_old_client_is_told_by_its_hello() {
    let hello = read(captured!("openssl-client10.client"));
    assert_eq!(hello.max_version(), Some(TlsVersion::TLS1_0));
    assert_eq!(hello.fault(), Some(policy::Reason::TlsVersionClient));
}

/// A server's stream, behind the client's that it answers, and what it says.
type Server = (&'static str, &'static [u8], &'static [u8], TlsVersion, bool);
const SERVERS: [Server; 7] = [
    (
        "openssl 1.3",
        captured!("openssl-tls13.client"),
        captured!("openssl-tls13.server"),
        TlsVersion::TLS1_3,
        false,
    ),
    (
        "openssl 1.2",
        captured!("openssl-tls12.client"),
        captured!("openssl-tls12.server"),
        TlsVersion::TLS1_2,
        false,
    ),
    (
        "openssl 1.2 server",
        captured!("openssl-server12.client"),
        captured!("openssl-server12.server"),
        TlsVersion::TLS1_2,
        false,
    ),
    (
        "openssl early data",
        captured!("openssl-early-data.client"),
        captured!("openssl-early-data.server"),
        TlsVersion::TLS1_3,
        false,
    ),
    (
        "openssl retry",
        captured!("openssl-retry.client"),
        captured!("openssl-retry.server"),
        TlsVersion::TLS1_3,
        false,
    ),
    (
        "rustls",
        captured!("rustls-mlkem.client"),
        captured!("rustls-mlkem.server"),
        TlsVersion::TLS1_3,
        true,
    ),
    (
        "go",
        captured!("go-tls13.client"),
        captured!("go-tls13.server"),
        TlsVersion::TLS1_3,
        false,
    ),
];

#[test]
fn captured_server_hellos_are_accepted_and_every_prefix_is_incomplete() {
    for (tool, client, server, version, pqc) in SERVERS {
        let client = read(client);
        let answer = server_hello(server, &client, &Limits::default());
        let Progress::Complete(ServerAnswer::Hello(hello)) = answer else {
            panic!("{tool}: {answer:?}");
        };
        assert_eq!((hello.version, hello.is_pqc()), (version, pqc), "{tool}");
        for length in 0..hello.bytes {
            let partial = server_hello(&server[..length], &client, &Limits::default());
            assert_eq!(partial, Progress::Incomplete, "{tool} {length}");
        }
    }
}

#[test]
fn an_old_server_is_told_by_its_hello() {
    let client = read(captured!("openssl-server11.client"));
    let answer = server_hello(
        captured!("openssl-server11.server"),
        &client,
        &Limits::default(),
    );
    assert_eq!(answer, Progress::Refused(policy::Reason::TlsVersionServer));
}

/// What rustls makes of a client's stream: the server name, in lower case.
fn rustls_name(stream: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted
                .client_hello()
                .server_name()
                .map(str::to_ascii_lowercase);
        }
    }
    None
}

#[test]
fn rustls_sees_the_name_we_see() {
    for (tool, stream, _) in CLIENTS {
        let hello = read(stream);
        assert_eq!(
            rustls_name(stream).as_deref(),
            Some(hello.server_name.log_text()),
            "{tool}"
        );
    }
}

/// Cuts a captured hello into records at the given places.
fn resplit(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let hello = read(stream);
    let message = &stream[5..hello.bytes];
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| cut.index(message.len() - 1) + 1)
        .collect();
    places.sort_unstable();
    places.dedup();
    let sizes: Vec<usize> = places
        .iter()
        .scan(0, |last, &place| {
            Some(place - std::mem::replace(last, place))
        })
        .collect();
    records(message, &sizes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_split_into_records_is_the_same_hello(
        which in 0..CLIENTS.len(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..32),
    ) {
        let (_, stream, _) = CLIENTS[which];
        let mut whole = read(stream);
        let split = resplit(stream, &cuts);
        let again = read(&split);
        whole.bytes = split.len();
        prop_assert_eq!(again, whole);
    }

    #[test]
    fn flipped_bytes_never_panic_and_never_hide_a_name(
        which in 0..CLIENTS.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (_, stream, _) = CLIENTS[which];
        let mut stream = stream[..read(stream).bytes].to_vec();
        for (place, byte) in flips {
            let place = place.index(stream.len());
            stream[place] = byte;
        }
        let read = client_hello(&stream, &Limits::default());
        let _prefix = client_hello(&stream[..cut.index(stream.len())], &Limits::default());
        if let Progress::Complete(hello) = read
            && let Some(name) = hello.server_name.name()
            && let Some(theirs) = rustls_name(&stream)
        {
            prop_assert_eq!(name.as_str(), theirs);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let framed = [&[22, 3, 1, 1, 0, 1, 0, 0, 250][..], &bytes].concat();
        let _client = client_hello(&framed, &Limits::default());
        let hello = read(captured!("openssl-tls13.client"));
        let _server = server_hello(&bytes, &hello, &Limits::default());
    }
}
