//! What adopting a large policy costs, phase by phase: 20,000 rules in 1,000 groups and 50,000 clients.
//!
//! `cargo bench -p firewall --bench adopt` prints the least and the most milliseconds of five changes, each of one
//! group's rules, as the control thread spends them. The folder is on the disk of the system's temporary files.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(
    clippy::expect_used,
    reason = "a benchmark of a broken policy is worth nothing"
)]

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firewall::configlog::Stamp;
use firewall::policy_store::PolicyStore;
use ipc::snapshot::{SnapshotV1, read_draft};
use policy::{
    CanonicalDraft, Client, Draft, Entry, Group, Kind, Name, PortRange, Rule, RuleTransport,
};

/// Changes measured.
const ROUNDS: usize = 5;
/// What `publish` is made of comes before it, one after the other, to compare.
const PHASES: [&str; 5] = [
    "(read)",
    "(compile)",
    "(write, sync)",
    "publish",
    "config lines",
];

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, _) = PolicyStore::open(folder.path()).expect("a store");
    store.adopt(draft(0), 1).expect("the first policy");
    let mut spent: [Vec<Duration>; 5] = Default::default();
    for round in 1..=ROUNDS {
        let json = SnapshotV1::from(&draft(round)).to_json().expect("JSON");
        let document: Arc<[u8]> = json.into_bytes().into();
        let mut last = Instant::now();
        let next = read_draft(&document).expect("a policy");
        lap(&mut spent[0], &mut last);
        let compiled = CanonicalDraft::with_index(next).expect("a policy within limits");
        lap(&mut spent[1], &mut last);
        drop(std::hint::black_box(compiled));
        last = Instant::now();
        let mut file = File::create(folder.path().join("apart.json")).expect("a file");
        file.write_all(&document).expect("a file");
        file.sync_all().expect("a disk");
        lap(&mut spent[2], &mut last);
        let writing = store.begin(Arc::clone(&document), 2);
        let next = read_draft(&document).expect("a policy");
        let adoption = store.adopt_published(next, writing);
        let adoption = adoption.expect("a policy within limits");
        lap(&mut spent[3], &mut last);
        let stamp = Stamp::new(&adoption.snapshot, "bench", 2);
        let lines = stamp.changes(Some(adoption.previous.draft()), adoption.snapshot.draft());
        assert_eq!(lines.len(), 40);
        lap(&mut spent[4], &mut last);
        drop(adoption);
        store.free_retired();
    }
    for (phase, times) in PHASES.iter().zip(&spent) {
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        println!(
            "{phase:>14} {:>8.1} {:>8.1}",
            ms(times.iter().min()),
            ms(times.iter().max())
        );
    }
}

/// Notes what has passed, and begins anew.
fn lap(spent: &mut Vec<Duration>, last: &mut Instant) {
    spent.push(last.elapsed());
    *last = Instant::now();
}

/// The policy of one round: one group of it differs from round to round.
fn draft(round: usize) -> Draft {
    let name = |text: &str| Name::parse(text.as_bytes()).expect("a name");
    let rule = |group: usize, number: usize| Rule {
        rule: format!("sgr-{group:05}{number:05}"),
        transport: RuleTransport::Tcp,
        ports: PortRange::single(443),
        cidr: None,
        entries: vec![Entry::Name {
            kind: Kind::Tls,
            name: match group {
                0 => name(&format!("h{number}.round-{round}.example.net")),
                _ => name(&format!("h{number}.group-{group}.example.net")),
            },
            host_key: None,
            list: None,
        }],
    };
    let groups = (0..1_000).map(|group| Group {
        gid: format!("sg-{group:017}"),
        rules: (0..20).map(|number| rule(group, number)).collect(),
    });
    let clients = (0..50_000_u32).map(|number| Client {
        net: std::net::IpAddr::from((0x0a80_0000 + number).to_be_bytes()).into(),
        instance: format!("i-{number:017}"),
        groups: vec![format!("sg-{:017}", number % 1_000)],
    });
    Draft {
        groups: groups.collect(),
        clients: clients.collect(),
        ..Draft::default()
    }
}
