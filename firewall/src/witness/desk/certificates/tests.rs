use std::sync::Arc;

use ipc::witness::{AnswerOutcome, AnswerV1, SightingV1};
use policy::Snapshot;
use policy::annotation::ListReference;
use policy::inventory::{Scope as InventoryScope, read};

use super::*;
use crate::bindings::{BindingStore, Scope};

const NAME: &str = "api.example.com";
const SERVER: &str = "8.8.8.5:443";

struct Fixture {
    desk: Desk,
    store: Arc<BindingStore>,
    now: Time,
}

impl Fixture {
    fn new(check: &str) -> Self {
        Self::with(
            check,
            CertificateSettings {
                per_second: 20,
                ..CertificateSettings::default()
            },
        )
    }

    fn with(check: &str, certificates: CertificateSettings) -> Self {
        let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
        let settings = ipc::witness::Configure {
            upstreams: Vec::new(),
            max_qps: 400,
            ipv6: true,
            anchors: None,
            authorities: String::new(),
        };
        let desk = Desk::new(settings, Arc::clone(&store), None).with_certificates(certificates);
        let now = Time {
            mono_ms: 10_000_000,
            unix_ms: 1_790_000_000_000,
        };
        let mut this = Self { desk, store, now };
        this.adopt(check, 1);
        this
    }

    fn adopt(&mut self, check: &str, generation: u64) -> Vec<Action> {
        let text = format!(
            "[preferences]\ncertificate_check = \"{check}\"\n[[group]]\nid = \"web\"\n\
             [[group.rule]]\ndescription = \"postern:tls:{NAME}\"\nprotocol = \"tcp\"\nports = \"443\"\n"
        );
        let mut no_lists = |_: &ListReference| Err("no lists".to_owned());
        let draft = read(&text, InventoryScope::Whole, &mut no_lists).unwrap();
        let policy = Arc::new(Snapshot::compile(draft, generation).unwrap());
        let mut actions = Vec::new();
        self.desk.adopt(policy, self.now.mono_ms, &mut actions);
        actions
    }

    /// A flow to a server was allowed and nothing is known of it.
    fn certify(&mut self, name: &str, server: &str) -> Vec<Action> {
        self.certify_by(name, server, true)
    }

    fn certify_by(&mut self, name: &str, server: &str, synchronised: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        let (name, server) = (parsed(name), server.parse().unwrap());
        self.desk
            .certify((&name, server), self.now, synchronised, &mut actions);
        actions
    }

    fn certified(&mut self, verdict: CertificateVerdict, lasts_s: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        let certified = CertifiedV1 {
            name: NAME.to_owned(),
            server: SERVER.parse().unwrap(),
            verdict,
            detail: "why".to_owned(),
            lasts_s,
        };
        self.desk.certified(&certified, self.now, &mut actions);
        actions
    }

    fn known(&self) -> Certificate {
        let server = SERVER.parse().unwrap();
        self.store.certificate(&parsed(NAME), server, self.now)
    }

    /// DNS says that the server's address is one of the name's for a minute from now.
    fn bind(&mut self) {
        let sighting = SightingV1 {
            address: "8.8.8.5".parse().unwrap(),
            ttl_s: 60,
            hint: false,
            source: 0,
        };
        let answer = AnswerV1 {
            name: NAME.to_owned(),
            outcome: AnswerOutcome::Resolved,
            addresses: vec![sighting],
            ttl_s: 60,
            asked: false,
            ipv6: false,
            chain: Vec::new(),
            sources: Vec::new(),
            more: false,
        };
        self.desk
            .answered(&answer, self.now.mono_ms, &mut Vec::new());
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.desk.tick(self.now.mono_ms, &mut Vec::new());
    }
}

fn parsed(name: &str) -> Name {
    Name::parse(name.as_bytes()).unwrap()
}

fn asks(actions: &[Action]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::Tell(ToWitness::Certify(_))))
}

fn ends(actions: &[Action]) -> bool {
    let distrust = Action::Distrust {
        name: parsed(NAME),
        server: SERVER.parse().unwrap(),
    };
    actions.contains(&distrust)
}

#[test]
fn server_is_asked_once_and_its_good_certificate_counts_for_an_hour_at_most() {
    let mut fixture = Fixture::new("enforce");
    assert!(asks(&fixture.certify(NAME, SERVER)));
    assert!(!asks(&fixture.certify(NAME, SERVER)), "it is under way");
    assert!(
        fixture
            .certified(CertificateVerdict::Valid, 86_400)
            .is_empty()
    );
    assert_eq!(fixture.known(), Certificate::Valid);
    assert!(!asks(&fixture.certify(NAME, SERVER)), "it is known");
    fixture.wait(3_599_000);
    assert_eq!(fixture.known(), Certificate::Valid);
    fixture.wait(1_000);
    assert!(asks(&fixture.certify(NAME, SERVER)));
    fixture.certified(CertificateVerdict::Valid, 0);
    fixture.wait(60_000);
    assert_eq!(
        fixture.known(),
        Certificate::Unasked,
        "it ends within the hour"
    );
}

