//! A spool, a service that fails on request, and what the daemon is told.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use super::*;
use crate::cloud::{Acknowledged, BatchLimits};

/// Keeps what it is sent; fails as told, in turn.
#[derive(Debug, Default)]
struct Recorder {
    lines: RefCell<Vec<String>>,
    failures: RefCell<VecDeque<Option<CloudErrorKind>>>,
    poison: Option<&'static str>,
}

impl LogSink for Recorder {
    fn limits(&self) -> BatchLimits {
        BatchLimits {
            events: 3,
            bytes: 1 << 20,
            event_overhead: 26,
            event_bytes: 1 << 18,
            span: Duration::from_secs(86_400),
        }
    }

    async fn put(
        &self,
        _: Stream,
        appliance: &str,
        events: &[LogEvent],
    ) -> Result<Acknowledged, CloudError> {
        assert_eq!(appliance, "fw");
        let failure = self.failures.borrow_mut().pop_front().flatten();
        let poisoned = events
            .iter()
            .any(|event| self.poison.is_some_and(|word| event.message.contains(word)));
        let failure = failure.or_else(|| poisoned.then_some(CloudErrorKind::Refused));
        if let Some(kind) = failure {
            let (call, detail) = ("PutLogEvents".to_owned(), "on request".to_owned());
            return Err(CloudError { call, kind, detail });
        }
        self.lines
            .borrow_mut()
            .extend(events.iter().map(|event| event.message.clone()));
        Ok(Acknowledged::default())
    }
}

/// A pause that costs a test nothing.
const SHORT: Duration = Duration::from_millis(1);

struct Setup {
    folder: tempfile::TempDir,
    shipper: Shipper<Recorder>,
    told: mpsc::Receiver<Request>,
    link: watch::Sender<LinkState>,
}

fn setup(sink: Recorder) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let (requests, told) = mpsc::channel(16);
    let state = LinkState {
        connection: 1,
        connected: true,
        appliance: Some("fw".into()),
        adopted: None,
        primed: false,
    };
    let (link, watching) = watch::channel(state);
    let shipper = Shipper {
        stream: Stream::Flow,
        sink: Rc::new(sink),
        spool: folder.path().to_owned(),
        cursor: Rc::new(RefCell::new(Cursor::open(folder.path()).unwrap())),
        linger: Duration::ZERO,
        max_backoff: Duration::from_secs(1),
        turns: Rc::new(Turns::new(Backoff::starting_at(SHORT, SHORT))),
        requests,
        link: watching,
    };
    fs::create_dir(folder.path().join("flow")).unwrap();
    Setup {
        folder,
        shipper,
        told,
        link,
    }
}

fn line(number: u64) -> String {
    format!(
        "{{\"time\":\"2026-11-22T11:08:{:02}.000Z\",\"n\":{number}}}",
        number % 60
    )
}

