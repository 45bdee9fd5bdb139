//! The status line of the config log: what alarms on policy age and queue drops read.

use std::time::Duration;

use e2e::daemon::{Daemon, INVENTORY};
use e2e::flowlog::Line;
use e2e::topology::Topology;
use e2e::wait;
use ipc::control::SourceState;

const PATIENCE: Duration = Duration::from_secs(30);

/// The status lines so far, once there are this many.
fn lines(daemon: &Daemon<'_>, count: usize) -> Vec<Line> {
    let all = || {
        let mut lines = daemon.logs().lines("config");
        lines.retain(|line| line.text("cat") == "status");
        lines
    };
    let there = wait::holds(PATIENCE, || all().len() >= count);
    assert!(there, "no {count} status lines: {:#?}", all());
    all()
}

#[test]
fn the_age_of_the_source_is_said_once_it_was_read_and_not_before_nor_after_a_restart() {
    let lab = Topology::new().unwrap();
    let mut daemon = Daemon::without_policy(&lab).unwrap();
    let first = lines(&daemon, 1).pop().unwrap();
    assert_eq!(first.text("source_age_s"), "", "nobody has read a source");
    assert_eq!(first.text("packets_queue_full"), "0");

    let mut publisher = daemon.publisher().unwrap();
    publisher.source(SourceState::Current).unwrap();
    publisher.publish(INVENTORY).unwrap();
    let adopted = lines(&daemon, 2).pop().unwrap();
    assert_eq!(adopted.text("mode"), "enforce");
    let age: u64 = adopted.text("source_age_s").parse().unwrap();
    let grows = || daemon.metric("postern_source_age_seconds").unwrap() > 0.0;
    assert!(wait::holds(PATIENCE, grows), "no age in the metrics");
    assert!(age <= PATIENCE.as_secs(), "{age} s");
    assert_eq!(adopted.text("packets_queue_full"), "0");

    daemon.kill().unwrap();
    daemon.restart().unwrap();
    let again = lines(&daemon, 3).pop().unwrap();
    assert_eq!(again.text("mode"), "enforce", "the stored policy");
    assert_eq!(again.text("source_age_s"), "", "its age is not known yet");
}
