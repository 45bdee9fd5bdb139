//! From the spool to CloudWatch Logs: everything, in order, at least once, whatever happens in between.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use e2e::cloud::{Break, Cloud, DaemonDouble, Fault, Pace, Sidecar};
use e2e::wait;
use ipc::record::Timestamp;

/// Ample for thousands of lines on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

struct Scene {
    cloud: Cloud,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let cloud = Cloud::with_pace(Pace {
            page_items: 100,
            page_time: Duration::from_millis(1),
        })
        .unwrap();
        let folder = tempfile::Builder::new()
            .prefix("postern-ship-")
            .tempdir()
            .unwrap();
        for stream in ["flow", "end", "dns", "config"] {
            fs::create_dir_all(folder.path().join("spool").join(stream)).unwrap();
        }
        Self { cloud, folder }
    }

    /// A sidecar that ships to the group `postern` and reads a file that never changes.
    fn sidecar(&self, logs: &str) -> Sidecar {
        let config = format!(
            "[poll]\ninterval_s = 30.0\nmax_backoff_s = 1.0\n[logs]\nlinger_s = 0.1\n{logs}"
        );
        Sidecar::new(self.folder.path(), &self.cloud.double.url(), &config).unwrap()
    }

    /// Writes one closed segment, as the daemon does: under another name first.
    fn segment(&self, stream: &str, number: u64, lines: &[String]) {
        let folder = self.folder.path().join("spool").join(stream);
        let mut text = String::new();
        for line in lines {
            writeln!(text, "{line}").unwrap();
        }
        let open = folder.join(format!("{number:08}.jsonl.open"));
        fs::write(&open, text).unwrap();
        fs::rename(open, folder.join(format!("{number:08}.jsonl"))).unwrap();
    }

    fn messages(&self, stream: &str) -> Vec<String> {
        let events = self
            .cloud
            .api
            .log_events("postern", &format!("{stream}/fw-test"))
            .unwrap();
        events.into_iter().map(|event| event.message).collect()
    }
}

/// A line as the daemon writes it, `index` milliseconds after `start`.
fn line(start: u64, index: u64) -> String {
    let time = Timestamp::from_unix_ms(start + index);
    format!(
        "{{\"time\":\"{time}\",\"cat\":\"client\",\"outcome\":\"allowed\",\"dhost\":\"n{index}.example.com\"}}"
    )
}

pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap() - 60_000
}

fn path(folder: &Path, segment: ipc::control::Segment) -> std::path::PathBuf {
    folder.join(format!(
        "spool/{}/{:08}.jsonl",
        segment.stream, segment.segment
    ))
}

#[test]
fn what_was_spooled_is_read_back_equal_each_stream_in_its_own() {
    let scene = Scene::new();
    let daemon = DaemonDouble::start(scene.folder.path()).unwrap();
    let start = now();
    let lines: Vec<String> = (0..3_000).map(|index| line(start, index)).collect();
    scene.segment("flow", 1, &lines[..1_000]);
    scene.segment("flow", 2, &lines[1_000..2_500]);
    scene.segment("config", 7, &lines[2_500..]);
    let mut sidecar = scene.sidecar("");
    sidecar.start().unwrap();
    assert!(
        wait::holds(LIMIT, || daemon.shipped().len() == 3),
        "{:?}",
        daemon.shipped()
    );
    assert_eq!(scene.messages("flow"), lines[..2_500]);
    assert_eq!(scene.messages("config"), lines[2_500..]);
    assert!(scene.messages("end").is_empty());
    // Lines that come later go to the same streams.
    scene.segment("flow", 3, &[line(start, 5_000)]);
    assert!(wait::holds(LIMIT, || scene.messages("flow").len() == 2_501));
    assert!(
        scene.cloud.double.refused().is_empty(),
        "{:?}",
        scene.cloud.double.refused()
    );
}

/// Terraform makes the group and decides how long it keeps lines; the streams are the appliance's in any case.
#[test]
fn a_group_that_is_managed_elsewhere_is_waited_for_and_left_as_it_is() {
    let scene = Scene::new();
    let daemon = DaemonDouble::start(scene.folder.path()).unwrap();
    let lines = [line(now(), 0)];
    scene.segment("flow", 1, &lines);
    let mut sidecar = scene.sidecar("group_managed = true\nretention_days = 30\n");
    sidecar.start().unwrap();
    let double = &scene.cloud.double;
    assert!(
        double.wait_calls("CreateLogStream", 2, LIMIT),
        "{}",
        sidecar.output()
    );
    assert!(daemon.shipped().is_empty(), "{:?}", daemon.shipped());
    scene.cloud.api.log_group("postern").unwrap();
    assert!(
        wait::holds(LIMIT, || !daemon.shipped().is_empty()),
        "{}",
        sidecar.output()
    );
    assert_eq!(scene.messages("flow"), lines);
    assert_eq!(double.calls("CreateLogGroup"), 0);
    assert_eq!(double.calls("PutRetentionPolicy"), 0);
    assert_eq!(scene.cloud.api.retention("postern").unwrap(), None);
}

