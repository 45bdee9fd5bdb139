//! What is booted: both packages of the programs that tests have built, on a disk that Packer's scripts provisioned.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::prerequisites::find;
use crate::suite::{ROOT, target_dir};

/// A file that proves a package is there, and the package.
const NEEDED: [(&str, &str); 11] = [
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/qemu-img", "qemu-utils"),
    ("/usr/share/ovmf/OVMF.fd", "ovmf"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    (
        "/usr/share/keyrings/debian-archive-trixie-stable.gpg",
        "debian-archive-keyring",
    ),
    ("/usr/sbin/mke2fs", "e2fsprogs"),
    ("/usr/sbin/sfdisk", "fdisk"),
    ("/usr/bin/mformat", "mtools"),
    ("/usr/bin/jq", "jq"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/sbin/ethtool", "ethtool"),
];

/// Makes sure every program is installed.
///
/// # Errors
/// With the line that installs what is missing, where that cannot be done here.
pub fn prerequisites() -> Result<()> {
    crate::prerequisites::ensure()?;
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !geteuid().is_root() || find("apt-get").is_none() {
        bail!(
            "run: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command
            .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().arg("update"))?;
    run(apt()
        .args(["install", "-y", "--no-install-recommends"])
        .args(missing))
}

/// Where the tier keeps its files.
///
/// # Errors
/// When this program is not where cargo puts programs.
pub fn folder() -> Result<PathBuf> {
    // A test is one folder further down than a program.
    let target = target_dir()?;
    let inner = ["debug", "release"]
        .iter()
        .any(|profile| target.ends_with(profile));
    let target = if inner {
        target.parent().context("a target folder")?.to_owned()
    } else {
        target
    };
    Ok(target.join("image"))
}

/// Packs the programs that other tiers have built.
///
/// # Errors
/// When packing fails.
pub fn packages() -> Result<()> {
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    script(
        "build-packages",
        &["--no-build", "--profile", profile],
        "packages",
    )
}

/// Makes the disk: a new one each time, of what the archive holds today.
///
/// # Errors
/// When the archive cannot be reached or a tool fails.
pub fn appliance() -> Result<()> {
    let packages = folder()?.join("packages");
    let packages = packages.to_str().context("a path in UTF-8")?;
    script("build-base", &["--appliance", packages], "")
}

/// The image.
///
/// # Errors
/// When this program is not where cargo puts programs.
pub fn disk() -> Result<PathBuf> {
    Ok(folder()?.join("appliance.qcow2"))
}

/// A disk over the image that takes every write.
///
/// # Errors
/// When qemu-img fails.
pub fn overlay(path: &Path) -> Result<()> {
    let image = fs::canonicalize(disk()?).context("no image: run cargo suite --only image")?;
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(image)
        .arg(path))
}

fn script(name: &str, words: &[&str], out: &str) -> Result<()> {
    let folder = folder()?;
    let mut command = Command::new(Path::new(ROOT).join("packer").join(name));
    command.args(words).arg("--out").arg(folder.join(out));
    if let Some(target) = folder.parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    run(command.current_dir(ROOT))
}

/// Runs to the end; what it says is kept, and its end quoted when it fails.
fn run(command: &mut Command) -> Result<()> {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_owned();
    let folder = folder()?;
    fs::create_dir_all(&folder)?;
    let log = folder.join(format!("{}.log", name.display()));
    let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("starting {}", name.display()))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines
        .get(lines.len().saturating_sub(30)..)
        .unwrap_or_default();
    bail!("{command:?}: {status}\n{}", tail.join("\n"))
}
