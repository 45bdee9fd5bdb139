//! The socket pair between daemon and witness as bytes, from both ends.
#![no_main]

use ipc::framing::Decoder;
use ipc::witness::{FromWitness, MESSAGE_BYTES_MAX, ToWitness};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    decoder.push(input);
    while let Ok(Some(message)) = decoder.next_message::<ToWitness>() {
        drop(message);
    }
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    for byte in input {
        decoder.push(std::slice::from_ref(byte));
        if let Ok(Some(message)) = decoder.next_message::<FromWitness>() {
            drop(message);
        }
    }
});
