//! One boot, and what is tried in it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::image::{Guest, Machine, Report, Stage, build};
use e2e::topology::{API, EVIL};
use e2e::wait;

/// Boots the image.
///
/// # Errors
/// When the world around the appliance cannot be built or nobody answers in it; what the appliance does wrong is in the
/// report.
pub(crate) fn run() -> Result<Report> {
    let mut report = Report::default();
    let stage = Stage::new()?;
    let disk = stage.folder().join("disk.qcow2");
    build::overlay(&disk)?;
    stage
        .metadata
        .be(Machine::Aws, &[("/latest/user-data", USER_DATA)]);
    let mut guest = Guest::start(&stage, &disk, Machine::Aws)?;
    guest.wait_shell(BOOT)?;
    boot(&stage, &mut guest, &mut report);
    inside(&stage, &mut guest, &mut report);
    faults(&stage, &mut guest, &mut report);
    report.claim(
        "nothing_unlisted_leaves_before_during_or_after_boot",
        |report| {
            report.figure("knocks", stage.knocks());
            ensure!(stage.knocks() > 0, "nobody knocked");
            stage.nothing_unlisted_left()
        },
    );
    report.figure("seconds in all", guest.uptime().as_secs());
    guest.power_off()?;
    Ok(report)
}

fn boot(stage: &Stage, guest: &mut Guest, report: &mut Report) {
    report.claim("image_boots_to_ready", |report| {
        guest.wait_for("systemctl is-active postern", BOOT)?;
        report.figure("seconds to READY", guest.uptime().as_secs());
        let restarts = guest.run("systemctl show -p NRestarts --value postern")?;
        ensure!(restarts == "0", "started {restarts} times over");
        Ok(())
    });
    report.claim("lockdown_is_in_force_before_any_interface_is_up", |_| {
        let mut at = |unit: &str, what: &str| -> Result<u64> {
            let text = guest.run(&format!("systemctl show -p {what} --value {unit}"))?;
            text.trim()
                .parse()
                .with_context(|| format!("{what} of {unit}: {text}"))
        };
        let lockdown = at("postern-lockdown", "ActiveEnterTimestampMonotonic")?;
        let network = at("systemd-networkd", "InactiveExitTimestampMonotonic")?;
        ensure!(
            lockdown > 0 && lockdown < network,
            "lockdown at {lockdown} µs, network at {network} µs"
        );
        Ok(())
    });
    report.claim("user_data_becomes_policy_and_a_listed_flow_passes", |_| {
        let arrived = wait::holds(SOON, || stage.served(API));
        ensure!(arrived, "an allowed name is not served: {}", told(guest));
        ensure!(!stage.served(EVIL), "a name that is not allowed is served");
        guest.run("grep -q api.allowed.example /etc/postern/inventory.toml")?;
        Ok(())
    });
}

fn inside(stage: &Stage, guest: &mut Guest, report: &mut Report) {
    report.claim("packets_go_through_the_native_queue", |_| {
        guest.run("nft list ruleset | grep -q queue")?;
        let status = guest.run("postern status")?;
        ensure!(status.contains("(native)"), "{status}");
        // What the kernel has handed over: the last number of a queue's line but one.
        guest.run(
            "awk '{ seen += $8 } END { exit !(seen > 0) }' /proc/net/netfilter/nfnetlink_queue",
        )?;
        Ok(())
    });
    report.claim("health_answers_the_inner_network", |_| {
        let body = health(stage)?;
        ensure!(!body.contains("no_policy"), "{body}");
        Ok(())
    });
    report.claim("parts_run_as_their_own_users", |_| users(guest));
    report.claim("nobody_can_log_in_over_the_network", |_| {
        guest.run("! systemctl is-active ssh.service ssh.socket")?;
        guest.run("test -z \"$(ls /etc/ssh/ssh_host_* 2>/dev/null)\" && test ! -e /root/.ssh")?;
        // State 0A is a listener; port 22 is 0016.
        guest.run("! cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\"' | grep -q ':0016 '")?;
        Ok(())
    });
    report.claim("connection_table_is_sized_by_memory", |_| {
        let entries = guest.run("cat /proc/sys/net/netfilter/nf_conntrack_max")?;
        let memory = guest.run("awk '$1 == \"MemTotal:\" { print $2 }' /proc/meminfo")?;
        let (entries, memory): (u64, u64) = (entries.parse()?, memory.parse()?);
        ensure!(entries == memory / 4, "{entries} entries for {memory} KiB");
        Ok(())
    });
}

