use std::sync::Arc;

use ipc::witness::{Configure, SightingV1};
use policy::annotation::ListReference;
use policy::inventory::{Scope as InventoryScope, read};

use super::*;
use crate::bindings::{BindingStore, Scope};

const CLIENT: &str = "10.0.0.1:5353";
const RESOLVER: &str = "198.51.100.53:5353";

const GROUPS: &str = r#"
served = ["10.0.0.0/8"]
[[client]]
address = "10.0.0.1"
instance = "web-1"
groups = ["web"]
[[client]]
address = "10.0.0.2"
groups = ["other"]
[[group]]
id = "web"
[[group.rule]]
description = "postern:tls:listed.example.org,*.wild.example.org"
protocol = "tcp"
ports = "443"
[[group]]
id = "other"
[[group.rule]]
description = "postern:tls:others.example.org"
protocol = "tcp"
ports = "443"
"#;

struct Fixture {
    desk: Desk,
    store: Arc<BindingStore>,
    asked: u64,
    now: Time,
}

impl Fixture {
    fn new(preferences: &str) -> Self {
        let settings = Configure {
            upstreams: vec!["192.0.2.53:53".to_owned()],
            max_qps: 400,
            ipv6: true,
            anchors: None,
            authorities: String::new(),
        };
        let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
        let front = FrontSettings {
            appliance: "here".into(),
            port: 1_053,
            resolvers: vec!["198.51.100.53/32".parse().unwrap()],
            record_types: vec!["TXT".to_owned()],
        };
        let desk = Desk::new(settings, Arc::clone(&store), None).with_front(front);
        let now = Time {
            mono_ms: 10_000_000,
            unix_ms: 1_790_000_000_000,
        };
        let mut this = Self {
            desk,
            store,
            asked: 0,
            now,
        };
        this.adopt(preferences, 1);
        this
    }

    fn adopt(&mut self, preferences: &str, generation: u64) -> Vec<Action> {
        let text = format!("[preferences]\n{preferences}\n");
        let (head, groups) = GROUPS.split_at(GROUPS.find("[[client]]").unwrap());
        let text = format!("{head}{text}{groups}");
        let mut no_lists = |_: &ListReference| Err("no lists".to_owned());
        let draft = read(&text, InventoryScope::Whole, &mut no_lists).unwrap();
        let policy = Arc::new(Snapshot::compile(draft, generation).unwrap());
        let mut actions = Vec::new();
        self.desk.adopt(policy, self.now.mono_ms, &mut actions);
        actions
    }

    /// Asks, and what comes of it at once.
    fn put(&mut self, from: &str, name: &str, record_type: &str) -> Vec<Action> {
        self.asked += 1;
        let asked = AskedV1 {
            id: self.asked,
            from: from.parse().unwrap(),
            name: name.to_owned(),
            record_type: record_type.to_owned(),
        };
        let mut actions = Vec::new();
        self.desk.asked(&asked, self.now, &mut actions);
        actions
    }

    fn ask(&mut self, from: &str, name: &str, record_type: &str) -> (FrontVerdict, Vec<Action>) {
        let actions = self.put(from, name, record_type);
        (actions.iter().find_map(verdict).unwrap(), actions)
    }

    fn verdict(&mut self, from: &str, name: &str) -> FrontVerdict {
        self.ask(from, name, "A").0
    }

    /// A resolver answers the last question with these addresses; what was withheld, and the line.
    fn found(&mut self, addresses: &[&str]) -> (Vec<IpAddr>, Option<DnsLineV1>) {
        let seen = |text: &&str| SightingV1 {
            address: text.parse().unwrap(),
            ttl_s: 60,
            hint: false,
            source: 0,
        };
        let found = FoundV1 {
            id: self.asked,
            rcode: "NOERROR".to_owned(),
            addresses: addresses.iter().map(seen).collect(),
            chain: vec!["edge.example.net".to_owned()],
            others: Vec::new(),
            upstream: "192.0.2.53:53".to_owned(),
            repeated: false,
        };
        let mut actions = Vec::new();
        self.desk.found(&found, self.now, &mut actions);
        let release = actions.iter().find_map(|action| {
            if let Action::Tell(ToWitness::Release(release)) = action {
                return Some(release.without.clone());
            }
            None
        });
        (release.unwrap(), line(actions))
    }

    fn is_bound(&self, name: &str, addr: &str) -> bool {
        let name = Name::parse(name.as_bytes()).unwrap();
        self.store.is_bound(&name, addr.parse().unwrap(), self.now)
    }
}

