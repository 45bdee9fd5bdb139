//! A plain HTTP stream in either direction, and the detection of protocols.
#![no_main]

use inspect::http::{self, HEAD_MAX};
use inspect::{Detected, Progress, detect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
    let detected = detect(stream);
    let half = detect(&stream[..stream.len() / 2]);
    assert!(half == Detected::NeedMore || half == detected);
    if let Progress::Complete(request) = http::request(stream) {
        assert_eq!(detected, Detected::Http);
        assert!(request.bytes <= stream.len().min(HEAD_MAX));
        assert!(request.path.len() <= 253 && request.user_agent.len() <= 253);
        assert!(request.host.log_text().len() <= 253);
    }
    if let Some(request) = http::request_so_far(stream) {
        assert!(request.path.len() <= 253);
    }
    if let Progress::Complete(code) = http::status(stream) {
        assert!((100..1000).contains(&code));
    }
});
