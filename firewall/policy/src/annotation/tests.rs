use super::*;
use crate::preferences::WildcardExposure;

const PIN: &str = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";

fn permissive() -> Preferences {
    Preferences {
        plaintext_http: PlaintextHttp::AllowListed,
        address_rules: AddressRules::Allow,
        ..Preferences::default()
    }
}

fn site(preferences: &Preferences) -> Site<'_> {
    Site {
        object: "sg-1",
        rule: Some("sgr-1"),
        transport: Some(RuleTransport::Tcp),
        cidr: None,
        standing: Standing::Active,
        preferences,
    }
}

fn read_at(text: &str, site: &Site<'_>) -> Reading {
    read(text, site, &mut |reference| {
        Err(format!("no list {reference}"))
    })
}

fn read_plain(text: &str) -> Reading {
    read_at(text, &site(&permissive()))
}

/// What a reading allows, each entry as its author would write it.
fn allowed(reading: &Reading) -> Vec<String> {
    reading
        .entries
        .iter()
        .map(|entry| match entry {
            Entry::Name {
                kind,
                name,
                host_key: None,
                ..
            } => format!("{kind}:{name}"),
            Entry::Name {
                kind,
                name,
                host_key: Some(pin),
                ..
            } => format!("{kind}:{name}={pin}"),
            Entry::Pattern { kind, pattern, .. } => format!("{kind}:{pattern}"),
            Entry::Address { comment } => format!("address:{}", comment.as_deref().unwrap_or("")),
            Entry::SeeThru { until } => format!("see-thru:{until}"),
        })
        .collect()
}

/// Where and what is wrong.
fn faults(reading: &Reading) -> Vec<(usize, FaultKind)> {
    reading
        .faults
        .iter()
        .map(|fault| (fault.column.unwrap_or(0), fault.kind))
        .collect()
}

#[test]
fn both_prefixes_mean_the_same() {
    for prefix in [
        "postern",
        "discriminat",
        "Postern",
        "DISCRIMINAT",
        " postern ",
    ] {
        let reading = read_plain(&format!("{prefix}:tls:api.example.com"));
        assert_eq!(allowed(&reading), ["tls:api.example.com"], "{prefix}");
        assert_eq!(reading.faults, []);
    }
}

#[test]
fn the_incumbents_tls_annotation_is_read() {
    let reading = read_plain("discriminat:tls:api.example.com,www.example.com");
    assert_eq!(
        allowed(&reading),
        ["tls:api.example.com", "tls:www.example.com"]
    );
    assert_eq!(reading.faults, []);
}

#[test]
fn the_incumbents_ssh_annotation_is_read() {
    let reading = read_plain("discriminat:ssh:git.example.com,sftp.example.com");
    assert_eq!(
        allowed(&reading),
        ["ssh:git.example.com", "ssh:sftp.example.com"]
    );
    assert_eq!(reading.faults, []);
}

#[test]
fn the_incumbents_see_thru_annotation_is_read() {
    for (text, until) in [
        ("discriminat:see-thru:2027-01-31", "see-thru:2027-01-31"),
        ("discriminat:see-thru:2027-1-1", "see-thru:2027-01-01"),
    ] {
        let reading = read_plain(text);
        assert_eq!(allowed(&reading), [until]);
        assert_eq!(reading.faults, []);
    }
}

#[test]
fn the_incumbents_wildcards_stay_within_a_label() {
    let reading = read_plain("discriminat:tls:*.github.com,d?.example.com");
    assert_eq!(
        allowed(&reading),
        ["tls:*.github.com", "tls:d?.example.com"]
    );
    assert_eq!(reading.faults, []);
    let matches = |host: &str| {
        let name = Name::parse(host.as_bytes()).unwrap();
        reading.entries.iter().any(|entry| match entry {
            Entry::Pattern { pattern, .. } => pattern.matches(&name),
            Entry::Name { .. } | Entry::Address { .. } | Entry::SeeThru { .. } => false,
        })
    };
    assert!(matches("api.github.com") && matches("d1.example.com"));
    assert!(!matches("a.b.github.com") && !matches("d.example.com") && !matches("d12.example.com"));
}

