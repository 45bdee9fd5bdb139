//! From the spool to Cloud Logging: everything, in order, once in the log however often it was sent.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use e2e::cloud::{DaemonDouble, GoogleBreak, GoogleFault, Sidecar};
use e2e::wait;
use ipc::record::Timestamp;
use serde_json::Value;

use super::stage::{LIMIT, Stage};

struct Scene {
    stage: Stage,
    daemon: DaemonDouble,
    sidecar: Sidecar,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        for stream in ["flow", "end", "dns", "config"] {
            fs::create_dir_all(stage.folder.path().join("spool").join(stream)).unwrap();
        }
        let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
        let poll = "interval_s = 30.0\nmax_backoff_s = 1.0";
        let sidecar = stage.paced(poll, "[logs]\nlinger_s = 0.1\n");
        Self {
            stage,
            daemon,
            sidecar,
        }
    }

    /// Writes one closed segment, as the daemon does: under another name first.
    fn segment(&self, stream: &str, number: u64, lines: &[String]) {
        let folder = self.stage.folder.path().join("spool").join(stream);
        let mut text = String::new();
        for line in lines {
            writeln!(text, "{line}").unwrap();
        }
        let open = folder.join(format!("{number:08}.jsonl.open"));
        fs::write(&open, text).unwrap();
        fs::rename(open, folder.join(format!("{number:08}.jsonl"))).unwrap();
    }

    fn shipped(&self, count: usize) -> bool {
        wait::holds(LIMIT, || self.daemon.shipped().len() >= count)
    }
}

/// A line as the daemon writes it, `index` milliseconds after `start`.
fn line(start: u64, index: u64) -> String {
    let time = Timestamp::from_unix_ms(start + index);
    let outcome = if index % 10 == 3 {
        "disallowed"
    } else {
        "allowed"
    };
    format!(
        "{{\"time\":\"{time}\",\"cat\":\"client\",\"outcome\":\"{outcome}\",\"dhost\":\"n{index}.example.com\"}}"
    )
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap() - 60_000
}

/// The payloads of entries, as lines.
fn payloads(entries: &[Value]) -> Vec<Value> {
    entries
        .iter()
        .map(|entry| entry["jsonPayload"].clone())
        .collect()
}