fn verdict(action: &Action) -> Option<FrontVerdict> {
    if let Action::Tell(ToWitness::Permit(permit)) = action {
        return Some(permit.verdict);
    }
    None
}

fn line(actions: Vec<Action>) -> Option<DnsLineV1> {
    actions.into_iter().find_map(|action| {
        if let Action::Log(line) = action {
            return Some(*line);
        }
        None
    })
}

#[test]
fn client_may_ask_for_what_its_own_groups_list() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    for (from, name, expected) in [
        (CLIENT, "listed.example.org", FrontVerdict::Forward),
        (CLIENT, "LISTED.example.ORG", FrontVerdict::Forward),
        (CLIENT, "a.wild.example.org", FrontVerdict::Forward),
        (CLIENT, "others.example.org", FrontVerdict::NoSuchName),
        (CLIENT, "x.listed.example.org", FrontVerdict::NoSuchName),
        (CLIENT, "a.b.wild.example.org", FrontVerdict::NoSuchName),
        (CLIENT, "192.0.2.1", FrontVerdict::NoSuchName),
        (CLIENT, "1.2.0.192.in-addr.arpa", FrontVerdict::NoSuchName),
        (CLIENT, "", FrontVerdict::NoSuchName),
        (CLIENT, "a\\000b.wild.example.org", FrontVerdict::NoSuchName),
        ("10.0.0.2:1", "others.example.org", FrontVerdict::Forward),
        ("10.0.0.2:1", "listed.example.org", FrontVerdict::NoSuchName),
        (RESOLVER, "others.example.org", FrontVerdict::Forward),
        (RESOLVER, "listed.example.org", FrontVerdict::Forward),
        (RESOLVER, "evil.example", FrontVerdict::NoSuchName),
        (RESOLVER, "Example.org", FrontVerdict::NoData),
        (RESOLVER, "org", FrontVerdict::NoData),
        (CLIENT, "example.org", FrontVerdict::NoSuchName),
        ("203.0.113.9:1", "listed.example.org", FrontVerdict::Ignore),
    ] {
        assert_eq!(fixture.verdict(from, name), expected, "{from} {name:?}");
    }
}

#[test]
fn types_that_carry_whatever_their_owner_likes_are_refused_unless_listed() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    for (record_type, expected) in [
        ("AAAA", FrontVerdict::Forward),
        ("SRV", FrontVerdict::Forward),
        ("TXT", FrontVerdict::Forward),
        ("NULL", FrontVerdict::Refuse),
        ("ANY", FrontVerdict::Refuse),
        ("TYPE65280", FrontVerdict::Refuse),
    ] {
        let (verdict, actions) = fixture.ask(CLIENT, "listed.example.org", record_type);
        assert_eq!(verdict, expected, "{record_type}");
        if expected == FrontVerdict::Refuse {
            let line = line(actions).unwrap();
            assert_eq!(line.reason.as_str(), "dns_record_type");
            assert_eq!(line.rcode.as_str(), "REFUSED");
        }
    }
}

#[test]
fn answer_leaves_when_its_addresses_are_bound_and_without_those_that_cannot_be() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    assert_eq!(
        fixture.verdict(CLIENT, "a.wild.example.org"),
        FrontVerdict::Forward
    );
    let (without, line) = fixture.found(&["45.60.0.1", "10.1.2.3", "169.254.169.254"]);
    assert!(fixture.is_bound("a.wild.example.org", "45.60.0.1"));
    assert_eq!(
        without,
        ["10.1.2.3", "169.254.169.254"].map(|text| text.parse::<IpAddr>().unwrap())
    );
    let line = line.unwrap();
    let answers: Vec<&str> = line.answers.iter().map(Text::as_str).collect();
    assert_eq!(answers, ["edge.example.net", "45.60.0.1"]);
    assert_eq!(
        (line.reason.as_str(), line.src),
        ("web", "10.0.0.1".parse().unwrap())
    );
    assert_eq!(fixture.desk.take_front_counts().withheld, 2);
}

#[test]
fn name_under_a_pattern_is_kept_as_long_as_its_asker_keeps_the_answer() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    fixture.verdict(CLIENT, "a.wild.example.org");
    fixture.found(&["45.60.0.1"]);
    // Ten minutes and the minute of the answer, less a moment.
    fixture.now.mono_ms += 659_000;
    fixture.desk.tick(fixture.now.mono_ms, &mut Vec::new());
    assert!(fixture.is_bound("a.wild.example.org", "45.60.0.1"));
    fixture.now.mono_ms += 2_000 + 30_000;
    fixture.desk.tick(fixture.now.mono_ms, &mut Vec::new());
    assert!(!fixture.is_bound("a.wild.example.org", "45.60.0.1"));
}

