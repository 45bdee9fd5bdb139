//! Every metric that is documented is there, no other is, and each is raised by something real.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::daemon::get;
use e2e::hello::ClientHello;
use e2e::peer::{Recorder, Script};
use e2e::topology::{Topology, WEB};
use e2e::wait;

use crate::scene::{Scene, allowed, evil};

const PATIENCE: Duration = Duration::from_secs(30);

/// The page that documents them.
const DOCUMENTED: &str = include_str!("../../firewall/METRICS.md");

/// The tests in which the others are raised, and the files they are in. Each asserts that metric by name.
const RAISED_ELSEWHERE: [(&str, &str, &str); 14] = [
    (
        "postern_flows_forgotten_total",
        "ends_that_nobody_saw_are_counted_and_said",
        include_str!("end_records.rs"),
    ),
    (
        "postern_source_age_seconds",
        "the_age_of_the_source_is_said_once_it_was_read_and_not_before_nor_after_a_restart",
        include_str!("status_line.rs"),
    ),
    (
        "postern_rescued_total",
        "one_clients_scan_does_not_starve_anothers_names",
        include_str!("dns_scan.rs"),
    ),
    (
        "postern_dns_budget_total",
        "one_clients_scan_does_not_starve_anothers_names",
        include_str!("dns_scan.rs"),
    ),
    (
        "postern_dns_names_rotating",
        "rotating_dns_is_never_refused",
        include_str!("dns_scale.rs"),
    ),
    (
        "postern_dns_negative_total",
        "answers_that_lead_nowhere_or_cannot_be_read_leave_a_name_unresolvable",
        include_str!("dns_bad_input.rs"),
    ),
    (
        "postern_queue_drops_total",
        "queue_overrun_and_others_are_served_after_it",
        include_str!("fail_closed_matrix.rs"),
    ),
    (
        "postern_log_lines_lost_total",
        "full_log_counts_and_never_stalls_a_packet",
        include_str!("fail_closed_matrix.rs"),
    ),
    (
        "postern_suppressed_total",
        "one_client_floods_and_another_is_served",
        include_str!("fail_closed_matrix.rs"),
    ),
    (
        "postern_dns_addresses_not_global_total",
        "answers_outside_global_space_never_bind_in_any_form",
        include_str!("dns_bad_input.rs"),
    ),
    (
        "postern_dns_questions_failed_total",
        "answers_that_lead_nowhere_or_cannot_be_read_leave_a_name_unresolvable",
        include_str!("dns_bad_input.rs"),
    ),
    (
        "postern_dns_questions_timed_out_total",
        "resolver_that_hangs_holds_nobody_beyond_the_budget_and_history_goes_on",
        include_str!("dns_bad_input.rs"),
    ),
    (
        "postern_dns_questions_failed_over_total",
        "dead_first_resolver_costs_no_connection_its_time_out",
        include_str!("dns_bad_input.rs"),
    ),
    (
        "postern_dns_resolvers_suspended",
        "dead_first_resolver_costs_no_connection_its_time_out",
        include_str!("dns_bad_input.rs"),
    ),
];

/// Those that no scenario of this tier raises, and where or why not.
const NOT_RAISED: [(&str, &str); 7] = [
    (
        "postern_dns_addresses_dropped_total",
        "needs thousands of addresses in one look-up: the witness's own tests",
    ),
    (
        "postern_dns_lookups_over_budget_total",
        "the daemon's own limits come first: the witness's own tests",
    ),
    (
        "postern_asymmetric_total",
        "the simulated tier; here conntrack drops what follows a SYN without its answer as invalid",
    ),
    (
        "postern_clock_synchronised",
        "clock_unsynchronised_and_it_is_said compares it with the machine",
    ),
    (
        "postern_dns_unsettled_total",
        "the simulated tier; here a name is learnt before anybody gives up waiting",
    ),
    (
        "postern_queue_overruns_total",
        "a socket buffer of 64 MiB outlives the kernel's queue, which fills first",
    ),
    (
        "postern_conntrack_overruns_total",
        "thousands of ends at once do not fill the socket buffer",
    ),
];

/// Names in backquotes that begin as ours do.
fn documented() -> BTreeSet<String> {
    let words = DOCUMENTED.lines().filter(|line| line.starts_with("| `"));
    let names = words.flat_map(|line| line.split('|').nth(1).unwrap().split('`'));
    names
        .filter(|word| word.starts_with("postern_"))
        .map(str::to_owned)
        .collect()
}