#[test]
fn every_kind_is_read() {
    for (text, expected) in [
        (
            "postern:tls:a.example.com,*.example.org",
            vec!["tls:a.example.com", "tls:*.example.org"],
        ),
        ("postern:SSH:git.example.com", vec!["ssh:git.example.com"]),
        ("postern:http:deb.example.com", vec!["http:deb.example.com"]),
        ("postern:see-thru:2027-1-2", vec!["see-thru:2027-01-02"]),
        (
            "postern:See-Thru: 2027-01-02 # until the audit",
            vec!["see-thru:2027-01-02"],
        ),
    ] {
        let reading = read_plain(text);
        assert_eq!(allowed(&reading), expected, "{text}");
        assert_eq!(reading.faults, [], "{text}");
    }
}

#[test]
fn white_space_around_entries_and_a_comment_are_tolerated() {
    let reading =
        read_plain(" postern : tls :  a.example.com ,\tb.example.com  # CHG-12, c.example");
    assert_eq!(
        allowed(&reading),
        ["tls:a.example.com", "tls:b.example.com"]
    );
    assert_eq!(reading.faults, []);
}

#[test]
fn a_hash_without_space_before_it_is_no_comment() {
    let reading = read_plain("postern:tls:a.example.com#b,c.example.com");
    assert_eq!(allowed(&reading), ["tls:c.example.com"]);
    assert_eq!(faults(&reading), [(13, FaultKind::InvalidName)]);
}

#[test]
fn a_description_without_our_prefix_is_no_annotation() {
    for text in [
        "",
        "HTTPS out",
        "postern",
        "postren:tls:a.example",
        "see postern:tls:a.example",
        ":",
    ] {
        assert_eq!(read_plain(text), Reading::default(), "{text:?}");
    }
}

#[test]
fn one_bad_annotation_spares_the_rest() {
    let text = "postern:tls:a.example.com,b..com,*.github.io,10.0.0.1,,bücher.example,\
        https://c.example/,d.example.com,@,e.example.com=SHA256:x,f.example.com.,g.example.com";
    let reading = read_plain(text);
    assert_eq!(
        allowed(&reading),
        [
            "tls:a.example.com",
            "tls:d.example.com",
            "tls:g.example.com"
        ]
    );
    assert_eq!(
        faults(&reading),
        [
            (27, FaultKind::InvalidName),
            (34, FaultKind::WildcardExposure),
            (46, FaultKind::IpLiteral),
            (55, FaultKind::EmptyEntry),
            (56, FaultKind::InvalidName),
            (71, FaultKind::InvalidName),
            (104, FaultKind::InvalidListReference),
            (106, FaultKind::InvalidHostKey),
            (129, FaultKind::InvalidName),
        ]
    );
    for fault in &reading.faults {
        let column = fault.column.unwrap() - 1;
        let at: String = text
            .chars()
            .skip(column)
            .take(fault.text.chars().count())
            .collect();
        assert_eq!(at, fault.text, "the column points at the entry");
        assert_eq!(
            (fault.object.as_str(), fault.rule.as_deref()),
            ("sg-1", Some("sgr-1"))
        );
    }
}

#[test]
fn the_public_suffix_refusal_is_worded_as_the_incumbents() {
    let reading = read_plain("discriminat:tls:*.github.io");
    assert_eq!(
        reading.faults[0].detail,
        "publicsuffix[.]org list matched with `github.io`"
    );
    assert_eq!(reading.faults[0].text, "*.github.io");
}

#[test]
fn wildcard_exposure_decides_about_patterns() {
    for (exposure, expected) in [
        (WildcardExposure::None, vec![]),
        (
            WildcardExposure::ProhibitAsterisk,
            vec!["tls:d?.example.com"],
        ),
        (
            WildcardExposure::ProhibitPublicSuffix,
            vec!["tls:d?.example.com", "tls:*.example.com"],
        ),
        (
            WildcardExposure::Nuclear,
            vec!["tls:d?.example.com", "tls:*.example.com", "tls:*.github.io"],
        ),
    ] {
        let preferences = Preferences {
            wildcard_exposure: exposure,
            ..permissive()
        };
        let text = "postern:tls:d?.example.com,*.example.com,*.github.io";
        let reading = read_at(text, &site(&preferences));
        assert_eq!(allowed(&reading), expected, "{exposure}");
        assert_eq!(reading.entries.len() + reading.faults.len(), 3);
    }
}

