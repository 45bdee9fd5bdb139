//! 5,000 interfaces, 500 groups, 20,000 rules, three appliances, and a service that throttles as documented.
//!
//! A minute by default. With `E2E_LONG` ten, and with an optimised sidecar (`POSTERN_CLOUDSYNC_BIN`) the figures of its README are
//! asserted, not only printed.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use e2e::cloud::large::{GROUPS, INTERFACES};
use e2e::cloud::{DaemonDouble, Double, Pace, Sidecar};

/// For the first policy on a busy machine, without optimisation: 25 pages at 0.3 s and 20,000 rules.
const FIRST: Duration = Duration::from_secs(120);

/// For anything later on such a machine.
const LATER: Duration = Duration::from_secs(60);

/// Appliances of the deployment.
const APPLIANCES: u32 = 3;

/// Pages of interfaces, the most used listing once the rules are known.
const PAGES: u32 = 5;

/// Most memory of a sidecar, optimised or not.
const MEMORY: usize = 150 << 20;

/// Whether this goes on for ten minutes.
pub(crate) fn long() -> bool {
    std::env::var_os("E2E_LONG").is_some()
}

/// The deployment and the account it reads.
struct Deployment {
    double: Double,
    appliances: Vec<(DaemonDouble, Sidecar)>,
    _folder: tempfile::TempDir,
}

impl Deployment {
    /// Starts all appliances at once, of one of `part` of the account, and waits for the first policy of each.
    fn start(part: usize, appliances: u32) -> Self {
        let pace = Pace {
            page_items: 1_000,
            page_time: Duration::from_millis(300),
        };
        let double = Double::part_of_large(pace, part).unwrap();
        let folder = tempfile::Builder::new()
            .prefix("postern-large-")
            .tempdir()
            .unwrap();
        let config = format!(
            "[aws]\nvpcs = [\"vpc-1\"]\n[poll]\nappliances = {appliances}\n[logs]\nship = false\n"
        );
        let start = |number: u32| {
            let folder = folder.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            let daemon = DaemonDouble::start(&folder).unwrap();
            let mut sidecar = Sidecar::new(&folder, &double.url(), &config).unwrap();
            sidecar.start().unwrap();
            (daemon, sidecar)
        };
        let appliances: Vec<_> = (0..appliances).map(start).collect();
        for (daemon, _) in &appliances {
            let sizes = (INTERFACES / part, GROUPS / part);
            daemon
                .wait_policy(FIRST, |policy| {
                    (policy.clients.len(), policy.groups.len()) == sizes
                })
                .unwrap();
        }
        Self {
            double,
            appliances,
            _folder: folder,
        }
    }

    /// Processor time of all appliances together.
    fn work(&self) -> Duration {
        let used = self.appliances.iter();
        used.map(|(_, sidecar)| sidecar.usage().unwrap().0).sum()
    }

    /// Does something for a while, and says how many calls and how much work that cost.
    fn cost(&self, of: impl FnOnce()) -> (u32, Duration) {
        let calls = || self.double.calls("DescribeNetworkInterfaces");
        let (calls_before, work_before) = (calls(), self.work());
        of();
        (calls() - calls_before, self.work() - work_before)
    }

    /// Nothing changes: the deployment keeps to its share, publishes nothing and does next to nothing.
    fn unchanged(&self, counted: Duration) {
        let rules = || self.double.calls("DescribeSecurityGroupRules");
        let rules_before = rules();
        let (made, worked) = self.cost(|| std::thread::sleep(counted));
        // Two a second for all, and one reading of each that began just before.
        let share = 2 * u32::try_from(counted.as_secs()).unwrap() + PAGES * APPLIANCES;
        assert!(
            made >= PAGES && made <= share,
            "{made} calls, {share} are its share"
        );
        assert_eq!(rules(), rules_before, "no group changed");
        for (daemon, _) in &self.appliances {
            assert_eq!(daemon.publications(), 1, "nothing changed");
        }
        let each = worked / made.div_ceil(PAGES);
        eprintln!("unchanged: {made} calls, {each:?} of work a cycle");
        assert!(!long() || each < Duration::from_millis(20), "{each:?}");
    }

