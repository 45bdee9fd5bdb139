use std::net::Ipv4Addr;

use inspect::{Bindings, Known};

use super::*;
use crate::bindings::{BindingWriter, Scope, Seen};

const HOUR: u64 = 3_600_000;

fn at(mono_ms: u64, unix_ms: u64) -> Time {
    Time { mono_ms, unix_ms }
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, last))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn store() -> (Arc<BindingStore>, BindingWriter) {
    let store = Arc::new(BindingStore::new(HOUR, Scope::default()));
    (Arc::clone(&store), BindingWriter::new(store))
}

/// Before: 100 h of uptime on one clock. After: a start two days into its monotonic clock.
const BEFORE: Time = Time {
    mono_ms: 360_000_000,
    unix_ms: 1_800_000_000_000,
};

fn after(elapsed_ms: u64) -> Time {
    at(2 * 24 * HOUR, BEFORE.unix_ms + elapsed_ms)
}

/// What is bound after a restart that took `elapsed_ms`, or what stood in the way.
fn restart(path: &Path, elapsed_ms: u64) -> io::Result<(Arc<BindingStore>, Time)> {
    let now = after(elapsed_ms);
    let saved = load(path, now)?;
    let (store, mut writer) = store();
    for (name, kept) in saved.names {
        writer.prime(&name);
        writer.restore(&name, kept, now.mono_ms);
    }
    Ok((store, now))
}

#[test]
fn a_restart_keeps_what_was_bound_and_lengthens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bindings.jsonl");
    let (store, mut writer) = store();
    let www = name("www.example.org");
    let chain: Arc<str> = "edge.example.net".into();
    let seen = [1, 2].map(|last| Seen {
        resolver: Some("192.0.2.53:53".into()),
        ..Seen::from((address(last), 60))
    });
    writer.learn(&www, seen, Some(&chain), BEFORE.mono_ms);
    store.note_judged(&www, address(2), BEFORE);
    save(&path, &store, BEFORE).unwrap();

    let (store, now) = restart(&path, 30_000).unwrap();
    assert_eq!(store.is_known(&www), Known::Answered);
    assert_eq!(now.mono_ms - store.last_used_ms(&www), 30_000);
    let kept = store.bindings_of(&www, Some(address(1)), now.mono_ms, 1);
    assert_eq!(kept[0].chain.as_deref(), Some("edge.example.net"));
    assert_eq!(kept[0].resolver.as_deref(), Some("192.0.2.53:53"));
    let later = |ms| at(now.mono_ms + ms, now.unix_ms + ms);
    // Seen once: 60 s and ten minutes after it was learnt, 30 s of which went by in between.
    assert!(store.is_bound(&www, address(1), later(630_000)));
    assert!(!store.is_bound(&www, address(1), later(630_001)));
    // Judged: an hour and ten minutes.
    assert!(store.is_bound(&www, address(2), later(HOUR + 630_000)));
    assert!(!store.is_bound(&www, address(2), later(HOUR + 630_001)));

    let (store, now) = restart(&path, 700_000).unwrap();
    assert!(
        !store.is_bound(&www, address(1), now),
        "its time ended while we were away"
    );
    assert!(store.is_bound(&www, address(2), now));
}

#[test]
fn a_clock_set_back_or_a_file_from_the_future_binds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bindings.jsonl");
    let (store, mut writer) = store();
    writer.learn(
        &name("www.example.org"),
        [(address(1), 60)],
        None,
        BEFORE.mono_ms,
    );
    save(&path, &store, BEFORE).unwrap();
    let earlier = at(2 * 24 * HOUR, BEFORE.unix_ms - HOUR);
    let error = load(&path, earlier).unwrap_err();
    assert_eq!(error.to_string(), "it was written later than now");
}

#[test]
fn a_line_that_makes_no_sense_costs_itself_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bindings.jsonl");
    let written = BEFORE.unix_ms;
    let line = |name: &str, fresh: u64| {
        format!(
            "{{\"name\":\"{name}\",\"addresses\":[[\"8.8.8.8\",{fresh},{written},1,true,\"a\",null]]}}\n"
        )
    };
    let text = format!(
        "{{\"postern_bindings\":1,\"written_unix_ms\":{written}}}\n{}garbage\n{}{{\"name\":\n{}{}",
        line("bad..name", written),
        line("far.example.org", u64::MAX),
        line("private.example.org", written).replace("8.8.8.8", "10.0.0.1"),
        line("good.example.org", written).trim_end(),
    );
    fs::write(&path, text).unwrap();
    let (store, now) = restart(&path, 0).unwrap();
    let bound = |text: &str| store.bindings_of(&name(text), None, now.mono_ms, 9);
    assert_eq!(bound("good.example.org").len(), 1);
    let far = bound("far.example.org");
    assert_eq!(
        far[0].fresh_until_ms - now.mono_ms,
        HOUR,
        "no time to live is longer"
    );
    assert_eq!(bound("private.example.org"), []);
    assert_eq!(store.names_bound(), 2);
}

#[test]
fn a_file_that_is_none_of_ours_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bindings.jsonl");
    for text in [
        &b""[..],
        b"\0\xff\xfe",
        b"{\"postern_bindings\":2,\"written_unix_ms\":1}\n",
        b"{\"postern_bindings\":1,\"written_unix_ms\":-1}\n",
    ] {
        fs::write(&path, text).unwrap();
        load(&path, BEFORE).unwrap_err();
    }
    let absent = load(&folder.path().join("absent"), BEFORE).unwrap_err();
    assert_eq!(absent.kind(), io::ErrorKind::NotFound);
}
