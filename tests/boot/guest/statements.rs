//! The two statements that many kernels lack, loaded into the guest's first namespace.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::boot::report::{Line, Statement};

use crate::reporter::Reporter;

/// Each statement in the smallest ruleset that holds it.
const RULESETS: &[(&str, &str)] = &[
    (
        "queue",
        "table inet statement_queue { chain forward { type filter hook forward priority 0; \
         meta mark & 0x700 != 0 queue to 0-3; }; }",
    ),
    (
        "flowtable",
        "table inet statement_flowtable { \
         flowtable judged { hook ingress priority 0; devices = { probe0 }; counter; }; \
         chain forward { type filter hook forward priority 0; ct mark & 0x3 == 0x2 flow add @judged; }; }",
    ),
];

/// Loads each ruleset once and removes it, so that what follows starts from an empty one.
pub(crate) fn probe(reporter: &mut Reporter) -> Result<()> {
    command(
        "ip",
        &[
            "link", "add", "probe0", "type", "veth", "peer", "name", "probe1",
        ],
    )?;
    for (name, ruleset) in RULESETS {
        let loaded = Command::new("nft")
            .arg(ruleset)
            .output()
            .context("running nft")?;
        let error = String::from_utf8_lossy(&loaded.stderr).into_owned();
        reporter.say(&Line::Statement(Statement {
            name: (*name).to_owned(),
            error,
        }))?;
    }
    command("nft", &["flush", "ruleset"])?;
    command("ip", &["link", "del", "probe0"])
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let out = Command::new(program).args(arguments).output();
    let out = out.with_context(|| format!("running {program}"))?;
    let error = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        error.trim()
    );
    Ok(())
}
