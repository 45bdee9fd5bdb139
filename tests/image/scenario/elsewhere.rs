//! In neither cloud: no metadata service is asked, and an inventory on the machine is the policy.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e::image::metadata::Role;
use e2e::image::{Guest, Machine, Report, Setup, Stage};
use e2e::topology::API;
use e2e::wait;

use super::{BOOT, SOON, enforces, green, told};

/// Boots a fresh disk, first with a daemon that cannot start, then without an inventory, then with one.
///
/// # Errors
/// When the machine cannot be started at all.
pub(super) fn run(stage: &Stage, disk: &Path, report: &mut Report) -> Result<()> {
    stage.cloud(None);
    stage.metadata.be(Role::Silent);
    let setup = Setup {
        held_back: true,
        ..Setup::new(Machine::Elsewhere)
    };
    let mut guest = Guest::start(stage, disk, setup)?;
    guest.wait_shell(BOOT)?;
    report.claim(
        "daemon_that_cannot_start_does_not_hold_up_the_boot_and_nothing_leaves",
        |_| {
            for unit in ["systemd-networkd", "sysinit.target", "multi-user.target"] {
                guest.wait_for(&format!("systemctl is-active {unit}"), BOOT)?;
            }
            guest.run("! systemctl is-active postern")?;
            // The network is there, and the lockdown.
            guest.wait_for("ip route show default | grep -q via", SOON)?;
            guest.run("nft list chain inet postern decide | grep -q lockdown")?;
            ensure!(!stage.served(API), "served without a daemon");
            stage.nothing_unlisted_left()
        },
    );
    trust(stage, &mut guest)?;
    guest.let_daemon_start()?;
    report.claim(
        "inventory_is_the_policy_of_a_machine_in_neither_cloud",
        |_| {
            guest.wait_for("systemctl is-active postern-cloudsync", BOOT)?;
            guest.run("grep -qx 'provider = \"file\"' /etc/postern/cloudsync.toml")?;
            let body = green(stage)?;
            ensure!(body.contains("no_policy"), "health: {body:?}");
            ensure!(!stage.served(API), "served without a policy");
            guest.run(&format!(
                "cat >/etc/postern/inventory.toml <<'END'\n{INVENTORY}END\n"
            ))?;
            enforces(stage, &mut guest)?;
            let healthy = wait::holds(SOON, || {
                green(stage).is_ok_and(|body| !body.contains("no_policy"))
            });
            ensure!(healthy, "health: no policy: {}", told(&mut guest));
            guest
                .run("journalctl -b -u postern-configure | grep -q 'in neither cloud'")
                .map(drop)
        },
    );
    guest.power_off()
}

/// Has the appliance trust the servers' authority, as where certificates are of a company's own.
fn trust(stage: &Stage, guest: &mut Guest) -> Result<()> {
    let file = "/etc/postern/anchors.pem";
    guest.run(&format!("cat >{file} <<'END'\n{}END\n", stage.authority))?;
    guest.run(&format!(
        "chmod 644 {file} && cat >>/etc/postern/postern.toml <<'END'\n\n[certificates]\nanchors = \"{file}\"\n\
         trust_clock = true\nEND\n"
    ))?;
    Ok(())
}

const INVENTORY: &str = r#"served = ["10.77.0.0/16"]

[preferences]
allow_private_answers = ["203.0.113.0/24"]

[[group]]
id = "web"
  [[group.rule]]
  description = "postern:tls:api.allowed.example"
  protocol = "tcp"
  ports = "443"

[[client]]
address = "10.77.1.10"
instance = "web-1"
groups = ["web"]
"#;
