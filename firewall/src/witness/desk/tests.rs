use inspect::{Query, Why};
use ipc::witness::SightingV1;
use policy::annotation::ListReference;
use policy::inventory::{Scope as InventoryScope, read};

use super::*;
use crate::bindings::Scope;

const NOW: u64 = 10_000_000;

fn policy(description: &str, generation: u64) -> Arc<Snapshot> {
    let text = format!(
        "[[group]]\nid = \"web\"\n[[group.rule]]\ndescription = \"{description}\"\n\
         protocol = \"tcp\"\nports = \"443\"\n"
    );
    let mut no_lists = |_: &ListReference| Err("no lists".to_owned());
    let draft = read(&text, InventoryScope::Whole, &mut no_lists).unwrap();
    Arc::new(Snapshot::compile(draft, generation).unwrap())
}

fn desk() -> Desk {
    let settings = Configure {
        upstreams: Vec::new(),
        max_qps: 400,
        ipv6: true,
        anchors: None,
        authorities: String::new(),
    };
    let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
    Desk::new(settings, store, None)
}

fn sought(name: &str) -> Sought {
    Sought {
        name: Name::parse(name.as_bytes()).unwrap(),
        ipv6: false,
    }
}

/// A SYN of a client misses, and a name is asked for at once.
fn miss(desk: &mut Desk, name: &str, client: u8, now_ms: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    let query = Query {
        why: Why::Gate,
        ..query(name, client)
    };
    desk.ask(0, &query, now_ms, &mut actions);
    actions
}

fn query(name: &str, client: u8) -> Query {
    Query {
        sought: sought(name),
        client: IpAddr::from([10, 0, 0, client]),
        why: Why::Claim,
    }
}

fn adopt(desk: &mut Desk, description: &str, generation: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    desk.adopt(policy(description, generation), NOW, &mut actions);
    actions
}

fn ask(desk: &mut Desk, name: &str, client: u8, now_ms: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    desk.ask(0, &query(name, client), now_ms, &mut actions);
    actions
}

fn resolved(name: &str, asked: bool) -> AnswerV1 {
    let seen = SightingV1 {
        address: IpAddr::from([8, 8, 8, 8]),
        ttl_s: 60,
        hint: false,
        source: 0,
    };
    AnswerV1 {
        name: name.to_owned(),
        outcome: AnswerOutcome::Resolved,
        addresses: vec![seen],
        ttl_s: 60,
        asked,
        ipv6: false,
        chain: Vec::new(),
        sources: Vec::new(),
        more: false,
    }
}

fn answered(desk: &mut Desk, answer: &AnswerV1) -> Vec<Action> {
    let mut actions = Vec::new();
    desk.answered(answer, NOW, &mut actions);
    actions
}

fn lookups(actions: &[Action]) -> usize {
    let is_lookup = |action: &&Action| matches!(action, Action::Tell(ToWitness::Lookup(_)));
    actions.iter().filter(is_lookup).count()
}

fn answers(actions: &[Action]) -> Vec<Answer> {
    let answer = |action: &Action| match action {
        Action::Answer { answer, .. } => Some(*answer),
        Action::Tell(_)
        | Action::Primed { .. }
        | Action::Alarm { .. }
        | Action::Log(_)
        | Action::Unknown(_)
        | Action::BadCertificate { .. }
        | Action::Distrust { .. } => None,
    };
    actions.iter().filter_map(answer).collect()
}

#[test]
fn unlisted_name_never_reaches_the_witness() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:api.example.org,*.example.net", 1);
    let actions = ask(&mut desk, "evil.example.com", 1, NOW);
    assert_eq!(
        (lookups(&actions), answers(&actions)),
        (0, vec![Answer::Failed])
    );
}

