use super::*;

#[test]
fn empty_file_means_the_defaults() {
    assert_eq!(Config::parse("").unwrap(), Config::default());
}

#[test]
fn unknown_key_is_refused_with_its_line_and_the_nearest_key() {
    let error = Config::parse("queues = 2\n\nstat_dir = \"/x\"\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3: unknown key \"stat_dir\", did you mean \"state_dir\"?"
    );
    let nested = Config::parse("[dns]\nmax_pqs = 3\n").unwrap_err();
    assert_eq!(
        nested.to_string(),
        "line 2: unknown key \"max_pqs\", did you mean \"max_qps\"?"
    );
}

#[test]
fn value_out_of_range_is_refused_with_its_line() {
    let error = Config::parse("appliance = \"a\"\nqueues = 0\n").unwrap_err();
    assert_eq!(error.to_string(), "line 2: `queues` is 0, not 1 to 64");
}

#[test]
fn upstream_port_is_53_unless_written() {
    let config = Config::parse("[dns]\nupstreams = [\"10.0.0.2\", \"[fd00::1]:5353\"]\n").unwrap();
    let upstreams: Vec<String> = config
        .dns
        .upstreams
        .iter()
        .map(|upstream| upstream.0.to_string())
        .collect();
    assert_eq!(upstreams, ["10.0.0.2:53", "[fd00::1]:5353"]);
}

/// The file that is installed names every key, with its default or an example.
#[test]
fn packaged_configuration_lists_every_key_and_changes_nothing() {
    let text = include_str!("../../packaging/postern.toml");
    assert_eq!(Config::parse(text).unwrap(), Config::default());
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    Config::parse(&uncommented).unwrap();
    let listed: toml::Table = toml::from_str(&uncommented).unwrap();
    for table in [
        None,
        Some("spool"),
        Some("dns"),
        Some("certificates"),
        Some("users"),
    ] {
        let keys = table.map_or(&listed, |name| listed[name].as_table().unwrap());
        let probe = format!(
            "{}zzz = 1\n",
            table.map_or_else(String::new, |name| format!("[{name}]\n"))
        );
        let refused = toml::from_str::<Config>(&probe).unwrap_err();
        let expected = refused.message().split('`').skip(3).step_by(2);
        for key in expected {
            assert!(
                keys.contains_key(key),
                "{table:?} {key} is not in postern.toml"
            );
        }
    }
}

#[test]
fn empty_address_turns_a_listener_off() {
    assert_eq!(
        Config::parse("health = \"\"\n").unwrap().health,
        OptionalAddress(None)
    );
}

#[test]
fn dns_front_has_resolvers_and_more_record_types() {
    let text = "[dns]\nresolver_sources = [\"10.9.8.7\", \"35.199.192.7/19\", \"fd00::53\"]\n\
                front_record_types = [\"txt\", \"TYPE65280\", \"CAA\"]\n";
    let dns = Config::parse(text).unwrap().dns;
    let sources: Vec<String> = dns
        .resolver_sources
        .iter()
        .map(|it| it.0.to_string())
        .collect();
    assert_eq!(sources, ["10.9.8.7/32", "35.199.192.0/19", "fd00::53/128"]);
    let types: Vec<&str> = dns
        .front_record_types
        .iter()
        .map(|it| it.0.as_str())
        .collect();
    assert_eq!(types, ["TXT", "TYPE65280", "CAA"]);
    for (line, reason) in [
        (
            "resolver_sources = [\"10.9.8\"]",
            "`10.9.8` is not an address or a prefix",
        ),
        (
            "front_record_types = [\"ANY\"]",
            "`ANY` is no type of DNS records that can be passed on",
        ),
        (
            "front_record_types = [\"TEXT\"]",
            "`TEXT` is no type of DNS records that can be passed on",
        ),
    ] {
        let error = Config::parse(&format!("[dns]\n{line}\n")).unwrap_err();
        assert_eq!((error.line, error.reason.as_str()), (2, reason));
    }
}

#[test]
fn authorities_that_cannot_be_trusted_are_refused_with_their_line() {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let with = |pem: &str| Config::parse(&format!("[certificates]\nauthorities = '''\n{pem}'''\n"));
    assert_eq!(with(&pem).unwrap().certificates.authorities, pem);
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    for (pem, reason) in [
        ("hello".to_owned(), "no certificate in `authorities`"),
        (pem.clone() + garbage, "certificate 2 of `authorities`: "),
        (pem.repeat(200), "`authorities` has more than 65536 bytes"),
    ] {
        let error = with(&pem).unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.reason.starts_with(reason), "{}", error.reason);
    }
}
