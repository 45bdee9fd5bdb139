//! What one decision costs, by the number of names and of clients.
//!
//! `cargo bench -p policy` prints nanoseconds per flow: looking the client up, one `decide`. "Same"
//! asks about ten names over and over, so that what is measured is the index and not the memory
//! behind it; "spread" asks about names all over the policy, cold caches included.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(
    clippy::expect_used,
    reason = "a benchmark of a broken policy is worth nothing"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use policy::{
    AppProto, Ask, Client, Date, Draft, Entry, Group, Kind, Name, PortRange, Rule, RuleTransport,
    Snapshot, Transport,
};

/// The first client.
const FIRST_CLIENT: u32 = 0x0a00_0001;

fn main() {
    println!(
        "{:>8} {:>8} {:>10} {:>10} {:>12}",
        "names", "clients", "same ns", "spread ns", "compile ms"
    );
    for (names, clients) in [
        (10, 1),
        (1_000, 1),
        (100_000, 1),
        (10, 50_000),
        (100_000, 50_000),
    ] {
        let draft = draft(names, clients);
        let start = Instant::now();
        let snapshot = Snapshot::compile(draft, 1).expect("the draft is within limits");
        let compile = start.elapsed();
        let same: Vec<Name> = (0..10).map(name).collect();
        let spread: Vec<Name> = (0..10_000).map(|n| name(n * 7_919 % names)).collect();
        println!(
            "{names:>8} {clients:>8} {:>10.0} {:>10.0} {:>12.1}",
            least_ns(&snapshot, &same, clients),
            least_ns(&snapshot, &spread, clients),
            compile.as_secs_f64() * 1e3,
        );
    }
}

/// The least time per flow over several rounds.
fn least_ns(snapshot: &Snapshot, names: &[Name], clients: u32) -> f64 {
    let date = Date::from_unix_ms(1_800_000_000_000);
    let rounds = 200_000 / u32::try_from(names.len()).expect("a handful");
    let round = || {
        let start = Instant::now();
        for turn in 0..rounds {
            for (name, n) in names.iter().zip(0_u32..) {
                let offset = n.wrapping_mul(2_654_435_761).wrapping_add(turn) % clients;
                let source = IpAddr::from(Ipv4Addr::from(FIRST_CLIENT + offset));
                let client = snapshot.client(source).expect("the client is in the draft");
                let ask = Ask {
                    client,
                    transport: Transport::Tcp,
                    proto: AppProto::Tls,
                    name: Some(name),
                    bound: true,
                    dst: IpAddr::from([192, 0, 2, 1]),
                    port: 443,
                    date,
                };
                assert!(black_box(snapshot.decide(black_box(&ask))).is_allowed());
            }
        }
        start.elapsed()
    };
    let best = (0..10).map(|_| round()).min().unwrap_or(Duration::ZERO);
    best.as_secs_f64() * 1e9 / (f64::from(rounds) * names.len() as f64)
}

/// One group of rules with 100 names each, and clients that are all in it.
fn draft(names: u32, clients: u32) -> Draft {
    let entries: Vec<Entry> = (0..names)
        .map(|n| Entry::Name {
            kind: Kind::Tls,
            name: name(n),
            host_key: None,
            list: None,
        })
        .collect();
    let rules = entries
        .chunks(100)
        .zip(1..)
        .map(|(entries, id): (_, u32)| Rule {
            rule: id.to_string(),
            transport: RuleTransport::Tcp,
            ports: PortRange::single(443),
            cidr: None,
            entries: entries.to_vec(),
        });
    let client = |n: u32| Client {
        net: IpAddr::from(Ipv4Addr::from(FIRST_CLIENT + n)).into(),
        instance: format!("i-{n:08x}"),
        groups: vec!["sg-1".to_owned()],
    };
    Draft {
        groups: vec![Group {
            gid: "sg-1".to_owned(),
            rules: rules.collect(),
        }],
        clients: (0..clients).map(client).collect(),
        ..Draft::default()
    }
}

/// The `n`-th name.
fn name(n: u32) -> Name {
    Name::parse(format!("host-{n}.api.example.com").as_bytes()).expect("the name is well formed")
}
