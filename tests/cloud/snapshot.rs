//! What security groups and interfaces become.

use std::time::Duration;

use e2e::cloud::{Cloud, Metadata, Pace, Rule, Sidecar};
use ipc::snapshot::{EntryV1, KindV1, TransportV1};

use crate::stage::{LIMIT, Stage, names};

/// At the service's own pace: 300 ms a page, two items on each.
#[test]
fn egress_rules_of_the_groups_in_use_are_the_policy_that_is_published() {
    let stage = Stage::with_pace(Pace::default());
    let api = &stage.cloud.api;
    let tls = stage.allow("postern:tls:api.example.com,*.example.org");
    let ssh = Rule {
        ports: (22, 22),
        ..Rule::https("discriminat:ssh:git.example.com")
    };
    let ssh = api.allow(&stage.gid, ssh).unwrap();
    let all = Rule {
        protocol: "-1",
        ports: (-1, -1),
        ..Rule::https("postern:see-thru:2099-1-2")
    };
    let all = api.allow(&stage.gid, all).unwrap();
    stage.allow("everybody may see the time");
    let unused = api.group(&stage.vpc, "unused").unwrap();
    api.allow(&unused, Rule::https("postern:tls:unused.example.com"))
        .unwrap();

    let (daemon, _sidecar) = stage.run();
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| snapshot.groups.len() == 1)
        .unwrap()
        .snapshot;

    assert!(policy.faults.is_empty(), "{:?}", policy.faults);
    assert_eq!(
        names(&policy),
        ["*.example.org", "api.example.com", "git.example.com"]
    );
    let group = &policy.groups[0];
    assert_eq!(
        (group.gid.as_str(), group.rules.len()),
        (stage.gid.as_str(), 3)
    );
    let rule = |id: &str| group.rules.iter().find(|rule| rule.rule == id).unwrap();
    assert_eq!(
        (rule(&tls).transport, rule(&tls).ports),
        (TransportV1::Tcp, (443, 443))
    );
    assert!(matches!(
        &rule(&ssh).entries[..],
        [EntryV1::Name {
            kind: KindV1::Ssh,
            ..
        }]
    ));
    assert_eq!(
        (rule(&all).transport, rule(&all).ports),
        (TransportV1::All, (0, 65_535))
    );
    let see_thru = &rule(&all).entries[..];
    assert!(matches!(see_thru, [EntryV1::SeeThru { until }] if until == "2099-01-02"));
    assert!(
        stage.cloud.double.calls("DescribeSecurityGroupRules") >= 2,
        "one page only"
    );
    assert!(
        stage.cloud.double.refused().is_empty(),
        "{:?}",
        stage.cloud.double.refused()
    );
}

#[test]
fn every_address_of_every_interface_is_a_client() {
    let stage = Stage::new();
    let api = &stage.cloud.api;
    let other = api.group(&stage.vpc, "other").unwrap();
    api.assign(&stage.interface, "10.77.1.11").unwrap();
    let instance = api.instance(&stage.subnet, "10.77.1.20", &other).unwrap();
    api.interface(&stage.subnet, "10.77.1.30", &[&stage.gid, &other])
        .unwrap();

    let (daemon, _sidecar) = stage.run();
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| snapshot.clients.len() == 4)
        .unwrap()
        .snapshot;

    let client = |net: &str| {
        policy
            .clients
            .iter()
            .find(|client| client.net.to_string() == net)
            .unwrap()
    };
    let alone = std::slice::from_ref(&stage.gid);
    assert_eq!(client("10.77.1.10/32").instance, stage.interface);
    assert_eq!(client("10.77.1.10/32").groups, alone);
    assert_eq!(client("10.77.1.11/32").groups, alone);
    assert_eq!(client("10.77.1.20/32").instance, instance);
    assert_eq!(client("10.77.1.20/32").groups, std::slice::from_ref(&other));
    assert_eq!(client("10.77.1.30/32").groups.len(), 2);
    assert!(policy.served.contains(&"10.77.0.0/16".parse().unwrap()));
    assert!(
        stage.cloud.double.calls("DescribeNetworkInterfaces") >= 2,
        "one page only"
    );
}