#[test]
fn part_of_an_answer_is_told_at_once_and_ends_no_look_up() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:api.example.org", 1);
    ask(&mut desk, "api.example.org", 1, NOW);
    let refresh = answered(&mut desk, &resolved("api.example.org", false));
    assert_eq!(answers(&refresh), [Answer::Partial]);
    let part = AnswerV1 {
        more: true,
        ..resolved("api.example.org", true)
    };
    assert_eq!(answers(&answered(&mut desk, &part)), [Answer::Partial]);
    let last = answered(&mut desk, &resolved("api.example.org", true));
    assert_eq!(answers(&last), [Answer::Resolved]);
}

#[test]
fn one_name_is_looked_up_once_however_many_wait_and_once_a_second() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:api.example.org", 1);
    tick(&mut desk, NOW);
    assert_eq!(lookups(&ask(&mut desk, "api.example.org", 1, NOW)), 1);
    let mut actions = Vec::new();
    desk.ask(3, &query("api.example.org", 2), NOW, &mut actions);
    assert_eq!(actions, []);
    let both = answered(&mut desk, &resolved("api.example.org", true));
    assert_eq!(answers(&both), [Answer::Resolved, Answer::Resolved]);
    let at_once = ask(&mut desk, "api.example.org", 1, NOW + 49);
    assert_eq!(answers(&at_once), [Answer::Resolved], "of this moment");
    // Half a second later it may have moved: its turn is awaited.
    assert_eq!(ask(&mut desk, "api.example.org", 1, NOW + 500), []);
    assert_eq!(desk.next_tick_ms(), NOW + 1_000);
    assert_eq!(lookups(&tick(&mut desk, NOW + 999)), 0);
    assert_eq!(lookups(&tick(&mut desk, NOW + 1_000)), 1);
    let last = answered(&mut desk, &resolved("api.example.org", true));
    assert_eq!(answers(&last), [Answer::Resolved]);
}

/// A packet that cannot wait for the name's next turn is dropped in silence and sent again.
#[test]
fn a_turn_that_comes_too_late_for_a_packet_refuses_it_nothing() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:api.example.org", 1);
    tick(&mut desk, NOW);
    ask(&mut desk, "api.example.org", 1, NOW);
    answered(&mut desk, &resolved("api.example.org", true));
    assert_eq!(ask(&mut desk, "api.example.org", 1, NOW + 60), []);
    assert_eq!(desk.next_tick_ms(), NOW + 960, "nothing happens before");
    let over = tick(&mut desk, NOW + 960);
    assert_eq!(
        (lookups(&over), answers(&over)),
        (0, vec![Answer::OverBudget])
    );
}

/// A packet needs the addresses of its own family, and nobody is asked for others.
#[test]
fn a_look_up_for_a_packet_asks_for_its_own_family_only() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:api.example.org", 1);
    answered(&mut desk, &resolved("api.example.org", false));
    for ipv6 in [false, true] {
        let mut actions = Vec::new();
        let query = Query {
            sought: Sought {
                ipv6,
                ..sought("api.example.org")
            },
            why: Why::Gate,
            ..query("api.example.org", 1)
        };
        desk.ask(0, &query, NOW, &mut actions);
        let [Action::Tell(ToWitness::Lookup(lookup))] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        assert_eq!((lookup.ipv4, lookup.ipv6), (!ipv6, ipv6));
        assert_eq!((lookup.hints, lookup.samples), (false, 1));
    }
    let last = answered(&mut desk, &resolved("api.example.org", true));
    let partial = Action::Answer {
        queue: 0,
        sought: Sought {
            ipv6: true,
            ..sought("api.example.org")
        },
        answer: Answer::Partial,
    };
    assert!(last.contains(&partial), "that of IPv6 goes on: {last:?}");
    assert_eq!(answers(&last).len(), 2);
}

