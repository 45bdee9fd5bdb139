//! The attacks against rulesets of our own: one without the defence, where they have to succeed, or failing elsewhere
//! means nothing; and one with the defence that a forward hook can have, which tells what a flowtable does to it.
//!
//! Both trust the conntrack mark, as a firewall would that never heard of tuple re-use. In place of a judge a rule
//! drops hellos with the record version that only the attack's second hello has.

use anyhow::Result;
use e2e::boot::report::{Guard, Offload};
use e2e::raw::RawHost;
use e2e::topology::{Family, INSIDE, OUTSIDE};

use crate::inheritance::{Attack, VARIANTS};
use crate::reporter::Reporter;
use crate::transfer;
use crate::world::World;

/// Runs every variant over IPv4, and a counted transfer, against one ruleset.
pub(crate) fn run(
    world: &World,
    host: &RawHost,
    (guard, offload): (Guard, Offload),
    reporter: &mut Reporter,
) -> Result<()> {
    world
        .topology
        .firewall
        .run("nft", &[&ruleset(guard, offload)])?;
    for variant in VARIANTS {
        let attack = Attack {
            variant,
            family: Family::V4,
            offload,
            guard,
        };
        reporter.inheritance(attack.run(world, host))?;
    }
    reporter.transfer(transfer::run(world, Family::V4, offload, guard))?;
    world
        .topology
        .firewall
        .run("nft", &["delete", "table", "inet", "control"])
        .map(drop)
}

fn ruleset(guard: Guard, offload: Offload) -> String {
    let flowtable = match offload {
        Offload::None => String::new(),
        Offload::Flowtable => format!(
            "flowtable judged {{ hook ingress priority 0; devices = {{ {INSIDE}, {OUTSIDE} }}; counter; }};"
        ),
    };
    let add = match offload {
        Offload::None => "",
        Offload::Flowtable => "ct mark 2 meta l4proto tcp flow add @judged;",
    };
    let defence = match guard {
        Guard::Control => "",
        // Without a daemon that deletes the entry, forgetting its verdict comes nearest.
        Guard::ForwardRule | Guard::Postern => {
            "tcp flags & (fin|syn|rst|ack) == syn ct state != new ct mark set 0 accept;"
        }
    };
    // 22 is a handshake record, 20 the change_cipher_spec that a client sends once it has the server's hello.
    format!(
        "table inet control {{ {flowtable}
         chain forward {{ type filter hook forward priority 0; policy accept;
          ct state invalid drop;
          {defence}
          {add}
          ct mark 2 accept;
          ct direction original @ih,0,8 22 @ih,8,16 0x0303 drop;
          ct direction original @ih,0,8 20 ct mark set 2;
         }};
         chain translate {{ type nat hook postrouting priority 100; oifname {OUTSIDE} masquerade; }};
        }}"
    )
}
