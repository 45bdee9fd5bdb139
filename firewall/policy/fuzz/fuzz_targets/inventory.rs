//! An inventory: refused with a line of the text, or compiled to a policy that compiles to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::Snapshot;
use policy::inventory::{Scope, read};

fuzz_target!(|text: &str| {
    let mut lists = |_: &_| Ok("listed.example.com,*.example.org".into());
    match read(text, Scope::Whole, &mut lists) {
        Err(refusal) => assert!(refusal.line <= text.matches('\n').count() + 1),
        Ok(draft) => {
            let snapshot = Snapshot::compile(draft, 1).expect("a small draft is within limits");
            let again = Snapshot::compile(snapshot.draft().clone(), 2).expect("and stays so");
            assert_eq!(again.policy_id(), snapshot.policy_id());
            assert_eq!(again.draft(), snapshot.draft());
            for name in snapshot.exact_names() {
                assert!(snapshot.mentions(name));
            }
        }
    }
});
