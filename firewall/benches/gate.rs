//! What the address gate costs a SYN, by how many names and groups an address has: nanoseconds a call.
//!
//! `cargo bench -p firewall --bench gate`. A hit must take less than two microseconds.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark reports on standard output, and one that cannot be set up says nothing"
)]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use firewall::bindings::{BindingStore, BindingWriter, Scope};
use inspect::{Bindings, Time};
use policy::inventory::{self, Scope as Whole};
use policy::{Name, Snapshot};

const CALLS: u32 = 200_000;
const NOW: Time = Time {
    mono_ms: 200_000_000,
    unix_ms: 1_800_000_000_000,
};

/// `groups` groups of `names` names each, and one client that is in the first `of_client` of them.
fn policy(groups: u32, names: u32, of_client: u32) -> Arc<Snapshot> {
    let mut text = String::from("[[client]]\naddress = \"10.0.0.1\"\ninstance = \"i\"\ngroups = [");
    for group in 0..of_client {
        text.push_str(&format!("\"g{group:05}\","));
    }
    text.push_str("]\n");
    for group in 0..groups {
        text.push_str(&format!("[[group]]\nid = \"g{group:05}\"\n"));
        let all: Vec<String> = (0..names)
            .map(|index| format!("n{index}.g{group}.example.org"))
            .collect();
        for some in all.chunks(200) {
            text.push_str(&format!(
                "[[group.rule]]\ndescription = \"postern:tls:{}\"\nprotocol = \"tcp\"\nports = \"443\"\n",
                some.join(",")
            ));
        }
    }
    let draft = inventory::read(&text, Whole::Whole, &mut |_| Err("no lists".to_owned()));
    Arc::new(Snapshot::compile(draft.expect("an inventory"), 1).expect("a policy"))
}

fn main() {
    println!(
        "{:>34} {:>8} {:>8}",
        "names bound to the address", "hit ns", "miss ns"
    );
    for (what, groups, names, of_client) in [
        ("1, of a client's only group", 1, 1, 1),
        ("10,000, of one group", 1, 10_000, 1),
        ("10,000, of 1,000 groups, 16 a client's", 1_000, 10, 16),
    ] {
        let policy = policy(groups, names, of_client);
        let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
        let mut writer = BindingWriter::new(Arc::clone(&store));
        writer.adopt(Arc::clone(&policy));
        let address = IpAddr::from([8, 8, 8, 8]);
        let bound: Vec<Name> = policy.exact_names().cloned().collect();
        for name in &bound {
            writer.learn(name, [(address, 60)], None, NOW.mono_ms);
        }
        let client = policy
            .client(IpAddr::from([10, 0, 0, 1]))
            .expect("the client");
        let ask = |port| store.opens(&policy, client, (address, port), NOW);
        assert_eq!((ask(443), ask(444)), (Some(true), Some(false)));
        let time = |port| {
            let begun = Instant::now();
            for _ in 0..CALLS {
                black_box(ask(black_box(port)));
            }
            begun.elapsed().as_nanos() / u128::from(CALLS)
        };
        println!("{what:>34} {:>8} {:>8}", time(443), time(444));
    }
}
