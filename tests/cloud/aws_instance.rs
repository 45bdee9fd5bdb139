//! What an appliance does as an instance: a public address of its own, and the launch hook.

use e2e::cloud::{DaemonDouble, Metadata, Sidecar};
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
