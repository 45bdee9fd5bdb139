//! As an EC2 instance: the first boot, everything that can happen to it, and a boot without the cloud.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cloud::{Cloud, Pace, Rule};
use e2e::image::metadata::Role;
use e2e::image::{Guest, Machine, Report, Setup, Stage};
use e2e::topology::{API, EVIL};
use e2e::wait;

use super::{
    BOOT, SOON, contents, enforces, faults, green, lockdown_first, native_queue, ready_first, told,
};

/// Runs both boots.
///
/// # Errors
/// When a machine cannot be started at all.
pub(super) fn run(stage: &Stage, disk: &Path, report: &mut Report) -> Result<()> {
    let cloud = Cloud::with_pace(Pace {
        page_items: 20,
        page_time: Duration::from_millis(10),
    })?;
    let (vpc, gid) = account(&cloud)?;
    stage.cloud(Some(cloud.double.address()));
    stage.metadata.be(Role::Aws(metadata(stage, &vpc, &gid)));
    let mut guest = Guest::start(stage, disk, Setup::new(Machine::Aws))?;
    guest.wait_shell(BOOT)?;
    first_boot(stage, &cloud, &mut guest, report);
    inside(stage, &mut guest, report);
    contents::run(&mut guest, report);
    faults::run(stage, &mut guest, report);
    contents::memory(&mut guest, report);
    guest.power_off()?;

    stage.cloud(None);
    stage.metadata.be(Role::Silent);
    let asked = stage.metadata.asked();
    let mut guest = Guest::start(stage, disk, Setup::new(Machine::Aws))?;
    guest.wait_shell(BOOT)?;
    report.claim(
        "reboot_without_the_cloud_enforces_the_last_good_policy",
        |_| {
            guest.wait_for("systemctl is-active postern", BOOT)?;
            enforces(stage, &mut guest)?;
            ensure!(
                wait::holds(SOON, || stage.metadata.asked() > asked),
                "nobody asked for user data"
            );
            Ok(())
        },
    );
    guest.power_off()
}

fn first_boot(stage: &Stage, cloud: &Cloud, guest: &mut Guest, report: &mut Report) {
    report.claim("image_boots_to_ready", |report| {
        guest.wait_for("systemctl is-active postern", BOOT)?;
        let restarts = guest.run("systemctl show -p NRestarts --value postern")?;
        ensure!(restarts == "0", "started {restarts} times over");
        timing(guest, report)
    });
    report.claim("lockdown_is_in_force_before_any_interface_is_up", |_| {
        lockdown_first(guest)
    });
    report.claim("daemon_is_ready_before_any_interface_is_up", |_| {
        ready_first(guest)
    });
    report.claim("policy_comes_from_security_groups", |_| {
        let arrived = wait::holds(SOON, || stage.served(API));
        ensure!(arrived, "an allowed name is not served: {}", told(guest));
        ensure!(!stage.served(EVIL), "a name that is not allowed is served");
        Ok(())
    });
    report.claim("certificates_of_allowed_servers_are_looked_at", |_| {
        let page = "exec 3<>/dev/tcp/127.0.0.1/9642; printf 'GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3";
        let valid = "postern_certificate_checks_total.outcome=.valid.. [1-9]";
        let looked = guest.wait_for(&format!("bash -c \"{page}\" | grep '{valid}'"), SOON);
        looked.map(drop).with_context(|| told(guest))
    });
    report.claim("refusals_arrive_in_cloudwatch_logs", |report| {
        analysis(guest, report)?;
        let stream = format!("flow/{APPLIANCE}");
        let arrived = wait::holds(SOON, || {
            let events = cloud.api.log_events("postern", &stream).unwrap_or_default();
            let mut lines = events.iter().map(|event| event.message.as_str());
            lines.any(|line| line.contains("disallowed") && line.contains(&format!("{EVIL_AT}\"")))
        });
        ensure!(arrived, "no refusal in {stream}: {}", told(guest));
        Ok(())
    });
}

fn inside(stage: &Stage, guest: &mut Guest, report: &mut Report) {
    report.claim("packets_go_through_the_native_queue", |_| {
        native_queue(guest)
    });
    report.claim("health_tells_the_truth", |_| {
        let body = green(stage)?;
        ensure!(!body.contains("no_policy"), "{body}");
        Ok(())
    });
    report.claim("parts_run_as_their_own_users", |_| users(guest));
    report.claim("nobody_can_log_in_over_the_network", |_| {
        guest.run("! systemctl is-active ssh.service ssh.socket")?;
        guest.run("test -z \"$(ls /etc/ssh/ssh_host_* 2>/dev/null)\" && test ! -s /root/.ssh/authorized_keys")?;
        // State 0A is a listener; port 22 is 0016.
        guest.run("! cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\"' | grep -q ':0016 '")?;
        Ok(())
    });
    report.claim("machine_is_sized_by_memory_and_processors", |_| {
        let entries = guest.run("cat /proc/sys/net/netfilter/nf_conntrack_max")?;
        let memory = guest.run("awk '$1 == \"MemTotal:\" { print $2 }' /proc/meminfo")?;
        let (entries, memory): (u64, u64) = (entries.parse()?, memory.parse()?);
        ensure!(memory < 1 << 20, "more than 1 GiB: {memory} KiB");
        ensure!(entries == memory / 4, "{entries} entries for {memory} KiB");
        // One receive queue, two processors: the kernel spreads over both.
        guest.run("grep -qx 3 /sys/class/net/en*/queues/rx-0/rps_cpus")?;
        let pinned = guest.run(
            "grep -h Cpus_allowed_list $(grep -l '^queue' /proc/$(systemctl show -p MainPID --value postern)/task/*/comm \
             | sed 's/comm$/status/') | sort",
        )?;
        let pinned: Vec<&str> = pinned.split_whitespace().filter(|word| !word.ends_with(':')).collect();
        ensure!(pinned == ["0", "1"], "queue threads on {pinned:?}");
        let buffer = guest.run("cat /proc/sys/net/core/rmem_max")?;
        ensure!(buffer == "33554432", "receive buffers of {buffer} bytes");
        // The card takes what its network carries, and the way out is known for less.
        guest.run("grep -qx 9001 /sys/class/net/en*/mtu")?;
        let route = guest.run("ip route show default")?;
        ensure!(route.contains("mtu 1500"), "{route}");
        Ok(())
    });
}