#[test]
fn one_clients_scan_does_not_starve_anothers_names() {
    let mut desk = desk();
    let names: Vec<String> = (0..40)
        .map(|index| format!("n{index}.example.org"))
        .collect();
    adopt(&mut desk, &format!("postern:tls:{}", names.join(",")), 1);
    for name in &names {
        answered(&mut desk, &resolved(name, false));
    }
    let scan: Vec<Action> = names
        .iter()
        .flat_map(|name| miss(&mut desk, name, 1, NOW + 5_000))
        .collect();
    assert_eq!(lookups(&scan), 6, "questions at once of one client");
    let spent = Answer::Spent(IpAddr::from([10, 0, 0, 1]));
    assert!(answers(&scan).iter().all(|answer| *answer == spent));
    assert_eq!(
        lookups(&miss(&mut desk, "n39.example.org", 2, NOW + 5_000)),
        1
    );
    assert_eq!(
        lookups(&miss(&mut desk, "n38.example.org", 1, NOW + 6_000)),
        1
    );
}

#[test]
fn names_under_a_pattern_are_capped_per_second_and_in_number() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:*.example.net", 1);
    let burst: Vec<Action> = (0..20)
        .flat_map(|index| ask(&mut desk, &format!("a{index}.example.net"), 1, NOW))
        .collect();
    assert_eq!(lookups(&burst), 5);
    for second in 0..100 {
        let name = format!("b{second}.example.net");
        ask(&mut desk, &name, 1, NOW + 1_000 * (second + 1));
    }
    assert_eq!(desk.learnt.len(), 64);
}

#[test]
fn learnt_name_is_forgotten_ten_minutes_after_its_last_use() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:*.example.net", 1);
    ask(&mut desk, "a.example.net", 1, NOW);
    answered(&mut desk, &resolved("a.example.net", true));
    let mut actions = Vec::new();
    desk.tick(NOW + 599_999, &mut actions);
    assert_eq!(desk.learnt.len(), 1);
    desk.tick(NOW + 630_000, &mut actions);
    assert_eq!(desk.learnt.len(), 0);
    let name = Name::parse(b"a.example.net").unwrap();
    assert_eq!(desk.store.is_known(&name), Known::Unasked);
}

#[test]
fn policy_is_primed_when_each_new_name_has_an_answer_or_two_seconds_have_passed() {
    let mut desk = desk();
    let actions = adopt(&mut desk, "postern:tls:a.example.org,b.example.org", 5);
    assert!(!actions.contains(&Action::Primed { generation: 5 }));
    answered(&mut desk, &resolved("a.example.org", false));
    let mut nothing = resolved("b.example.org", false);
    nothing.outcome = AnswerOutcome::NoSuchName;
    let actions = answered(&mut desk, &nothing);
    assert_eq!(actions, [Action::Primed { generation: 5 }]);
    adopt(&mut desk, "postern:tls:a.example.org,c.example.org", 6);
    let mut actions = Vec::new();
    let primed = Action::Primed { generation: 6 };
    desk.tick(NOW + 1_999, &mut actions);
    assert!(!actions.contains(&primed));
    desk.tick(NOW + 2_000, &mut actions);
    assert!(actions.contains(&primed));
}

#[test]
fn a_packets_own_look_up_does_not_end_the_wait_for_a_name_that_is_being_primed() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:a.example.org", 1);
    miss(&mut desk, "a.example.org", 1, NOW);
    let mut late = resolved("a.example.org", true);
    late.outcome = AnswerOutcome::TimedOut;
    answered(&mut desk, &late);
    let name = Name::parse(b"a.example.org").unwrap();
    assert_eq!(desk.store.is_known(&name), Known::Priming);
    tick(&mut desk, NOW + 2_000);
    assert_eq!(desk.store.is_known(&name), Known::Failed);
}

