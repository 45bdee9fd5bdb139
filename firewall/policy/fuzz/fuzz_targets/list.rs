//! The body of a list: each entry is allowed or is one fault with its place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::annotation::ListReference;
use policy::lists::{LIST_ENTRIES_MAX, read};
use policy::{Kind, Preferences};

fuzz_target!(|body: &str| {
    let reference = ListReference::Named("team".to_owned());
    for kind in Kind::ALL {
        let reading = read(body, *kind, &reference, &Preferences::default());
        assert!(reading.entries.len() <= LIST_ENTRIES_MAX);
        assert!(reading.entries.iter().all(|entry| entry.list() == Some("team")));
        for fault in &reading.faults {
            assert!(fault.line.is_none_or(|line| line >= 1 && line <= body.lines().count()));
        }
    }
});
