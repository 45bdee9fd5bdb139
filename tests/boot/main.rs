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

use e2e::boot::report::{Attempt, Guard, Inheritance, Offload, Transfer};
use serde_json::Value;
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

/// Debian's kernel is older than the one that the wire tier runs on.
#[test]
fn confinement_and_latch_hold_on_the_stock_kernel() {
    let held = report().held.as_ref().expect("a daemon that was looked at");
    assert!(held.latched, "no table that only the daemon may change");
    assert_eq!(held.seccomp, "2", "no filter of system calls");
    let capabilities = u64::from_str_radix(&held.capabilities, 16).expect("a set");
    // CAP_DAC_READ_SEARCH (root with an inventory), CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN and CAP_NET_RAW, nothing else.
    assert_eq!(capabilities & !0x30e4, 0, "{capabilities:x}");
    assert!(held.repaired, "a deleted ruleset stays away");
}

/// The sets that the kernel fills and asks by itself, and the table they end with.
#[test]
fn familiar_pair_takes_four_trips_on_the_stock_kernel() {
    let held = report().held.as_ref().expect("a daemon that was looked at");
    assert_eq!(held.fewest_trips, [4, 4]);
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

/// Promise 21 over IPv4 and IPv6, with the attacks that succeed in the test above.
#[test]
fn a_verdict_is_never_inherited() {
    let attacks = inheritance(Guard::Postern, Offload::None);
    assert_eq!(attacks.len(), VARIANTS * FAMILIES);
    for attack in attacks {
        assert!(
            attack.armed && attack.allowed_arrived,
            "not the attack that was meant: {attack:?}"
        );
        assert!(!attack.evil_arrived, "{attack:?}");
        assert!(
            attack.reconnected,
            "an honest client could not connect again: {attack:?}"
        );
    }
}

/// Promise 21's own two variants. They hold because a reset that the flowtable sees ends its flow there.
#[test]
fn a_verdict_is_never_inherited_when_a_flowtable_sees_the_reset() {
    let attacks = inheritance(Guard::Postern, Offload::Flowtable);
    let mut seen = attacks
        .iter()
        .filter(|one| VISIBLE_RESETS.contains(&one.variant.as_str()));
    assert!(
        seen.clone().count() == VISIBLE_RESETS.len() * FAMILIES,
        "{attacks:?}"
    );
    assert!(
        seen.all(|one| one.armed && !one.evil_arrived),
        "{attacks:?}"
    );
}

/// The go or no-go of DESIGN, section 2, step 5. A packet of an offloaded flow meets no hook behind ingress, a bare SYN
/// included; where the flowtable missed the end of a connection, the next one inherits its verdict.
#[test]
fn flowtable_stays_unused_while_a_verdict_can_be_inherited_through_it() {
    let attacks = inheritance(Guard::Postern, Offload::Flowtable);
    let inherited = attacks.iter().any(|one| one.evil_arrived);
    let used = transfer(Guard::Postern, Offload::None)
        .entry
        .contains("[OFFLOAD]");
    assert!(!(inherited && used), "{attacks:?}");
}

/// The same answer from the rule alone: it needs no daemon to be seen, and tells when a kernel mends it.
#[test]
fn forward_hook_rule_is_enough_without_a_flowtable() {
    let attacks = inheritance(Guard::ForwardRule, Offload::None);
    assert_eq!(attacks.len(), VARIANTS);
    for attack in attacks {
        assert!(
            attack.armed && attack.allowed_arrived && !attack.evil_arrived,
            "{attack:?}"
        );
    }
}

/// No packet of a judged flow's bulk costs a trip to userspace.
#[test]
fn judged_flow_stays_in_the_kernel() {
    let transfers = report()
        .transfers
        .iter()
        .filter(|one| one.guard == Guard::Postern);
    assert_eq!(transfers.clone().count(), FAMILIES * 2);
    for one in transfers {
        assert!(
            one.marked_to_judge >= 4,
            "the SYN of a stranger, SYN/ACK, both hellos, proof: {one:?}"
        );
        assert!(
            one.queued_to_judge >= one.marked_to_judge,
            "marked and not queued: {one:?}"
        );
        assert_eq!(one.marked_in_bulk, 0, "{one:?}");
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

/// Ten of the lab's verdicts and two more, from the wire and from the flow log.
#[test]
fn native_queue_judges_every_attempt() {
    let attempts = &report().attempts;
    assert!(attempts.len() >= EXPECTED.len(), "{attempts:?}");
    for (attempt, (name, verdict)) in attempts.iter().zip(EXPECTED) {
        assert_eq!(attempt.name, *name);
        match verdict {
            Verdict::Allowed => assert_allowed(attempt),
            Verdict::Refused(stage, reasons) => assert_refused(attempt, *stage, reasons),
        }
    }
}

/// No bypass, no fail-open: a killed daemon leaves queue rules that lead nowhere.
#[test]
fn killed_daemon_lets_nothing_new_leave() {
    let mut attempts = report().attempts.iter();
    let attempt = attempts
        .find(|one| one.name == "without_daemon")
        .expect("the attempt");
    assert!(!attempt.served, "{attempt:?}");
    assert_eq!(attempt.packets_on_wire, 0, "{attempt:?}");
}

fn assert_allowed(attempt: &Attempt) {
    assert!(attempt.served && attempt.payload_on_wire > 0, "{attempt:?}");
    assert!(
        has_line(
            attempt,
            &[("outcome", "allowed"), ("reason", "web"), ("proto", "tls")]
        ),
        "{attempt:?}"
    );
    assert!(
        !has_line(attempt, &[("outcome", "disallowed")]),
        "{attempt:?}"
    );
}

fn assert_refused(attempt: &Attempt, stage: Stage, reasons: &[&str]) {
    assert!(!attempt.served, "{attempt:?}");
    match stage {
        Stage::Syn => assert_eq!(attempt.packets_on_wire, 0, "{attempt:?}"),
        Stage::ClientHello => {
            assert_eq!(attempt.payload_on_wire, 0, "{attempt:?}");
            assert!(
                attempt.resets_on_wire > 0,
                "the server was not told: {attempt:?}"
            );
        }
        Stage::ServerHello => {
            assert!(
                attempt.resets_on_wire > 0,
                "the server was not told: {attempt:?}"
            );
        }
    }
    let refused =
        |reason: &&str| has_line(attempt, &[("outcome", "disallowed"), ("reason", reason)]);
    assert!(reasons.iter().any(refused), "{attempt:?}");
    assert!(
        !has_line(attempt, &[("outcome", "allowed"), ("cat", "server")]),
        "{attempt:?}"
    );
}

fn has_line(attempt: &Attempt, fields: &[(&str, &str)]) -> bool {
    let holds = |line: &Value| {
        fields
            .iter()
            .all(|(key, text)| line.get(*key).is_some_and(|value| value == text))
    };
    attempt.log.iter().any(holds)
}

/// What an attempt has to come to.
enum Verdict {
    /// Served, and logged with the group that allowed it.
    Allowed,
    /// Stopped at a stage, with a reason.
    Refused(Stage, &'static [&'static str]),
}

/// How far a refused client gets.
#[derive(Clone, Copy)]
enum Stage {
    /// Not one packet leaves.
    Syn,
    /// The handshake of TCP completes; no byte of payload leaves.
    ClientHello,
    /// The client's hello leaves; nothing of the server's answer comes back.
    ServerHello,
}

/// The second where a busy host makes the emulated resolver miss the second that a SYN may wait for its answer.
const FORGED: &[&str] = &["address_not_of_name", "name_unresolvable"];

/// In the order of `guest/attempts.rs`. All clients have exact names only, so a forged address stops the SYN.
const EXPECTED: &[(&str, Verdict)] = &[
    ("tls13", Verdict::Allowed),
    ("tls12", Verdict::Allowed),
    ("tls13_v6", Verdict::Allowed),
    ("forged_sni", Verdict::Refused(Stage::Syn, FORGED)),
    ("forged_sni_v6", Verdict::Refused(Stage::Syn, FORGED)),
    (
        "name_not_allowed",
        Verdict::Refused(Stage::ClientHello, &["name_not_allowed"]),
    ),
    (
        "name_not_allowed_v6",
        Verdict::Refused(Stage::ClientHello, &["name_not_allowed"]),
    ),
    (
        "no_sni",
        Verdict::Refused(Stage::ClientHello, &["sni_missing"]),
    ),
    (
        "old_client",
        Verdict::Refused(Stage::ClientHello, &["tls_version_client"]),
    ),
    (
        "old_server",
        Verdict::Refused(Stage::ServerHello, &["tls_version_server"]),
    ),
    (
        "plain_http",
        Verdict::Refused(Stage::ClientHello, &["plaintext_http"]),
    ),
    (
        "unknown_client",
        Verdict::Refused(Stage::Syn, &["client_unknown"]),
    ),
];

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
/// IPv4 and IPv6.
const FAMILIES: usize = 2;
/// The variants whose reset crosses the flowtable in one piece.
const VISIBLE_RESETS: [&str; 2] = ["server_reset", "doubted_reset"];
