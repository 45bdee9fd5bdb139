//! Documents of this version, of others, and of none.

use super::*;

pub(super) fn document() -> SnapshotV1 {
    SnapshotV1 {
        version: VERSION,
        preferences: PreferencesV1::default(),
        groups: vec![GroupV1 {
            gid: "sg-1".into(),
            rules: vec![RuleV1 {
                rule: "sgr-1".into(),
                transport: TransportV1::Tcp,
                ports: (443, 443),
                cidr: None,
                entries: vec![EntryV1::Name {
                    kind: KindV1::Tls,
                    name: "api.example.com".into(),
                    host_key: None,
                    list: None,
                }],
            }],
        }],
        clients: vec![ClientV1 {
            net: "10.0.0.5/32".parse().unwrap(),
            instance: "i-1".into(),
            groups: vec!["sg-1".into()],
        }],
        served: vec!["10.0.0.0/8".parse().unwrap()],
        faults: Vec::new(),
    }
}

#[test]
fn a_document_of_this_version_is_read() {
    let json = document().to_json().unwrap();
    assert_eq!(read(json.as_bytes()).unwrap(), document());
}

#[test]
fn a_later_document_is_known_for_one_whatever_else_it_says() {
    for json in [
        r#"{"version":2}"#,
        r#"{"what":"ever","version":2,"groups":7}"#,
    ] {
        assert!(
            matches!(
                read(json.as_bytes()),
                Err(ReadSnapshotError::Newer { found: 2 })
            ),
            "{json}"
        );
    }
    let mut later = document();
    later.version = 2;
    let json = later.to_json().unwrap();
    assert!(matches!(
        read(json.as_bytes()),
        Err(ReadSnapshotError::Newer { found: 2 })
    ));
}

#[test]
fn a_document_before_the_first_version_is_too_old() {
    assert!(matches!(
        read(br#"{"version":0}"#),
        Err(ReadSnapshotError::Older { found: 0 })
    ));
}

#[test]
fn an_unknown_field_within_a_version_is_an_error() {
    let json = document()
        .to_json()
        .unwrap()
        .replacen("\"gid\"", "\"deny\":true,\"gid\"", 1);
    let error = read(json.as_bytes()).unwrap_err();
    assert!(!error.is_version(), "{error:?}");
    assert!(format!("{error:?}").contains("deny"), "{error:?}");
}

#[test]
fn no_prefix_of_a_document_is_a_document() {
    let json = document().to_json().unwrap();
    for cut in 0..json.len() {
        assert!(read(&json.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_stored_document_keeps_its_number_and_knows_its_version() {
    let stored = StoredV1 {
        version: VERSION,
        generation: 41,
        policy_id: "0123456789abcdef".into(),
        adopted: crate::record::Timestamp::from_unix_ms(1_795_345_705_042),
        snapshot: document(),
    };
    let json = stored.to_json().unwrap();
    assert_eq!(read_stored(&json).unwrap(), stored);
    let later = String::from_utf8(json)
        .unwrap()
        .replacen("\"version\":1", "\"version\":2", 1);
    assert!(matches!(
        read_stored(later.as_bytes()),
        Err(ReadSnapshotError::Newer { found: 2 })
    ));
}
