//! Every metric that is documented is there, no other is, and everyday traffic raises most of them. That each comes up in
//! some test is for the suite to say, after the tier.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::daemon::get;
use e2e::evidence;
use e2e::hello::ClientHello;
use e2e::peer::{Recorder, Script};
use e2e::topology::{Topology, WEB};
use e2e::wait;

use crate::scene::{Scene, allowed, evil};

const PATIENCE: Duration = Duration::from_secs(30);

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
        let documented = evidence::documented();
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
    }
}
