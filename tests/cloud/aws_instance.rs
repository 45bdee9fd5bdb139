//! What an appliance does as an instance: a public address of its own, the launch hook, and its health.

use e2e::cloud::{DaemonDouble, Healthz, Metadata, Sidecar};
use e2e::wait;

use crate::stage::{LIMIT, Stage};

/// A sidecar on an instance of its own with a fresh interface.
fn appliance(stage: &Stage, number: usize, more: &str) -> (Sidecar, String) {
    let interface = stage
        .cloud
        .api
        .interface(
            &stage.subnet,
            &format!("10.77.1.{}", 100 + number),
            &[&stage.gid],
        )
        .unwrap();
    let metadata = Metadata::of(&stage.vpc, &format!("i-{number}"), &interface).unwrap();
    let config = format!(
        "[aws]\nvpcs = [\"{}\"]\n{more}\n[poll]\ninterval_s = 5.0\n",
        stage.vpc
    );
    let folder = stage.folder.path().join(number.to_string());
    let mut sidecar = Sidecar::new(&folder, &stage.cloud.double.url(), &config).unwrap();
    sidecar.set("AWS_EC2_METADATA_DISABLED", "false");
    sidecar.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url());
    sidecar.start().unwrap();
    (sidecar, interface)
}

#[test]
fn two_instances_never_take_the_same_address() {
    let stage = Stage::new();
    let api = &stage.cloud.api;
    let only = api.elastic_ip("postern").unwrap();
    let untagged = api.elastic_ip("somebody-elses").unwrap();
    let both = [appliance(&stage, 1, ""), appliance(&stage, 2, "")];
    let got = |(sidecar, _): &(Sidecar, String)| sidecar.count("this appliance's public address");
    assert!(
        wait::holds(LIMIT, || both.iter().map(got).sum::<usize>() == 1),
        "nobody took it"
    );
    let loser = both.iter().find(|appliance| got(appliance) == 0).unwrap();
    loser
        .0
        .wait_line("this appliance has no public address")
        .unwrap();
    let owner = api.interface_of(&only).unwrap();
    let winner = both.iter().find(|appliance| got(appliance) == 1).unwrap();
    assert_eq!(owner.as_deref(), Some(winner.1.as_str()));
    // One more, tagged as the incumbent's are, is the other's as soon as it looks again.
    let second = api.elastic_ip("discriminat").unwrap();
    assert!(
        wait::holds(LIMIT, || got(loser) == 1),
        "{}",
        loser.0.output()
    );
    assert_eq!(
        api.interface_of(&second).unwrap().as_deref(),
        Some(loser.1.as_str())
    );
    assert_eq!(api.interface_of(&only).unwrap(), owner);
    assert_eq!(api.interface_of(&untagged).unwrap(), None);
}

/// What Terraform makes so is looked at, and said where it is not.
#[test]
fn an_appliance_says_that_its_interface_cannot_forward_or_has_no_public_address() {
    let stage = Stage::new();
    let (sidecar, interface) = appliance(&stage, 1, "elastic_ip = false");
    sidecar.wait_line("it is on for").unwrap();
    let output = sidecar.output();
    let fix = format!("--network-interface-id {interface} --no-source-dest-check");
    assert!(output.contains(&fix), "{output}");
    assert!(output.contains("no Elastic IP tagged postern"), "{output}");
}

#[test]
fn a_launch_goes_on_once_the_policy_is_adopted_and_primed() {
    let stage = Stage::new();
    stage.cloud.double.launching("postern-a", "ready", "i-1");
    let hook = "elastic_ip = false\nautoscaling_group = \"postern-a\"\nlaunch_hook = \"ready\"";
    let (sidecar, _) = appliance(&stage, 1, hook);
    sidecar
        .wait_line("no conversation with the daemon")
        .unwrap();
    assert!(stage.cloud.double.is_launching("i-1"), "without a policy");
    let daemon = DaemonDouble::start(&stage.folder.path().join("1")).unwrap();
    daemon
        .wait_policy(LIMIT, |snapshot| !snapshot.clients.is_empty())
        .unwrap();
    daemon.primed(1).unwrap();
    sidecar.wait_line("the launch goes on").unwrap();
    assert!(!stage.cloud.double.is_launching("i-1"));
    assert_eq!(stage.cloud.double.calls("CompleteLifecycleAction"), 1);
}