/// Processor time the guest spent until READY, and systemd's own account of the boot.
fn timing(guest: &mut Guest, report: &mut Report) -> Result<()> {
    let used = guest.wait_for("cat /run/cpu-at-ready", SOON)?;
    report.figure("processor seconds from kernel start to READY", used.trim());
    for (name, what) in [
        (
            "READY, µs of the guest's clock",
            "ActiveEnterTimestampMonotonic --value postern",
        ),
        (
            "lockdown, µs of the guest's clock",
            "ActiveEnterTimestampMonotonic --value postern-lockdown",
        ),
    ] {
        let at = guest.run(&format!("systemctl show -p {what}"))?;
        report.figure(name, at.trim());
    }
    let size = guest.run("df -k --output=used / | tail -n 1")?;
    report.figure("root file system, KiB used", size.trim());
    Ok(())
}

/// systemd's own account of the boot, once it is over.
fn analysis(guest: &mut Guest, report: &mut Report) -> Result<()> {
    guest.wait_for("systemctl is-active multi-user.target", SOON)?;
    for (name, what) in [
        ("systemd-analyze", "time"),
        (
            "systemd-analyze critical-chain postern",
            "critical-chain postern.service",
        ),
        ("systemd-analyze blame", "blame"),
    ] {
        let shown = format!("systemd-analyze {what} --no-pager | head -n 25");
        report.figure(name, guest.run(&shown)?);
    }
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

/// An account with one client in one group that may reach two names; its network and the group.
fn account(cloud: &Cloud) -> Result<(String, String)> {
    let vpc = cloud.api.vpc("10.77.0.0/16")?;
    let subnet = cloud.api.subnet(&vpc, "10.77.1.0/24")?;
    let gid = cloud.api.group(&vpc, "web")?;
    cloud.api.interface(&subnet, "10.77.1.10", &[&gid])?;
    let rule = Rule::https("postern:tls:api.allowed.example,recorder.allowed.example");
    cloud.api.allow(&gid, rule)?;
    Ok((vpc, gid))
}

/// What the instance is told about itself.
fn metadata(stage: &Stage, vpc: &str, gid: &str) -> BTreeMap<String, String> {
    let user_data = format!(
        "[postern]\nappliance = \"{APPLIANCE}\"\n\
         [postern.certificates]\nauthorities = '''\n{}'''\ntrust_clock = true\n\
         [cloudsync.aws]\nregion = \"{REGION}\"\nendpoint_url = \"{}\"\nelastic_ip = false\n\
         [cloudsync.poll]\ninterval_s = 1.0\n\
         [cloudsync.preferences]\nallow_private_answers = [\"203.0.113.0/24\"]\n\
         [[overlay.client]]\naddress = \"10.77.1.66\"\ninstance = \"on-premises\"\ngroups = [\"{gid}\"]\n",
        stage.authority,
        stage.endpoint()
    );
    let interface = format!("/latest/meta-data/network/interfaces/macs/{MAC}");
    let role = "/latest/meta-data/iam/security-credentials/";
    [
        ("/latest/user-data".to_owned(), user_data),
        ("/latest/meta-data/mac".to_owned(), MAC.to_owned()),
        (
            "/latest/meta-data/instance-id".to_owned(),
            "i-0123456789abcdef0".to_owned(),
        ),
        (
            "/latest/meta-data/placement/region".to_owned(),
            REGION.to_owned(),
        ),
        (format!("{interface}/vpc-id"), vpc.to_owned()),
        (
            format!("{interface}/interface-id"),
            "eni-0123456789abcdef0".to_owned(),
        ),
        (role.to_owned(), "postern".to_owned()),
        (format!("{role}postern"), CREDENTIALS.to_owned()),
    ]
    .into()
}

/// What the flow log calls the machine, as its user data says.
const APPLIANCE: &str = "image-tier";
const REGION: &str = "eu-west-1";
const MAC: &str = "52:54:00:77:00:02";
/// The address of [`EVIL`].
const EVIL_AT: &str = "203.0.113.20";
const CREDENTIALS: &str = r#"{"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC",
"AccessKeyId":"test","SecretAccessKey":"test","Token":"test","Expiration":"2099-01-01T00:00:00Z"}"#;
