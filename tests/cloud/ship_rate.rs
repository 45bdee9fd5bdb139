//! How fast a full spool is shipped, and what that takes.
//!
//! 40,000 lines by default; with `E2E_LONG` ten times as many, and with an optimised sidecar (`POSTERN_CLOUDSYNC_BIN`) 20,000 a second
//! on one core are asserted, not only printed.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use e2e::cloud::{DaemonDouble, Double, Pace, Sidecar};
use e2e::wait;
use ipc::record::Timestamp;

use crate::large_account::long;

/// Ample on a busy machine, without optimisation.
const LIMIT: Duration = Duration::from_secs(100);

/// About as many lines as the daemon puts into a segment.
const SEGMENT: usize = 8_000;

/// An allowed line as the daemon writes it, of the usual length.
fn line(start: u64, index: usize) -> String {
    let time = Timestamp::from_unix_ms(start + u64::try_from(index).unwrap() / 20);
    format!(
        "{{\"time\":\"{time}\",\"cat\":\"client\",\"outcome\":\"allowed\",\"reason\":\"sg-0123456789abcdef0\",\
         \"dhost\":\"n{index}.example.com\",\"src\":\"10.0.17.23\",\"spt\":41822,\"dst\":\"203.0.113.9\",\"dpt\":443,\
         \"proto\":\"tls\",\"proto_v\":\"1.3\",\"instance\":\"i-0123456789abcdef0\",\"gid\":\"sg-0123456789abcdef0\",\
         \"rule\":\"sgr-0123456789abcdef0\",\"generation\":17,\"policy_id\":\"0123456789abcdef\",\"appliance\":\"fw-1\",\
         \"pqc\":true,\"rescued\":false}}"
    )
}

#[test]
fn a_full_spool_is_shipped_whole_and_its_rate_is_known() {
    let lines = if long() { 400_000 } else { 40_000 };
    let double = Double::large(Pace::default()).unwrap();
    let folder = tempfile::Builder::new()
        .prefix("postern-rate-")
        .tempdir()
        .unwrap();
    let daemon = DaemonDouble::start(folder.path()).unwrap();
    let start = crate::ship::now();
    let mut segments = 0;
    // Two lines of a connection are flow lines, one is its end.
    for (stream, share) in [("flow", lines * 2 / 3), ("end", lines - lines * 2 / 3)] {
        let spool = folder.path().join("spool").join(stream);
        std::fs::create_dir_all(&spool).unwrap();
        for (number, first) in (1..).zip((0..share).step_by(SEGMENT)) {
            let mut text = String::new();
            for index in first..share.min(first + SEGMENT) {
                writeln!(text, "{}", line(start, index)).unwrap();
            }
            std::fs::write(spool.join(format!("{number:08}.jsonl")), text).unwrap();
            segments += 1;
        }
    }
    let config = "provider = \"aws\"\n[aws]\nvpcs = [\"vpc-1\"]\n[poll]\ninterval_s = 60.0\n[logs]\nlinger_s = 0.1\n";
    let mut sidecar = Sidecar::new(folder.path(), &double.url(), config).unwrap();
    sidecar.start().unwrap();
    assert!(wait::holds(LIMIT, || double.calls("PutLogEvents") > 0));
    let (since, before) = (Instant::now(), sidecar.usage().unwrap().0);
    assert!(
        wait::holds(LIMIT, || double.log_lines() >= lines),
        "{}",
        double.log_lines()
    );
    let took = since.elapsed();
    let (work, memory) = sidecar.usage().unwrap();
    assert!(wait::holds(LIMIT, || daemon.shipped().len() == segments));
    let work = (work - before) * 20_000 / u32::try_from(lines).unwrap();
    let rate = lines as u128 * 1_000 / took.as_millis().max(1);
    eprintln!(
        "{rate} lines a second, {work:?} of work for 20,000, {} MB",
        memory >> 20
    );
    assert!(memory < 150 << 20, "{} MB", memory >> 20);
    if long() {
        assert!(work <= Duration::from_secs(1), "{work:?}");
        assert!(rate >= 20_000, "{rate}");
    }
}
