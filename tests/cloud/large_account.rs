//! 5,000 interfaces, 500 groups, 20,000 rules, three appliances, and a service that throttles as documented.

use std::time::{Duration, Instant};

use e2e::cloud::large::{GROUPS, INTERFACES};
use e2e::cloud::{DaemonDouble, Double, Pace, Sidecar};

/// For the first policy on a busy machine, without optimisation: 25 pages at 0.3 s and 20,000 rules.
const FIRST: Duration = Duration::from_secs(120);

/// Appliances of the deployment.
const APPLIANCES: u32 = 3;

/// Pages of interfaces, the most used listing once the rules are known.
const PAGES: u32 = 5;

/// How long readings are counted.
const COUNTED: Duration = Duration::from_secs(30);

#[test]
fn three_appliances_of_a_large_account_are_never_throttled() {
    let pace = Pace {
        page_items: 1_000,
        page_time: Duration::from_millis(300),
    };
    let double = Double::large(pace).unwrap();
    let folder = tempfile::Builder::new()
        .prefix("postern-large-")
        .tempdir()
        .unwrap();
    let config = format!(
        "[aws]\nvpcs = [\"vpc-1\"]\n[poll]\nappliances = {APPLIANCES}\n[logs]\nship = false\n"
    );
    let appliances: Vec<(DaemonDouble, Sidecar)> = (0..APPLIANCES)
        .map(|number| {
            let folder = folder.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            let daemon = DaemonDouble::start(&folder).unwrap();
            let mut sidecar = Sidecar::new(&folder, &double.url(), &config).unwrap();
            sidecar.start().unwrap();
            (daemon, sidecar)
        })
        .collect();
    for (daemon, _) in &appliances {
        let is_whole = |clients: usize, groups: usize| (clients, groups) == (INTERFACES, GROUPS);
        daemon
            .wait_policy(FIRST, |policy| {
                is_whole(policy.clients.len(), policy.groups.len())
            })
            .unwrap();
    }
    unchanged(&double, &appliances);
    for edit in 0..2 {
        change(&double, &appliances, &format!("edit{edit}.example.org"));
    }
    assert_eq!(double.throttled(), 0);
    assert!(double.refused().is_empty(), "{:?}", double.refused());
}

/// Nothing changes: the deployment keeps to its share, publishes nothing and does next to nothing.
fn unchanged(double: &Double, appliances: &[(DaemonDouble, Sidecar)]) {
    let calls = || double.calls("DescribeNetworkInterfaces");
    let work = || {
        let used = appliances
            .iter()
            .map(|(_, sidecar)| sidecar.usage().unwrap().0);
        used.sum::<Duration>()
    };
    let (calls_before, work_before, rules_before) =
        (calls(), work(), double.calls("DescribeSecurityGroupRules"));
    std::thread::sleep(COUNTED);
    let (made, worked) = (calls() - calls_before, work() - work_before);
    // Two a second for all, and one reading of each that began just before.
    let share = 2 * u32::try_from(COUNTED.as_secs()).unwrap() + PAGES * APPLIANCES;
    assert!(
        made >= PAGES && made <= share,
        "{made} calls, {share} are its share"
    );
    assert_eq!(
        double.calls("DescribeSecurityGroupRules"),
        rules_before,
        "no group changed"
    );
    for (daemon, sidecar) in appliances {
        assert_eq!(daemon.published().len(), 1, "nothing changed");
        let (_, memory) = sidecar.usage().unwrap();
        eprintln!("most memory: {} MB", memory >> 20);
        assert!(memory < 250 << 20, "{} MB", memory >> 20);
    }
    let cycles = made.div_ceil(PAGES);
    eprintln!("{cycles} unchanged cycles, {:?} each", worked / cycles);
}

/// One description is edited: every appliance publishes it within what is promised.
fn change(double: &Double, appliances: &[(DaemonDouble, Sidecar)], name: &str) {
    double.edit(name);
    let edited = Instant::now();
    for (daemon, _) in appliances {
        let has_it = |policy: &ipc::snapshot::SnapshotV1| {
            crate::stage::names(policy)
                .iter()
                .any(|known| known == name)
        };
        // 15 s is promised to one that has the machine for itself (README).
        let published = daemon.wait_policy(Duration::from_secs(45), has_it).unwrap();
        eprintln!(
            "published {:?} after the edit",
            published.at.duration_since(edited)
        );
    }
}