#[test]
fn names_under_patterns_are_learnt_few_at_a_time_and_a_resolver_speaks_for_many() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    let forwarded = |fixture: &mut Fixture, from: &str| {
        let names = (0..200).map(|n| format!("{n}-{}.wild.example.org", from.len()));
        let permitted = names.filter(|name| {
            let actions = fixture.put(from, name, "A");
            actions
                .iter()
                .any(|it| verdict(it) == Some(FrontVerdict::Forward))
        });
        permitted.count()
    };
    assert_eq!(forwarded(&mut fixture, CLIENT), 5);
    assert_eq!(forwarded(&mut fixture, RESOLVER), 20);
    // Of one client 64 questions wait, so that others find room.
    assert_eq!(fixture.desk.take_front_counts().ignored, 131);
    // As many more each second, for as long as a question waits; the rest is left without an answer.
    let mut later = Vec::new();
    for _ in 0..20 {
        fixture.now.mono_ms += 200;
        let mut actions = Vec::new();
        fixture.desk.tick_front(fixture.now, &mut actions);
        later.extend(actions.iter().filter_map(verdict));
    }
    let count = |wanted| later.iter().filter(|verdict| **verdict == wanted).count();
    assert_eq!(count(FrontVerdict::Forward), 15 + 60);
    assert_eq!(count(FrontVerdict::Ignore), 49 + 120);
    assert_eq!(fixture.desk.take_front_counts().ignored, 169);
    assert_eq!(fixture.desk.next_front_ms(), None);
}

#[test]
fn policy_that_still_covers_a_name_leaves_its_addresses_bound() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    fixture.verdict(CLIENT, "a.wild.example.org");
    fixture.found(&["45.60.0.1"]);
    fixture.adopt("dns_front = \"enforce\"", 2);
    assert!(fixture.is_bound("a.wild.example.org", "45.60.0.1"));
    // It is known, and not brought up again.
    fixture.verdict(CLIENT, "a.wild.example.org");
}

#[test]
fn answer_that_is_told_again_is_no_second_sighting() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    for (repeated, ttl_s) in [(false, 60), (true, 60), (true, 1)] {
        fixture.verdict(CLIENT, "listed.example.org");
        let seen = SightingV1 {
            address: "45.60.0.1".parse().unwrap(),
            ttl_s,
            hint: false,
            source: 0,
        };
        let found = FoundV1 {
            id: fixture.asked,
            rcode: "NOERROR".to_owned(),
            addresses: vec![seen],
            chain: Vec::new(),
            others: Vec::new(),
            upstream: "192.0.2.53:53".to_owned(),
            repeated,
        };
        fixture.desk.found(&found, fixture.now, &mut Vec::new());
    }
    // One sighting counts for ten minutes past its time to live, several for an hour.
    fixture.now.mono_ms += 659_000;
    assert!(fixture.is_bound("listed.example.org", "45.60.0.1"));
    fixture.now.mono_ms += 2_000;
    assert!(!fixture.is_bound("listed.example.org", "45.60.0.1"));
}

#[test]
fn listed_name_inside_an_internal_zone_is_bound_and_keeps_what_cannot_be() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"\ninternal_zones = [\"example.org\"]");
    assert_eq!(
        fixture.verdict(CLIENT, "a.wild.example.org"),
        FrontVerdict::Forward
    );
    let (without, _) = fixture.found(&["45.60.0.1", "10.7.7.7"]);
    assert_eq!(without, Vec::<IpAddr>::new());
    assert!(fixture.is_bound("a.wild.example.org", "45.60.0.1"));
    assert!(!fixture.is_bound("a.wild.example.org", "10.7.7.7"));
}

#[test]
fn questions_of_a_process_that_is_gone_are_forgotten() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    for number in 0..10 {
        fixture.put(CLIENT, &format!("{number}.wild.example.org"), "A");
    }
    assert!(fixture.desk.next_front_ms().is_some());
    fixture.desk.greet(&mut Vec::new());
    assert_eq!(fixture.desk.next_front_ms(), None);
    let found = FoundV1 {
        id: 1,
        rcode: "NOERROR".to_owned(),
        addresses: Vec::new(),
        chain: Vec::new(),
        others: Vec::new(),
        upstream: String::new(),
        repeated: false,
    };
    let mut actions = Vec::new();
    fixture.desk.found(&found, fixture.now, &mut actions);
    assert_eq!(actions, []);
}

