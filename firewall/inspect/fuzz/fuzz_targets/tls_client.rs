//! A client's stream: the answer is final, is within bounds, and does not depend on how the
//! bytes came in.
#![no_main]

use inspect::Progress;
use inspect::tls::{Limits, client_hello};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
    let limits = Limits::default();
    let whole = client_hello(stream, &limits);
    if let Progress::Complete(hello) = &whole {
        assert!(hello.bytes <= stream.len() && hello.bytes <= limits.stream_bytes());
        assert!(hello.server_name.log_text().len() <= 253);
        let shorter = client_hello(&stream[..hello.bytes - 1], &limits);
        assert_eq!(shorter, Progress::Incomplete);
    }
    for length in [stream.len() / 2, stream.len().saturating_sub(1)] {
        let partial = client_hello(&stream[..length], &limits);
        assert!(partial == Progress::Incomplete || same(&partial, &whole));
    }
});

/// Refusals may differ in what was seen, never in being one.
fn same<T: PartialEq, R>(one: &Progress<T, R>, other: &Progress<T, R>) -> bool {
    match (one, other) {
        (Progress::Complete(one), Progress::Complete(other)) => one == other,
        (Progress::Refused(_), Progress::Refused(_)) => true,
        _ => false,
    }
}
