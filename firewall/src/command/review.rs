//! `postern review`: what each allowed name was used for, and which were not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use ipc::record::{EndLineV1, FlowCat, FlowLineV1, FlowOutcome, Timestamp};
use policy::{Draft, Entry};
use serde_json::{Value, json};

use crate::cli::{Failure, Finding, ReviewArgs, print};
use crate::provider::FileProvider;

/// Group, rule and name.
type Use = (String, String, String);

#[derive(Debug, Default)]
struct Total {
    last: Timestamp,
    connections: u64,
    bytes_out: u64,
}

/// Prints a line per allowed name; exit code 1 when the inventory lists names nobody used.
pub(crate) fn run(args: &ReviewArgs) -> Result<Finding, Failure> {
    let mut totals: BTreeMap<Use, Total> = BTreeMap::new();
    each_line(&args.logs, |value| count(value, &mut totals))?;
    let unused = match &args.inventory {
        Some(path) => {
            let draft = FileProvider::new(path).read().map_err(Failure::input)?;
            unused(&draft, &totals)
        }
        None => BTreeSet::new(),
    };
    for ((gid, rule, name), total) in &totals {
        print(&if args.json {
            let object = json!({
                "dhost": name, "gid": gid, "rule": rule, "last_seen": total.last.to_string(),
                "connections": total.connections, "bytes_out": total.bytes_out,
            });
            format!("{object}\n")
        } else {
            format!(
                "{:<40} {gid} rule {rule}, {} connections, {} bytes out, last {}\n",
                name.escape_debug().to_string(),
                total.connections,
                total.bytes_out,
                total.last
            )
        });
    }
    for (gid, rule, name) in &unused {
        print(&if args.json {
            let object = json!({"dhost": name, "gid": gid, "rule": rule, "connections": 0});
            format!("{object}\n")
        } else {
            format!("{name:<40} {gid} rule {rule}, not used\n")
        });
    }
    Ok(if unused.is_empty() {
        Finding::None
    } else {
        Finding::Some
    })
}

/// Reads every line of logs as a JSON object; a line that is none is an error with its number.
pub(crate) fn each_line(logs: &[PathBuf], mut each: impl FnMut(Value)) -> Result<(), Failure> {
    for path in logs {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::input(format!("reading flow log {}: {error}", path.display()))
        };
        let file = File::open(path).map_err(|error| failed(&error))?;
        for (number, line) in (1_u64..).zip(BufReader::new(file).lines()) {
            let line = line.map_err(|error| failed(&error))?;
            if line.trim().is_empty() {
                continue;
            }
            let value = serde_json::from_str(&line)
                .map_err(|error| failed(&format!("line {number}: {error}")))?;
            each(value);
        }
    }
    Ok(())
}

fn count(value: Value, totals: &mut BTreeMap<Use, Total>) {
    let bytes_out = serde_json::from_value::<EndLineV1>(value.clone()).map(|end| end.bytes_out);
    let Ok(line) = serde_json::from_value::<FlowLineV1>(value) else {
        return;
    };
    if line.outcome != FlowOutcome::Allowed || line.cat == FlowCat::Server {
        return;
    }
    let text = |field: &Option<ipc::record::Text>| {
        field
            .as_ref()
            .map_or_else(String::new, |text| text.as_str().to_owned())
    };
    let key = (
        text(&line.gid),
        text(&line.rule),
        line.dhost.as_str().to_owned(),
    );
    let total = totals.entry(key).or_default();
    total.last = total.last.max(line.time);
    match line.cat {
        FlowCat::Client => total.connections = total.connections.saturating_add(1),
        FlowCat::End => {
            total.bytes_out = total.bytes_out.saturating_add(bytes_out.unwrap_or(0));
        }
        FlowCat::Server => {}
    }
}

/// Exact names of the policy that no line allowed.
fn unused(draft: &Draft, totals: &BTreeMap<Use, Total>) -> BTreeSet<Use> {
    let mut unused = BTreeSet::new();
    for group in &draft.groups {
        for rule in &group.rules {
            for entry in &rule.entries {
                if let Entry::Name { name, .. } = entry {
                    let key = (group.gid.clone(), rule.rule.clone(), name.to_string());
                    if !totals.contains_key(&key) {
                        unused.insert(key);
                    }
                }
            }
        }
    }
    unused
}