#[test]
fn bad_certificate_is_said_and_ends_flows_where_it_is_enforced() {
    for (check, is_enforced) in [("enforce", true), ("observe", false)] {
        let mut fixture = Fixture::new(check);
        fixture.certify(NAME, SERVER);
        let actions = fixture.certified(CertificateVerdict::Invalid, 0);
        let said = |action: &Action| matches!(action, Action::BadCertificate { .. });
        assert!(actions.iter().any(said));
        assert_eq!(ends(&actions), is_enforced);
        assert_eq!(fixture.known(), Certificate::Invalid);
        fixture.wait(300_000);
        assert_eq!(fixture.known(), Certificate::Unasked);
        assert!(asks(&fixture.certify(NAME, SERVER)));
        let actions = fixture.certified(CertificateVerdict::Invalid, 0);
        assert!(!actions.iter().any(said), "it was said within the hour");
        assert_eq!(ends(&actions), is_enforced);
    }
}

#[test]
fn policy_that_begins_to_enforce_ends_flows_to_servers_known_to_be_bad() {
    let mut fixture = Fixture::new("observe");
    fixture.certify(NAME, SERVER);
    fixture.certified(CertificateVerdict::Invalid, 0);
    assert!(ends(&fixture.adopt("enforce", 2)));
    assert!(!ends(&fixture.adopt("enforce", 3)), "they have ended");
    assert!(!ends(&fixture.adopt("observe", 4)));
    assert!(ends(&fixture.adopt("enforce", 5)));
}

#[test]
fn certificate_that_nobody_saw_counts_against_addresses_of_history_only() {
    let mut fixture = Fixture::new("enforce");
    fixture.bind();
    fixture.certify(NAME, SERVER);
    assert!(!ends(
        &fixture.certified(CertificateVerdict::Inconclusive, 0)
    ));
    assert_eq!(fixture.known(), Certificate::Unseen);
    fixture.wait(300_000);
    assert!(asks(&fixture.certify(NAME, SERVER)));
    assert!(ends(
        &fixture.certified(CertificateVerdict::Inconclusive, 0)
    ));
}

#[test]
fn four_addresses_of_a_name_are_looked_at_within_an_hour() {
    let mut fixture = Fixture::new("observe");
    for host in 1..=4 {
        assert!(asks(&fixture.certify(NAME, &format!("8.8.8.{host}:443"))));
    }
    assert!(!asks(&fixture.certify(NAME, "8.8.8.5:443")));
    assert_eq!(fixture.known(), Certificate::Unseen);
    assert!(asks(&fixture.certify("www.example.com", "8.8.8.5:443")));
    assert!(
        asks(&fixture.certify(NAME, "8.8.8.4:8443")),
        "another port of a known one"
    );
    fixture.wait(3_600_000);
    assert!(asks(&fixture.certify(NAME, "8.8.8.5:443")));
}

#[test]
fn handshakes_of_a_second_are_bounded_and_others_come_later() {
    let mut fixture = Fixture::new("observe");
    let server = |number: u32| format!("8.8.8.{}:443", number % 250);
    let name = |number: u32| format!("n{number}.example.com");
    let asked = (0..50).filter(|n| asks(&fixture.certify(&name(*n), &server(*n))));
    assert_eq!(asked.count(), 20);
    fixture.wait(1_000);
    assert!(asks(&fixture.certify(&name(49), &server(49))));
    assert_eq!(fixture.desk.take_certificate_counts().not_asked, 30);
}

#[test]
fn nobody_is_asked_where_it_is_off() {
    let mut fixture = Fixture::new("off");
    assert!(fixture.certify(NAME, SERVER).is_empty());
    let mut fixture = Fixture::with("enforce", CertificateSettings::default());
    assert!(fixture.certify(NAME, SERVER).is_empty());
    assert_eq!(fixture.known(), Certificate::Asked);
}

#[test]
fn clock_nobody_keeps_refuses_new_certificates_and_lets_cached_ones_stand() {
    let mut fixture = Fixture::new("enforce");
    assert!(ends(&fixture.certify_by(NAME, SERVER, false)));
    assert_eq!(fixture.known(), Certificate::Invalid);
    let mut fixture = Fixture::new("enforce");
    fixture.certify(NAME, SERVER);
    fixture.certified(CertificateVerdict::Valid, 3_600);
    assert!(fixture.certify_by(NAME, SERVER, false).is_empty());
    assert_eq!(fixture.known(), Certificate::Valid);
    let mut fixture = Fixture::new("observe");
    assert!(fixture.certify_by(NAME, SERVER, false).is_empty());
    assert_eq!(fixture.known(), Certificate::Asked);
    let trusting = CertificateSettings {
        per_second: 20,
        trust_clock: true,
        ..CertificateSettings::default()
    };
    let mut fixture = Fixture::with("enforce", trusting);
    assert!(asks(&fixture.certify_by(NAME, SERVER, false)));
}

#[test]
fn what_the_witness_was_not_asked_counts_for_nothing() {
    let mut fixture = Fixture::new("enforce");
    assert!(fixture.certified(CertificateVerdict::Invalid, 0).is_empty());
    assert_eq!(fixture.known(), Certificate::Unasked);
    fixture.certify(NAME, SERVER);
    fixture.wait(15_000);
    // The process it was asked of may be gone; the next flow asks again.
    assert_eq!(fixture.known(), Certificate::Unasked);
    assert!(
        fixture
            .certified(CertificateVerdict::Valid, 3_600)
            .is_empty()
    );
    assert_eq!(fixture.known(), Certificate::Unasked);
}