#[test]
fn only_ssh_names_carry_host_keys() {
    let reading = read_plain(&format!(
        "postern:ssh:github.com={PIN},git.example.com = {PIN}"
    ));
    assert_eq!(
        allowed(&reading),
        [
            format!("ssh:github.com={PIN}"),
            format!("ssh:git.example.com={PIN}")
        ]
    );
    for text in [
        format!("postern:tls:github.com={PIN}"),
        "postern:ssh:github.com=SHA256:short".to_owned(),
        format!("postern:ssh:github.com={PIN}="),
        format!("postern:ssh:*.example.com={PIN}"),
    ] {
        let reading = read_plain(&text);
        assert_eq!(
            (reading.entries.len(), reading.faults.len()),
            (0, 1),
            "{text}"
        );
    }
}

#[test]
fn unknown_kinds_and_dates_are_faults_at_their_column() {
    for (text, column, kind) in [
        ("postern:", 9, FaultKind::UnknownKind),
        ("postern:tsl:a.example.com", 9, FaultKind::UnknownKind),
        ("postern: allow everything", 10, FaultKind::UnknownKind),
        ("postern:tls", 12, FaultKind::EmptyEntry),
        ("postern:tls:", 13, FaultKind::EmptyEntry),
        ("postern:see-thru", 9, FaultKind::InvalidDate),
        ("postern:see-thru:", 18, FaultKind::InvalidDate),
        ("postern:see-thru:2027-02-30", 18, FaultKind::InvalidDate),
        ("postern:see-thru:never", 18, FaultKind::InvalidDate),
    ] {
        let reading = read_plain(text);
        assert!(
            reading.is_annotation && reading.entries.is_empty(),
            "{text}"
        );
        assert_eq!(faults(&reading), [(column, kind)], "{text}");
    }
}

#[test]
fn a_kind_its_rules_protocol_cannot_carry_is_a_fault() {
    let preferences = permissive();
    let verdict = |kind: &str, transport: Option<RuleTransport>| {
        let entry = if kind == "see-thru" {
            "2027-01-01"
        } else {
            "a.example.com"
        };
        let site = Site {
            transport,
            cidr: Some("192.0.2.0/24".parse().unwrap()),
            ..site(&preferences)
        };
        read_at(&format!("postern:{kind}:{entry}"), &site)
            .faults
            .first()
            .map(|fault| fault.kind)
    };
    for kind in ["tls", "ssh", "http", "address", "see-thru"] {
        assert_eq!(
            verdict(kind, Some(RuleTransport::Tcp)),
            None,
            "{kind} on tcp"
        );
        assert_eq!(
            verdict(kind, Some(RuleTransport::All)),
            None,
            "{kind} on all"
        );
        assert_eq!(
            verdict(kind, None),
            Some(FaultKind::Protocol),
            "{kind} on another protocol"
        );
    }
    for kind in ["tls", "address", "see-thru"] {
        assert_eq!(
            verdict(kind, Some(RuleTransport::Udp)),
            None,
            "{kind} on udp"
        );
    }
    for kind in ["ssh", "http"] {
        assert_eq!(
            verdict(kind, Some(RuleTransport::Udp)),
            Some(FaultKind::Protocol)
        );
    }
}

#[test]
fn annotations_on_rules_that_allow_nothing_are_faults() {
    let preferences = permissive();
    for (standing, kind) in [
        (Standing::Ingress, FaultKind::IngressRule),
        (Standing::Deny, FaultKind::DenyRule),
        (Standing::Disabled, FaultKind::DisabledRule),
    ] {
        let site = Site {
            standing,
            ..site(&preferences)
        };
        let reading = read_at("postern:tls:a.example.com,b..com", &site);
        assert_eq!(reading.entries, []);
        assert_eq!(faults(&reading), [(9, kind)]);
        assert_eq!(
            read_at("HTTPS in", &site),
            Reading::default(),
            "not every rule is ours"
        );
    }
}

