//! As a Compute Engine instance whose cards come in the other order: every mistake first, the right thing last.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::cloud::{Firewall, Google, Machine as Vm, Pace};
use e2e::dns::{RecordType, ResponseCode, Stub};
use e2e::image::metadata::Role;
use e2e::image::{Guest, Machine, Report, Setup, Stage};
use e2e::topology::{API, Asker, EVIL, Family, RESOLVER};
use e2e::wait;

use super::{BOOT, SOON, enforces, green, told};

/// Boots it without a cable, and mends one thing after the other.
///
/// # Errors
/// When a machine cannot be started at all.
pub(super) fn run(stage: &Stage, disk: &Path, report: &mut Report) -> Result<()> {
    stage.metadata.be(Role::Silent);
    let google = project()?;
    stage.cloud(Some(google.host().parse()?));
    let setup = Setup {
        outside_first: true,
        plugged: false,
        ..Setup::new(Machine::Gcp)
    };
    let mut guest = Guest::start(stage, disk, setup)?;
    guest.wait_shell(BOOT)?;
    report.claim("no_network_at_boot_is_said_and_locked_down", |_| {
        guest.wait_console("user data: the metadata service is silent", BOOT)?;
        guest.wait_for("systemctl is-active postern", BOOT)?;
        let status = guest.run("postern status; true")?;
        ensure!(status.contains("no_policy"), "{status}");
        let ruleset = guest.run("nft list ruleset")?;
        ensure!(ruleset.contains("policy drop"), "{ruleset}");
        Ok(())
    });
    guest.plug(true)?;
    report.claim("missing_metadata_is_said_and_nothing_leaves", |_| {
        let asked = wait::holds(SOON, || stage.metadata.asked() > 0);
        ensure!(asked, "nobody asks: {}", told(&mut guest));
        nothing_leaves(stage)
    });
    report.claim("wrong_cloud_is_said_and_nothing_leaves", |_| {
        stage.metadata.be(Role::Aws([].into()));
        guest.wait_console("its metadata service is not Google's", SOON)?;
        nothing_leaves(stage)
    });
    for (name, text, said) in BROKEN {
        report.claim(name, |_| {
            google.set_metadata(ATTRIBUTE, text);
            stage.metadata.be(Role::Google(google.host().parse()?));
            again(&mut guest)?;
            guest.wait_console(said, SOON)?;
            nothing_leaves(stage)
        });
    }
    report.claim(
        "policy_comes_from_firewall_rules_whatever_the_order_of_the_cards",
        |_| {
            google.set_metadata(ATTRIBUTE, &user_data(stage));
            stage.metadata.be(Role::Google(google.host().parse()?));
            again(&mut guest)?;
            enforces(stage, &mut guest)?;
            ensure!(
                !green(stage)?.contains("no_policy"),
                "health says that there is no policy"
            );
            Ok(())
        },
    );
    report.claim("probe_to_forwarded_ip_is_answered_from_that_ip", |_| {
        probe(stage, &mut guest)
    });
    guest.power_off()
}

/// A load balancer's probe comes from outside, for an address that no card has.
fn probe(stage: &Stage, guest: &mut Guest) -> Result<()> {
    let route = format!("route replace {FORWARDED}/32 via 203.0.113.1\n");
    stage.topology.internet.ip(&route)?;
    let url = format!("http://{FORWARDED}:1042/healthz");
    let args = ["--silent", "--fail", "--max-time", "5", url.as_str()];
    let answered = wait::holds(SOON, || stage.topology.internet.run("curl", &args).is_ok());
    ensure!(answered, "no answer from {url}: {}", told(guest));
    ask(stage, guest)
}

/// So does a client's question, whose answer the DNS front gives.
fn ask(stage: &Stage, guest: &mut Guest) -> Result<()> {
    let server = SocketAddr::new(FORWARDED.parse()?, 53);
    let client = Asker::Workload.address(Family::V4);
    let stub = Stub::new(&stage.topology.client, client, server);
    let listed = stub.insist(API.name, RecordType::A);
    let listed = listed.with_context(|| told(guest))?;
    ensure!(
        listed.from == server,
        "{} answers for {server}",
        listed.from
    );
    ensure!(
        listed.addresses() == [API.address(Family::V4)],
        "{listed:?}"
    );
    let unlisted = stub.insist(&format!("secret.{}", EVIL.name), RecordType::A)?;
    ensure!(unlisted.code() == ResponseCode::NXDomain, "{unlisted:?}");
    let asked = stage.topology.questions();
    ensure!(
        !asked.iter().any(|name| name.starts_with("secret.")),
        "resolved: {asked:?}"
    );
    Ok(())
}

/// Has the machine look at its user data again, as at a boot.
fn again(guest: &mut Guest) -> Result<()> {
    guest
        .run("systemctl restart --no-block postern-configure")
        .map(drop)
}

/// No policy: not even what the policy to come allows.
fn nothing_leaves(stage: &Stage) -> Result<()> {
    let body = green(stage)?;
    ensure!(body.contains("no_policy"), "health: {body:?}");
    ensure!(
        !stage.served(API),
        "an allowed name is served without a policy"
    );
    stage.nothing_unlisted_left()
}

/// A project with one machine and a rule that names what it may reach.
fn project() -> Result<Google> {
    let google = Google::start(Pace {
        page_items: 20,
        page_time: Duration::from_millis(10),
    })?;
    google.subnet("machines", "10.77.1.0/24");
    google.machine(Vm::new("web-1", "10.77.1.10").tags(&["web"]));
    google.firewall(Firewall::https("web", "postern:tls:api.allowed.example").tags(&["web"]));
    google.set_metadata("instance/network-interfaces/0/ip", "203.0.113.1");
    google.set_metadata("instance/network-interfaces/0/forwarded-ips/0", FORWARDED);
    Ok(google)
}

fn user_data(stage: &Stage) -> String {
    format!(
        "[postern.certificates]\nauthorities = '''\n{}'''\ntrust_clock = true\n\
         [cloudsync.gcp]\nendpoint_url = \"{}\"\n[cloudsync.poll]\ninterval_s = 1.0\n\
         [cloudsync.preferences]\nallow_private_answers = [\"203.0.113.0/24\"]\ndns_front = \"enforce\"\n\
         [postern.dns]\nupstreams = [\"{}\"]\n",
        stage.authority,
        stage.endpoint(),
        RESOLVER.address(Family::V4)
    )
}

/// The load balancer's address.
const FORWARDED: &str = "10.77.9.9";
const ATTRIBUTE: &str = "instance/attributes/postern";
/// Claim, user data, and what the serial console has to say about it.
const BROKEN: [(&str, &str, &str); 3] = [
    (
        "broken_user_data_is_said_and_nothing_leaves",
        "# mine\n[cloudsync\n",
        "user data: line 2",
    ),
    (
        "mistake_in_the_daemons_settings_is_said_and_nothing_leaves",
        "[postern]\nqueues = 4711\n",
        "user data, [postern]: postern: reading configuration",
    ),
    (
        "user_data_for_the_other_cloud_is_said_and_nothing_leaves",
        "[cloudsync]\nprovider = \"aws\"\n",
        "user data: cloudsync.provider is \"aws\"",
    ),
];