#[test]
fn unknown_client_waits_and_is_told_of_once_a_second() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    let told = |actions: &[Action]| {
        actions
            .iter()
            .filter(|action| matches!(action, Action::Unknown(_)))
            .count()
    };
    let (verdict, actions) = fixture.ask("10.9.9.9:1", "listed.example.org", "A");
    assert_eq!((verdict, told(&actions)), (FrontVerdict::Ignore, 1));
    assert_eq!(
        told(&fixture.ask("10.9.9.9:1", "listed.example.org", "A").1),
        0
    );
    let scan: usize = (0..200_u8)
        .map(|n| {
            told(
                &fixture
                    .ask(&format!("10.9.8.{n}:1"), "listed.example.org", "A")
                    .1,
            )
        })
        .sum();
    assert_eq!(scan, 9);
    fixture.now.mono_ms += 1_000;
    assert_eq!(
        told(&fixture.ask("10.9.9.9:1", "listed.example.org", "A").1),
        1
    );
    // Under see-thru of the whole deployment an unknown client is as good as another.
    fixture.adopt("dns_front = \"enforce\"\nsee_thru = \"2999-12-31\"", 2);
    assert_eq!(
        fixture.verdict("10.9.9.9:1", "evil.example"),
        FrontVerdict::Forward
    );
}

#[test]
fn observing_passes_on_what_would_be_refused_and_withholds_nothing() {
    let mut fixture = Fixture::new("dns_front = \"observe\"");
    assert_eq!(
        fixture.verdict(CLIENT, "evil.example"),
        FrontVerdict::Forward
    );
    let (without, line) = fixture.found(&["10.1.2.3"]);
    assert!(without.is_empty());
    assert_eq!(
        line.unwrap().would_reason.unwrap().as_str(),
        "name_not_allowed"
    );
    assert!(
        !fixture.is_bound("evil.example", "10.1.2.3"),
        "a name nobody lists binds nothing"
    );
    assert_eq!(
        fixture.verdict(CLIENT, "listed.example.org"),
        FrontVerdict::Forward
    );
    let (without, line) = fixture.found(&["45.60.0.1", "10.1.2.3"]);
    assert!(without.is_empty() && line.unwrap().would_reason.is_none());
    assert!(fixture.is_bound("listed.example.org", "45.60.0.1"));
}

#[test]
fn refusals_have_twenty_lines_a_second_and_the_rest_is_counted() {
    let mut fixture = Fixture::new("dns_front = \"enforce\"");
    let lines = (0..50).filter(|_| line(fixture.ask(CLIENT, "evil.example", "A").1).is_some());
    assert_eq!(lines.count(), 20);
    assert_eq!(fixture.desk.take_front_counts().unlogged, 30);
    fixture.adopt("dns_front = \"enforce\"\nflow_log_verbosity = \"none\"", 2);
    fixture.now.mono_ms += 1_000;
    assert!(line(fixture.ask(CLIENT, "evil.example", "A").1).is_none());
    fixture.verdict(CLIENT, "listed.example.org");
    assert!(fixture.found(&["45.60.0.1"]).1.is_none());
}

#[test]
fn front_goes_on_and_off_with_the_policy_and_never_without_resolvers() {
    let mut fixture = Fixture::new("dns_front = \"off\"");
    assert!(!fixture.desk.listens());
    let fronts = |actions: &[Action]| -> Vec<bool> {
        let front = |action: &Action| {
            if let Action::Tell(ToWitness::Front(front)) = action {
                return Some(front.is_some());
            }
            None
        };
        actions.iter().filter_map(front).collect()
    };
    let on = fixture.adopt("dns_front = \"enforce\"", 2);
    assert_eq!((fronts(&on), fixture.desk.listens()), (vec![true], true));
    let mut greeting = Vec::new();
    fixture.desk.greet(&mut greeting);
    assert_eq!(fronts(&greeting), [true]);
    let off = fixture.adopt("dns_front = \"off\"", 3);
    assert_eq!((fronts(&off), fixture.desk.listens()), (vec![false], false));
    fixture.desk.settings.upstreams.clear();
    fixture.adopt("dns_front = \"enforce\"", 4);
    assert!(!fixture.desk.listens());
}

#[test]
fn zones_end_at_a_dot() {
    let name = |text: &str| Name::parse(text.as_bytes()).unwrap();
    let zone = name("corp.example");
    for (text, below) in [
        ("corp.example", true),
        ("db.corp.example", true),
        ("notcorp.example", false),
        ("corp.example.org", false),
    ] {
        assert_eq!(is_below(&name(text), &zone), below, "{text}");
    }
}
