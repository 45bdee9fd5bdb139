use std::net::Ipv4Addr;

use super::*;

const START_MS: u64 = 10_000_000;

fn at(ms: u64) -> Time {
    Time {
        mono_ms: START_MS + ms,
        unix_ms: 0,
    }
}

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

fn address(index: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0808_0000 + index))
}

fn store() -> (Arc<BindingStore>, BindingWriter) {
    let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
    (Arc::clone(&store), BindingWriter::new(store))
}

#[test]
fn one_sighting_counts_ten_minutes_past_its_ttl() {
    let (store, mut writer) = store();
    let www = name("www.example.org");
    writer.learn(&www, [(address(1), 60)], None, START_MS);
    assert!(store.is_bound(&www, address(1), at(660_000)));
    assert!(!store.is_bound(&www, address(1), at(660_001)));
    assert!(!store.is_bound(&name("other.example.org"), address(1), at(0)));
}

#[test]
fn second_sighting_counts_the_whole_history_and_a_judged_flow_ten_minutes_more() {
    let (store, mut writer) = store();
    let www = name("www.example.org");
    writer.learn(&www, [(address(1), 60), (address(2), 60)], None, START_MS);
    writer.learn(&www, [(address(1), 60)], None, START_MS);
    store.note_judged(&www, address(2), at(0));
    for (index, until_ms) in [(1, 3_660_000), (2, 4_260_000)] {
        assert!(store.is_bound(&www, address(index), at(until_ms)));
        assert!(!store.is_bound(&www, address(index), at(until_ms + 1)));
    }
    // However often it is used: only answers lengthen it further.
    store.note_judged(&www, address(2), at(4_260_000));
    assert!(!store.is_bound(&www, address(2), at(4_260_001)));
}

#[test]
fn address_lists_its_names_and_forgets_them_with_the_history() {
    let (store, mut writer) = store();
    let names_at = |now| {
        let mut found = Vec::new();
        store.names_of(address(1), now, &mut |name| found.push(name.to_string()));
        found.sort();
        found
    };
    writer.learn(&name("a.example"), [(address(1), 60)], None, START_MS);
    writer.learn(&name("b.example"), [(address(1), 600)], None, START_MS);
    assert_eq!(names_at(at(0)), ["a.example", "b.example"]);
    assert_eq!(names_at(at(700_000)), ["b.example"]);
    writer.sweep(START_MS + 700_000);
    assert_eq!(store.sightings.len(), 1);
    writer.forget(&[name("b.example")]);
    assert_eq!((store.sightings.len(), store.names.len()), (0, 0));
}

#[test]
fn address_that_may_not_be_bound_is_not_learnt() {
    let (store, mut writer) = store();
    let www = name("www.example.org");
    let private = IpAddr::from([10, 0, 0, 1]);
    let learning = writer.learn(&www, [(private, 60)], None, START_MS);
    assert_eq!((learning.new, learning.not_global), ([0, 0], 1));
    assert!(!store.is_bound(&www, private, at(0)));
    assert_eq!(store.is_known(&www), Known::Failed);
}

#[test]
fn name_is_priming_until_its_first_answer_and_a_failure_keeps_what_is_bound() {
    let (store, mut writer) = store();
    let www = name("www.example.org");
    assert_eq!(store.is_known(&www), Known::Unasked);
    writer.prime(&www);
    assert_eq!(store.is_known(&www), Known::Priming);
    writer.learn(&www, [(address(1), 60)], None, START_MS);
    writer.fail(&www);
    writer.prime(&www);
    assert_eq!(store.is_known(&www), Known::Answered);
    assert!(store.is_bound(&www, address(1), at(0)));
}

#[test]
fn name_keeps_its_latest_addresses_and_a_flood_of_new_ones_alarms_once() {
    let (store, mut writer) = store();
    let www = name("www.example.org");
    let mut alarms = 0;
    for round in 0..9_u32 {
        let fresh = (0..1_024).map(|index| (address(round * 1_024 + index), 60 + round));
        alarms += u32::from(writer.learn(&www, fresh, None, START_MS).alarm);
    }
    assert_eq!(alarms, 1);
    let room = ADDRESSES_PER_NAME_MAX / 16;
    assert_eq!(store.sightings.len(), ADDRESSES_PER_NAME_MAX - room);
    assert!(!store.is_bound(&www, address(0), at(0)), "the oldest went");
    assert!(store.is_bound(&www, address(9 * 1_024 - 1), at(0)));
}

#[test]
fn names_under_patterns_keep_few_addresses_once_they_have_many_together() {
    let (store, mut writer) = store();
    let client = IpAddr::from([10, 0, 0, 1]);
    let exact = name("exact.example.org");
    writer.learn(
        &exact,
        (0..4_096).map(|index| (address(index), 60)),
        None,
        START_MS,
    );
    for index in 0..20 {
        let name = name(&format!("n{index}.wild.example"));
        writer.learn_name(&name, client);
        let fresh = (0..4_096).map(|at| (address(1_000_000 + index * 4_096 + at), 60));
        writer.learn(&name, fresh, None, START_MS);
    }
    let bound = |text: &str| {
        store
            .bindings_of(&name(text), None, START_MS, usize::MAX)
            .len()
    };
    assert_eq!(bound("n0.wild.example"), 4_096, "while there is room");
    assert!(bound("n19.wild.example") <= ADDRESSES_PER_NAME_WHEN_CROWDED);
    assert_eq!(
        bound("exact.example.org"),
        4_096,
        "a name somebody wrote down"
    );
    assert!(store.addresses_bound() < ADDRESSES_UNDER_PATTERNS_MAX + 3 * 4_096);
}
