//! Judged packets a second, and memory per flow: `cargo bench -p inspect --bench engine`.
//!
//! One core, no I/O: what a queue thread spends inside `inspect`. Packets are those of captured
//! connections. Prints one line per figure.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a capture that is not read, or a packet that is not made, voids the figures"
)]

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use inspect::{
    Bindings, Class, Env, Inspector, Known, Limits, Output, Progress, Time, Verdict, tls,
};
use policy::inventory::{self, Scope};
use policy::{Name, Snapshot};

const FLOWS: u32 = 40_000;
const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [203, 0, 113, 5];

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
}

/// The packets of one kind of connection, without addresses and ports filled in.
struct Script {
    label: &'static str,
    name: Name,
    hello: Vec<u8>,
    server_flight: Vec<u8>,
    client_flight: Vec<u8>,
}

fn script(label: &'static str, file: &str) -> Script {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let read = |side: &str| std::fs::read(folder.join(format!("{file}.{side}.bin"))).expect(file);
    let (client, server) = (read("client"), read("server"));
    let Progress::Complete(hello) = tls::client_hello(&client, &tls::Limits::default()) else {
        panic!("{file} does not begin with a whole hello");
    };
    let name = hello.server_name.name().expect("a name").clone();
    let (first, rest) = client.split_at(hello.bytes);
    let take = |bytes: &[u8], max: usize| bytes[..bytes.len().min(max)].to_vec();
    Script {
        label,
        name,
        hello: first.to_vec(),
        server_flight: take(&server, 4_000),
        client_flight: take(rest, 1_400),
    }
}

fn policy(name: &Name) -> Snapshot {
    let text = format!(
        "[[group]]\nid = \"g\"\n[[group.rule]]\ndescription = \"postern:tls:{name}\"\n\
         protocol = \"tcp\"\nports = \"443\"\n[[client]]\naddress = \"10.0.0.0/16\"\n\
         instance = \"i\"\ngroups = [\"g\"]\n"
    );
    let draft = inventory::read(&text, Scope::Whole, &mut |_| Err("none".to_owned()));
    Snapshot::compile(draft.expect("an inventory"), 1).expect("a snapshot")
}

fn tcp(to_server: bool, port: u16, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp_of(CLIENT, to_server, port, (seq, ack), flags, payload)
}

