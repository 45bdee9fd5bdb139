//! The boot tier: Postern on Debian's stock cloud kernel under qemu, with the native `queue` statement.
//!
//! One boot serves all tests. Each reads the guest's report: what the wire, the client, the conntrack table and
//! the flow log showed. `boot/guest.rs` drives the guest; `harness/boot.rs` builds and starts it.

mod shared;

use e2e::boot::report::{Guard, Inheritance};
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

#[test]
fn every_attack_on_the_mark_succeeds_without_the_defence() {
    let attacks = inheritance(|one| one.guard == Guard::Control);
    assert_eq!(attacks.len(), 8);
    for attack in attacks {
        assert!(attack.armed && attack.evil_arrived, "{attack:?}");
    }
}

fn inheritance(wanted: impl Fn(&Inheritance) -> bool) -> Vec<&'static Inheritance> {
    report()
        .inheritance
        .iter()
        .filter(|one| wanted(one))
        .collect()
}
