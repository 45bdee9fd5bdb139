use std::net::SocketAddr;
use std::time::Instant;

use inspect::{Category, Outcome};
use ipc::record::{FlowLineV1, to_line};
use policy::{AppProto, Reason};

use super::line::end_line;

use super::*;

fn record(outcome: Outcome) -> Arc<FlowRecord> {
    Arc::new(FlowRecord {
        unix_ms: 1_790_000_000_042,
        category: Category::Client,
        outcome,
        dhost: Some(Arc::from("api.example.org")),
        src: SocketAddr::from(([10, 0, 0, 1], 40_000)),
        dst: SocketAddr::from(([8, 8, 8, 8], 443)),
        transport: policy::Transport::Tcp,
        proto: AppProto::Tls,
        proto_v: "1.3",
        instance: Some(Arc::from("web-1")),
        gid: None,
        rule: None,
        generation: 7,
        policy_id: Arc::from("0011223344556677"),
        pqc: true,
        rescued: false,
        see_thru: None,
        would_reason: None,
        http: None,
        also: None,
        suppressed: 0,
        logged: true,
    })
}

fn settings(capacity: usize) -> LogSettings {
    LogSettings {
        appliance: "lab".to_owned(),
        capacity,
        to_stdout: false,
    }
}

#[test]
fn refused_flow_line_has_the_published_fields_and_no_others() {
    let line = flow_line(
        &record(Outcome::Disallowed(Reason::Ech)),
        &Text::from("lab"),
    );
    let json = String::from_utf8(to_line(&line).unwrap()).unwrap();
    assert_eq!(
        json.trim_end(),
        "{\"time\":\"2026-09-21T14:13:20.042Z\",\"cat\":\"client\",\"outcome\":\"disallowed\",\
         \"reason\":\"ech\",\"dhost\":\"api.example.org\",\"src\":\"10.0.0.1\",\"spt\":40000,\
         \"dst\":\"8.8.8.8\",\"dpt\":443,\"proto\":\"tls\",\"proto_v\":\"1.3\",\
         \"instance\":\"web-1\",\"generation\":7,\"policy_id\":\"0011223344556677\",\
         \"appliance\":\"lab\",\"pqc\":true}"
    );
}

#[test]
fn full_log_counts_and_never_stalls_a_packet() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, receiver) = bounded::channel(8);
    let counts = Arc::new(LogCounts::default());
    let log = FlowLog { sender, counts };
    // Nobody reads: the log thread is as slow as it can be.
    let started = Instant::now();
    for _ in 0..10_000 {
        log.flow(record(Outcome::Allowed));
    }
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(log.counts().overrun(Stream::Flow), 10_000 - 8);
    assert_eq!(receiver.try_iter().count(), 8);
    // The thread says the loss in a line of its own.
    let (log, thread) = start(dir.path(), 1 << 30, settings(4)).unwrap();
    add(&log.counts.overrun, Stream::Flow, 5);
    thread.stop();
    let config = std::fs::read_to_string(dir.path().join("config/00000001.jsonl")).unwrap();
    assert!(
        config.contains("5 lines of the flow log were lost"),
        "{config}"
    );
}

#[test]
fn a_config_line_waits_for_room_where_a_flow_line_is_lost() {
    let (sender, receiver) = bounded::channel(1);
    let counts = Arc::new(LogCounts::default());
    let log = FlowLog { sender, counts };
    let policy = policy::Snapshot::compile(policy::Draft::default(), 0).unwrap();
    let stamp = crate::configlog::Stamp::new(&policy, "lab", 1);
    let reader = std::thread::spawn(move || {
        let patience = Duration::from_secs(30);
        std::iter::from_fn(|| receiver.recv_timeout(patience).ok()).count()
    });
    for _ in 0..100 {
        log.config(stamp.fault("policy", "a line of many"));
    }
    assert_eq!(log.counts().overrun(Stream::Config), 0);
    drop(log);
    assert_eq!(reader.join().unwrap(), 100);
}

#[test]
fn lines_reach_the_spool_in_order_and_stop_closes_the_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (log, thread) = start(dir.path(), 1 << 30, settings(1_024)).unwrap();
    for generation in 0..100 {
        let mut record = record(Outcome::Allowed);
        Arc::make_mut(&mut record).generation = generation;
        log.flow(record);
    }
    thread.stop();
    let flow = std::fs::read_to_string(dir.path().join("flow/00000001.jsonl")).unwrap();
    let generations: Vec<u64> = flow
        .lines()
        .map(|line| serde_json::from_str::<FlowLineV1>(line).unwrap().generation)
        .collect();
    assert_eq!(generations, (0..100).collect::<Vec<_>>());
    assert_eq!(log.counts().written(Stream::Flow), 100);
}

#[test]
fn disk_that_refuses_loses_lines_counted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (log, thread) = start(dir.path(), 1 << 30, settings(1_024)).unwrap();
    std::fs::remove_dir_all(dir.path().join("flow")).unwrap();
    std::fs::write(dir.path().join("flow"), b"in the way").unwrap();
    log.flow(record(Outcome::Allowed));
    thread.stop();
    assert_eq!(log.counts().spool_full(Stream::Flow), 1);
    let config = std::fs::read_to_string(dir.path().join("config/00000001.jsonl")).unwrap();
    assert!(
        config.contains("1 lines of the flow log were lost"),
        "{config}"
    );
}

#[test]
fn end_line_is_the_client_line_with_counts() {
    let end = EndRecord {
        flow: record(Outcome::Allowed),
        unix_ms: 1_790_000_002_000,
        bytes_out: 1,
        bytes_in: 2,
        packets_out: 3,
        packets_in: 4,
        duration_ms: 1_958,
    };
    let json = serde_json::to_value(end_line(&end, &Text::from("lab"))).unwrap();
    assert_eq!(json["cat"], "end");
    assert_eq!(json["time"], "2026-09-21T14:13:22.000Z");
    assert_eq!(
        (&json["bytes_in"], &json["duration_ms"]),
        (&2.into(), &1_958.into())
    );
}