/// A node of Kubernetes: pods have addresses of prefixes that are delegated to its interface, in either family.
#[test]
fn delegated_prefixes_and_ipv6_addresses_are_clients() {
    let stage = Stage::new();
    let v6 = [
        ("NetworkInterfaceId", stage.interface.as_str()),
        ("Ipv6Addresses.1", "2001:db8:77::10"),
    ];
    stage.cloud.api.ec2("AssignIpv6Addresses", &v6).unwrap();
    for prefix in ["10.77.1.16/28", "2001:db8:77:0:1::/80"] {
        stage.cloud.double.delegate(&stage.interface, prefix);
    }
    let (daemon, _sidecar) = stage.run();
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| !snapshot.clients.is_empty())
        .unwrap()
        .snapshot;
    let mut nets: Vec<String> = policy
        .clients
        .iter()
        .map(|client| client.net.to_string())
        .collect();
    nets.sort_unstable();
    let wanted = [
        "10.77.1.10/32",
        "10.77.1.16/28",
        "2001:db8:77:0:1::/80",
        "2001:db8:77::10/128",
    ];
    assert_eq!(nets, wanted);
    let mut clients = policy.clients.iter();
    assert!(clients.all(|client| client.groups == [stage.gid.clone()]));
}

#[test]
fn without_configuration_the_instances_own_vpc_is_served() {
    let stage = Stage::new();
    stage.allow("postern:tls:ours.example.com");
    let elsewhere = stage.cloud.api.vpc("10.88.0.0/16").unwrap();
    let subnet = stage.cloud.api.subnet(&elsewhere, "10.88.1.0/24").unwrap();
    let gid = stage.cloud.api.group(&elsewhere, "theirs").unwrap();
    stage
        .cloud
        .api
        .interface(&subnet, "10.88.1.10", &[&gid])
        .unwrap();
    let metadata = Metadata::start(&stage.vpc).unwrap();
    let mut sidecar = Sidecar::new(stage.folder.path(), &stage.cloud.double.url(), "").unwrap();
    sidecar.set("AWS_EC2_METADATA_DISABLED", "false");
    sidecar.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url());
    let policy = dry_run(&sidecar);
    let nets: Vec<&str> = policy["clients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|client| client["net"].as_str().unwrap())
        .collect();
    assert_eq!(nets, ["10.77.1.10/32"]);
    assert_eq!(policy["served"], serde_json::json!(["10.77.0.0/16"]));
    let (with_token, without_token) = metadata.asked();
    assert!(with_token > 0, "nothing was asked");
    assert_eq!(without_token, 0, "version 1 was asked");
}

#[test]
fn without_metadata_every_visible_vpc_is_served() {
    let stage = Stage::new();
    let elsewhere = stage.cloud.api.vpc("10.88.0.0/16").unwrap();
    let subnet = stage.cloud.api.subnet(&elsewhere, "10.88.1.0/24").unwrap();
    let gid = stage.cloud.api.group(&elsewhere, "theirs").unwrap();
    stage
        .cloud
        .api
        .interface(&subnet, "10.88.1.10", &[&gid])
        .unwrap();
    let sidecar = Sidecar::new(stage.folder.path(), &stage.cloud.double.url(), "").unwrap();
    let policy = dry_run(&sidecar);
    assert_eq!(policy["clients"].as_array().unwrap().len(), 2);
}

