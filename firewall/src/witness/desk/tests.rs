use inspect::Why;
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
    };
    let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
    Desk::new(settings, store)
}

fn query(name: &str, client: u8) -> Query {
    Query {
        name: Name::parse(name.as_bytes()).unwrap(),
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
        Action::Tell(_) | Action::Primed { .. } | Action::Alarm { .. } => None,
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
    assert_eq!(lookups(&ask(&mut desk, "api.example.org", 1, NOW)), 1);
    let mut actions = Vec::new();
    desk.ask(3, &query("api.example.org", 2), NOW, &mut actions);
    assert_eq!(actions, []);
    let both = answered(&mut desk, &resolved("api.example.org", true));
    assert_eq!(answers(&both), [Answer::Resolved, Answer::Resolved]);
    let soon = ask(&mut desk, "api.example.org", 1, NOW + 999);
    assert_eq!(
        (lookups(&soon), answers(&soon)),
        (0, vec![Answer::Resolved])
    );
    assert_eq!(
        lookups(&ask(&mut desk, "api.example.org", 1, NOW + 1_000)),
        1
    );
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
        .flat_map(|name| ask(&mut desk, name, 1, NOW + 5_000))
        .collect();
    assert_eq!(lookups(&scan), 10, "misses of one client in one second");
    assert!(
        answers(&scan)
            .iter()
            .all(|answer| *answer == Answer::OverBudget)
    );
    assert_eq!(
        lookups(&ask(&mut desk, "n39.example.org", 2, NOW + 5_000)),
        1
    );
    assert_eq!(
        lookups(&ask(&mut desk, "n38.example.org", 1, NOW + 6_000)),
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
    desk.tick(NOW + 1_999, &mut actions);
    assert_eq!(actions, []);
    desk.tick(NOW + 2_000, &mut actions);
    assert_eq!(actions, [Action::Primed { generation: 6 }]);
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
    assert_eq!(desk.next_tick_ms(), NOW + 1_000);
    desk.tick(NOW + 1_000, &mut actions);
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
