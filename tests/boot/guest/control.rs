//! The attacks against a ruleset without the defence: they have to succeed here, or failing elsewhere means nothing.
//!
//! It trusts the conntrack mark, as a firewall would that never heard of tuple re-use. In place of a judge a rule
//! drops hellos with the record version that only the attack's second hello has.

use anyhow::Result;
use e2e::boot::report::{Guard, Offload};
use e2e::raw::RawHost;
use e2e::topology::{Family, INSIDE, OUTSIDE};

use crate::inheritance::{Attack, VARIANTS};
use crate::reporter::Reporter;
use crate::world::World;

/// Runs every variant over IPv4 against the control ruleset.
pub(crate) fn run(
    world: &World,
    host: &RawHost,
    offload: Offload,
    reporter: &mut Reporter,
) -> Result<()> {
    world.topology.firewall.run("nft", &[&ruleset(offload)])?;
    for variant in VARIANTS {
        let attack = Attack {
            variant,
            family: Family::V4,
            offload,
            guard: Guard::Control,
        };
        reporter.inheritance(attack.run(world, host))?;
    }
    world
        .topology
        .firewall
        .run("nft", &["delete", "table", "inet", "control"])
        .map(drop)
}

fn ruleset(offload: Offload) -> String {
    let (table, add) = match offload {
        Offload::None => (String::new(), ""),
        Offload::Flowtable => (
            format!(
                "flowtable judged {{ hook ingress priority 0; devices = {{ {INSIDE}, {OUTSIDE} }}; counter; }};"
            ),
            "ct mark 2 meta l4proto tcp flow add @judged;",
        ),
    };
    // 22 is a handshake record, 20 the change_cipher_spec that a client sends once it has the server's hello.
    format!(
        "table inet control {{ {table}
         chain forward {{ type filter hook forward priority 0; policy accept;
          ct state invalid drop;
          {add}
          ct mark 2 accept;
          ct direction original @ih,0,8 22 @ih,8,16 0x0303 drop;
          ct direction original @ih,0,8 20 ct mark set 2;
         }};
         chain translate {{ type nat hook postrouting priority 100; oifname {OUTSIDE} masquerade; }};
        }}"
    )
}