fn tcp_of(
    client: [u8; 4],
    to_server: bool,
    port: u16,
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

/// One inspector and its surroundings.
struct Bench {
    inspector: Inspector,
    policy: Snapshot,
    bindings: OneServer,
    now: Time,
    token: u32,
    judged: u64,
}

impl Bench {
    fn new(script: &Script) -> Self {
        let limits = Limits {
            // One client plays all of them.
            flows_per_client: 1 << 21,
            bytes_per_client: 1 << 40,
            segments_per_client: 1 << 21,
            flows: 1 << 21,
            ..Limits::default()
        };
        Self {
            inspector: Inspector::new(limits),
            policy: policy(&script.name),
            bindings: OneServer(script.name.clone()),
            now: Time {
                mono_ms: 1_000,
                unix_ms: 1_795_305_600_000,
            },
            token: 0,
            judged: 0,
        }
    }

    fn packet(&mut self, class: Class, bytes: &[u8]) {
        let env = Env {
            now: self.now,
            policy: &self.policy,
            bindings: &self.bindings,
        };
        self.token = self.token.wrapping_add(1);
        self.inspector.handle_packet(&env, self.token, class, bytes);
        while let Some(output) = self.inspector.poll_output() {
            let judged = matches!(
                output,
                Output::Verdict {
                    verdict: Verdict::Judged | Verdict::Familiar,
                    ..
                }
            );
            self.judged += u64::from(judged);
            black_box(&output);
        }
    }

    /// The same packet of many flows; nanoseconds each.
    fn each(&mut self, class: Class, packets: &[Vec<u8>]) -> f64 {
        let start = Instant::now();
        for packet in packets {
            self.packet(class, packet);
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(FLOWS)
    }
}

/// Resident memory in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<f64>().ok());
    pages.expect("pages") * 4_096.0
}

fn line(label: &str, what: &str, nanoseconds: f64) {
    println!(
        "{label:<14} {what:<22} {:>9.0} packets/s  {nanoseconds:>7.0} ns",
        1e9 / nanoseconds
    );
}

fn run(script: &Script) {
    let mut bench = Bench::new(script);
    let make = |to_server: bool, seq: u32, ack: u32, flags: u8, payload: &[u8]| -> Vec<Vec<u8>> {
        let ports = (0..FLOWS).map(|n| u16::try_from(10_000 + n).expect("a port"));
        ports
            .map(|port| tcp(to_server, port, seq, ack, flags, payload))
            .collect()
    };
    let end = u32::try_from(script.hello.len()).expect("a hello") + 101;
    let flight = u32::try_from(script.server_flight.len()).expect("a flight") + 501;
    let syns = make(true, 100, 0, 0x02, b"");
    let syn_acks = make(false, 500, 101, 0x12, b"");
    let hellos = make(true, 101, 501, 0x18, &script.hello);
    let answers = make(false, 501, end, 0x18, &script.server_flight);
    let finals = make(true, end, flight, 0x18, &script.client_flight);
    let late = make(true, 101, 501, 0x18, &script.hello);
    line(script.label, "SYN", bench.each(Class::Syn, &syns));
    line(
        script.label,
        "SYN/ACK",
        bench.each(Class::SynAck, &syn_acks),
    );
    line(
        script.label,
        "client hello",
        bench.each(Class::Original, &hellos),
    );
    line(
        script.label,
        "server hello",
        bench.each(Class::Reply, &answers),
    );
    line(script.label, "proof", bench.each(Class::Original, &finals));
    line(
        script.label,
        "late packet",
        bench.each(Class::Original, &late[late.len() - 10_000..]),
    );
    println!(
        "{:<14} {} of {FLOWS} flows judged; {} undecided, {:?} bytes and packets held",
        script.label,
        bench.inspector.counters().judged,
        bench.inspector.undecided(),
        bench.inspector.held(),
    );
}

/// Growth of the process per flow that waits for its server, and what is left of flows that
/// were judged.
fn weigh(script: &Script) {
    let mut bench = Bench::new(script);
    let end = u32::try_from(script.hello.len()).expect("a hello") + 101;
    let flight = u32::try_from(script.server_flight.len()).expect("a flight") + 501;
    let port = |n: u32| u16::try_from(10_000 + n).expect("a port");
    let before = resident();
    for n in 0..FLOWS {
        bench.packet(Class::Syn, &tcp(true, port(n), 100, 0, 0x02, b""));
        bench.packet(Class::SynAck, &tcp(false, port(n), 500, 101, 0x12, b""));
        bench.packet(
            Class::Original,
            &tcp(true, port(n), 101, 501, 0x18, &script.hello),
        );
    }
    let waiting = (resident() - before) / f64::from(FLOWS);
    let (bytes, _) = bench.inspector.held();
    println!(
        "{:<14} {waiting:.0} bytes per undecided flow whose hello of {} bytes has passed",
        script.label,
        bytes / FLOWS as usize,
    );
    for n in 0..FLOWS {
        bench.packet(
            Class::Reply,
            &tcp(false, port(n), 501, end, 0x18, &script.server_flight),
        );
        bench.packet(
            Class::Original,
            &tcp(true, port(n), end, flight, 0x18, &script.client_flight),
        );
    }
    println!(
        "{:<14} {} undecided flows, {:?} bytes and packets held after {FLOWS} were judged",
        script.label,
        bench.inspector.undecided(),
        bench.inspector.held(),
    );
}

/// What a packet of an undecided flow costs, and a new flow, by how many flows are undecided. The packets walk all over
/// the table, so that caches are as cold as they get.
fn crowd(script: &Script) {
    const SAMPLES: u32 = 20_000;
    let mut bench = Bench::new(script);
    let mut filled = 0_u32;
    let from = |n: u32| {
        let port = u16::try_from(1_024 + n % 60_000).expect("a port");
        let host = u8::try_from(n / 60_000).expect("a host");
        ([10, 0, 1, host], port)
    };
    let syn = |n: u32| {
        let (client, port) = from(n);
        tcp_of(client, true, port, (100, 0), 0x02, b"")
    };
    let syn_ack = |n: u32| {
        let (client, port) = from(n);
        tcp_of(client, false, port, (500, 101), 0x12, b"")
    };
    for flows in [1_000, 10_000, 100_000, 1_000_000] {
        while filled < flows {
            bench.packet(Class::Syn, &syn(filled));
            filled += 1;
        }
        // Answered again and again: looked up, and passed.
        let again: Vec<Vec<u8>> = (0..SAMPLES)
            .map(|n| syn_ack(n.wrapping_mul(2_654_435_761) % flows))
            .collect();
        for packet in &again {
            bench.packet(Class::SynAck, packet);
        }
        let begin = Instant::now();
        for packet in &again {
            bench.packet(Class::SynAck, packet);
        }
        let packet = begin.elapsed().as_secs_f64() * 1e9 / f64::from(SAMPLES);
        let fresh: Vec<Vec<u8>> = (filled..filled + SAMPLES).map(syn).collect();
        let begin = Instant::now();
        for syn in &fresh {
            bench.packet(Class::Syn, syn);
        }
        let new = begin.elapsed().as_secs_f64() * 1e9 / f64::from(SAMPLES);
        filled += SAMPLES;
        println!("{flows:>9} undecided flows   packet {packet:>6.0} ns   new flow {new:>6.0} ns");
    }
}

fn main() {
    let scripts = [
        script("openssl", "openssl-tls13"),
        script("rustls-mlkem", "rustls-mlkem"),
    ];
    // One only: a second would be made of the memory of the first one's flows.
    weigh(&scripts[1]);
    for script in &scripts {
        run(script);
    }
    crowd(&scripts[0]);
}
