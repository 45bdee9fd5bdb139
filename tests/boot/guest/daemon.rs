//! The daemon under test, on an inventory of exact names.

use anyhow::{Context as _, Result};
use e2e::boot::report::Offload;
use e2e::daemon::Daemon;
use e2e::topology::{API, Asker, FAMILIES, OLD, RECORDER};

use crate::world::World;

/// Starts the daemon in the firewall's namespace, with judged flows carried as told, and waits until it is healthy.
pub(crate) fn start(world: &World, offload: Offload) -> Result<Daemon<'_>> {
    let flowtable = match offload {
        Offload::None => "",
        Offload::Flowtable => "flowtable = true",
    };
    Daemon::with_config(&world.topology, &inventory(), flowtable).context("starting the daemon")
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
