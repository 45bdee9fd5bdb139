//! A description, under preferences that let everything through: whatever the text, each fault points
//! into it, and what is allowed is something its rule can carry.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::annotation::{Cloud, Site, Standing, lint, read, references};
use policy::preferences::{AddressRules, PlaintextHttp, WildcardExposure};
use policy::{Entry, Kind, Preferences, RuleTransport};

fuzz_target!(|text: &str| {
    let preferences = Preferences {
        wildcard_exposure: WildcardExposure::Nuclear,
        plaintext_http: PlaintextHttp::AllowListed,
        address_rules: AddressRules::Allow,
        ..Preferences::default()
    };
    for transport in [None, Some(RuleTransport::Tcp), Some(RuleTransport::Udp)] {
        let site = Site {
            object: "sg-1",
            rule: Some("sgr-1"),
            transport,
            cidr: "192.0.2.0/24".parse().ok(),
            standing: Standing::Active,
            preferences: &preferences,
        };
        let mut asked = Vec::new();
        let reading = read(text, &site, &mut |list| {
            asked.push(list.clone());
            Ok("listed.example.com".into())
        });
        assert!(reading.is_annotation || reading.entries.len() + reading.faults.len() == 0);
        assert!(transport.is_some() || reading.entries.is_empty());
        if transport == Some(RuleTransport::Tcp) {
            assert_eq!(references(text), asked);
        }
        for fault in &reading.faults {
            let column = fault.column.expect("a fault of a description has a column");
            assert!(column >= 1 && column <= text.chars().count() + 1);
        }
        let ssh_on_udp = |entry: &Entry| {
            matches!(entry, Entry::Name { kind: Kind::Ssh | Kind::Http, .. })
                && transport == Some(RuleTransport::Udp)
        };
        assert!(!reading.entries.iter().any(ssh_on_udp));
        lint(text, Cloud::Aws, Some(&site));
    }
});