#[test]
fn once_prints_names_for_resolver_policies() {
    let stage = Stage::new();
    stage.allow("postern:tls:b.example.com,*.example.org");
    stage.allow("postern:tls:a.example.com");
    let output = stage
        .sidecar("")
        .once(&["--provider", "aws", "--dry-run", "--print-names"])
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "*.example.org\na.example.com\nb.example.com\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn once_says_what_is_wrong_and_exits_with_one() {
    let stage = Stage::new();
    let rule = stage.allow("postern:tls:a..b");
    let output = stage.sidecar("").once(&["--dry-run"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(&format!("{} rule {rule} column 13", stage.gid)),
        "{errors}"
    );
}

#[test]
fn unchanged_answers_publish_nothing() {
    let stage = Stage::new();
    stage.allow("postern:tls:api.example.com");
    stage.allow("postern:tls:more.example.com");
    let (daemon, _sidecar) = stage.run();
    daemon
        .wait_policy(LIMIT, |snapshot| !snapshot.clients.is_empty())
        .unwrap();
    assert!(
        stage
            .cloud
            .double
            .wait_calls("DescribeNetworkInterfaces", 4, LIMIT)
    );
    assert_eq!(daemon.published().len(), 1);
    // A comment changes the description and not the policy.
    let rules = stage
        .cloud
        .api
        .ec2("DescribeSecurityGroupRules", &[])
        .unwrap();
    let (rule, cidr) = crate::whole::rule_with(&rules, "api.example.com").unwrap();
    let commented = Rule {
        cidr: &cidr,
        ..Rule::https("postern:tls:api.example.com # for the team")
    };
    stage
        .cloud
        .api
        .describe(&stage.gid, &rule, commented)
        .unwrap();
    assert!(
        stage
            .cloud
            .double
            .wait_calls("DescribeNetworkInterfaces", 4, LIMIT)
    );
    assert_eq!(daemon.published().len(), 1);
}

#[test]
fn an_edited_description_is_published_within_the_interval_and_a_second() {
    let stage = Stage::new();
    let rule = stage.allow("postern:tls:old.example.com");
    let (daemon, _sidecar) = stage.run();
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == ["old.example.com"])
        .unwrap();
    // The best of some: a machine that runs other tests meanwhile may be late.
    let took = (1..=5).map(|turn| {
        let name = format!("new{turn}.example.com");
        let rules = format!("postern:tls:{name}");
        let edited = std::time::Instant::now();
        let api = &stage.cloud.api;
        api.describe(&stage.gid, &rule, Rule::https(&rules))
            .unwrap();
        let published = daemon
            .wait_policy(LIMIT, |snapshot| names(snapshot) == [name.as_str()])
            .unwrap();
        published.at.duration_since(edited)
    });
    let mut took = took.inspect(|took| eprintln!("{took:?}"));
    assert!(took.any(|took| took < Duration::from_millis(1_300)));
}

/// The account's own limits hold for a sidecar that reads as fast as it is allowed to by default.
#[test]
fn the_default_pace_is_never_throttled() {
    let cloud = Cloud::with_pace(Pace {
        page_items: 2,
        page_time: Duration::from_millis(1),
    })
    .unwrap();
    let vpc = cloud.api.vpc("10.77.0.0/16").unwrap();
    let subnet = cloud.api.subnet(&vpc, "10.77.1.0/24").unwrap();
    let gid = cloud.api.group(&vpc, "web").unwrap();
    for host in 10..40 {
        cloud
            .api
            .interface(&subnet, &format!("10.77.1.{host}"), &[&gid])
            .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let config = "[poll]\ninterval_s = 0.25\n";
    let daemon = e2e::cloud::DaemonDouble::start(folder.path()).unwrap();
    let mut sidecar = Sidecar::new(folder.path(), &cloud.double.url(), config).unwrap();
    let started = std::time::Instant::now();
    sidecar.start().unwrap();
    daemon
        .wait_policy(LIMIT, |snapshot| snapshot.clients.len() >= 30)
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    // Fifteen pages a reading, two calls a second: a reading begins every seven and a half seconds, less a tenth.
    let readings = started.elapsed().as_secs_f64() / 6.75;
    let calls = f64::from(cloud.double.calls("DescribeNetworkInterfaces"));
    assert!(
        calls <= 15.0 * (readings + 1.0),
        "{calls} calls for {readings} intervals"
    );
    assert_eq!(cloud.double.throttled(), 0);
}

fn dry_run(sidecar: &Sidecar) -> serde_json::Value {
    let output = sidecar.once(&["--provider", "aws", "--dry-run"]).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// A VPC may use the groups of another, and a shared subnet those of its owner.
#[test]
fn a_group_of_another_vpc_is_read_like_one_of_this() {
    let stage = Stage::new();
    let api = &stage.cloud.api;
    stage.allow("postern:tls:here.example.com");
    let elsewhere = api.vpc("10.99.0.0/16").unwrap();
    let gid = api.group(&elsewhere, "theirs").unwrap();
    api.allow(&gid, Rule::https("postern:tls:there.example.com"))
        .unwrap();
    api.regroup(&stage.interface, &[&stage.gid, &gid]).unwrap();
    let (daemon, _sidecar) = stage.run();
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| snapshot.groups.len() == 2)
        .unwrap()
        .snapshot;
    assert_eq!(names(&policy), ["here.example.com", "there.example.com"]);
    assert!(policy.faults.is_empty(), "{:?}", policy.faults);
    assert_eq!(policy.clients[0].groups.len(), 2);
    assert!(policy.clients[0].groups.contains(&gid));
}