#[test]
fn batches_keep_within_the_limits_of_the_service() {
    let scene = Scene::new();
    let daemon = DaemonDouble::start(scene.folder.path()).unwrap();
    let start = now();
    // More than 10,000 events, more than a mebibyte, out of order, and two days apart.
    let many: Vec<String> = (0..12_000).map(|index| line(start, index)).collect();
    let fat: Vec<String> = (0..40)
        .map(|index| line(start, index).replace("allowed", &"x".repeat(60_000)))
        .collect();
    let mut apart = vec![line(start - 2 * 86_400_000, 0)];
    apart.extend((0..10).rev().map(|index| line(start, index)));
    scene.segment("flow", 1, &many);
    scene.segment("end", 1, &fat);
    scene.segment("config", 1, &apart);
    let mut sidecar = scene.sidecar("");
    sidecar.start().unwrap();
    assert!(
        wait::holds(LIMIT, || daemon.shipped().len() == 3),
        "{:?}\n{}",
        daemon.shipped(),
        sidecar.output()
    );
    assert!(
        scene.cloud.double.refused().is_empty(),
        "{:?}",
        scene.cloud.double.refused()
    );
    for lines in [many, fat, apart] {
        assert!(
            lines
                .iter()
                .all(|line| scene.cloud.double.has_acknowledged(line))
        );
    }
}

#[test]
fn a_log_service_that_is_down_delays_logs_and_no_policy() {
    let scene = Scene::new();
    let vpc = scene.cloud.api.vpc("10.77.0.0/16").unwrap();
    scene
        .cloud
        .double
        .fail(Fault::lasting("PutLogEvents", Break::Unavailable));
    scene
        .cloud
        .double
        .fail(Fault::lasting("CreateLogGroup", Break::Throttled));
    let daemon = DaemonDouble::start(scene.folder.path()).unwrap();
    let start = now();
    scene.segment("flow", 1, &[line(start, 1)]);
    let mut sidecar = scene.sidecar("");
    sidecar.start().unwrap();
    sidecar.wait_line("logs wait in the spool").unwrap();
    let served = "10.77.0.0/16".parse().unwrap();
    daemon
        .wait_policy(LIMIT, |snapshot| snapshot.served.contains(&served))
        .unwrap();
    assert!(
        daemon.shipped().is_empty(),
        "reported before it was safe, beside {vpc}"
    );
    scene.cloud.double.recover();
    sidecar.wait_line("logs are shipped again").unwrap();
    assert!(wait::holds(LIMIT, || daemon.shipped().len() == 1));
    assert_eq!(scene.messages("flow"), [line(start, 1)]);
}

/// Four streams have lines, and the service throttles the account: it is asked about once a second, not once for each stream.
#[test]
fn throttling_holds_back_every_stream_of_the_account() {
    const STREAMS: [&str; 4] = ["flow", "end", "dns", "config"];
    const CALLS: u32 = 9;
    let scene = Scene::new();
    let throttled = Fault::lasting("PutLogEvents", Break::Throttled);
    scene.cloud.double.fail(throttled);
    let daemon = DaemonDouble::start(scene.folder.path()).unwrap();
    for stream in STREAMS {
        scene.segment(stream, 1, &[line(now(), 1)]);
    }
    let mut sidecar = scene.sidecar("");
    let since = Instant::now();
    sidecar.start().unwrap();
    assert!(scene.cloud.double.wait_calls("PutLogEvents", CALLS, LIMIT));
    // Each stream once before it knows; a pause of a second at least before each call after that.
    let pauses = CALLS - u32::try_from(STREAMS.len()).unwrap();
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(pauses.into()), "{took:?}");
    scene.cloud.double.recover();
    assert!(wait::holds(LIMIT, || daemon.shipped().len() == STREAMS.len()));
    for stream in STREAMS {
        assert_eq!(scene.messages(stream).len(), 1, "{stream}");
    }
}