fn segment(folder: &Path, number: u64, lines: std::ops::Range<u64>) {
    let text: String = lines.map(|number| line(number) + "\n").collect();
    fs::write(folder.join(format!("flow/{number:08}.jsonl")), text).unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Steps until the spool is at its end, as often as it takes; failures are tried again.
fn drain(shipper: &Shipper<Recorder>) -> usize {
    let mut reports = Reports::default();
    let mut failures = 0;
    block_on(async {
        loop {
            match shipper.step(&mut reports).await {
                Ok(Step::Idle) => return failures,
                Ok(Step::More) => {}
                Err(_) => failures += 1,
            }
        }
    })
}

fn segments_told(told: &mut mpsc::Receiver<Request>) -> Vec<u64> {
    let mut segments = Vec::new();
    while let Ok(request) = told.try_recv() {
        let Request::Shipped(shipped) = request else {
            panic!("{request:?}")
        };
        segments.push(shipped.segment);
    }
    segments
}

#[test]
fn every_line_arrives_in_order_and_its_segment_is_reported_after_it() {
    let mut setup = setup(Recorder::default());
    segment(setup.folder.path(), 3, 0..4);
    segment(setup.folder.path(), 5, 4..9);
    fs::write(
        setup.folder.path().join("flow/00000006.jsonl.open"),
        "{\"half",
    )
    .unwrap();
    assert_eq!(drain(&setup.shipper), 0);
    let lines: Vec<String> = (0..9).map(line).collect();
    assert_eq!(*setup.shipper.sink.lines.borrow(), lines);
    assert_eq!(segments_told(&mut setup.told), [3, 5]);
}

#[test]
fn nothing_is_reported_before_the_service_has_acknowledged_it() {
    let failures = [CloudErrorKind::Throttled, CloudErrorKind::Unavailable].map(Some);
    let mut setup = setup(Recorder {
        failures: RefCell::new(failures.into()),
        ..Default::default()
    });
    segment(setup.folder.path(), 1, 0..5);
    let mut reports = Reports::default();
    block_on(setup.shipper.step(&mut reports)).unwrap_err();
    assert!(segments_told(&mut setup.told).is_empty());
    assert_eq!(drain(&setup.shipper), 1);
    assert_eq!(setup.shipper.sink.lines.borrow().len(), 5);
    assert_eq!(segments_told(&mut setup.told), [1]);
}

#[test]
fn a_new_process_goes_on_where_the_cursor_is() {
    let setup = setup(Recorder::default());
    segment(setup.folder.path(), 1, 0..5);
    let mut reports = Reports::default();
    assert_eq!(
        block_on(setup.shipper.step(&mut reports)).unwrap(),
        Step::More
    );
    let cursor = Cursor::open(setup.folder.path()).unwrap();
    let again = Shipper {
        cursor: Rc::new(RefCell::new(cursor)),
        ..setup.shipper
    };
    drain(&again);
    let lines: Vec<String> = (0..5).map(line).collect();
    assert_eq!(*again.sink.lines.borrow(), lines);
}

#[test]
fn one_line_the_service_refuses_does_not_hold_up_the_others() {
    let setup = setup(Recorder {
        poison: Some("\"n\":4}"),
        ..Default::default()
    });
    segment(setup.folder.path(), 1, 0..8);
    assert_eq!(drain(&setup.shipper), 0);
    let lines: Vec<String> = (0..8).filter(|number| *number != 4).map(line).collect();
    assert_eq!(*setup.shipper.sink.lines.borrow(), lines);
}

#[test]
fn a_segment_lost_to_a_full_spool_is_passed_over() {
    let setup = setup(Recorder::default());
    segment(setup.folder.path(), 1, 0..5);
    let mut reports = Reports::default();
    block_on(setup.shipper.step(&mut reports)).unwrap();
    fs::remove_file(setup.folder.path().join("flow/00000001.jsonl")).unwrap();
    segment(setup.folder.path(), 2, 5..7);
    drain(&setup.shipper);
    let lines: Vec<String> = [0, 1, 2, 5, 6].map(line).into();
    assert_eq!(*setup.shipper.sink.lines.borrow(), lines);
}

#[test]
fn a_daemon_that_restarted_is_told_again_of_what_is_still_there() {
    let mut setup = setup(Recorder::default());
    segment(setup.folder.path(), 1, 0..2);
    let mut reports = Reports::default();
    block_on(setup.shipper.step(&mut reports)).unwrap();
    block_on(setup.shipper.step(&mut reports)).unwrap();
    assert_eq!(segments_told(&mut setup.told), [1]);
    setup.link.send_modify(|state| state.connection = 2);
    block_on(setup.shipper.step(&mut reports)).unwrap();
    assert_eq!(segments_told(&mut setup.told), [1]);
}

#[test]
fn without_a_daemon_logs_go_under_the_name_it_had() {
    let mut setup = setup(Recorder::default());
    setup
        .shipper
        .cursor
        .borrow_mut()
        .name_appliance("fw")
        .unwrap();
    setup.link.send_replace(LinkState::default());
    segment(setup.folder.path(), 1, 0..2);
    drain(&setup.shipper);
    assert_eq!(setup.shipper.sink.lines.borrow().len(), 2);
    assert!(segments_told(&mut setup.told).is_empty());
}

#[test]
fn while_the_service_throttles_streams_ask_one_after_the_other() {
    let throttled = |kind| {
        let (call, detail) = ("PutLogEvents".to_owned(), String::new());
        Err(CloudError { call, kind, detail })
    };
    let turns = Turns::new(Backoff::starting_at(SHORT, SHORT));
    block_on(async {
        assert!(
            turns.take().await.is_none(),
            "nobody waits while all is well"
        );
        turns.note(&throttled(CloudErrorKind::Unavailable));
        assert!(
            turns.take().await.is_none(),
            "one stream's trouble is its own"
        );
        turns.note(&throttled(CloudErrorKind::Throttled));
        let first = turns.take().await;
        assert!(first.is_some());
        let second = tokio::time::timeout(Duration::from_millis(20), turns.take());
        assert!(second.await.is_err(), "two asked at a time");
        turns.note(&throttled(CloudErrorKind::Throttled));
        drop(first);
        let next = turns.take().await;
        assert!(next.is_some(), "still throttled, and somebody else's turn");
        turns.note(&Ok(()));
        drop(next);
        assert!(turns.take().await.is_none(), "all go on");
    });
}