#[test]
fn a_launch_goes_on_without_a_policy_once_it_has_waited_long_enough() {
    let stage = Stage::new();
    stage.cloud.double.launching("postern-a", "ready", "i-1");
    let hook = "elastic_ip = false\nautoscaling_group = \"postern-a\"\nlaunch_hook = \"ready\"\nlaunch_wait_s = 3.0";
    let (sidecar, _) = appliance(&stage, 1, hook);
    sidecar
        .wait_line("no policy is adopted and primed yet")
        .unwrap();
    sidecar.wait_line("the launch goes on").unwrap();
    assert!(wait::holds(LIMIT, || !stage
        .cloud
        .double
        .is_launching("i-1")));
    assert_eq!(stage.cloud.double.calls("CompleteLifecycleAction"), 1);
}

/// The settings of an appliance of `group` that checks itself every 0.2 s.
fn checking(group: &str, health: &Healthz, uptime_s: f64) -> String {
    format!(
        "elastic_ip = false\nautoscaling_group = \"{group}\"\n\
         health = {{ url = \"{}\", window_s = 0.4, uptime_s = {uptime_s:.1} }}",
        health.url()
    )
}

#[test]
fn an_appliance_is_reported_when_it_stays_unhealthy_and_once() {
    let stage = Stage::new();
    let double = &stage.cloud.double;
    double.scaling("postern-a", &["i-1"]);
    let health = Healthz::start(true).unwrap();
    let (sidecar, _) = appliance(&stage, 1, &checking("postern-a", &health, 0.0));
    assert!(wait::holds(LIMIT, || health.asked() > 3));
    assert_eq!(double.calls("DescribeTags"), 0, "it is well");
    health.set(false);
    sidecar
        .wait_line("reported unhealthy, to be replaced")
        .unwrap();
    assert_eq!(double.unhealthy(), ["i-1"]);
    // Still unhealthy, and within half an hour.
    sidecar
        .wait_line("one of the deployment was just now")
        .unwrap();
    assert_eq!(double.unhealthy(), ["i-1"]);
    assert_eq!(double.calls("SetInstanceHealth"), 1);
}

#[test]
fn one_appliance_of_a_deployment_is_reported_whichever_group_it_is_of() {
    let stage = Stage::new();
    let double = &stage.cloud.double;
    double.scaling("postern-a", &["i-1"]);
    double.scaling("postern-b", &["i-2"]);
    let health = Healthz::start(false).unwrap();
    let both = [
        appliance(&stage, 1, &checking("postern-a", &health, 0.0)).0,
        appliance(&stage, 2, &checking("postern-b", &health, 0.0)).0,
    ];
    for sidecar in &both {
        sidecar
            .wait_line("one of the deployment was just now")
            .unwrap();
    }
    assert!(wait::holds(LIMIT, || double.unhealthy().len() == 1));
    assert_eq!(double.calls("SetInstanceHealth"), 1);
}

#[test]
fn a_machine_just_started_is_not_reported() {
    let stage = Stage::new();
    let double = &stage.cloud.double;
    double.scaling("postern-a", &["i-1"]);
    let health = Healthz::start(false).unwrap();
    let (_sidecar, _) = appliance(&stage, 1, &checking("postern-a", &health, 1e9));
    assert!(wait::holds(LIMIT, || health.asked() > 8));
    assert_eq!(double.calls("DescribeTags"), 0);
    assert!(double.unhealthy().is_empty());
}