#[test]
fn http_and_address_work_only_while_preferences_let_them() {
    let preferences = Preferences::default();
    let site = Site {
        cidr: Some("192.0.2.0/24".parse().unwrap()),
        ..site(&preferences)
    };
    let http = read_at("postern:http:deb.example.com", &site);
    assert_eq!(faults(&http), [(9, FaultKind::PlaintextHttp)]);
    let address = read_at("postern:address", &site);
    assert_eq!(faults(&address), [(9, FaultKind::AddressRules)]);
    assert!(http.entries.is_empty() && address.entries.is_empty());
}

#[test]
fn an_address_annotation_needs_a_narrow_cidr() {
    let preferences = permissive();
    for (cidr, accepted) in [
        (Some("192.0.2.0/24"), true),
        (Some("192.0.2.7/32"), true),
        (Some("192.0.2.0/23"), false),
        (Some("0.0.0.0/0"), false),
        (Some("2001:db8:1::/48"), true),
        (Some("2001:db8::/47"), false),
        (None, false),
    ] {
        let cidr = cidr.map(|text| text.parse().unwrap());
        let reading = read_at(
            "postern:address",
            &Site {
                cidr,
                ..site(&preferences)
            },
        );
        assert_eq!(reading.entries.len(), usize::from(accepted), "{cidr:?}");
        assert!(
            accepted || faults(&reading) == [(9, FaultKind::AddressPrefix)],
            "{cidr:?}"
        );
    }
}

#[test]
fn an_address_annotation_may_carry_a_comment() {
    let preferences = permissive();
    let site = Site {
        cidr: Some("192.0.2.7/32".parse().unwrap()),
        ..site(&preferences)
    };
    for (text, comment) in [
        ("postern:address", ""),
        ("postern:address:", ""),
        (
            "postern:address:partner, no DNS: SMTP # CHG-1",
            "partner, no DNS: SMTP",
        ),
    ] {
        let reading = read_at(text, &site);
        assert_eq!(allowed(&reading), [format!("address:{comment}")], "{text}");
    }
}

#[test]
fn lists_are_asked_for_once_per_reference_and_add_up() {
    let preferences = permissive();
    let mut asked = Vec::new();
    let text = "postern:tls:@postern-a, b.example.com, @secret:c,@arn:aws:ssm:r:1:parameter/d,\
        @projects/p/secrets/e, @absent";
    let reading = read(text, &site(&preferences), &mut |reference| {
        asked.push(reference.to_string());
        if *reference == ListReference::Named("absent".to_owned()) {
            return Err("access denied".to_owned());
        }
        Ok(format!("host{}.example.com\nbad..name", asked.len()).into())
    });
    assert_eq!(
        asked,
        [
            "postern-a",
            "secret:c",
            "arn:aws:ssm:r:1:parameter/d",
            "projects/p/secrets/e",
            "absent"
        ]
    );
    assert_eq!(references(text).len(), 5);
    assert_eq!(
        allowed(&reading),
        [
            "tls:host1.example.com",
            "tls:b.example.com",
            "tls:host2.example.com",
            "tls:host3.example.com",
            "tls:host4.example.com",
        ]
    );
    assert_eq!(reading.entries[0].list(), Some("postern-a"));
    assert_eq!(reading.entries[1].list(), None);
    assert_eq!(reading.faults.len(), 5);
    assert_eq!(reading.faults[0].line, Some(2));
    assert_eq!(reading.faults[0].object, "sg-1");
    assert_eq!(reading.faults[4].kind, FaultKind::ListUnreadable);
    assert_eq!(reading.faults[4].detail, "access denied");
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let reading = read_plain("postern:tls:bücher.example,b..example");
    assert_eq!(faults(&reading)[1], (28, FaultKind::InvalidName));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_panic_and_columns_stay_inside(text in "\\PC{0,80}", kind in 0..5_usize) {
        let kind = ["", "tls:", "ssh:", "see-thru:", "address:"][kind];
        let text = format!("postern:{kind}{text}");
        let reading = read_plain(&text);
        for fault in &reading.faults {
            let column = fault.column.unwrap();
            proptest::prop_assert!(column >= 1 && column <= text.chars().count() + 1);
        }
        lint(&text, Cloud::Aws, None);
        references(&text);
    }
}
