//! What `cargo suite` counts the instructions of, under callgrind: `tests/counters/` says how many there may be.
//!
//! `counted NAME` does what NAME says once inside [`measured`], the one function that is counted; what has to be made
//! for it is made before. Times are of no interest here, and the packets are the same in every run.

#![expect(clippy::print_stderr, reason = "a name that is not known is said so")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a capture that is not read, or a packet that is not made, voids the figures"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::ExitCode;

use inspect::{
    Bindings, Class, Env, Inspector, Known, Limits, Output, Progress, Time, Verdict, tls,
};
use policy::inventory::{self, Scope};
use policy::{AppProto, Ask, ClientRef, Date, Name, Snapshot, Transport};

/// Connections of one run; counts are divided by this.
const FLOWS: u16 = 1_000;
const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [203, 0, 113, 5];

/// Everything that is counted happens in here.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let name = std::env::args().nth(1).unwrap_or_default();
    match name.as_str() {
        "connection" => connections("openssl-tls13"),
        "connection_pq" => connections("rustls-mlkem"),
        "client_hello" => client_hello("openssl-tls13", 0),
        "client_hello_among_10000_flows" => client_hello("openssl-tls13", 10_000),
        "refused_hello" => refused_hello(),
        "decided_flow" => decided_flow(),
        "decide_10_names" => decide(10),
        "decide_10000_names" => decide(10_000),
        // `cargo test --benches` and `cargo bench` without a name.
        "" | "--bench" | "--test" => {}
        other => {
            eprintln!("nothing is called {other}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Everything is bound to the one server.
struct OneServer(Name);

impl Bindings for OneServer {
    fn is_bound(&self, name: &Name, _: IpAddr, _: Time) -> bool {
        *name == self.0
    }

    fn names_of(&self, _: IpAddr, _: Time, each: &mut dyn FnMut(&Name)) {
        each(&self.0);
    }

    fn is_global(&self, _: IpAddr) -> bool {
        true
    }

    fn is_known(&self, _: &Name) -> Known {
        Known::Answered
    }

    /// The daemon's own answer this too, without asking for name after name.
    fn opens(&self, _: &Snapshot, _: ClientRef, _: (IpAddr, u16), _: Time) -> Option<bool> {
        Some(true)
    }
}

/// What the two ends say, from a capture.
struct Script {
    name: Name,
    hello: Vec<u8>,
    server_flight: Vec<u8>,
    client_flight: Vec<u8>,
}

fn script(file: &str) -> Script {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let read = |side: &str| std::fs::read(folder.join(format!("{file}.{side}.bin"))).expect(file);
    let (client, server) = (read("client"), read("server"));
    let whole = match tls::client_hello(&client, &tls::Limits::default()) {
        Progress::Complete(hello) => Some(hello),
        Progress::Incomplete | Progress::Refused(_) => None,
    };
    let hello = whole.expect("a whole hello");
    let name = hello.server_name.name().expect("a name").clone();
    let (first, rest) = client.split_at(hello.bytes);
    let take = |bytes: &[u8], max: usize| bytes[..bytes.len().min(max)].to_vec();
    Script {
        name,
        hello: first.to_vec(),
        server_flight: take(&server, 4_000),
        client_flight: take(rest, 1_400),
    }
}

fn snapshot(names: &[String]) -> Snapshot {
    let mut text = String::from("[[group]]\nid = \"g\"\n");
    for chunk in names.chunks(10) {
        text.push_str(&format!(
            "[[group.rule]]\ndescription = \"postern:tls:{}\"\nprotocol = \"tcp\"\nports = \"443\"\n",
            chunk.join(",")
        ));
    }
    text.push_str("[[client]]\naddress = \"10.0.0.0/16\"\ninstance = \"i\"\ngroups = [\"g\"]\n");
    let draft = inventory::read(&text, Scope::Whole, &mut |_| Err("none".to_owned()));
    Snapshot::compile(draft.expect("an inventory"), 1).expect("a snapshot")
}

fn tcp(
    to_server: bool,
    (client, port): ([u8; 4], u16),
    (seq, ack): (u32, u32),
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let total = u16::try_from(40 + payload.len())
        .expect("a packet")
        .to_be_bytes();
    let mut p = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
    let (src, dst) = if to_server {
        (client, SERVER)
    } else {
        (SERVER, client)
    };
    let (sport, dport) = if to_server { (port, 443) } else { (443, port) };
    p.extend(src);
    p.extend(dst);
    p.extend(sport.to_be_bytes());
    p.extend(dport.to_be_bytes());
    p.extend(seq.to_be_bytes());
    p.extend(ack.to_be_bytes());
    p.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    p.extend_from_slice(payload);
    p
}

/// One packet and the class it is queued under.
type Queued = (Class, Vec<u8>);

/// An inspector, its surroundings and the packets of one kind of connection.
struct Bench {
    inspector: Inspector,
    policy: Snapshot,
    bindings: OneServer,
    script: Script,
    token: u32,
    judged: u32,
}

impl Bench {
    fn new(script: Script, allowed: &str) -> Self {
        let limits = Limits {
            // One client plays all of them.
            flows_per_client: 1 << 20,
            bytes_per_client: 1 << 40,
            segments_per_client: 1 << 20,
            flows: 1 << 20,
            ..Limits::default()
        };
        Self {
            inspector: Inspector::new(limits),
            policy: snapshot(&[allowed.to_owned()]),
            // So that the SYN passes, whatever the hello says.
            bindings: OneServer(Name::parse(allowed.as_bytes()).expect("a name")),
            script,
            token: 0,
            judged: 0,
        }
    }

    /// SYN, SYN/ACK, client hello, server flight and the client's proof from one port.
    fn connection(&self, from: ([u8; 4], u16)) -> [Queued; 5] {
        let script = &self.script;
        let end = u32::try_from(script.hello.len()).expect("a hello") + 101;
        let flight = u32::try_from(script.server_flight.len()).expect("a flight") + 501;
        let (hello, server) = (&script.hello, &script.server_flight);
        [
            (Class::Syn, tcp(true, from, (100, 0), 0x02, b"")),
            (Class::SynAck, tcp(false, from, (500, 101), 0x12, b"")),
            (Class::Original, tcp(true, from, (101, 501), 0x18, hello)),
            (Class::Reply, tcp(false, from, (501, end), 0x18, server)),
            (
                Class::Original,
                tcp(true, from, (end, flight), 0x18, &script.client_flight),
            ),
        ]
    }

    fn take(&mut self, (class, bytes): &Queued) {
        let env = Env {
            now: Time {
                mono_ms: 1_000,
                unix_ms: 1_795_305_600_000,
            },
            policy: &self.policy,
            bindings: &self.bindings,
        };
        self.token = self.token.wrapping_add(1);
        self.inspector
            .handle_packet(&env, self.token, *class, bytes);
        while let Some(output) = self.inspector.poll_output() {
            let judged = matches!(
                output,
                Output::Verdict {
                    verdict: Verdict::Judged | Verdict::Familiar,
                    ..
                }
            );
            self.judged += u32::from(judged);
            black_box(&output);
        }
    }

    /// The connections that are counted.
    fn connections(&self) -> Vec<[Queued; 5]> {
        let ports = (0..FLOWS).map(|n| 10_000 + n);
        ports.map(|port| self.connection((CLIENT, port))).collect()
    }
}

/// From the SYN to the verdict, and for the log.
fn connections(file: &str) {
    let script = script(file);
    let name = script.name.to_string();
    let mut bench = Bench::new(script, &name);
    let all = bench.connections();
    measured(&mut || all.iter().flatten().for_each(|packet| bench.take(packet)));
    assert!(bench.judged >= u32::from(FLOWS), "{} judged", bench.judged);
}

/// The client's hello alone, while `others` connections are undecided.
fn client_hello(file: &str, others: u16) {
    let script = script(file);
    let name = script.name.to_string();
    let mut bench = Bench::new(script, &name);
    for port in 0..others {
        let [syn, syn_ack, ..] = bench.connection(([10, 0, 9, 9], port));
        bench.take(&syn);
        bench.take(&syn_ack);
    }
    let all = bench.connections();
    for [syn, syn_ack, ..] in &all {
        bench.take(syn);
        bench.take(syn_ack);
    }
    measured(&mut || all.iter().for_each(|[_, _, hello, ..]| bench.take(hello)));
    assert_eq!(
        bench.inspector.undecided(),
        usize::from(FLOWS) + usize::from(others)
    );
}

/// A hello for a name nobody allows.
fn refused_hello() {
    let script = script("openssl-tls13");
    let mut bench = Bench::new(script, "another.example.com");
    let all = bench.connections();
    for [syn, syn_ack, ..] in &all {
        bench.take(syn);
        bench.take(syn_ack);
    }
    measured(&mut || all.iter().for_each(|[_, _, hello, ..]| bench.take(hello)));
    assert_eq!((bench.judged, bench.inspector.undecided()), (0, 0));
}

/// A packet of a judged flow that was queued before its mark.
fn decided_flow() {
    let script = script("openssl-tls13");
    let name = script.name.to_string();
    let mut bench = Bench::new(script, &name);
    let all = bench.connections();
    all.iter().flatten().for_each(|packet| bench.take(packet));
    let before = bench.judged;
    measured(&mut || all.iter().for_each(|[.., proof]| bench.take(proof)));
    assert_eq!(bench.judged - before, u32::from(FLOWS));
}

/// What the policy says of a name, by how many there are.
fn decide(names: u32) {
    let all: Vec<String> = (0..names)
        .map(|n| format!("n{n:06}.race.example"))
        .collect();
    let policy = snapshot(&all);
    let asked: Vec<Name> = (0..u32::from(FLOWS))
        .map(|n| {
            let name = all[usize::try_from(n * 7_919 % names).expect("a name")].as_bytes();
            Name::parse(name).expect("a name")
        })
        .collect();
    let date = Date::from_unix_ms(1_795_305_600_000);
    measured(&mut || {
        for name in &asked {
            let client = policy
                .client(Ipv4Addr::from(CLIENT).into())
                .expect("a client");
            let decision = policy.decide(&Ask {
                client,
                transport: Transport::Tcp,
                proto: AppProto::Tls,
                name: Some(name),
                bound: true,
                dst: Ipv4Addr::from(SERVER).into(),
                port: 443,
                date,
            });
            black_box(&decision);
        }
    });
}
