//! Promise 3, `any_segmentation_same_verdict`, over captured hellos.

use super::samples::{Capture, captures, record};
use super::*;
use crate::progress::Progress;
use crate::tls;

/// SplitMix64 (Steele, Lea and Flood, 2014): seeded, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A hello with what the unsplit copy of it is worth.
#[derive(Clone, Debug)]
struct Sample {
    file: String,
    bytes: Vec<u8>,
    name: Option<String>,
    policy: Arc<Snapshot>,
    reason: Option<Reason>,
}

fn policy_for(name: Option<&str>) -> Arc<Snapshot> {
    let entry = format!("postern:tls:{}", name.unwrap_or("api.example.com"));
    snapshot(&[(&entry, "tcp", "443")], "ech = \"allow_outer\"", 1).into()
}

fn world_for(sample: &Sample) -> (World, Conn) {
    let mut world = World::new(Arc::clone(&sample.policy));
    if let Some(name) = &sample.name {
        world.bind(name, "203.0.113.5");
    }
    let conn = Conn::tls().open(&mut world);
    (world, conn)
}

/// The hellos of all captures, and whether the whole one passes.
fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for Capture { file, client, .. } in captures() {
        let (bytes, name) = match tls::client_hello(&client, &tls::Limits::default()) {
            Progress::Complete(hello) => {
                let name = hello
                    .server_name
                    .name()
                    .map(|name| name.as_str().to_owned());
                (client[..hello.bytes].to_vec(), name)
            }
            Progress::Incomplete | Progress::Refused(_) => continue,
        };
        let policy = policy_for(name.as_deref());
        let mut sample = Sample {
            file,
            bytes,
            name,
            policy,
            reason: None,
        };
        let (mut world, conn) = world_for(&sample);
        conn.send(&mut world, 0, &sample.bytes);
        sample.reason = world.refusal();
        samples.push(sample);
    }
    assert!(samples.len() >= 8, "captured hellos are missing");
    assert!(
        samples
            .iter()
            .filter(|sample| sample.reason.is_none())
            .count()
            >= 6
    );
    samples
}

/// Sends the pieces in the given order; the verdict, and what arrives, must be those of the
/// whole.
fn same(sample: &Sample, pieces: &[(usize, &[u8])]) {
    let (mut world, conn) = world_for(sample);
    for (at, piece) in pieces {
        conn.send(&mut world, u32::try_from(*at).unwrap(), piece);
    }
    assert_eq!(
        world.refusal(),
        sample.reason,
        "{}: {:?}",
        sample.file,
        world.records
    );
    if sample.reason.is_none() {
        assert_eq!(conn.at_server(&world), sample.bytes, "{}", sample.file);
        let payload = world.wire.iter().filter(|wire| !wire.payload.is_empty());
        let starts: Vec<u32> = payload
            .map(|wire| wire.seq.wrapping_sub(conn.isn))
            .collect();
        let repeats =
            pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>() > sample.bytes.len();
        assert!(repeats || starts.is_sorted(), "{}", sample.file);
        assert!(world.in_flight.is_empty());
    } else {
        assert_eq!(world.payload_to(conn.server), 0, "{}", sample.file);
    }
}

/// Cuts `bytes` at `cuts` places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<(usize, &'a [u8])> {
    let mut edges: Vec<usize> = cuts.to_vec();
    edges.extend([0, bytes.len()]);
    edges.sort_unstable();
    edges.dedup();
    edges
        .windows(2)
        .map(|edge| (edge[0], &bytes[edge[0]..edge[1]]))
        .collect()
}

#[test]
fn any_segmentation_same_verdict() {
    for sample in samples() {
        for at in 1..sample.bytes.len() {
            let two = pieces(&sample.bytes, &[at]);
            same(&sample, &two);
            if at % 16 == 0 {
                same(&sample, &[two[1], two[0]]);
            }
        }
    }
}

#[test]
fn any_segmentation_same_verdict_in_random_pieces() {
    for sample in samples() {
        let mut random = Random(42);
        for _ in 0..1_000 {
            let count = 1 + random.below(12);
            let cuts: Vec<_> = (0..count)
                .map(|_| random.below(sample.bytes.len()))
                .collect();
            same(&sample, &pieces(&sample.bytes, &cuts));
        }
    }
}

#[test]
fn any_segmentation_same_verdict_in_any_order_with_repeats_and_overlaps() {
    for sample in samples() {
        let mut random = Random(7);
        for _ in 0..200 {
            let count = 2 + random.below(10);
            let cuts: Vec<_> = (0..count)
                .map(|_| random.below(sample.bytes.len()))
                .collect();
            let mut parts = pieces(&sample.bytes, &cuts);
            for _ in 0..random.below(6) {
                let from = random.below(sample.bytes.len());
                let len = 1 + random.below(sample.bytes.len() - from);
                parts.push((from, &sample.bytes[from..from + len]));
            }
            random.shuffle(&mut parts);
            same(&sample, &parts);
        }
    }
}

#[test]
fn any_segmentation_same_verdict_across_records() {
    for sample in samples() {
        let mut message = Vec::new();
        let mut rest = &sample.bytes[..];
        while rest.len() > 5 {
            let len = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            message.extend_from_slice(&rest[5..5 + len]);
            rest = &rest[5 + len..];
        }
        for count in 1..=32 {
            let size = message.len().div_ceil(count);
            let bytes: Vec<u8> = message.chunks(size).flat_map(|c| record(22, c)).collect();
            let split = Sample {
                bytes,
                ..sample.clone()
            };
            same(&split, &pieces(&split.bytes, &[]));
            let tenth = split.bytes.len() / 10;
            let cuts: Vec<_> = (1..10).map(|n| n * tenth).collect();
            same(&split, &pieces(&split.bytes, &cuts));
        }
    }
}

/// Whole captured connections, packet by packet as large as they like.
#[test]
fn captured_connections_end_judged_or_refused_as_they_should() {
    let mut judged = 0;
    for Capture {
        file,
        client,
        server,
    } in captures()
    {
        let hello = match tls::client_hello(&client, &tls::Limits::default()) {
            Progress::Complete(hello) => hello,
            Progress::Incomplete | Progress::Refused(_) => continue,
        };
        if server.is_empty() {
            continue;
        }
        let name = hello
            .server_name
            .name()
            .map(|name| name.as_str().to_owned());
        let policy = policy_for(name.as_deref());
        let bytes = client[..hello.bytes].to_vec();
        let sample = Sample {
            file,
            bytes,
            name,
            policy,
            reason: None,
        };
        let (mut world, conn) = world_for(&sample);
        conn.send(&mut world, 0, &client[..hello.bytes]);
        // The order of the two streams is lost in the files: whatever is held waits.
        conn.reply(&mut world, 0, &server[..server.len().min(60_000)]);
        let end = u32::try_from(hello.bytes).unwrap();
        conn.send(
            &mut world,
            end,
            &client[hello.bytes..client.len().min(60_000)],
        );
        let decided = world.inspector.counters().judged;
        judged += decided;
        println!(
            "{}: judged {decided}, refusal {:?}",
            sample.file,
            world.refusal()
        );
    }
    assert!(judged >= 3);
}
