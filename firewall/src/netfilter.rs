//! Putting a ruleset into the kernel, reading it back, reading its counters.
//!
//! Goes through the programs `nft`, `iptables-nft` and `ip6tables-nft`: a change of the table is one
//! transaction of theirs. Knows nothing about what the rules say.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use nftables::helper::{NftablesError, get_current_ruleset_raw};
use serde_json::Value;

use crate::ruleset::{Counter, Difference, Ruleset, Shim, ShimCommand, TABLE};

/// The program that speaks nftables.
const NFT: &str = "nft";

/// A ruleset that is not in force.
#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    /// A program is not installed.
    #[error("{program} is not installed (Debian package {package})")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The process may not change the ruleset.
    #[error("changing the ruleset needs CAP_NET_ADMIN in this network namespace")]
    Privilege,
    /// The kernel lacks a feature some rule needs.
    #[error("this kernel cannot do what the ruleset needs: {0}")]
    Unsupported(String),
    /// A program refused.
    #[error("{operation}: {message}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// What the program said.
        message: String,
    },
    /// A program's answer could not be read.
    #[error("reading the answer of nft")]
    Answer(#[source] serde_json::Error),
    /// The kernel has something else than was put there.
    #[error("the ruleset in the kernel is not ours ({} differences, first {})", .0.len(), first(.0))]
    NotOurs(Vec<Difference>),
}

fn first(differences: &[Difference]) -> String {
    differences
        .first()
        .map_or_else(String::new, ToString::to_string)
}

/// Puts the ruleset in force in place of whatever has its name, and verifies it.
///
/// The order closes first: the table stops everything undecided before the shim's rule could queue
/// it, and the shim is a stop while it is missing. Empties the queues: for a start only.
///
/// # Errors
/// Naming what is missing. Nothing is changed when the table is refused.
pub fn install(ruleset: &Ruleset) -> Result<(), NetfilterError> {
    let replacing = table_exists()?;
    apply("installing the ruleset", &ruleset.install(replacing))?;
    remove_shims();
    for command in ruleset.shim().into_iter().flat_map(|shim| shim.apply()) {
        run("installing the queue rule", &command)?;
    }
    verify(ruleset)
}

/// Asks the kernel whether it would take the ruleset, without changing anything.
///
/// # Errors
/// Naming what is missing.
pub fn check(ruleset: &Ruleset) -> Result<(), NetfilterError> {
    let replacing = table_exists()?;
    check_batch("checking the ruleset", &ruleset.install(replacing))
}

/// Reads the table and the shim's rules back and compares.
///
/// # Errors
/// [`NetfilterError::NotOurs`] with every difference.
pub fn verify(ruleset: &Ruleset) -> Result<(), NetfilterError> {
    let differences = ruleset
        .differences(&list()?)
        .map_err(NetfilterError::Answer)?;
    if !differences.is_empty() {
        return Err(NetfilterError::NotOurs(differences));
    }
    for command in ruleset.shim().into_iter().flat_map(|shim| shim.check()) {
        if run("checking the queue rule", &command).is_err() {
            let rule = format!("{} {}", command.program, command.arguments.join(" "));
            return Err(NetfilterError::NotOurs(vec![Difference::Missing(rule)]));
        }
    }
    Ok(())
}

/// Renews rules that someone changed, leaving base chains and queues alone, and verifies.
///
/// # Errors
/// When a base chain or a set was changed, which takes [`install`], or the kernel refuses.
pub fn repair(ruleset: &Ruleset) -> Result<(), NetfilterError> {
    apply("repairing the ruleset", &ruleset.repair())?;
    if let Some(shim) = ruleset.shim() {
        for (check, add) in shim.check().iter().zip(shim.apply()) {
            if run("checking the queue rule", check).is_err() {
                run("repairing the queue rule", &add)?;
            }
        }
    }
    verify(ruleset)
}

/// Takes the table and the shim's rules away. Nothing is forwarded differently by our hand then, so
/// this is for tests and for uninstalling, never for a daemon that ends.
///
/// # Errors
/// When the kernel refuses.
pub fn remove() -> Result<(), NetfilterError> {
    remove_shims();
    if table_exists()? {
        let table = serde_json::json!({"family": "inet", "name": TABLE});
        let batch = serde_json::json!({"nftables": [{"delete": {"table": table}}]});
        apply("removing the ruleset", &batch.to_string())?;
    }
    Ok(())
}

/// Applies one transaction: what [`crate::ruleset::replace_served`] renders, for example.
///
/// # Errors
/// Naming what is missing; nothing is changed then.
pub fn apply(operation: &'static str, batch: &str) -> Result<(), NetfilterError> {
    transact(operation, batch, &[])
}

/// Asks the kernel whether it would take one transaction, without changing anything.
///
/// # Errors
/// Naming what is missing.
pub fn check_batch(operation: &'static str, batch: &str) -> Result<(), NetfilterError> {
    transact(operation, batch, &["-c"])
}