#[test]
fn name_that_leaves_the_policy_is_unbound_at_once() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:a.example.org", 1);
    answered(&mut desk, &resolved("a.example.org", false));
    let name = Name::parse(b"a.example.org").unwrap();
    let now = inspect::Time {
        mono_ms: NOW,
        unix_ms: 0,
    };
    assert!(desk.store.is_bound(&name, IpAddr::from([8, 8, 8, 8]), now));
    let actions = adopt(&mut desk, "postern:tls:b.example.org", 2);
    assert!(!desk.store.is_bound(&name, IpAddr::from([8, 8, 8, 8]), now));
    let gone = ToWitness::Unwatch {
        names: vec!["a.example.org".to_owned()],
    };
    assert!(actions.contains(&Action::Tell(gone)));
    answered(&mut desk, &resolved("a.example.org", false));
    assert!(
        !desk.store.is_bound(&name, IpAddr::from([8, 8, 8, 8]), now),
        "a late answer"
    );
}

#[test]
fn look_up_that_is_never_answered_ends_as_failed() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:a.example.org", 1);
    let mut actions = Vec::new();
    desk.tick(NOW, &mut actions);
    ask(&mut desk, "a.example.org", 1, NOW);
    assert_eq!(desk.next_tick_ms(), NOW + 900);
    desk.tick(NOW + 900, &mut actions);
    assert_eq!(answers(&actions), [Answer::Failed]);
}

#[test]
fn restarted_witness_is_told_everything_again() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:a.example.org", 1);
    ask(&mut desk, "a.example.org", 1, NOW);
    let mut actions = Vec::new();
    desk.greet(&mut actions);
    assert!(matches!(actions[0], Action::Tell(ToWitness::Configure(_))));
    assert!(matches!(&actions[1], Action::Tell(ToWitness::Watch { names }) if names.len() == 1));
    assert_eq!(lookups(&actions), 1);
}

fn tick(desk: &mut Desk, now_ms: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    desk.tick(now_ms, &mut actions);
    actions
}

fn used(desk: &mut Desk, name: &str, now_ms: u64) -> Vec<Action> {
    let (name, addr) = (
        Name::parse(name.as_bytes()).unwrap(),
        IpAddr::from([8, 8, 8, 8]),
    );
    let now = inspect::Time {
        mono_ms: now_ms,
        unix_ms: 0,
    };
    let mut actions = Vec::new();
    if desk.store.note_judged(&name, addr, now) {
        desk.used(&name, addr, now_ms, &mut actions);
    }
    actions
}

fn watch(watch: bool, name: &str) -> Action {
    let names = vec![name.to_owned()];
    Action::Tell(if watch {
        ToWitness::Watch { names }
    } else {
        ToWitness::Unwatch { names }
    })
}

#[test]
fn only_names_used_in_the_last_day_are_asked_about_at_their_time_to_live() {
    const DAY: u64 = 86_400_000;
    let mut desk = desk();
    let actions = adopt(&mut desk, "postern:tls:a.example.org", 1);
    assert!(
        actions.contains(&watch(true, "a.example.org")),
        "it is primed"
    );
    answered(&mut desk, &resolved("a.example.org", false));
    let actions = tick(&mut desk, NOW + 1);
    assert!(
        actions.contains(&watch(false, "a.example.org")),
        "nobody uses it"
    );
    let actions = used(&mut desk, "a.example.org", NOW + 2);
    assert_eq!(actions, [watch(true, "a.example.org")]);
    answered(&mut desk, &resolved("a.example.org", false));
    assert!(!tick(&mut desk, NOW + DAY).contains(&watch(false, "a.example.org")));
    tick(&mut desk, NOW + DAY + 31_000);
    let actions = tick(&mut desk, NOW + DAY + 31_001);
    assert!(actions.contains(&watch(false, "a.example.org")));
}

/// An answer with `count` addresses from `first` on, put together of three that differed.
fn rotating(name: &str, first: u8, count: u8, asked: bool) -> AnswerV1 {
    let mut answer = resolved(name, asked);
    answer.addresses = (first..first + count)
        .map(|last| SightingV1 {
            address: IpAddr::from([8, 8, 8, last]),
            ttl_s: 5,
            hint: false,
            source: 0,
        })
        .collect();
    let source = ipc::witness::SourceV1 {
        upstream: "203.0.113.53:53".to_owned(),
        record_type: "A".to_owned(),
    };
    answer.sources = vec![source; 3];
    answer
}

