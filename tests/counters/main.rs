//! What the packet path costs, in instructions and allocations: they do not depend on how busy a machine is, so a
//! regression of a few percent is seen by every run.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops, and what is counted is said"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use e2e::counters::{Baseline, Count, Counted, rustc};

/// What is counted, as `firewall/inspect/benches/counted.rs` calls it.
const NAMES: [&str; 8] = [
    "connection",
    "connection_pq",
    "client_hello",
    "client_hello_among_10000_flows",
    "refused_hello",
    "decided_flow",
    "decide_10_names",
    "decide_10000_names",
];

/// Percent that a count may grow by under the compiler that the baseline was made with, and under another.
const TOLERANCE: u64 = 5;
const TOLERANCE_OF_ANOTHER_COMPILER: u64 = 20;

/// Set, this run's counts become the baseline.
const ACCEPT: &str = "POSTERN_ACCEPT_COUNTS";

fn baseline_file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counters/baseline.json")
}

#[test]
fn packet_path_costs_no_more_instructions_and_allocations_than_it_did() {
    let counted = Counted::build().unwrap();
    let counts: BTreeMap<String, Count> = NAMES
        .into_iter()
        .map(|name| (name.to_owned(), counted.run(name).unwrap()))
        .collect();
    for (name, count) in &counts {
        eprintln!(
            "{name}: {} instructions, {} allocations",
            count.instructions, count.allocations
        );
    }
    // Whatever the architecture: what is looked up costs the same among few and among many.
    let instructions = |name: &str| counts.get(name).unwrap().instructions;
    let flat = |few: &str, many: &str, percent: u64| {
        let (few, many) = (instructions(few), instructions(many));
        assert!(
            many * 100 <= few * percent,
            "{many} among many, {few} among few"
        );
    };
    flat("client_hello", "client_hello_among_10000_flows", 110);
    flat("decide_10_names", "decide_10000_names", 150);
    let now = Baseline {
        rustc: rustc().unwrap(),
        architecture: std::env::consts::ARCH.to_owned(),
        counts,
    };
    if std::env::var_os(ACCEPT).is_some() {
        let text = serde_json::to_string_pretty(&now).unwrap() + "\n";
        std::fs::write(baseline_file(), text).unwrap();
    }
    let text = std::fs::read_to_string(baseline_file()).unwrap();
    let before: Baseline = serde_json::from_str(&text).unwrap();
    if before.architecture == now.architecture {
        compare(&before, &now);
    }
}

fn compare(before: &Baseline, now: &Baseline) {
    let tolerance = if before.rustc == now.rustc {
        TOLERANCE
    } else {
        TOLERANCE_OF_ANOTHER_COMPILER
    };
    let mut worse = String::new();
    for (name, count) in &now.counts {
        let Some(old) = before.counts.get(name) else {
            writeln!(worse, "{name} is not in the baseline").unwrap();
            continue;
        };
        for (what, now, old) in [
            ("instructions", count.instructions, old.instructions),
            ("allocations", count.allocations, old.allocations),
        ] {
            if now * 100 > old * (100 + tolerance) {
                writeln!(worse, "{name}: {now} {what}, {old} before").unwrap();
            }
        }
    }
    assert!(
        worse.is_empty(),
        "more than {tolerance} % above tests/counters/baseline.json ({}; here {}):\n{worse}\
         If that is the price of something worth it, say so in the commit and accept it with\n\
         {ACCEPT}=1 cargo test -p e2e --test counters",
        before.rustc,
        now.rustc
    );
}
