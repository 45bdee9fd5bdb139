//! The control socket as bytes, from both ends. The first byte says where the stream is cut, so
//! that what is read never depends on how it arrived.
#![no_main]

use std::fmt::Debug;

use ipc::control::{Message, Request};
use ipc::framing::{Decoder, FramingError, MESSAGE_BYTES_MAX, encode};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    both_ways::<Request>(bytes, usize::from(cut));
    both_ways::<Message>(bytes, usize::from(cut));
});

fn both_ways<T: Serialize + DeserializeOwned + Debug + PartialEq>(bytes: &[u8], cut: usize) {
    let whole = messages::<T>(&[bytes]);
    let (head, tail) = bytes.split_at(cut.min(bytes.len()));
    assert_eq!(messages::<T>(&[head, tail]), whole);
    for message in whole {
        let again = encode(&message, MESSAGE_BYTES_MAX * 8).expect("what was read can be written");
        assert_eq!(messages::<T>(&[&again]), [message]);
    }
}

fn messages<T: DeserializeOwned>(parts: &[&[u8]]) -> Vec<T> {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX * 8);
    let mut found = Vec::new();
    for part in parts {
        decoder.push(part);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                // The stream stays in step behind a body that is no message.
                Err(FramingError::Body(_)) => {}
                Err(_) => return found,
            }
        }
    }
    found
}
