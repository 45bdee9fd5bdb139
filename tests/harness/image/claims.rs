//! What is tried of every image that boots, whichever tier boots it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Guest, Stage};
use crate::topology::{API, EVIL};
use crate::wait;

/// An emulated machine takes its time to boot, more so when the host is busy.
pub const BOOT: Duration = Duration::from_secs(300);
/// For a policy to arrive, a daemon to come back, a name to be resolved.
pub const SOON: Duration = Duration::from_secs(180);

/// What is allowed passes, what is not does not.
pub fn enforces(stage: &Stage, guest: &mut Guest) -> Result<()> {
    let served = wait::holds(SOON, || stage.served(API));
    ensure!(served, "an allowed name is not served: {}", told(guest));
    ensure!(!stage.served(EVIL), "a name that is not allowed is served");
    stage.nothing_unlisted_left()
}

/// What the appliance says about itself, for a failure.
pub fn told(guest: &mut Guest) -> String {
    let commands = "postern status; SYSTEMD_COLORS=0 systemctl --failed --no-pager; journalctl -b --no-pager -n 60 \
                    -u 'postern*' -u systemd-networkd; cat /etc/resolv.conf; ip -br addr; ip route";
    let said = guest.run(&format!("({commands}) || true"));
    said.unwrap_or_else(|error| format!("{error:#}\n{}", guest.tail()))
}

/// The body of the appliance's health page, as a client's side sees it; an error unless it is well.
pub fn health(stage: &Stage) -> Result<String> {
    let url = "http://10.77.1.1:1042/healthz";
    let args = [
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "10",
        url,
    ];
    stage.topology.client.run("curl", &args)
}

/// As [`health`], and patient: an emulated machine may take its time to answer.
pub fn green(stage: &Stage) -> Result<String> {
    wait::until(SOON, || health(stage).ok()).context("health never answers that all is well")
}

/// What systemd itself noted: a ruleset that was loaded late would be seen on no wire of a quick boot.
pub fn lockdown_first(guest: &mut Guest) -> Result<()> {
    // The daemon may be ready, and this be asked, before there is any other service.
    guest.wait_for("systemctl is-active systemd-networkd", SOON)?;
    let mut at = |unit: &str, what: &str| -> Result<u64> {
        let text = guest.run(&format!("systemctl show -p {what} --value {unit}"))?;
        let read = text.trim().parse();
        read.with_context(|| format!("{what} of {unit}: {text:?}"))
    };
    let loaded = at("postern-lockdown", "ActiveEnterTimestampMonotonic")?;
    let network = at("systemd-networkd", "ExecMainStartTimestampMonotonic")?;
    ensure!(
        loaded > 0 && loaded < network,
        "lockdown in force at {loaded} µs, networkd started at {network} µs"
    );
    let up = first_link(guest)?;
    ensure!(
        Duration::from_micros(loaded) < up,
        "lockdown at {loaded} µs, a link up at {up:?}"
    );
    Ok(())
}

/// When the first card came up: nothing but networkd brings any up, and it notes the kernel's own word.
fn first_link(guest: &mut Guest) -> Result<Duration> {
    noted(
        guest,
        "-u systemd-networkd",
        "-E 'Link UP|Gained carrier' | grep -v ' lo: '",
    )
}

/// When the journal first notes something in this boot, on the kernel's clock: what journalctl is asked for, and grep.
fn noted(guest: &mut Guest, of: &str, what: &str) -> Result<Duration> {
    let noted = format!(
        "journalctl -b -o short-monotonic --no-pager {of} | grep {what} | head -n 1 | grep ."
    );
    let line = guest.wait_for(&noted, SOON)?;
    // [    5.160214] postern systemd[1]: Started …
    let seconds = line
        .trim_start_matches(['[', ' '])
        .split(']')
        .next()
        .and_then(|text| text.trim().parse::<f64>().ok())
        .with_context(|| format!("when: {line}"))?;
    Ok(Duration::from_secs_f64(seconds))
}

/// It needs no network, and comes before all that does.
pub fn ready_first(guest: &mut Guest) -> Result<()> {
    // Its unit's own times are of the last start, and new user data is one.
    let ready = noted(guest, "-u postern.service", "'Started postern.service'")?;
    let up = first_link(guest)?;
    ensure!(ready < up, "ready at {ready:?}, a link up at {up:?}");
    Ok(())
}

/// The kernel's own queue statement, with packets in it.
pub fn native_queue(guest: &mut Guest) -> Result<()> {
    let ruleset = guest.run("nft list ruleset")?;
    ensure!(ruleset.contains("queue"), "no queue statement:\n{ruleset}");
    let status = guest.run("postern status; true")?;
    ensure!(status.contains("(native)"), "{status}");
    // What the kernel has handed over: the last number of a queue's line but one.
    guest
        .run("awk '{ seen += $8 } END { exit !(seen > 0) }' /proc/net/netfilter/nfnetlink_queue")?;
    Ok(())
}
