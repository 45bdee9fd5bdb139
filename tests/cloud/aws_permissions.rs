//! Least privilege: what the role may do is what is done, and every `*` has a reason.

use std::collections::BTreeSet;
use std::path::PathBuf;

use e2e::cloud::{DaemonDouble, Healthz, Metadata, Sidecar};
use e2e::wait;
use serde_json::Value;

use crate::stage::{LIMIT, Stage};

/// A file that is shipped beside cloudsync.
fn shipped(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../cloudsync/packaging/aws")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// One value or several, as IAM allows.
fn several(value: &Value) -> Vec<&str> {
    match value.as_array() {
        Some(values) => values.iter().map(|value| value.as_str().unwrap()).collect(),
        None => vec![value.as_str().unwrap()],
    }
}

/// An appliance with everything to do: two kinds of list, logs, an address, a launch hook.
fn appliance(stage: &Stage) -> Sidecar {
    let health = Healthz::start(false).unwrap().url();
    let metadata = Metadata::of(&stage.vpc, "i-1", &stage.interface).unwrap();
    let config = format!(
        "[aws]\nvpcs = [\"{}\"]\nautoscaling_group = \"postern-a\"\nlaunch_hook = \"ready\"\n\
         health = {{ url = \"{health}\", window_s = 0.4, uptime_s = 0.0 }}\n\
         [poll]\ninterval_s = 1.0\n[logs]\nlinger_s = 0.1\nretention_days = 20\n",
        stage.vpc
    );
    let mut sidecar =
        Sidecar::new(stage.folder.path(), &stage.cloud.double.url(), &config).unwrap();
    sidecar.set("AWS_EC2_METADATA_DISABLED", "false");
    sidecar.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url());
    sidecar
}

#[test]
fn the_role_may_do_exactly_what_is_done() {
    let stage = Stage::new();
    let (api, double) = (&stage.cloud.api, &stage.cloud.double);
    api.parameter("postern-team1", "one.example.com").unwrap();
    api.secret("postern-team2", "two.example.com").unwrap();
    api.elastic_ip("postern").unwrap();
    double.launching("postern-a", "ready", "i-1");
    double.scaling("postern-a", &["i-1"]);
    stage.allow("postern:tls:@postern-team1,@secret:postern-team2");
    let spool = stage.folder.path().join("spool/flow");
    std::fs::create_dir_all(&spool).unwrap();
    let now = ipc::record::Timestamp::from_unix_ms(crate::ship::now());
    let line = format!("{{\"time\":\"{now}\",\"cat\":\"client\"}}\n");
    std::fs::write(spool.join("00000001.jsonl"), line).unwrap();

    let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = appliance(&stage);
    sidecar.start().unwrap();
    daemon
        .wait_policy(LIMIT, |snapshot| crate::stage::names(snapshot).len() == 2)
        .unwrap();
    daemon.primed(1).unwrap();
    sidecar.wait_line("the launch goes on").unwrap();
    sidecar
        .wait_line("this appliance's public address")
        .unwrap();
    assert!(wait::holds(LIMIT, || daemon.shipped().len() == 1));
    // Of the days the service offers, the next.
    assert_eq!(api.retention("postern").unwrap(), Some(30));
    assert!(wait::holds(LIMIT, || double.unhealthy() == ["i-1"]));
    sidecar.command("preflight", &[]).unwrap();

    let policy = shipped("iam-policy.json");
    let statements = policy["Statement"].as_array().unwrap();
    let allowed: BTreeSet<String> = statements
        .iter()
        .flat_map(|statement| several(&statement["Action"]))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(double.used(), allowed);
}

#[test]
fn every_star_in_the_policy_has_a_reason() {
    let (policy, reasons) = (
        shipped("iam-policy.json"),
        shipped("iam-policy.reasons.json"),
    );
    let mut reasons: BTreeSet<&str> = reasons
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, reason)| reason.as_str().is_some_and(|reason| reason.len() > 20))
        .map(|(sid, _)| sid.as_str())
        .collect();
    for statement in policy["Statement"].as_array().unwrap() {
        let sid = statement["Sid"].as_str().unwrap();
        let actions = several(&statement["Action"]);
        assert!(actions.iter().all(|action| !action.contains('*')), "{sid}");
        let has_star = several(&statement["Resource"])
            .iter()
            .any(|arn| arn.contains('*'));
        assert_eq!(reasons.remove(sid), has_star, "{sid}");
    }
    assert!(reasons.is_empty(), "about nothing: {reasons:?}");
}

#[test]
fn preflight_names_each_trouble_and_one_fix() {
    let stage = Stage::new();
    let narrow = stage.allow("postern:tls:api.example.com");
    stage.cloud.double.deny("ec2:DescribeRouteTables", true);
    let output = appliance(&stage).command("preflight", &[]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |start: &str| {
        let found = text.lines().find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("no {start:?} in\n{text}"))
            .to_owned()
    };
    assert!(line("BAD  permission ec2:DescribeRouteTables").contains("iam-policy.json"));
    assert!(line("BAD  public address").contains("allocate an Elastic IP"));
    assert!(line("BAD  source/destination check").contains("--no-source-dest-check"));
    assert!(line(&format!("BAD  rule {narrow}")).contains("0.0.0.0/0"));
    for good in [
        "permission ec2:DescribeVpcs",
        "permission ssm:GetParameter",
        "permission logs:PutLogEvents",
    ] {
        line(&format!("ok   {good}"));
    }
    let json = appliance(&stage).command("preflight", &["--json"]).unwrap();
    let findings: Vec<Value> = String::from_utf8(json.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(findings.len(), text.lines().count());
    let bad = findings
        .iter()
        .filter(|finding| finding["outcome"] == "bad");
    assert!(bad.clone().count() >= 4 && bad.clone().all(|finding| finding["fix"].is_string()));
    // What cannot be looked at at all is a usage error, not a finding.
    let output = appliance(&stage)
        .command("preflight", &["--nonsense"])
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn preflight_names_a_wrong_clock_and_a_group_that_nobody_can_read() {
    let stage = Stage::new();
    stage.allow("postern:tls:api.example.com");
    let gone = stage.cloud.api.group(&stage.vpc, "gone").unwrap();
    let groups = [stage.gid.as_str(), gone.as_str()];
    stage.cloud.api.regroup(&stage.interface, &groups).unwrap();
    stage.cloud.api.delete_group(&gone).unwrap();
    stage.cloud.double.say_date("Tue, 01 Jan 2030 00:00:00 GMT");
    let output = appliance(&stage).command("preflight", &[]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let has = |start: &str, what: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(start));
        lines.any(|line| line.contains(what))
    };
    assert!(has("BAD  clock", "169.254.169.123"), "{text}");
    assert!(
        has("BAD  ", &gone) && has("BAD  ", &stage.interface),
        "{text}"
    );
}