/// CloudWatch Logs keeps no event older than 14 days when it arrives (API reference, `PutLogEvents`).
#[test]
fn days_of_outage_are_shipped_and_what_is_too_old_by_then_is_counted() {
    let scene = Scene::new();
    scene
        .cloud
        .double
        .fail(Fault::lasting("PutLogEvents", Break::Unavailable));
    let daemon = DaemonDouble::start(scene.folder.path()).unwrap();
    let day = 86_400_000;
    let of_day = |age: u64| -> Vec<String> {
        // Every half hour: a day's batch is a day long.
        let start = now() - age * day;
        (0..48).map(|half| line(start, half * 1_800_000)).collect()
    };
    let kept: Vec<String> = (1..=12).rev().flat_map(of_day).collect();
    let too_old: Vec<String> = (17..=18).rev().flat_map(of_day).collect();
    // Segments of an odd number of lines, so that they end anywhere in a day.
    let all = [too_old.clone(), kept.clone()].concat();
    let segments: Vec<&[String]> = all.chunks(77).collect();
    for (number, lines) in (1..).zip(&segments) {
        scene.segment("flow", number, lines);
    }
    let mut sidecar = scene.sidecar("");
    sidecar.start().unwrap();
    sidecar.wait_line("logs wait in the spool").unwrap();
    assert!(daemon.shipped().is_empty());
    scene.cloud.double.recover();
    assert!(wait::holds(LIMIT, || daemon.shipped().len() == segments.len()));
    assert_eq!(scene.messages("flow"), kept);
    let refused = scene.cloud.double.refused();
    assert!(refused.is_empty(), "{refused:?}");
    let output = sidecar.output();
    let counts = output
        .lines()
        .filter(|line| line.contains("does not take these lines"));
    let counts = counts.filter_map(|line| {
        let (_, rest) = line.split_once("lines=")?;
        rest.split_whitespace().next()?.parse::<usize>().ok()
    });
    assert_eq!(counts.sum::<usize>(), too_old.len(), "{output}");
}

#[test]
fn an_answer_that_is_lost_sends_the_batch_again() {
    let scene = Scene::new();
    let lost = Fault {
        times: Some(3),
        ..Fault::lasting("PutLogEvents", Break::LostAnswer)
    };
    let daemon = DaemonDouble::start(scene.folder.path()).unwrap();
    let start = now();
    let lines: Vec<String> = (0..10).map(|index| line(start, index)).collect();
    scene.segment("flow", 1, &lines);
    scene.cloud.double.fail(lost);
    let mut sidecar = scene.sidecar("");
    sidecar.start().unwrap();
    assert!(wait::holds(LIMIT, || daemon.shipped().len() == 1));
    let arrived: BTreeSet<String> = scene.messages("flow").into_iter().collect();
    assert_eq!(arrived, lines.into_iter().collect());
}

#[test]
fn killed_at_any_point_of_shipping_nothing_acknowledged_is_lost() {
    let scene = Scene::new();
    let daemon = DaemonDouble::start(scene.folder.path()).unwrap();
    let start = now();
    let mut all = Vec::new();
    for segment in 0..60 {
        let lines: Vec<String> = (0..200)
            .map(|index| line(start, segment * 200 + index))
            .collect();
        scene.segment("flow", segment + 1, &lines);
        all.extend(lines);
    }
    // As the daemon does: what is reported is deleted. Before that, everything in it must be safe.
    let lost = Arc::new(Mutex::new(Vec::new()));
    let (double, folder, found) = (
        scene.cloud.double.clone(),
        scene.folder.path().to_owned(),
        Arc::clone(&lost),
    );
    daemon.on_shipped(move |segment| {
        let path = path(&folder, segment);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let missing = text
            .lines()
            .filter(|line| !double.has_acknowledged(line))
            .map(ToOwned::to_owned);
        found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(missing);
        fs::remove_file(&path).ok();
    });
    let mut sidecar = scene.sidecar("");
    // A delay before each kill that walks through start, connect, put, cursor and report.
    for round in 0..25_u64 {
        sidecar.start().unwrap();
        std::thread::sleep(Duration::from_millis(20 + round * 17 % 400));
        sidecar.kill().unwrap();
    }
    sidecar.start().unwrap();
    assert!(wait::holds(LIMIT, || fs::read_dir(
        scene.folder.path().join("spool/flow")
    )
    .unwrap()
    .count()
        == 0));
    assert!(
        lost.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    );
    let arrived: BTreeSet<String> = scene.messages("flow").into_iter().collect();
    let missing: Vec<&String> = all.iter().filter(|line| !arrived.contains(*line)).collect();
    assert!(
        missing.is_empty(),
        "{} lines missing, first {:?}",
        missing.len(),
        missing.first()
    );
}