#[test]
fn a_packet_waits_while_a_name_that_rotates_brings_new_addresses() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:cdn.example.org", 1);
    answered(&mut desk, &rotating("cdn.example.org", 1, 8, false));
    answered(&mut desk, &rotating("cdn.example.org", 9, 8, false));
    // The first answers differed, so it is being sampled already; this packet's question comes on top.
    let actions = ask(&mut desk, "cdn.example.org", 1, NOW);
    assert_eq!((actions.len(), lookups(&actions)), (1, 1));
    let first = answered(&mut desk, &rotating("cdn.example.org", 30, 8, true));
    assert_eq!(answers(&first), [Answer::Partial]);
    let urgent = |action: &Action| matches!(action, Action::Tell(ToWitness::Sample(sample)) if sample.urgent);
    assert!(tick(&mut desk, NOW).iter().any(urgent));
    let more = answered(&mut desk, &rotating("cdn.example.org", 20, 20, false));
    assert_eq!(answers(&more), [Answer::Partial]);
    let over = tick(&mut desk, NOW + 900);
    assert_eq!(
        answers(&over),
        [Answer::Unsettled],
        "dropped in silence, not refused"
    );
    // The retransmission waits again, although a second has not passed.
    assert_eq!(ask(&mut desk, "cdn.example.org", 1, NOW + 950), []);
    for _ in 0..60 {
        answered(&mut desk, &rotating("cdn.example.org", 20, 20, false));
    }
    assert_eq!(desk.waiting.len(), 0, "nothing new: it has settled");
}

#[test]
fn what_was_bound_before_a_restart_is_bound_again_where_the_policy_still_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bindings.jsonl");
    let now = inspect::Time {
        mono_ms: NOW,
        unix_ms: 1_800_000_000_000,
    };
    let mut before = desk();
    adopt(
        &mut before,
        "postern:tls:a.example.org,b.example.org,*.example.net",
        1,
    );
    ask(&mut before, "x.example.net", 1, NOW);
    for name in ["a.example.org", "b.example.org", "x.example.net"] {
        answered(&mut before, &resolved(name, true));
    }
    crate::bindings::save(&path, &before.store, now).unwrap();
    let mut after = desk();
    after.saved = Some(crate::bindings::load(&path, now).unwrap());
    let actions = adopt(&mut after, "postern:tls:a.example.org,*.example.net", 2);
    assert!(
        actions.contains(&Action::Primed { generation: 2 }),
        "nothing to wait for"
    );
    let bound = |name: &str| {
        let name = Name::parse(name.as_bytes()).unwrap();
        after.store.is_bound(&name, IpAddr::from([8, 8, 8, 8]), now)
    };
    assert_eq!(
        (
            bound("a.example.org"),
            bound("x.example.net"),
            bound("b.example.org")
        ),
        (true, true, false)
    );
}

#[test]
fn binding_says_which_resolver_named_its_address() {
    let mut desk = desk();
    adopt(&mut desk, "postern:tls:api.example.org", 1);
    let source = |upstream: &str| ipc::witness::SourceV1 {
        upstream: upstream.to_owned(),
        record_type: "A".to_owned(),
    };
    let mut answer = resolved("api.example.org", false);
    answer.sources = vec![source("nonsense"), source("192.0.2.53:53")];
    answer.addresses[0].source = 1;
    answered(&mut desk, &answer);
    let name = Name::parse(b"api.example.org").unwrap();
    let found = desk.store.bindings_of(&name, None, NOW, 8);
    assert_eq!(found[0].resolver.as_deref(), Some("192.0.2.53:53"));
}