fn parsed(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// When it was, whatever the number of digits its seconds are written with.
fn moment(text: &Value) -> Timestamp {
    Timestamp::parse(text.as_str().unwrap()).unwrap()
}

#[test]
fn what_was_spooled_is_in_its_log_with_resource_labels_and_severity() {
    let mut scene = Scene::new();
    let start = now();
    let lines: Vec<String> = (0..3_000).map(|index| line(start, index)).collect();
    scene.segment("flow", 1, &lines[..1_000]);
    scene.segment("flow", 2, &lines[1_000..2_500]);
    scene.segment("config", 7, &lines[2_500..]);
    scene.sidecar.start().unwrap();
    assert!(scene.shipped(3), "{:?}", scene.daemon.shipped());
    let google = &scene.stage.google;
    let flow = google.entries("postern-flow");
    assert_eq!(payloads(&flow), parsed(&lines[..2_500]));
    assert_eq!(
        payloads(&google.entries("postern-config")),
        parsed(&lines[2_500..])
    );
    assert!(google.entries("postern-end").is_empty());
    assert_eq!(flow[3]["severity"], "WARNING");
    assert_eq!(flow[4]["severity"], "INFO");
    assert_eq!(flow[0]["resource"]["type"], "gce_instance");
    assert_eq!(flow[0]["resource"]["labels"]["instance_id"], "5550001");
    assert_eq!(flow[0]["resource"]["labels"]["zone"], "europe-west1-b");
    // The same moment, not the same text: zeros at the end of a second's fraction may be left out on the way.
    let times = flow.iter().map(|entry| moment(&entry["timestamp"]));
    let written = parsed(&lines[..2_500]);
    assert!(times.eq(written.iter().map(|line| moment(&line["time"]))));
    assert!(google.refused().is_empty(), "{:?}", google.refused());
}

#[test]
fn a_log_service_in_trouble_delays_lines_and_doubles_none() {
    let mut scene = Scene::new();
    let start = now();
    let lines: Vec<String> = (0..200).map(|index| line(start, index)).collect();
    let breaks = [
        GoogleBreak::LostAnswer,
        GoogleBreak::Unavailable,
        GoogleBreak::Throttled,
        GoogleBreak::Unauthenticated,
        GoogleBreak::ServerError,
        GoogleBreak::Cut,
    ];
    for how in breaks {
        scene.stage.google.fail(GoogleFault {
            times: Some(1),
            ..GoogleFault::lasting("entries.write", how)
        });
    }
    scene.segment("flow", 1, &lines);
    let google = scene.stage.google.clone();
    let last = lines.last().cloned().unwrap();
    scene.daemon.on_shipped(move |_| {
        let written = payloads(&google.entries("postern-flow"));
        assert!(
            written.contains(&parsed(std::slice::from_ref(&last))[0]),
            "reported before it was written"
        );
    });
    scene.sidecar.start().unwrap();
    assert!(scene.shipped(1), "{}", scene.sidecar.output());
    assert!(scene.stage.google.is_well());
    assert_eq!(
        payloads(&scene.stage.google.entries("postern-flow")),
        parsed(&lines)
    );
}

#[test]
fn an_entry_that_is_refused_does_not_hold_up_the_others() {
    let mut scene = Scene::new();
    let start = now();
    let mut lines: Vec<String> = (0..20).map(|index| line(start, index)).collect();
    // Two days ahead: a clock that was wrong. The service takes no more than one.
    lines.insert(10, line(start + 2 * 86_400_000, 10));
    scene.segment("flow", 1, &lines);
    scene.sidecar.start().unwrap();
    assert!(scene.shipped(1), "{}", scene.sidecar.output());
    lines.remove(10);
    assert_eq!(
        payloads(&scene.stage.google.entries("postern-flow")),
        parsed(&lines)
    );
    scene
        .sidecar
        .wait_line("lost: the log service does not take these lines")
        .unwrap();
    assert_eq!(
        scene.sidecar.count("lines=1"),
        1,
        "{}",
        scene.sidecar.output()
    );
}

#[test]
fn killed_at_any_moment_it_goes_on_and_nothing_is_twice_in_the_log() {
    let mut scene = Scene::new();
    let start = now();
    let mut all = Vec::new();
    for number in 0..6_u64 {
        let lines: Vec<String> = (0..400)
            .map(|index| line(start, number * 400 + index))
            .collect();
        scene.segment("flow", number + 1, &lines);
        all.extend(lines);
        scene.stage.google.fail(GoogleFault {
            times: Some(1),
            ..GoogleFault::lasting("entries.write", GoogleBreak::LostAnswer)
        });
        scene.sidecar.start().unwrap();
        assert!(wait::holds(LIMIT, || scene.stage.google.is_well()));
        scene.sidecar.kill().unwrap();
    }
    scene.sidecar.start().unwrap();
    let wanted: BTreeSet<String> = parsed(&all).iter().map(Value::to_string).collect();
    let written = || payloads(&scene.stage.google.entries("postern-flow"));
    assert!(
        wait::holds(LIMIT, || written().len() == all.len()),
        "{}",
        written().len()
    );
    let written: BTreeSet<String> = written().iter().map(Value::to_string).collect();
    assert_eq!(written, wanted);
}

#[test]
fn requests_and_entries_keep_within_the_limits_of_the_service() {
    let mut scene = Scene::new();
    let start = now();
    // Twenty megabytes in long lines, one longer than an entry may be, and as many short ones as fit nowhere at once.
    let long = |index: u64, bytes: usize| {
        let time = Timestamp::from_unix_ms(start + index);
        let name = "n".repeat(bytes);
        format!(
            "{{\"time\":\"{time}\",\"cat\":\"client\",\"outcome\":\"allowed\",\"dhost\":\"{name}\"}}"
        )
    };
    let mut lines: Vec<String> = (0..90).map(|index| long(index, 230 << 10)).collect();
    lines.push(long(90, 400 << 10));
    lines.extend((91..12_000).map(|index| line(start, index)));
    for (number, lines) in (1..).zip(lines.chunks(1_000)) {
        scene.segment("flow", number, lines);
    }
    scene.sidecar.start().unwrap();
    let google = scene.stage.google.clone();
    let is_written = || google.entries("postern-flow").len() == lines.len();
    assert!(
        wait::holds(LIMIT * 2, is_written),
        "{}",
        scene.sidecar.output()
    );
    let counted = google.counted();
    assert!(counted.most_bytes <= 10 << 20, "{counted:?}");
    assert!(counted.requests >= 3, "{counted:?}");
    // None was refused, and so none was larger than 256 KiB; the one that was too long is there, cut, as text.
    assert!(google.refused().is_empty(), "{:?}", google.refused());
    let texts = google.entries("postern-flow");
    let texts = texts
        .iter()
        .filter(|entry| entry["textPayload"].is_string());
    assert_eq!(texts.count(), 1);
}

/// Events of a flow log whose appliance writes 20,000 a second, for seconds; with `E2E_LONG` and an optimised sidecar for
/// as many more, and then it has to keep up.
#[test]
fn twenty_thousand_events_a_second_are_shipped_and_none_is_lost() {
    const A_SECOND: u64 = 20_000;
    let is_long = std::env::var_os("E2E_LONG").is_some();
    let seconds = if is_long { 20 } else { 2 };
    let mut scene = Scene::new();
    scene.stage.google.count();
    let start = now() - seconds * 1_000;
    let flow = |index: u64| {
        let time = Timestamp::from_unix_ms(start + index / 20);
        format!(
            "{{\"time\":\"{time}\",\"cat\":\"client\",\"outcome\":\"allowed\",\"reason\":\"web\",\"dhost\":\"n{index}.example.com\",\
             \"src\":\"10.77.1.10\",\"spt\":40000,\"dst\":\"198.51.100.7\",\"dpt\":443,\"proto\":\"tls\",\"proto_v\":\"1.3\",\
             \"instance\":\"web-1\",\"gid\":\"web\",\"rule\":\"7000000001\",\"generation\":7,\"policy_id\":\"0123456789abcdef\",\
             \"appliance\":\"fw-1\",\"pqc\":true,\"rescued\":false}}"
        )
    };
    for second in 0..seconds {
        let lines: Vec<String> = (0..A_SECOND)
            .map(|index| flow(second * A_SECOND + index))
            .collect();
        for (number, lines) in (1..).zip(lines.chunks(10_000)) {
            scene.segment("flow", second * 2 + number, lines);
        }
    }
    scene.sidecar.start().unwrap();
    let google = scene.stage.google.clone();
    assert!(wait::holds(LIMIT, || google.counted().requests > 0));
    let (begun, before) = (Instant::now(), google.counted().entries);
    let all = usize::try_from(seconds * A_SECOND).unwrap();
    let is_written = || google.counted().entries == all;
    assert!(wait::holds(LIMIT * 4, is_written), "{:?}", google.counted());
    let counted = google.counted();
    let rate = f64::from(u32::try_from(all - before).unwrap()) / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} events a second; {counted:?}");
    let (used, memory) = scene.sidecar.usage().unwrap();
    eprintln!("{used:?} of processor time, {} MB at most", memory >> 20);
    assert!(counted.most_bytes <= 10 << 20, "{counted:?}");
    assert!(memory >> 20 < 150, "{} MB", memory >> 20);
    assert!(google.refused().is_empty(), "{:?}", google.refused());
    if is_long {
        assert!(rate >= 20_000.0, "{rate}");
    }
}
