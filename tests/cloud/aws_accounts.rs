//! Other accounts, read through a role they have for us.

use e2e::cloud::{DaemonDouble, Rule, Sidecar};

use crate::stage::{LIMIT, Stage, names};

const OTHER: &str = "222222222222";

/// An interface with a group of its own in another account, whose role trusts who knows `x-1`.
struct Other {
    stage: Stage,
    vpc: String,
    gid: String,
}

impl Other {
    fn new() -> Self {
        let stage = Stage::new();
        stage.allow("postern:tls:ours.example.com");
        stage.cloud.double.trust("x-1");
        let theirs = stage.cloud.api.in_account(OTHER).unwrap();
        let vpc = theirs.vpc("10.88.0.0/16").unwrap();
        let subnet = theirs.subnet(&vpc, "10.88.1.0/24").unwrap();
        let gid = theirs.group(&vpc, "theirs").unwrap();
        theirs
            .allow(&gid, Rule::https("postern:tls:theirs.example.com"))
            .unwrap();
        theirs.interface(&subnet, "10.88.1.10", &[&gid]).unwrap();
        Self { stage, vpc, gid }
    }

    /// A sidecar that has a role there, and says this external id to it.
    fn sidecar(&self, external_id: &str) -> Sidecar {
        let more = format!(
            "[[aws.accounts]]\naccount = \"{OTHER}\"\nrole = \"postern-reader\"\nvpcs = [\"{}\"]\nexternal_id = \"{external_id}\"\n",
            self.vpc
        );
        self.stage.sidecar(&more)
    }
}

#[test]
fn interfaces_and_groups_of_another_account_are_read_through_its_role() {
    let other = Other::new();
    let Other { stage, gid, .. } = &other;
    let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = other.sidecar("x-1");
    sidecar.start().unwrap();
    let both = ["ours.example.com", "theirs.example.com"];
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == both)
        .unwrap()
        .snapshot;
    assert!(policy.faults.is_empty(), "{:?}", policy.faults);
    assert!(policy.served.contains(&"10.88.0.0/16".parse().unwrap()));
    let client = policy
        .clients
        .iter()
        .find(|client| client.net == "10.88.1.10/32".parse().unwrap());
    assert_eq!(client.unwrap().groups, std::slice::from_ref(gid));

    // The role is taken from us, and what it said is in nobody's memory: no smaller policy is published.
    stage.cloud.double.deny("sts:AssumeRole", true);
    sidecar.kill().unwrap();
    sidecar.start().unwrap();
    sidecar
        .wait_line(&format!("DescribeNetworkInterfaces in account {OTHER}"))
        .unwrap();
    let calls = |action| stage.cloud.double.wait_calls(action, 2, LIMIT);
    assert!(calls("AssumeRole"), "it gave up asking");
    assert_eq!(names(&daemon.published().pop().unwrap().snapshot), both);
    stage.cloud.double.deny("sts:AssumeRole", false);
    sidecar.wait_line("readable again").unwrap();
    let is_whole = daemon.published().into_iter().skip(1);
    assert!(
        is_whole
            .clone()
            .all(|published| names(&published.snapshot) == both)
    );
}

#[test]
fn an_account_that_can_no_longer_be_read_keeps_what_it_had_and_holds_nothing_else_back() {
    let other = Other::new();
    let stage = &other.stage;
    let daemon = DaemonDouble::start(stage.folder.path()).unwrap();
    let mut sidecar = other.sidecar("x-1");
    sidecar.start().unwrap();
    let both = ["ours.example.com", "theirs.example.com"];
    daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot) == both)
        .unwrap();
    stage.cloud.double.close(OTHER);
    let account = format!("account {OTHER}");
    let is_reported = |snapshot: &ipc::snapshot::SnapshotV1| {
        let mut faults = snapshot.faults.iter();
        faults.any(|fault| fault.kind == "unreadable" && fault.object == account)
    };
    daemon.wait_policy(LIMIT, is_reported).unwrap();
    stage.allow("postern:tls:more.example.com");
    let policy = daemon
        .wait_policy(LIMIT, |snapshot| names(snapshot).len() == 3)
        .unwrap()
        .snapshot;
    assert_eq!(names(&policy), ["more.example.com", both[0], both[1]]);
    assert!(is_reported(&policy), "{:?}", policy.faults);
    let theirs = "10.88.1.10/32".parse().unwrap();
    assert!(policy.clients.iter().any(|client| client.net == theirs));
}

#[test]
fn preflight_names_a_role_that_cannot_be_used_and_what_the_policy_lacks_for_it() {
    let other = Other::new();
    let look = |external_id: &str| {
        let output = other
            .sidecar(external_id)
            .command("preflight", &[])
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap()
    };
    let line = |text: &str, start: &str| {
        let found = text.lines().find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("no {start:?} in\n{text}"))
            .to_owned()
    };
    line(&look("x-1"), &format!("ok   account {OTHER}"));
    let text = look("x-2");
    assert!(line(&text, &format!("BAD  account {OTHER}")).contains("external id"));
    line(&text, "BAD  policy: cannot be read");
}