fn faults(stage: &Stage, guest: &mut Guest, report: &mut Report) {
    report.claim("killed_daemon_comes_back_and_judges", |_| {
        guest.run("systemctl kill --signal=KILL postern")?;
        guest.wait_for(
            "test $(systemctl show -p NRestarts --value postern) -ge 1 && systemctl is-active postern",
            SOON,
        )?;
        enforces(stage, guest)
    });
    report.claim(
        "restart_without_a_cloud_enforces_the_last_good_policy",
        |_| {
            stage.metadata.be(Machine::Elsewhere, &[]);
            guest.run("systemctl stop postern-cloudsync && rm /etc/postern/inventory.toml")?;
            guest.run("systemctl restart postern")?;
            enforces(stage, guest)
        },
    );
}

/// What is allowed passes, what is not does not.
fn enforces(stage: &Stage, guest: &mut Guest) -> Result<()> {
    let served = wait::holds(SOON, || stage.served(API));
    ensure!(served, "an allowed name is not served: {}", told(guest));
    ensure!(!stage.served(EVIL), "a name that is not allowed is served");
    Ok(())
}

fn users(guest: &mut Guest) -> Result<()> {
    let running = guest.run("ps -e -o user:20=,args=")?;
    for (user, what) in [
        ("postern", "postern run"),
        ("postern-witness", "postern witness"),
        ("postern-sync", "postern-cloudsync run"),
    ] {
        let found = running
            .lines()
            .any(|line| line.split_whitespace().next() == Some(user) && line.contains(what));
        ensure!(found, "no `{what}` of user {user}:\n{running}");
    }
    let capabilities = guest
        .run("grep CapEff /proc/$(systemctl show -p MainPID --value postern-cloudsync)/status")?;
    ensure!(capabilities.ends_with("0000000000000000"), "{capabilities}");
    let socket = guest.run("stat -c '%U:%G %a' /run/postern/control.sock")?;
    ensure!(socket == "postern:postern-ipc 660", "{socket}");
    Ok(())
}

/// The body of the appliance's health page, as a client's side sees it.
fn health(stage: &Stage) -> Result<String> {
    let url = "http://10.77.1.1:1042/healthz";
    let output = stage
        .topology
        .client
        .output("curl", &["--silent", "--fail", "--max-time", "10", url])?;
    if !output.status.success() {
        bail!("{url}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the appliance says about itself, for a failure.
fn told(guest: &mut Guest) -> String {
    let commands = "postern status; systemctl --failed --no-pager; journalctl -b --no-pager -n 60 \
                    -u 'postern*' -u systemd-networkd; cat /etc/resolv.conf; ip -br addr; ip route";
    let said = guest.run(&format!("({commands}) || true"));
    said.unwrap_or_else(|error| format!("{error:#}\n{}", guest.tail()))
}

/// An emulated machine takes its time to boot, more so when the host is busy.
const BOOT: Duration = Duration::from_secs(240);
/// For a policy to arrive, a daemon to come back, a name to be resolved.
const SOON: Duration = Duration::from_secs(180);
const USER_DATA: &str = r#"
[cloudsync]
provider = "file"

[inventory]
served = ["10.77.0.0/16"]

[inventory.preferences]
allow_private_answers = ["203.0.113.0/24"]

[[inventory.group]]
id = "web"

[[inventory.group.rule]]
description = "postern:tls:api.allowed.example"
protocol = "tcp"
ports = "443"

[[inventory.client]]
address = "10.77.1.10"
instance = "workload"
groups = ["web"]
"#;
