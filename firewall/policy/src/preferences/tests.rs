use super::*;

fn read(text: &str) -> (Preferences, Vec<Fault>) {
    Preferences::read_json(text, &Preferences::default()).unwrap()
}

#[test]
fn an_empty_scope_is_the_defaults() {
    assert_eq!(
        read(r#"{"%default": {}}"#),
        (Preferences::default(), Vec::new())
    );
}

#[test]
fn the_incumbents_own_document_is_the_defaults() {
    let document = r#"{"%default": {"wildcard_exposure": "prohibit_public_suffix",
        "flow_log_verbosity": "full", "see_thru": null, "x509_crls": "ignore"}}"#;
    assert_eq!(read(document), (Preferences::default(), Vec::new()));
}

/// Each value of a key of the incumbent's document is taken, and is what is in force.
fn takes(key: &str, values: &[&str]) {
    for value in values {
        let (preferences, faults) = read(&format!(r#"{{"%default": {{"{key}": {value}}}}}"#));
        assert_eq!(faults, [], "{key}: {value}");
        let pairs = preferences.pairs();
        let found = pairs.into_iter().find(|(known, _)| *known == key).unwrap();
        let expected = value.trim_matches('"');
        assert_eq!(found.1, expected, "{key}");
    }
}

#[test]
fn the_incumbents_wildcard_exposure_is_taken() {
    let values = [
        r#""none""#,
        r#""prohibit_asterisk""#,
        r#""prohibit_public_suffix""#,
        r#""nuclear""#,
    ];
    takes("wildcard_exposure", &values);
}

#[test]
fn the_incumbents_flow_log_verbosity_is_taken() {
    let values = [r#""full""#, r#""only_disallowed""#, r#""none""#];
    takes("flow_log_verbosity", &values);
}

#[test]
fn the_incumbents_see_thru_is_taken() {
    takes("see_thru", &["null", r#""2026-01-19""#]);
}

#[test]
fn the_incumbents_x509_crls_is_taken() {
    takes("x509_crls", &[r#""ignore""#, r#""allow""#]);
}

#[test]
fn every_key_takes_every_value_of_the_documentation() {
    for (key, values) in [
        (
            "wildcard_exposure",
            vec!["none", "prohibit_asterisk", "nuclear"],
        ),
        (
            "flow_log_verbosity",
            vec!["full", "sessions", "only_disallowed", "none"],
        ),
        ("x509_crls", vec!["ignore", "allow"]),
        ("certificate_check", vec!["observe", "enforce", "off"]),
        ("address_mismatch", vec!["refuse", "observe"]),
        ("ech", vec!["refuse", "allow_outer"]),
        ("plaintext_http", vec!["refuse", "allow_listed"]),
        ("address_rules", vec!["refuse", "allow"]),
        ("quic", vec!["refuse", "inspect"]),
        ("on_policy_change", vec!["end_refused", "keep"]),
        ("dns_front", vec!["off", "enforce", "observe"]),
        ("see_thru", vec!["2027-01-31"]),
    ] {
        for value in values {
            let (preferences, faults) = read(&format!(r#"{{"%default": {{"{key}": "{value}"}}}}"#));
            assert_eq!(faults, []);
            let pair = preferences
                .pairs()
                .into_iter()
                .find(|(k, _)| *k == key)
                .unwrap();
            assert_eq!(pair.1, value, "{key}");
        }
    }
}

#[test]
fn lists_are_prefixes_and_zones() {
    let (preferences, faults) = read(
        r#"{"%default": {"allow_private_answers": ["10.1.0.0/16", "fd00::7"],
            "internal_zones": ["Corp.Example", "internal"]}}"#,
    );
    assert_eq!(faults, []);
    assert_eq!(
        joined(&preferences.allow_private_answers),
        "10.1.0.0/16,fd00::7/128"
    );
    assert_eq!(joined(&preferences.internal_zones), "corp.example,internal");
}

#[test]
fn an_invalid_value_keeps_that_keys_last_good_one_and_no_other() {
    let previous = Preferences {
        quic: Quic::Inspect,
        ech: Ech::AllowOuter,
        see_thru: Some(Date::parse("2027-01-31").unwrap()),
        ..Preferences::default()
    };
    let document = r#"{"%default": {"quic": "maybe", "see_thru": "2027-02-30",
        "allow_private_answers": ["10.0.0.1/8"], "certificate_check": true}}"#;
    let (preferences, faults) = Preferences::read_json(document, &previous).unwrap();
    assert_eq!(preferences.quic, Quic::Inspect);
    assert_eq!(preferences.see_thru, previous.see_thru);
    assert_eq!(
        preferences.ech,
        Ech::Refuse,
        "an absent key has its default"
    );
    assert_eq!(faults.len(), 4);
    assert!(
        faults
            .iter()
            .all(|fault| fault.kind == FaultKind::InvalidPreference)
    );
    assert!(faults.iter().all(|fault| fault.object == SCOPE));
}

#[test]
fn unknown_keys_and_scopes_are_ignored_with_a_fault() {
    let (preferences, faults) = read(r#"{"%default": {"colour": "blue"}, "sg-1": {}}"#);
    assert_eq!(preferences, Preferences::default());
    let texts: Vec<_> = faults.iter().map(|fault| fault.text.as_str()).collect();
    assert_eq!(texts, ["colour", "sg-1"]);
}

#[test]
fn a_document_without_the_scope_is_unreadable() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"%default": null}"#,
        r#"{"%default": []}"#,
        "{",
    ] {
        let read = Preferences::read_json(text, &Preferences::default());
        assert!(read.is_err(), "{text:?} was accepted");
    }
}

#[test]
fn pairs_name_every_key_once() {
    let pairs = Preferences::default().pairs();
    let keys: Vec<_> = pairs.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, Preferences::KEYS);
}
