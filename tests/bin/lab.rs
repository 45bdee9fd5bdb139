//! `cargo lab`: Postern between real clients and real servers, on this machine.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line's output"
)]

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use e2e::daemon::Daemon;
use e2e::lab::{self, Lab, Servers, report};
use e2e::topology::{API, Family, NAMELESS, Topology};
use e2e::{netns, prerequisites};

/// Runs Postern between clients and servers in three network namespaces and shows what it decides.
///
/// Needs root, or user namespaces; installs the Debian packages it needs when it is root. Nothing it does leaves this
/// machine, and nothing of it stays. Exit status: 0 when every attempt ended as it should, 1 when one did not, 2 for a
/// usage error. Example: `cargo lab --json | jq 'select(.outcome == "disallowed") | .reason'`.
#[derive(Debug, Parser)]
#[command(name = "lab")]
struct Arguments {
    /// Prints one JSON object per attempt, with the flow log's field names, and nothing else.
    #[arg(long)]
    json: bool,
    /// Opens a shell in the client's namespace afterwards, with Postern still running.
    #[arg(long)]
    shell: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    prerequisites::ensure()?;
    eprintln!("building postern");
    lab::build::daemon()?;
    netns::become_root()?;
    eprintln!("making namespaces and starting servers");
    let topology = Topology::new()?;
    let servers = Servers::start(&topology)?;
    let daemon = Daemon::start(&topology, lab::POLICY)?;
    let lab = Lab {
        topology: &topology,
        servers: &servers,
        daemon: &daemon,
    };
    let good = if arguments.json {
        as_json(&lab)?
    } else {
        as_table(&lab)?
    };
    if arguments.shell {
        shell(&topology, &servers)?;
    }
    Ok(good)
}

fn as_json(lab: &Lab<'_>) -> Result<bool> {
    lab.run(|attempt, observed| println!("{}", report::object(attempt, observed)))
}

fn as_table(lab: &Lab<'_>) -> Result<bool> {
    println!(
        "client 10.77.1.10 and fd77:1::10 -- postern -- internet 203.0.113.0/24 and 2001:db8:77::/64"
    );
    println!("\nthe inventory Postern runs on:\n{}", lab::POLICY);
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    let good = lab.run(|attempt, observed| {
        eprint!(".");
        drop(std::io::stderr().flush());
        rows.push(report::row(attempt, observed));
        lines.extend(observed.lines.iter().map(|line| line.0.to_string()));
    })?;
    eprintln!();
    println!(
        "what was tried and what became of it (ms: from the packet that decided to the verdict on the wire):\n"
    );
    for line in report::table(&rows) {
        println!("{line}");
    }
    println!("\nthe flow log:\n");
    for line in lines {
        println!("{line}");
    }
    let bad = rows.iter().filter(|row| row[0] != "ok").count();
    println!(
        "\n{} attempts, {} as they should, {bad} not",
        rows.len(),
        rows.len() - bad
    );
    Ok(good)
}

fn shell(topology: &Topology, servers: &Servers) -> Result<()> {
    let ca = servers.authority.certificate();
    eprintln!(
        "\nYou are the client 10.77.1.10, behind Postern. Try:\n  \
         curl --cacert {} https://{}/\n  \
         openssl s_client -connect {} -servername {}      # an allowed name, a stranger's address\n  \
         tail -f {}/state/spool/flow/*.jsonl\n\
         Leave with `exit`; everything goes with you.\n",
        ca.display(),
        API.name,
        NAMELESS.at(Family::V4, 443),
        API.name,
        topology.files.path().display(),
    );
    topology
        .client
        .command("bash")
        .args(["--norc", "-i"])
        .env("PS1", "client \\w\\$ ")
        .status()
        .map(drop)
        .context("running bash")
}
