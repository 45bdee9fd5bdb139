//! What this machine can do, found by trying, before anything is put in force.
//!
//! Each trial is a table of its own that is only checked (`nft -c`), so nothing changes. All of it is
//! tried at once first: a program started for each feature would be a good part of a start. What is
//! missing is found by trying one after the other, and named with the kernel option or the Debian
//! package that brings it.

use std::process::Command;

use serde_json::{Value, json};

use crate::netfilter::{self, NetfilterError};
use crate::ruleset::QueueForm;

/// The table of a trial; it never exists.
const TRIAL: &str = "postern_probe";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The queue form to use.
    pub queue_form: QueueForm,
    /// True when nftables can carry judged flows in a flowtable.
    pub flowtable: bool,
}

/// Something without which the daemon cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// A kernel option, and what it is needed for.
    Kernel(&'static str, &'static str),
    /// A privilege, and what it is needed for.
    Privilege(&'static str, &'static str),
    /// A program, and the Debian package that installs it.
    Program(&'static str, &'static str),
    /// What a program said that fits none of these.
    Other(String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel(option, what) => write!(f, "kernel option {option} ({what})"),
            Self::Privilege(privilege, what) => write!(f, "privilege {privilege} ({what})"),
            Self::Program(program, package) => {
                write!(f, "program {program} (apt-get install {package})")
            }
            Self::Other(message) => f.write_str(message),
        }
    }
}

/// Everything that is missing, at once, so that it can be put right at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this machine lacks {}", list(.0))]
pub struct Incapable(pub Vec<Missing>);

fn list(missing: &[Missing]) -> String {
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    missing.join(", ")
}

/// Finds out what this machine can do in the calling thread's network namespace.
///
/// # Errors
/// With everything that is missing.
pub fn probe() -> Result<Capabilities, Incapable> {
    let lacking = privileges();
    if lacking.is_empty() && everything().is_ok() {
        return Ok(Capabilities {
            queue_form: QueueForm::Native,
            flowtable: true,
        });
    }
    one_by_one(lacking)
}

/// Checks all that a kernel can have, in one table.
fn everything() -> Result<(), NetfilterError> {
    let (table, offload) = offloading();
    let mut statements: Vec<Value> = needed()
        .into_iter()
        .map(|(_, _, statement)| statement)
        .collect();
    statements.extend([offload, queueing()]);
    trial_with("everything", &[table], &statements)
}

/// Finds out what there is and what is missing, beside the privileges that are.
fn one_by_one(lacking: Vec<Missing>) -> Result<Capabilities, Incapable> {
    let mut missing = Vec::new();
    if let Err(error) = trial("accept", &json!({"accept": null})) {
        // Without this nothing else can be found out.
        return Err(Incapable(vec![explain(
            error,
            "CONFIG_NF_TABLES_INET",
            "the ruleset",
        )]));
    }
    for (option, what, statement) in needed() {
        if let Err(error) = trial(what, &statement) {
            missing.push(explain(error, option, what));
        }
    }
    let queue_form = queue_form().unwrap_or_else(|lacking| {
        missing.extend(lacking);
        QueueForm::Native
    });
    missing.extend(lacking);
    if !missing.is_empty() {
        return Err(Incapable(missing));
    }
    Ok(Capabilities {
        queue_form,
        flowtable: flowtable().is_ok(),
    })
}

/// One rule per feature that a kernel can be built without.
fn needed() -> Vec<(&'static str, &'static str, Value)> {
    let matching =
        |left: Value, right: Value| json!({"match": {"op": "==", "left": left, "right": right}});
    let payload = json!({"payload": {"base": "ih", "offset": 0, "len": 8}});
    vec![
        (
            "CONFIG_NFT_CT",
            "connection tracking in the ruleset",
            matching(json!({"ct": {"key": "mark"}}), json!(0)),
        ),
        (
            "CONFIG_NFT_REJECT_INET",
            "refusals",
            json!({"reject": {"type": "icmpx", "expr": "port-unreachable"}}),
        ),
        (
            "CONFIG_NFT_LIMIT",
            "limits",
            json!({"limit": {"rate": 1, "burst": 5, "per": "second"}}),
        ),
        (
            "CONFIG_NFT_FIB_INET",
            "telling our own addresses from others",
            matching(
                json!({"fib": {"result": "type", "flags": ["daddr"]}}),
                json!("local"),
            ),
        ),
        (
            "CONFIG_NF_TABLES of Linux 5.16 or newer",
            "finding payload behind the TCP header",
            matching(payload, json!(0)),
        ),
        (
            "CONFIG_NF_TABLES of Linux 5.18 or newer",
            "stripping TCP options",
            json!({"reset": {"tcp option": {"name": "mptcp"}}}),
        ),
    ]
}

/// Checks one statement in a forward chain.
fn trial(operation: &'static str, statement: &Value) -> Result<(), NetfilterError> {
    trial_with(operation, &[], std::slice::from_ref(statement))
}

