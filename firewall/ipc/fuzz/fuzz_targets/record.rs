//! Hostile values in log lines, and hostile lines in the spool.
#![no_main]

use ipc::record::{
    ConfigLineV1, DnsLineV1, EndLineV1, FlowLineV1, TEXT_BYTES_MAX, Text, peek_time, to_line,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|input: &[u8]| {
    let text = Text::from_bytes(input);
    assert!(text.as_str().len() <= TEXT_BYTES_MAX);
    printable(&text);
    std::hint::black_box(peek_time(input));
    again::<FlowLineV1>(input);
    again::<EndLineV1>(input);
    again::<DnsLineV1>(input);
    again::<ConfigLineV1>(input);
});

fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(input: &[u8]) {
    let Ok(record) = serde_json::from_slice::<T>(input) else { return };
    let line = printable(&record);
    assert!(peek_time(&line).is_some());
    assert_eq!(serde_json::from_slice::<T>(&line).expect("our own line"), record);
}

fn printable<T: Serialize>(record: &T) -> Vec<u8> {
    let line = to_line(record).expect("records are JSON");
    let (end, body) = line.split_last().expect("a new line at least");
    assert_eq!(*end, b'\n');
    assert!(body.iter().all(|byte| (b' '..=b'~').contains(byte)));
    line
}
