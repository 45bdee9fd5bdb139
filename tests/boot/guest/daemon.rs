//! The daemon under test, on an inventory of exact names.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::boot::report::{Held, Offload};
use e2e::daemon::Daemon;
use e2e::topology::{API, Asker, FAMILIES, INSIDE, OLD, OUTSIDE, RECORDER};
use e2e::wait;

use crate::transfer;
use crate::world::World;

/// Starts the daemon in the firewall's namespace and waits until it is healthy.
///
/// The daemon itself has no flowtable; for the question whether it could, a table beside its own puts every judged
/// flow into one.
pub(crate) fn start(world: &World, offload: Offload) -> Result<Daemon<'_>> {
    if offload == Offload::Flowtable {
        let beside = format!(
            "table inet beside {{
             flowtable judged {{ hook ingress priority 0; devices = {{ {INSIDE}, {OUTSIDE} }}; counter; }};
             chain forward {{ type filter hook forward priority 10;
              ct mark & 0x3 == 0x2 ct state established meta l4proto tcp flow add @judged; }};
             }}"
        );
        world.topology.firewall.run("nft", &[&beside])?;
    }
    Daemon::with_config(&world.topology, &inventory(), "").context("starting the daemon")
}

/// Exact names only: for these clients no packet may reach an address that nobody named.
fn inventory() -> String {
    let names = [API.name, OLD.name, RECORDER.name].join(",");
    let mut text = format!(
        "served = [\"10.77.0.0/16\", \"fd77::/16\"]\n\n[preferences]\n\
         allow_private_answers = [\"203.0.113.0/24\", \"2001:db8:77::/64\"]\n\n\
         [[group]]\nid = \"web\"\n  [[group.rule]]\n  description = \"postern:tls:{names}\"\n  \
         protocol = \"tcp\"\n  ports = \"443\"\n"
    );
    for asker in [Asker::Workload, Asker::Attacker] {
        for family in FAMILIES {
            let address = asker.address(family);
            text.push_str(&format!(
                "\n[[client]]\naddress = \"{address}\"\ninstance = \"boot\"\ngroups = [\"web\"]\n"
            ));
        }
    }
    text
}

/// What holds the daemon, and what holds when its ruleset is deleted under it.
pub(crate) fn held(world: &World, daemon: &Daemon<'_>) -> Result<Held> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let word = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(|rest| rest.trim_start_matches(':').trim().to_owned())
    };
    let latched = daemon.metric("postern_latched")? > 0.0;
    let mut fewest_trips = [0; FAMILIES.len()];
    for (fewest, family) in fewest_trips.iter_mut().zip(FAMILIES) {
        *fewest = transfer::fewest_trips(world, family)?;
    }
    world
        .topology
        .firewall
        .run("nft", &["delete", "table", "inet", "postern"])?;
    let repaired = || {
        let repairs = daemon.metric("postern_ruleset_repairs_total");
        let chains = world
            .topology
            .firewall
            .run("nft", &["list", "chain", "inet", "postern", "decide"]);
        repairs.is_ok_and(|count| count > 0.0) && chains.is_ok()
    };
    Ok(Held {
        latched,
        fewest_trips,
        seccomp: word("Seccomp").unwrap_or_default(),
        capabilities: word("CapEff").unwrap_or_default(),
        repaired: wait::holds(PATIENCE, repaired),
    })
}

/// What a repair may take on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(60);