fn trial_with(
    operation: &'static str,
    objects: &[Value],
    statements: &[Value],
) -> Result<(), NetfilterError> {
    let chain = json!({
        "family": "inet", "table": TRIAL, "name": "forward",
        "type": "filter", "hook": "forward", "prio": 0, "policy": "accept",
    });
    let rules = statements.iter().map(|statement| {
        json!({"add": {"rule": {
            "family": "inet", "table": TRIAL, "chain": "forward", "expr": [statement],
        }}})
    });
    let mut commands = vec![json!({"add": {"table": {"family": "inet", "name": TRIAL}}})];
    commands.extend(objects.iter().map(|object| json!({"add": object})));
    commands.push(json!({"add": {"chain": chain}}));
    commands.extend(rules);
    netfilter::check_batch(operation, &json!({"nftables": commands}).to_string())
}

/// The native form where there is one, else the shim, else what both lack.
fn queue_form() -> Result<QueueForm, Vec<Missing>> {
    if trial("queueing", &queueing()).is_ok() {
        return Ok(QueueForm::Native);
    }
    let mut missing = Vec::new();
    for program in ["iptables-nft", "ip6tables-nft"] {
        // Listing proves the program, the compatibility layer and the privilege; whether the kernel
        // has the target shows when the rule is installed.
        let listed = Command::new(program)
            .args(["-w", "5", "-t", "mangle", "-S", "FORWARD"])
            .output();
        match listed {
            Ok(output) if output.status.success() => {}
            Ok(_) => missing.push(Missing::Kernel("CONFIG_NFT_QUEUE", "queueing packets")),
            Err(_) => missing.push(Missing::Program(program, "iptables")),
        }
    }
    if missing.is_empty() {
        return Ok(QueueForm::IptablesShim);
    }
    missing.push(Missing::Kernel(
        "CONFIG_NFT_QUEUE",
        "queueing packets without iptables",
    ));
    missing.dedup();
    Err(missing)
}

fn queueing() -> Value {
    json!({"queue": {"num": 0}})
}

/// Whether a flowtable and its statement load.
fn flowtable() -> Result<(), NetfilterError> {
    let (table, statement) = offloading();
    trial_with("offloading", &[table], &[statement])
}

/// A flowtable, and the statement that puts a flow in; loopback is in every namespace.
fn offloading() -> (Value, Value) {
    let table = json!({"flowtable": {
        "family": "inet", "table": TRIAL, "name": "trial",
        "hook": "ingress", "prio": 0, "dev": "lo",
    }});
    (table, json!({"flow": {"op": "add", "flowtable": "@trial"}}))
}

/// What the sockets need beyond the ruleset.
fn privileges() -> Vec<Missing> {
    let mut missing = Vec::new();
    match crate::raw::RawSender::open() {
        Err(crate::raw::RawError::Privilege) => {
            missing.push(Missing::Privilege(
                "CAP_NET_RAW",
                "resetting refused connections",
            ));
        }
        Err(other) => missing.push(Missing::Other(chain(&other))),
        Ok(_) => {}
    }
    if let Err(error) = crate::conntrack::Conntrack::open() {
        missing.push(Missing::Other(chain(&error)));
    }
    missing
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn explain(error: NetfilterError, option: &'static str, what: &'static str) -> Missing {
    match error {
        NetfilterError::NotInstalled { .. } => Missing::Program("nft", "nftables"),
        NetfilterError::Privilege => Missing::Privilege("CAP_NET_ADMIN", "changing the ruleset"),
        NetfilterError::Unsupported(_) | NetfilterError::Refused { .. } => {
            Missing::Kernel(option, what)
        }
        other @ (NetfilterError::Answer(_) | NetfilterError::NotOurs(_)) => {
            Missing::Other(other.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_missing_is_named_at_once() {
        let incapable = Incapable(vec![
            Missing::Kernel("CONFIG_NFT_CT", "connection tracking in the ruleset"),
            Missing::Program("nft", "nftables"),
            Missing::Privilege("CAP_NET_RAW", "resetting refused connections"),
        ]);
        assert_eq!(
            incapable.to_string(),
            "this machine lacks kernel option CONFIG_NFT_CT (connection tracking in the ruleset), \
             program nft (apt-get install nftables), \
             privilege CAP_NET_RAW (resetting refused connections)"
        );
    }

    #[test]
    fn refusal_of_a_feature_names_its_option() {
        let refused = NetfilterError::Unsupported("No such file or directory".to_owned());
        let missing = explain(refused, "CONFIG_NFT_QUEUE", "queueing");
        assert_eq!(missing, Missing::Kernel("CONFIG_NFT_QUEUE", "queueing"));
        let privilege = explain(NetfilterError::Privilege, "CONFIG_NFT_QUEUE", "queueing");
        assert!(matches!(privilege, Missing::Privilege("CAP_NET_ADMIN", _)));
    }
}
