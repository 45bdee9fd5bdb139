//! Time to read a handshake message whole: nanoseconds per call, best of several rounds.
//!
//! `cargo bench -p inspect --bench parse`. Plain timing: the figures are for the README's
//! table and for noticing a change of magnitude, not for a verdict about percents.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]
#![expect(
    clippy::expect_used,
    reason = "a capture that is not read voids the figures"
)]

use std::hint::black_box;
use std::time::Instant;

use inspect::{ssh, tls};

const ROUNDS: usize = 7;
const CALLS: u32 = 20_000;

macro_rules! captured {
    ($name:literal) => {
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/testdata/",
            $name,
            ".bin"
        ))
        .as_slice()
    };
}

fn main() {
    let limits = tls::Limits::default();
    for (name, stream) in [
        ("client hello, OpenSSL", captured!("openssl-tls13.client")),
        (
            "client hello, rustls with ML-KEM",
            captured!("rustls-mlkem.client"),
        ),
        (
            "client hello, Chromium with ML-KEM and ECH",
            captured!("chromium.client"),
        ),
        (
            "client hello, Firefox with ML-KEM and ECH",
            captured!("firefox.client"),
        ),
    ] {
        let hello = tls::client_hello(stream, &limits)
            .complete()
            .expect("a whole hello");
        report(name, hello.bytes, || {
            black_box(tls::client_hello(black_box(stream), &limits));
        });
        let all_but_one = hello.bytes.checked_sub(1).and_then(|end| stream.get(..end));
        let partial = all_but_one.expect("a hello is longer than a byte");
        report("  the same, one byte short", partial.len(), || {
            black_box(tls::client_hello(black_box(partial), &limits));
        });
    }
    for (name, client, server) in [
        (
            "server hello, TLS 1.3",
            captured!("openssl-tls13.client"),
            captured!("openssl-tls13.server"),
        ),
        (
            "server hello, TLS 1.2",
            captured!("openssl-tls12.client"),
            captured!("openssl-tls12.server"),
        ),
        (
            "server hello, ML-KEM",
            captured!("rustls-mlkem.client"),
            captured!("rustls-mlkem.server"),
        ),
    ] {
        let hello = tls::client_hello(client, &limits)
            .complete()
            .expect("a whole hello");
        let answer = tls::server_hello(server, &hello, &limits)
            .complete()
            .expect("an answer");
        report(name, answer.bytes(), || {
            black_box(tls::server_hello(black_box(server), &hello, &limits));
        });
    }
    conversations();
}

/// Whole handshakes, both directions, as the engine drives them.
fn conversations() {
    let limits = tls::Limits::default();
    let (client, server) = (
        captured!("openssl-tls13.client"),
        captured!("openssl-tls13.server"),
    );
    report(
        "handshake, TLS 1.3, both directions",
        client.len() + server.len(),
        || {
            let hello = tls::client_hello(client, &limits)
                .complete()
                .expect("a whole hello");
            let rest = client.get(hello.bytes..).unwrap_or_default();
            let mut conversation = tls::Conversation::new(hello, limits);
            black_box(conversation.server(server)).expect("an honest server");
            black_box(conversation.client(rest)).expect("an honest client");
        },
    );
    let (client, server) = (
        captured!("openssh-curve25519.client"),
        captured!("openssh-curve25519.server"),
    );
    report(
        "key exchange, SSH, both directions",
        client.len() + server.len(),
        || {
            let mut conversation = ssh::Conversation::new();
            black_box(conversation.client(client)).expect("an honest client");
            black_box(conversation.server(server)).expect("an honest server");
        },
    );
}

/// Prints the least mean time of a call over [`ROUNDS`] rounds.
fn report(name: &str, bytes: usize, mut call: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(CALLS));
    }
    println!("{name:<46} {bytes:>6} bytes {:>8.0} ns", best * 1e9);
}
