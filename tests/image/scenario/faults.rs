//! What goes wrong on a running appliance: DESIGN, section 7.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::image::guest::ARCHIVE;
use e2e::image::{Guest, Report, Stage};
use e2e::topology::API;

use super::judged::Judged;
use super::{SOON, enforces, green, health};

/// Tries each on its own.
pub(super) fn run(stage: &Stage, guest: &mut Guest, report: &mut Report) {
    report.claim("killed_daemon_comes_back_and_judges", |_| {
        let mut judged = Judged::open(stage)?;
        guest.run("systemctl kill --signal=KILL postern")?;
        judged.goes_on().context("with the daemon killed")?;
        guest.wait_for(
            "test $(systemctl show -p NRestarts --value postern) -ge 1 && systemctl is-active postern",
            SOON,
        )?;
        enforces(stage, guest)?;
        judged.goes_on().context("after the daemon came back")
    });
    report.claim(
        "without_a_daemon_nothing_new_leaves_and_health_says_so",
        |_| {
            let mut judged = Judged::open(stage)?;
            guest.run("systemctl stop postern")?;
            let result = without_a_daemon(stage, &mut judged);
            guest.run("systemctl start postern")?;
            result?;
            enforces(stage, guest)?;
            judged.goes_on().context("after the daemon came back")
        },
    );
    report.claim("missing_spool_folder_does_not_keep_the_daemon_down", |_| {
        guest.run(
            "systemctl stop postern && rm -rf /var/lib/postern/spool && systemctl start postern",
        )?;
        let mode = guest.run("stat -c '%U:%G %a' /var/lib/postern/spool")?;
        ensure!(mode == "postern:postern-ipc 2750", "{mode}");
        enforces(stage, guest)
    });
    report.claim(
        "spool_of_the_wrong_owner_and_mode_is_mended_at_start",
        |_| spool_of_somebody_else(stage, guest),
    );
    report.claim("full_disk_stops_no_packet", |_| {
        let mut judged = Judged::open(stage)?;
        guest.run(FILL)?;
        let result = enforces(stage, guest)
            .and_then(|()| green(stage).map(drop))
            .and_then(|()| judged.goes_on());
        guest.run("rm -f /var/fill*; sync")?;
        result.context("with no byte left on the disk")
    });
    report.claim("wrong_clock_stops_no_packet", |_| {
        let mut judged = Judged::open(stage)?;
        guest.run("systemctl stop chrony; date -s '+1 year'")?;
        let ahead = judged.goes_on().and_then(|()| enforces(stage, guest));
        guest.run("date -s '-1 year'; systemctl start chrony")?;
        ahead.context("a year ahead")?;
        judged.goes_on()?;
        enforces(stage, guest).context("back again")
    });
    report.claim("package_upgrade_drops_no_judged_flow", |_| {
        upgrade(stage, guest)
    });
}

fn without_a_daemon(stage: &Stage, judged: &mut Judged) -> Result<()> {
    ensure!(!stage.served(API), "an allowed name is served by nobody");
    ensure!(health(stage).is_err(), "health is green without a daemon");
    judged.goes_on().context("with the daemon stopped")?;
    stage.nothing_unlisted_left()
}

fn spool_of_somebody_else(stage: &Stage, guest: &mut Guest) -> Result<()> {
    guest.run(
        "systemctl stop postern; cd /var/lib/postern && chown -R root:root spool && chmod 0700 spool spool/* && \
         systemctl start postern",
    )?;
    for folder in ["", "/flow", "/end", "/dns", "/config"] {
        let is = guest.run(&format!(
            "stat -c '%U:%G %a' /var/lib/postern/spool{folder}"
        ))?;
        ensure!(is == "postern:postern-ipc 2750", "spool{folder}: {is}");
    }
    enforces(stage, guest)?;
    // A refusal is written, by the daemon, for the group that ships it.
    guest.wait_for(
        "cd /var/lib/postern/spool/flow && ls | grep -q . && test -z \"$(find . -type f ! '(' -user postern -group postern-ipc ')')\"",
        SOON,
    )?;
    Ok(())
}

fn upgrade(stage: &Stage, guest: &mut Guest) -> Result<()> {
    let mut judged = Judged::open(stage)?;
    let before = guest.run("systemctl show -p MainPID --value postern")?;
    guest.run_within(
        &format!(
            "mkdir -p /var/tmp/debs && tar -C /var/tmp/debs -xf {ARCHIVE} && dpkg -i /var/tmp/debs/*.deb; \
             status=$?; rm -rf /var/tmp/debs; exit $status"
        ),
        UPGRADE,
    )?;
    guest.wait_for("systemctl is-active postern", SOON)?;
    let after = guest.run("systemctl show -p MainPID --value postern")?;
    ensure!(before != after, "the daemon was not restarted");
    let version = guest.run("dpkg-query -W -f '${Version}' postern")?;
    ensure!(version.ends_with("+1"), "{version} is installed");
    judged.goes_on()?;
    enforces(stage, guest)
}

/// The space for everybody but root at a stroke, then what root may have beside it.
const FILL: &str = "fallocate -l $(df --output=avail -k / | tail -n 1)K /var/fill; \
     dd if=/dev/zero of=/var/fill2 bs=64k 2>/dev/null; sync; test $(df --output=avail -k / | tail -n 1) -lt 64";
/// Unpacking takes its time under emulation.
const UPGRADE: Duration = Duration::from_secs(240);