/// Packets counted under each name since the ruleset was installed.
///
/// # Errors
/// When the table cannot be read.
pub fn counters() -> Result<BTreeMap<&'static str, u64>, NetfilterError> {
    let arguments = ["list", "counters", "table", "inet", TABLE];
    let answer = ask("reading the counters", &arguments)?;
    let document: Value = serde_json::from_str(&answer).map_err(NetfilterError::Answer)?;
    let objects = document.get("nftables").and_then(Value::as_array);
    let counters = objects.into_iter().flatten().filter_map(|object| {
        let counter = object.get("counter")?;
        let name = Counter::from_name(counter.get("name")?.as_str()?)?.name();
        Some((name, counter.get("packets")?.as_u64()?))
    });
    Ok(counters.collect())
}

/// The table as the kernel has it, without set elements: with many, reading those takes a minute.
fn list() -> Result<String, NetfilterError> {
    ask(
        "reading the ruleset back",
        &["-t", "list", "table", "inet", TABLE],
    )
}

/// Whether there is a table of our name.
///
/// # Errors
/// When the table can be neither read nor missed.
pub fn table_exists() -> Result<bool, NetfilterError> {
    // Not a listing of tables: nft 1.0.6 corrupts its memory over the flags of an owned one in JSON,
    // and the latch is one.
    match list() {
        Ok(_) => Ok(true),
        Err(NetfilterError::Unsupported(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn ask(operation: &'static str, arguments: &[&str]) -> Result<String, NetfilterError> {
    get_current_ruleset_raw(None::<&OsStr>, arguments).map_err(|error| explain(operation, error))
}

/// Feeds one transaction to `nft`. Our own process, because the helper of crate `nftables` lets the
/// program's messages go to our standard error.
fn transact(
    operation: &'static str,
    batch: &str,
    arguments: &[&str],
) -> Result<(), NetfilterError> {
    let refuse = |error| not_run(operation, NFT, &error);
    let mut child = Command::new(NFT)
        .args(arguments)
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(refuse)?;
    // Dropping the handle ends the program's input. It reads all of it before it answers, so the
    // two pipes cannot wait for each other.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut input| input.write_all(batch.as_bytes()));
    let output = child.wait_with_output().map_err(refuse)?;
    if !output.status.success() {
        return Err(refused(operation, &String::from_utf8_lossy(&output.stderr)));
    }
    written.map_err(refuse)
}

/// Removes what any earlier start left, for other numbers of queues too.
fn remove_shims() {
    for program in ["iptables-nft", "ip6tables-nft"] {
        Shim::remove_all(program, &|command| {
            Command::new(command.program)
                .args(&command.arguments)
                .output()
                .ok()
                .filter(|output| output.status.success())
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        });
    }
}

fn run(operation: &'static str, command: &ShimCommand) -> Result<(), NetfilterError> {
    let output = Command::new(command.program)
        .args(&command.arguments)
        .output()
        .map_err(|error| not_run(operation, command.program, &error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refused(operation, &String::from_utf8_lossy(&output.stderr)))
}

fn explain(operation: &'static str, error: NftablesError) -> NetfilterError {
    match error {
        NftablesError::NftExecution { inner, .. } => not_run(operation, NFT, &inner),
        NftablesError::NftFailed { stderr, stdout, .. } => {
            refused(operation, if stderr.is_empty() { &stdout } else { &stderr })
        }
        NftablesError::NftInvalidJson(error) => NetfilterError::Answer(error),
        NftablesError::NftOutputEncoding { .. } => refused(operation, &error.to_string()),
    }
}

/// A program that did not even begin.
fn not_run(
    operation: &'static str,
    program: &'static str,
    error: &std::io::Error,
) -> NetfilterError {
    if error.kind() != std::io::ErrorKind::NotFound {
        return refused(operation, &error.to_string());
    }
    let package = if program == NFT {
        "nftables"
    } else {
        "iptables"
    };
    NetfilterError::NotInstalled { program, package }
}

fn refused(operation: &'static str, message: &str) -> NetfilterError {
    let message = message.trim().replace('\n', "; ");
    if message.contains("Operation not permitted") || message.contains("you must be root") {
        return NetfilterError::Privilege;
    }
    if message.contains("No such file or directory") || message.contains("not supported") {
        return NetfilterError::Unsupported(message);
    }
    NetfilterError::Refused { operation, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_becomes_what_is_missing() {
        let said = |message| refused("installing the ruleset", message);
        assert!(matches!(
            said("netlink: Error: cache initialization failed: Operation not permitted\n"),
            NetfilterError::Privilege
        ));
        assert!(matches!(
            said("internal:0:0-0: Error: Could not process rule: No such file or directory"),
            NetfilterError::Unsupported(_)
        ));
        let other = said("one\ntwo\n");
        assert_eq!(other.to_string(), "installing the ruleset: one; two");
    }

    #[test]
    fn missing_program_is_named_with_its_package() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let nft = not_run("installing the ruleset", NFT, &missing);
        assert_eq!(
            nft.to_string(),
            "nft is not installed (Debian package nftables)"
        );
        let shim = not_run("installing the queue rule", "ip6tables-nft", &missing);
        assert!(shim.to_string().ends_with("(Debian package iptables)"));
    }

    #[test]
    fn not_ours_says_how_much_and_what_first() {
        let error = NetfilterError::NotOurs(vec![
            Difference::Foreign("a rule".to_owned()),
            Difference::Missing("another".to_owned()),
        ]);
        let text = "the ruleset in the kernel is not ours (2 differences, first foreign: a rule)";
        assert_eq!(error.to_string(), text);
    }
}
