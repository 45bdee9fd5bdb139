//! What each tier runs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{ROOT, Runner, cargo, nextest};
use crate::evidence;
use crate::image::{build, shipped};
use crate::prerequisites;

/// A part of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Format, lints, and every test that needs nothing but this process.
    Unit,
    /// Real packets in network namespaces.
    Wire,
    /// Debian's stock cloud kernel under qemu.
    Boot,
    /// Both clouds' interfaces, played by small servers on loopback.
    Cloud,
    /// The appliance's image, provisioned by the scripts that Packer runs, and booted.
    Image,
    /// Every Terraform module and example against current provider schemas.
    Terraform,
}

/// Those that exist, in the order they run.
pub const TIERS: [Tier; 6] = [
    Tier::Unit,
    Tier::Wire,
    Tier::Boot,
    Tier::Cloud,
    Tier::Image,
    Tier::Terraform,
];

impl Tier {
    /// Runs it.
    pub fn run(self, runner: &mut Runner, long: bool) -> Result<()> {
        match self {
            Self::Unit => unit(runner, long),
            Self::Wire => wire(runner, long),
            Self::Boot => boot(runner),
            Self::Cloud => cloud(runner, long),
            Self::Image => image(runner, long),
            Self::Terraform => terraform(runner),
        }
    }

    /// Whether this clone holds it.
    pub fn exists(self) -> bool {
        match self {
            Self::Unit | Self::Wire => true,
            Self::Boot => Path::new(ROOT).join("tests/boot/main.rs").is_file(),
            Self::Cloud => Path::new(ROOT).join("tests/cloud/main.rs").is_file(),
            Self::Image => Path::new(ROOT).join("tests/image/main.rs").is_file(),
            Self::Terraform => Path::new(ROOT).join("tests/terraform/main.rs").is_file(),
        }
    }
}

/// Tests that need a kernel, a guest or a double, and so have a tier of their own.
const OTHER_TIERS: &str = "kind(test) and (package(e2e) or package(firewall))";

fn unit(runner: &mut Runner, long: bool) -> Result<()> {
    runner.command("unit: format", cargo().args(["fmt", "--all", "--check"]))?;
    runner.command(
        "unit: lints",
        cargo()
            .args([
                "clippy",
                "--quiet",
                "--workspace",
                "--exclude",
                "cloudsync",
                "--all-targets",
            ])
            .args(["--", "--deny", "warnings"]),
    )?;
    let mut tests = run_tests()?;
    tests.args([
        "--workspace",
        "--exclude",
        "cloudsync",
        "-E",
        &format!("not ({OTHER_TIERS})"),
    ]);
    if long {
        tests.env("PROPTEST_CASES", LONG_CASES);
    }
    runner.command("unit: tests", &mut tests)?;
    for library in FUZZED {
        let manifest = format!("firewall/{library}/fuzz/Cargo.toml");
        let mut check = cargo();
        check
            .args(["check", "--quiet", "--bins", "--manifest-path", &manifest])
            .arg("--target-dir")
            .arg(super::target_dir()?)
            // The fuzzer itself is C++, and not what is checked here.
            .env("CUSTOM_LIBFUZZER_PATH", "/nowhere/libfuzzer.a");
        runner.command(&format!("unit: fuzz targets of {library}"), &mut check)?;
    }
    if long { fuzz(runner) } else { Ok(()) }
}

fn wire(runner: &mut Runner, long: bool) -> Result<()> {
    let ready = runner.prepare("wire: prerequisites", prerequisites::ensure_counting)?
        && runner.prepare("wire: build postern", crate::lab::build::daemon)?
        && runner.prepare("wire: build what is counted", || {
            crate::counters::Counted::build().map(drop)
        })?;
    if !ready {
        return Ok(());
    }
    let mut tests = as_root(run_tests()?);
    tests.args([
        "-p",
        "firewall",
        "-p",
        "e2e",
        "-E",
        "binary(wire) or binary(counters) or (package(firewall) and kind(test))",
    ]);
    if long {
        tests.env("E2E_LONG", "1");
    }
    let folder = super::target_dir()?.join("suite/evidence");
    evidence::begin(&folder)?;
    tests.env(evidence::FOLDER, &folder);
    runner.command("wire: tests", &mut tests)?;
    runner.check("wire: each reason and metric came up", || {
        evidence::check(&folder)
    })?;
    if long { endurance(runner) } else { Ok(()) }
}

