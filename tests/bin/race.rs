//! `cargo race`: Postern beside plain NAT and the peers, on this machine.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line's output"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use e2e::race::datapath::Kind;
use e2e::race::measure::Effort;
use e2e::race::{self, plot, table};
use e2e::{lab, netns, prerequisites};

/// Measures Postern, plain kernel NAT, HAProxy, nginx and Squid in one run on the same wires.
///
/// Rounds are interleaved and every figure is a ratio to plain NAT in the same round; medians with smallest and largest.
/// Writes `target/race/results.json`, a table and plots. Needs two processors and nobody else on them: rounds that began
/// on a busy machine are marked. Installs the Debian packages it needs when it is root. Takes under 15 minutes, with
/// `--quick` under 4. Exit status: 0 when it was measured, 1 when not, 2 for a usage error.
/// Example: `cargo race --quick`.
#[derive(Debug, Parser)]
#[command(name = "race")]
struct Arguments {
    /// Two short rounds.
    #[arg(long)]
    quick: bool,
    /// Races these only, beside plain NAT.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Measures new connections and nothing else, in seven rounds: for work on the packet path. With `--only
    /// postern,before` and POSTERN_BEFORE naming another build, before and after come from one run.
    #[arg(long, conflicts_with_all = ["quick", "publish"])]
    connections: bool,
    /// Measures what is shared: new connections a second, latency, refusals and downloads, in seven rounds.
    #[arg(long, conflicts_with_all = ["quick", "publish", "connections"])]
    shared: bool,
    /// Measures sizes of policy up to 100,000 names and 50,000 clients and a reload under load, and nothing else.
    #[arg(long, conflicts_with_all = ["publish", "connections", "shared"])]
    policy: bool,
    /// Prints `results.json` instead of the table.
    #[arg(long)]
    json: bool,
    /// Also puts table and plots where the README shows them.
    #[arg(long)]
    publish: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("race: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    prerequisites::ensure_race()?;
    eprintln!("building postern and the load generator");
    lab::build::release(&["firewall", "load"])?;
    netns::become_root()?;
    let effort = match (arguments.quick, arguments.connections || arguments.shared) {
        (true, _) => Effort::QUICK,
        (false, true) => Effort::CONNECTIONS,
        (false, false) => Effort::FULL,
    };
    let effort = Effort {
        only_connections: arguments.connections,
        only_shared: arguments.shared,
        only_policy: arguments.policy,
        ..effort
    };
    let contestants = if arguments.only.is_empty() {
        Kind::ALL.to_vec()
    } else {
        arguments.only.clone()
    };
    let results = race::run(&effort, &contestants, &mut |line| eprintln!("{line}"))?;
    let folder = target()?.join("race");
    let plots = plot::write(&results, &folder)?;
    let json = serde_json::to_string_pretty(&results.to_json())?;
    std::fs::write(folder.join("results.json"), &json).context("writing results.json")?;
    let table = table::markdown(&results);
    std::fs::write(folder.join("table.md"), &table).context("writing table.md")?;
    if arguments.publish {
        let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join("race");
        publish(&folder, &shown, &plots, &table)?;
    }
    if arguments.json {
        println!("{json}");
    } else {
        println!("{table}");
        println!(
            "{}: results.json and {} plots",
            folder.display(),
            plots.len()
        );
    }
    Ok(())
}

/// Copies what the README shows into the clone, and the table into the README.
fn publish(from: &Path, to: &Path, plots: &[String], table: &str) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for name in plots.iter().map(String::as_str).chain(["results.json"]) {
        std::fs::copy(from.join(name), to.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&readme).context("reading README.md")?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("README.md has no place for the race")?;
    let (_, after) = rest
        .split_once(END)
        .context("README.md has no end of the race")?;
    let whole = format!("{before}{BEGIN}\n{table}\n{END}{after}");
    std::fs::write(&readme, whole).context("writing README.md")
}

const BEGIN: &str = "<!-- cargo race --publish: begin -->";
const END: &str = "<!-- cargo race --publish: end -->";

/// The target folder this program was built into.
fn target() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding this program")?;
    me.ancestors()
        .nth(2)
        .map(Path::to_owned)
        .context("a target folder")
}
