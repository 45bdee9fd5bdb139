//! A published document and the file on disk, as bytes: whatever is read and taken for a policy
//! can be written, and reads back as the same policy.
#![no_main]

use ipc::snapshot::{SnapshotV1, read, read_stored};
use libfuzzer_sys::fuzz_target;
use policy::Draft;

fuzz_target!(|input: &[u8]| {
    if let Ok(stored) = read_stored(input) {
        let json = stored.to_json().expect("what was read can be written");
        assert_eq!(read_stored(&json).expect("and read again"), stored);
    }
    let Ok(document) = read(input) else { return };
    let Ok(draft) = Draft::try_from(document) else { return };
    let json = SnapshotV1::from(&draft).to_json().expect("a draft can be written");
    let again = read(json.as_bytes()).expect("and read");
    assert_eq!(Draft::try_from(again).expect("and taken"), draft);
});