/// Reload at scale and ten minutes of memory, with an optimised Postern.
fn endurance(runner: &mut Runner) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "-p", "firewall"]);
    runner.command("long: build postern", &mut build)?;
    let mut tests = as_root(run_tests()?);
    tests.env("POSTERN_BIN", super::target_dir()?.join("release/postern"));
    tests.args(["-p", "e2e", "--test", "endurance", "--no-capture"]);
    runner.command("long: endurance", &mut tests)
}

fn boot(runner: &mut Runner) -> Result<()> {
    if !runner.prepare("boot: build postern", crate::lab::build::daemon)? {
        return Ok(());
    }
    let mut tests = run_tests()?;
    tests.args([
        "-p",
        "e2e",
        "--bins",
        "--test",
        "boot",
        "--no-tests",
        "fail",
    ]);
    runner.command("boot: tests", &mut tests)
}

fn cloud(runner: &mut Runner, long: bool) -> Result<()> {
    let ready = runner.prepare("cloud: prerequisites", prerequisites::ensure)?
        && runner.prepare("cloud: moto", || {
            crate::cloud::moto::environment().map(drop)
        })?
        && runner.prepare("cloud: build postern", crate::lab::build::daemon)?
        && runner.prepare("cloud: build postern-cloudsync", crate::lab::build::sidecar)?;
    if !ready {
        return Ok(());
    }
    runner.command(
        "cloud: lints",
        cargo().args([
            "clippy",
            "--quiet",
            "-p",
            "cloudsync",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
    )?;
    let mut tests = run_tests()?;
    tests.args(["-p", "cloudsync", "--no-tests", "pass"]);
    runner.command("cloud: sidecar", &mut tests)?;
    let mut tests = run_tests()?;
    tests.args(["-p", "e2e", "--test", "cloud"]);
    runner.command("cloud: tests", &mut tests)?;
    if long { scale(runner) } else { Ok(()) }
}

/// What needs an optimised sidecar and ten minutes.
const SCALE: &str = "test(three_appliances_of_a_large_project) or test(twenty_thousand_events) or \
                     test(/^large_account::/) or test(/^ship_rate::/) or test(new_client_waits)";

/// The largest account and project that are promised, and the most events, held to the figures that are.
fn scale(runner: &mut Runner) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "-p", "cloudsync"]);
    runner.command("long: build postern-cloudsync", &mut build)?;
    let binary = super::target_dir()?.join("release/postern-cloudsync");
    let mut tests = as_root(run_tests()?);
    tests
        .env("POSTERN_CLOUDSYNC_BIN", binary)
        .env("E2E_LONG", "1");
    tests.args(["-p", "e2e", "--test", "cloud", "-E", SCALE]);
    tests.arg("--no-capture");
    runner.command("long: the sidecar at scale", &mut tests)
}

/// With the programs the other tiers have built: of one commit, whichever that is.
fn image(runner: &mut Runner, long: bool) -> Result<()> {
    let ready = runner.prepare("image: prerequisites", build::prerequisites)?
        && runner.prepare("image: moto", || {
            crate::cloud::moto::environment().map(drop)
        })?
        && runner.prepare("image: build postern", crate::lab::build::daemon)?
        && runner.prepare("image: build postern-cloudsync", crate::lab::build::sidecar)?
        && runner.prepare("image: packages", build::packages)?
        && runner.prepare("image: disk", build::appliance)?
        && runner.prepare("image: packer validate, shellcheck", build::validate)?;
    if !ready {
        return Ok(());
    }
    let mut tests = run_tests()?;
    tests.args(["-p", "e2e", "--test", "image"]);
    runner.command("image: tests", &mut tests)?;
    // The same as the boot tier, on the kernel that ships.
    let mut tests = run_tests()?;
    tests.env("POSTERN_BOOT_KERNEL", build::kernel()?);
    tests.args([
        "-p",
        "e2e",
        "--bins",
        "--test",
        "boot",
        "--no-tests",
        "fail",
    ]);
    runner.command("image: its kernel", &mut tests)?;
    if long { as_shipped(runner) } else { Ok(()) }
}

