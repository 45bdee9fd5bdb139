//! The boot tier: Postern on Debian's stock cloud kernel under qemu, with the native `queue` statement.
//!
//! One boot serves all tests. Each reads the guest's report: what the wire, the client, the conntrack table and
//! the flow log showed. `boot/guest.rs` drives the guest; `harness/boot.rs` builds and starts it.

#![cfg_attr(
    test,
    expect(
        clippy::expect_used,
        reason = "a report without what a test reads fails it"
    )
)]

mod shared;

use e2e::boot::report::{Guard, Inheritance, Offload, Transfer};
use shared::report;

#[test]
fn guest_reports_no_fault() {
    let report = report();
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(
        report.booted.kernel.ends_with("-cloud-amd64"),
        "booted {}",
        report.booted.kernel
    );
}

#[test]
fn stock_kernel_has_the_native_queue_and_the_flowtable() {
    let report = report();
    for statement in ["queue", "flowtable"] {
        let loaded = report.statements.iter().find(|one| one.name == statement);
        assert_eq!(
            loaded.map(|one| one.error.as_str()),
            Some(""),
            "{statement}"
        );
    }
}

/// An attack that fails against Postern says something only because the same bytes succeed here.
#[test]
fn every_attack_on_the_mark_succeeds_without_the_defence() {
    for offload in [Offload::None, Offload::Flowtable] {
        let attacks = inheritance(Guard::Control, offload);
        assert_eq!(attacks.len(), VARIANTS, "{offload:?}");
        for attack in attacks {
            assert!(attack.armed && attack.evil_arrived, "{attack:?}");
        }
    }
}

/// Promise 21 in its kernel half: a bare SYN on an older entry, stopped in the forward hook.
#[test]
fn forward_hook_rule_defeats_every_attack_without_a_flowtable() {
    let attacks = inheritance(Guard::ForwardRule, Offload::None);
    assert_eq!(attacks.len(), VARIANTS);
    for attack in attacks {
        assert!(
            attack.armed && attack.allowed_arrived && !attack.evil_arrived,
            "{attack:?}"
        );
    }
}

#[test]
fn flowtable_takes_bulk_packets_past_the_forward_hook() {
    let slow = transfer(Guard::Control, Offload::None);
    let fast = transfer(Guard::Control, Offload::Flowtable);
    assert!(fast.entry.contains("[OFFLOAD]") && !slow.entry.contains("[OFFLOAD]"));
    // What the flowtable does not carry is the first packet of each direction, at most.
    assert!(slow.forwarded_in_bulk > 50, "{slow:?}");
    assert!(fast.forwarded_in_bulk < 10, "{fast:?}");
}

fn inheritance(guard: Guard, offload: Offload) -> Vec<&'static Inheritance> {
    let all = report().inheritance.iter();
    all.filter(|one| one.guard == guard && one.offload == offload)
        .collect()
}

fn transfer(guard: Guard, offload: Offload) -> &'static Transfer {
    let mut all = report().transfers.iter();
    all.find(|one| one.guard == guard && one.offload == offload)
        .expect("a transfer")
}

/// Ways to end a connection at its server while the firewall keeps its entry; see `guest/inheritance.rs`.
const VARIANTS: usize = 4;
