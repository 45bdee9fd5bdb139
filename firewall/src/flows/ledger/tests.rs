use std::sync::Arc;

use ipc::record::Text;
use policy::{AppProto, Reason};

use super::super::tests::record;
use super::*;
use crate::flowlog::flow_line;

fn full() -> FlowRecord {
    FlowRecord {
        unix_ms: 1_790_000_000_042,
        instance: Some(Arc::from("web-1")),
        gid: Some(Arc::from("web")),
        rule: Some(Arc::from("2")),
        generation: 70_007,
        policy_id: Arc::from("0011223344556677"),
        pqc: true,
        rescued: true,
        see_thru: Some(SeeThruRecord {
            exerted: true,
            gid: Arc::from("web"),
            days_remaining: 3,
        }),
        would_reason: Some(Reason::Ech),
        also: Some([Arc::from("b.example.org")].into()),
        logged: false,
        ..record(Some("api.example.org"))
    }
}

fn recovered(dir: &Path) -> Vec<FlowRecord> {
    Ledger::new(dir).recover()
}

#[test]
fn everything_known_of_a_flow_is_known_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    assert!(ledger.recover().is_empty());
    let udp = FlowRecord {
        transport: Transport::Udp,
        proto: AppProto::Udp,
        proto_v: "",
        dhost: None,
        ..record(None)
    };
    let sctp = FlowRecord {
        transport: Transport::Other(132),
        proto: AppProto::Unknown,
        ..udp.clone()
    };
    let mut flows = FlowTable::new(10);
    for record in [&full(), &udp, &sctp] {
        ledger.add(flows.insert(record).unwrap(), record);
    }
    ledger.flush(&mut flows);
    // Killed: nothing is closed, nothing is said.
    drop(ledger);
    let mut found = recovered(dir.path());
    found.sort_by_key(|record| std::cmp::Reverse(record.unix_ms));
    assert_eq!(found.first(), Some(&full()));
    assert!(found.contains(&udp) && found.contains(&sctp));
    // The file was begun anew with them.
    assert_eq!(recovered(dir.path()).len(), 3);
}

#[test]
fn ended_flows_half_lines_and_other_boots_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    drop(ledger.recover());
    let mut flows = FlowTable::new(10);
    let key = Key::of_record(&full());
    ledger.add(flows.insert(&full()).unwrap(), &full());
    assert!(flows.take(&key, u64::MAX >> 2).was_in_file);
    ledger.remove(&key);
    let other = FlowRecord {
        src: SocketAddr::from(([10, 0, 0, 9], 1)),
        ..full()
    };
    ledger.add(flows.insert(&other).unwrap(), &other);
    ledger.flush(&mut flows);
    let path = dir.path().join("flows.jsonl");
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("{\"flow\":{\"protocol\":6,\"li");
    fs::write(&path, &text).unwrap();
    assert_eq!(recovered(dir.path()), [other]);
    fs::write(&path, text.replacen(&boot_id(), "another-boot", 1)).unwrap();
    assert_eq!(recovered(dir.path()), []);
}

#[test]
fn flow_stays_in_the_file_until_its_end_is_in_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    drop(ledger.recover());
    let mut flows = FlowTable::new(10);
    let key = Key::of_record(&full());
    let kept = || {
        let text = fs::read_to_string(dir.path().join("flows.jsonl")).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("{\"flow\""));
        let ends = text.lines().filter(|line| line.starts_with("{\"end\""));
        (lines.count(), ends.count())
    };
    ledger.add(flows.insert(&full()).unwrap(), &full());
    assert!(flows.take(&key, u64::MAX >> 2).was_in_file);
    ledger.remove_after(&key, 3);
    ledger.settle(2);
    ledger.flush(&mut flows);
    assert_eq!((kept(), ledger.is_unsettled()), ((1, 0), true));
    ledger.settle(3);
    ledger.flush(&mut flows);
    assert_eq!((kept(), ledger.is_unsettled()), ((1, 1), false));
    // The same ends again before the first one's line is there: its end is written first.
    ledger.add(flows.insert(&full()).unwrap(), &full());
    assert!(flows.take(&key, u64::MAX >> 2).was_in_file);
    ledger.remove_after(&key, 4);
    ledger.add(flows.insert(&full()).unwrap(), &full());
    ledger.settle(4);
    ledger.flush(&mut flows);
    assert_eq!(kept(), (3, 2));
    assert_eq!(recovered(dir.path()), [full()]);
}

#[test]
fn file_is_bounded_by_the_flows_that_live() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    drop(ledger.recover());
    let mut flows = FlowTable::new(10);
    let key = Key::of_record(&full());
    for _ in 0..60 {
        for _ in 0..1_000 {
            ledger.add(flows.insert(&full()).unwrap(), &full());
            assert!(flows.take(&key, u64::MAX >> 2).was_in_file);
            ledger.remove(&key);
        }
        ledger.flush(&mut flows);
    }
    let bytes = fs::metadata(dir.path().join("flows.jsonl")).unwrap().len();
    assert!(bytes < (SLACK_BYTES + (1 << 20)) as u64, "{bytes}");
    assert!(ledger.path.exists() && ledger.live == 0);
}

/// The flow as it is kept, in `serde`'s hands.
fn kept(key: &Key, record: &FlowRecord) -> KeptFlow {
    let also = record.also.iter().flat_map(|names| names.iter());
    KeptFlow {
        protocol: key.protocol,
        line: flow_line(record, &Text::from_static("")),
        also: also.map(|name| name.to_string()).collect(),
        unlogged: !record.logged,
    }
}

#[test]
fn lines_are_written_as_serde_would_write_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    let of_six = FlowRecord {
        src: "[2001:db8::1]:40000".parse().unwrap(),
        dst: "[2001:db8::2]:443".parse().unwrap(),
        logged: true,
        also: None,
        ..full()
    };
    for record in [&full(), &of_six] {
        let key = Key::of_record(record);
        ledger.push_flow(&key, record);
        ledger.push_end(&key);
        let mut expected = Vec::new();
        for line in [
            Line::Flow(Box::new(kept(&key, record))),
            Line::End(key.protocol, key.client, key.server),
        ] {
            serde_json::to_writer(&mut expected, &line).unwrap();
            expected.push(b'\n');
        }
        assert_eq!(
            String::from_utf8(std::mem::take(&mut ledger.pending)),
            String::from_utf8(expected)
        );
    }
}

/// Room for the lines of all flows at once would stay with the process for good: two megabytes for six thousand flows.
#[test]
fn written_anew_the_file_has_every_flow_and_took_little_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    drop(ledger.recover());
    let mut flows = FlowTable::new(10_000);
    for port in 1..=5_000 {
        let flow = FlowRecord {
            src: SocketAddr::from(([10, 0, 0, 9], port)),
            ..full()
        };
        flows.insert(&flow).unwrap();
    }
    ledger.rewrite(&mut flows).unwrap();
    let size = fs::metadata(dir.path().join("flows.jsonl")).unwrap().len();
    assert!(size > 1_000_000, "{size} bytes");
    assert!(ledger.pending.capacity() <= 2 * SPILL_BYTES);
    assert_eq!((ledger.live, recovered(dir.path()).len()), (5_000, 5_000));
}
