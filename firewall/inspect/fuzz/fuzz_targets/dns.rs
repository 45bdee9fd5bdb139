//! A DNS answer in a capture, as `postern replay` reads it.
#![no_main]

use inspect::replay::read_answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(resolved) = read_answer(input) {
        // Four bytes of the message at least for each, and each once at most per record.
        assert!(resolved.addresses.len() <= input.len() / 4);
    }
});
