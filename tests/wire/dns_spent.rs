//! What a look-up does not bring, because there is too much of it or too little time: dropped or cut, and counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::dns::Answer;
use e2e::topology::{DOUBLE, Topology};

use crate::dns_bad_input::{EVIL, Stage, serve};

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn publics(count: u32) -> impl Iterator<Item = IpAddr> {
    (0..count).map(|n| Ipv4Addr::from(0x0808_0000 + n).into())
}

/// Dials an address that no answer names, in silence or refused, until a metric is raised. No packet leaves.
fn dial_until_counted(stage: &Stage<'_>, ports: &[u16], metric: &str) {
    let given_up_at = Instant::now() + PATIENCE;
    let counted = || stage.daemon.metric(metric).unwrap() > 0.0;
    while !counted() {
        assert!(Instant::now() < given_up_at, "{metric} stays zero");
        for port in ports {
            let to = SocketAddr::new(EVIL.into(), *port);
            let reason = stage.dial(metric, to, Duration::from_millis(50));
            let expected = [None, Some("address_not_of_name"), Some("name_unresolvable")];
            assert!(expected.contains(&reason.as_deref()), "{reason:?}");
        }
    }
}

#[test]
fn answers_with_more_addresses_than_count_are_cut_and_counted() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let server = serve(&lab);
    let v6 = (0..200_u128).map(|n| Ipv6Addr::from((0x2001_4860 << 96) | n).into());
    dns.set("huge.bad.example", Answer::of(publics(4_050).chain(v6)));
    let stage = Stage::new(&lab, &dns, &[("huge.bad.example", 9_001)]);
    stage.assert_counted("postern_dns_addresses_dropped_total");
    stage.assert_serves(&server, "beside it");
}

/// Ten questions a second for the whole deployment, and twelve names that a client asks for at once.
#[test]
fn look_ups_beyond_the_budget_are_dropped_in_silence_and_counted() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let server = serve(&lab);
    let names: Vec<String> = (0..12).map(|n| format!("n{n}.bad.example")).collect();
    for name in &names {
        dns.set(name, Answer::of([Ipv4Addr::new(203, 0, 113, 23)]));
    }
    let listed: Vec<(&str, u16)> = names.iter().map(String::as_str).zip(9_001..).collect();
    let stage = Stage::with(&lab, &dns, &listed, "max_qps = 10");
    let ports: Vec<u16> = listed.iter().map(|(_, port)| *port).collect();
    dial_until_counted(&stage, &ports, "postern_dns_lookups_over_budget_total");
    stage.assert_serves(&server, "a name that is known already");
}

/// A thousand addresses, eight in an answer that takes its time: what was not learnt while a SYN waited may be one of
/// the others, so nobody is refused for it.
#[test]
fn a_name_with_more_addresses_than_are_learnt_in_time_refuses_nobody_and_is_counted() {
    let lab = Topology::new().unwrap();
    let dns = lab.double(DOUBLE).unwrap();
    let server = serve(&lab);
    let slow = Duration::from_millis(200);
    let many = Answer::of(publics(1_000)).at_a_time(8).ttl(5).delayed(slow);
    dns.set("rotating.bad.example", many);
    let stage = Stage::new(&lab, &dns, &[("rotating.bad.example", 9_001)]);
    dial_until_counted(&stage, &[9_001], "postern_dns_unsettled_total");
    stage.assert_serves(&server, "beside it");
}