/// Optimised packages and what Packer makes of them, twice or for arm64: most of an hour.
fn as_shipped(runner: &mut Runner) -> Result<()> {
    let ready = runner.prepare("long: prerequisites", shipped::prerequisites)?
        && runner.prepare("long: packages", shipped::packages)?;
    if !ready {
        return Ok(());
    }
    // The tests say what is missing where one of these fails.
    runner.prepare("long: packages once more", shipped::packages_again)?;
    runner.prepare("long: packer build", shipped::packer)?;
    if runner.prepare("long: packages for arm64", shipped::arm64_packages)? {
        runner.prepare("long: disk for arm64", shipped::arm64_appliance)?;
    }
    for (step, which) in [
        ("long: what ships", "not test(/^arm64::/)"),
        ("long: what ships for arm64", "test(/^arm64::/)"),
    ] {
        let mut tests = run_tests()?;
        tests.args([
            "-p",
            "e2e",
            "--test",
            "shipped",
            "--no-capture",
            "-E",
            which,
        ]);
        runner.command(step, &mut tests)?;
    }
    Ok(())
}

fn terraform(runner: &mut Runner) -> Result<()> {
    let ready = runner.prepare(
        "terraform: terraform and providers",
        crate::terraform::prepare,
    )? && runner.prepare("terraform: moto", || {
        crate::cloud::moto::environment().map(drop)
    })? && runner.prepare(
        "terraform: build postern-cloudsync",
        crate::lab::build::sidecar,
    )?;
    if !ready {
        return Ok(());
    }
    let mut tests = run_tests()?;
    tests.args(["-p", "e2e", "--test", "terraform"]);
    runner.command("terraform: tests", &mut tests)
}

/// Libraries with fuzz targets.
const FUZZED: [&str; 3] = ["policy", "inspect", "ipc"];

/// Every fuzz target for a minute.
fn fuzz(runner: &mut Runner) -> Result<()> {
    for library in FUZZED {
        let folder = Path::new(ROOT).join("firewall").join(library).join("fuzz");
        let Ok(entries) = std::fs::read_dir(folder.join("fuzz_targets")) else {
            continue;
        };
        for entry in entries {
            let path = entry.context("listing fuzz targets")?.path();
            let Some(target) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            let mut command = Command::new("cargo");
            command
                .args(["+nightly", "fuzz", "run", "--fuzz-dir"])
                .arg(&folder)
                .arg(target);
            command
                .args(["--", "-max_total_time=60"])
                .current_dir(ROOT)
                .env_remove("RUSTUP_TOOLCHAIN");
            runner.command(&format!("long: fuzz {library} {target}"), &mut command)?;
        }
    }
    Ok(())
}

/// `cargo nextest run` with the profile that shows every failure.
fn run_tests() -> Result<Command> {
    let mut command = Command::new(nextest()?);
    command
        .current_dir(ROOT)
        .args(["nextest", "run", "--profile", "ci", "--cargo-quiet"]);
    Ok(command)
}

/// Without root, namespaces need a user namespace around them.
fn as_root(command: Command) -> Command {
    if nix::unistd::geteuid().is_root() {
        return command;
    }
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--user", "--map-root-user", "--net", "--mount"])
        .arg(command.get_program());
    wrapped.args(command.get_args()).current_dir(ROOT);
    wrapped
}

const LONG_CASES: &str = "20000";