    /// One description is edited: how long until each appliance published it.
    fn edit(&self, name: &str) -> Vec<Duration> {
        self.double.edit(name);
        let edited = Instant::now();
        let has_it = |policy: &ipc::snapshot::SnapshotV1| {
            crate::stage::names(policy)
                .iter()
                .any(|known| known == name)
        };
        let published = self.appliances.iter().map(|(daemon, _)| {
            let published = daemon.wait_policy(LATER, has_it).unwrap();
            published.at.duration_since(edited)
        });
        published.collect()
    }

    /// An interface is added and dials at once, through every appliance: how long until each published it.
    fn newcomer(&self) -> Vec<Duration> {
        let address = IpAddr::from(self.double.launch().unwrap());
        let dialled = Instant::now();
        for (daemon, _) in &self.appliances {
            daemon.unknown_client(address).unwrap();
        }
        let net = ipnet(address);
        let published = self.appliances.iter().map(|(daemon, _)| {
            let has_it = |policy: &ipc::snapshot::SnapshotV1| {
                policy
                    .clients
                    .iter()
                    .any(|client| client.net.to_string() == net)
            };
            let published = daemon.wait_policy(LATER, has_it).unwrap();
            published.at.duration_since(dialled)
        });
        published.collect()
    }
}

fn ipnet(address: IpAddr) -> String {
    format!("{address}/32")
}

/// The 99th percentile, and what is said of all.
fn p99(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    eprintln!(
        "{what}: {} times, median {:?}, p99 {:?}",
        times.len(),
        at(50),
        at(99)
    );
    at(99)
}

#[test]
fn three_appliances_of_a_large_account_are_never_throttled() {
    let deployment = Deployment::start(1, APPLIANCES);
    let started = Instant::now();
    deployment.unchanged(Duration::from_secs(if long() { 60 } else { 20 }));
    let (mut edits, mut newcomers) = (Vec::new(), Vec::new());
    let (made, worked) = deployment.cost(|| {
        let is_over = |round: u32| match long() {
            true => started.elapsed() > Duration::from_secs(600),
            false => round == 2,
        };
        for round in 0.. {
            if is_over(round) {
                break;
            }
            edits.extend(deployment.edit(&format!("edit{round}.example.org")));
            newcomers.extend(deployment.newcomer());
        }
    });
    let each = worked / made.div_ceil(PAGES);
    eprintln!(
        "changing: {made} calls, {each:?} of work a cycle, looking up and publishing included"
    );
    let edits = p99("published after an edit", edits);
    let newcomers = p99("published after a newcomer dialled", newcomers);
    for (_, sidecar) in &deployment.appliances {
        let (_, memory) = sidecar.usage().unwrap();
        eprintln!("most memory: {} MB", memory >> 20);
        assert!(memory < MEMORY, "{} MB", memory >> 20);
    }
    let double = &deployment.double;
    assert_eq!(double.throttled(), 0);
    assert!(double.refused().is_empty(), "{:?}", double.refused());
    if long() {
        assert!(edits <= Duration::from_secs(15), "{edits:?}");
        assert!(newcomers <= Duration::from_secs(3), "{newcomers:?}");
        assert!(each < Duration::from_millis(200), "{each:?}");
    }
}

/// What an edit costs one appliance, of one of `part` of the account.
fn cost_of_an_edit(part: usize) -> Duration {
    const EDITS: u32 = 3;
    let deployment = Deployment::start(part, 1);
    let (_, worked) = deployment.cost(|| {
        for round in 0..EDITS {
            deployment.edit(&format!("edit{round}.example.org"));
        }
    });
    worked / EDITS
}

#[test]
fn work_grows_with_the_account_and_no_faster() {
    let small = std::thread::spawn(|| cost_of_an_edit(5));
    let (large, small) = (cost_of_an_edit(1), small.join().unwrap());
    eprintln!(
        "an edit of 1,000 interfaces and 4,000 rules: {small:?} of work; of five times as many: {large:?}"
    );
    // Linear is five times; were it quadratic, 25.
    assert!(large < small * 9, "{large:?} and {small:?}");
}