/// The sum over all labels, by name.
fn scrape(lab: &Topology) -> BTreeMap<String, f64> {
    let page = get(&lab.firewall, 9642, "/metrics").unwrap();
    let mut sums = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let name = name.split('{').next().unwrap();
        *sums.entry(name.to_owned()).or_default() += value.parse::<f64>().unwrap();
    }
    assert!(page.ends_with("# EOF\n"), "{page}");
    sums
}

both_families! {
    fn every_documented_metric_is_there_and_no_other(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let found: BTreeSet<String> = scrape(&lab).into_keys().collect();
        let documented = documented();
        let missing: Vec<_> = documented.difference(&found).collect();
        let undocumented: Vec<_> = found.difference(&documented).collect();
        assert!(missing.is_empty() && undocumented.is_empty(), "missing {missing:?}, undocumented {undocumented:?}");
        let _judged = scene.judged();
        scene.assert_refused("a refusal", &evil(), &["name_not_allowed"]);
        scene.assert_allowed("an allowed hello", &allowed());
        // A reset in a combination that opens nothing, which the kernel drops by itself.
        let tcp = scene.connect();
        tcp.put(&tcp.segment(0, e2e::packet::flags::SYN | e2e::packet::flags::FIN, &[])).unwrap();
        // An address of the served ranges that is in no table.
        assert!(crate::clients::dial(&lab, e2e::topology::Asker::Unlisted, scene.recorder.address).is_err());
        lab.firewall.run("nft", &["insert rule inet postern decide accept"]).unwrap();
        // A half-held hello sent again, and an address that is not of any name where the SYN decides.
        let half = scene.connect();
        half.push(0, &allowed()[..40]).unwrap();
        half.push(0, &allowed()[..40]).unwrap();
        let elsewhere = e2e::topology::EVIL.at(family, 8443);
        assert!(crate::clients::dial(&lab, e2e::topology::Asker::Workload, elsewhere).is_err());
        // A name that a pattern covers and nobody has asked for yet.
        let _web = Recorder::start(&lab.internet, WEB.at(family, 443), Script::Tls).unwrap();
        let mut learnt = scene.attacker.connect(scene.fresh_port(), WEB.at(family, 443), 7).unwrap();
        learnt.write(&ClientHello::new(WEB.name).record()).unwrap();
        assert!(learnt.wait_bytes(1).unwrap(), "a name under a pattern is not served");
        // An annotation that is none.
        let faulty = e2e::daemon::INVENTORY.replacen("postern:tls:*.wild.example", "postern:tls:*.wild.example,*.com", 1);
        scene.daemon.replace(&faulty).unwrap();
        let raised = [
            "postern_gate_hits_total", "postern_gate_misses_total", "postern_dns_mismatch_total", "postern_dropped_total",
            "postern_faults",
            "postern_data_plane_ok", "postern_policy_in_force", "postern_generation", "postern_clients", "postern_names",
            "postern_names_bound", "postern_witness_answering", "postern_latched", "postern_flows_judged",
            "postern_uptime_seconds", "postern_policy_age_seconds", "postern_policy_adoption_milliseconds", "postern_allowed_total", "postern_refused_total",
            "postern_judged_total", "postern_packets_total", "postern_kernel_packets_total", "postern_log_lines_total",
            "postern_ruleset_checks_total", "postern_ruleset_repairs_total", "postern_spool_bytes", "postern_flows_undecided",
            "postern_client_pending_total", "postern_dns_lookups_total", "postern_dns_lookups_answered_total",
            "postern_dns_names_watched", "postern_dns_names_learnt",
        ];
        for name in raised {
            assert!(found.contains(name), "no metric {name}");
            let above_zero = || scrape(&lab)[name] > 0.0;
            assert!(wait::holds(PATIENCE, above_zero), "{name} stays zero: {:?}", scrape(&lab));
        }
        let accounted: BTreeSet<&str> = raised
            .into_iter()
            .chain(RAISED_ELSEWHERE.map(|(name, ..)| name))
            .chain(NOT_RAISED.map(|(name, _)| name))
            .collect();
        let forgotten: Vec<_> = documented.iter().filter(|name| !accounted.contains(name.as_str())).collect();
        assert!(forgotten.is_empty(), "nobody says what raises {forgotten:?}");
        for (name, test, file) in RAISED_ELSEWHERE {
            assert!(found.contains(name) && file.contains(test) && file.contains(name), "{test} does not raise {name}");
        }
    }
}
