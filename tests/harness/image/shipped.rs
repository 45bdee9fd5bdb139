//! What ships, where the image tier boots what tests have built: optimised packages, made twice and for both architectures,
//! the image that Packer itself makes of them, and arm64's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::build::{self, install, run, script, share_base};
use crate::suite::ROOT;

/// A file that proves a package is there, and the package.
const NEEDED: [(&str, &str); 6] = [
    ("/usr/bin/aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    (
        "/usr/aarch64-linux-gnu/include/stdio.h",
        "libc6-dev-arm64-cross",
    ),
    (EMULATOR, "qemu-user-static"),
    ("/usr/bin/file", "file"),
    ("/usr/bin/qemu-system-aarch64", "qemu-system-arm"),
    (super::hardware::ARM64_FIRMWARE, "qemu-efi-aarch64"),
];

/// Rust's word for arm64.
const ARM64: &str = "aarch64-unknown-linux-gnu";
/// Runs a program for arm64 here.
pub const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";
/// Where all of it is.
///
/// # Errors
/// When this program is not where cargo puts programs.
pub fn folder() -> Result<PathBuf> {
    Ok(build::folder()?.join("shipped"))
}

/// Makes sure every program is installed.
///
/// # Errors
/// With the line that installs what is missing, where that cannot be done here.
pub fn prerequisites() -> Result<()> {
    install(&NEEDED)?;
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", ARM64])
        .output()
        .context("asking rustc for its libraries")?;
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    if !Path::new(libraries.trim()).is_dir() {
        run(Command::new("rustup").args(["target", "add", ARM64]))?;
    }
    Ok(())
}

/// Builds both packages, optimised.
///
/// # Errors
/// When building fails.
pub fn packages() -> Result<()> {
    script("build-packages", &[], "shipped/packages")
}

/// Builds them once more, of a copy of the sources in another folder and with nothing built before.
///
/// # Errors
/// When building fails.
pub fn packages_again() -> Result<()> {
    let elsewhere = tempfile::tempdir().context("making a folder")?;
    let sources = elsewhere.path().join("sources");
    fs::create_dir(&sources)?;
    run(Command::new("sh")
        .args([
            "-ec",
            "tar -C \"$1\" --exclude=./target --exclude=./.git -cf - . | tar -C \"$2\" -xf -",
            "sh",
            ROOT,
        ])
        .arg(&sources))?;
    // The copy has no history to take the time from.
    let commit = Command::new("git")
        .args(["-C", ROOT, "log", "-1", "--format=%ct"])
        .output()
        .context("asking git for the time of the last commit")?;
    let time = String::from_utf8_lossy(&commit.stdout).trim().to_owned();
    ensure!(!time.is_empty(), "these sources have no history");
    run(Command::new(sources.join("packer/build-packages"))
        .arg("--out")
        .arg(folder()?.join("again"))
        .current_dir(&sources)
        .env("SOURCE_DATE_EPOCH", time)
        .env("CARGO_TARGET_DIR", elsewhere.path().join("built")))
}

/// Has Packer itself make the image, in a namespace without a network.
///
/// # Errors
/// When Packer fails.
pub fn packer() -> Result<()> {
    // Packer logs in with the key made last.
    share_base(&folder()?)?;
    script("build-base", &["--cache"], "shipped")?;
    let folder = folder()?;
    let output = folder.join("qemu");
    if output.exists() {
        fs::remove_dir_all(&output).context("clearing what Packer made before")?;
    }
    run(Command::new("unshare")
        .args([
            "--net",
            "sh",
            "-ec",
            "ip link set lo up; exec packer build -only=qemu.postern packer",
        ])
        .current_dir(ROOT)
        // It asks its maker for news otherwise.
        .env("CHECKPOINT_DISABLE", "1")
        .env("PACKER_CACHE_DIR", folder.join("packer-cache"))
        .env("PKR_VAR_packages", folder.join("packages"))
        .env("PKR_VAR_qemu_base", folder.join("base.qcow2"))
        .env("PKR_VAR_qemu_key", folder.join("packer-key"))
        .env("PKR_VAR_qemu_output", &output))
}

/// The image Packer made.
///
/// # Errors
/// As [`folder`].
pub fn packers_image() -> Result<PathBuf> {
    Ok(folder()?.join("qemu/postern.qcow2"))
}

/// Builds both packages for arm64; those of this machine must be there.
///
/// # Errors
/// When building fails.
pub fn arm64_packages() -> Result<()> {
    script(
        "build-packages",
        &["--arch", "arm64"],
        "shipped/arm64/packages",
    )
}

/// Makes the disk of those, in a chroot whose programs are emulated, from a folder that has this machine's packages as well, as
/// `target/packages` has once both were built.
///
/// # Errors
/// When the archive cannot be reached or a tool fails.
pub fn arm64_appliance() -> Result<()> {
    let folder = folder()?;
    let packages = folder.join("arm64/both");
    if packages.exists() {
        fs::remove_dir_all(&packages).context("clearing the packages of before")?;
    }
    fs::create_dir_all(&packages)?;
    for from in ["packages", "arm64/packages"] {
        for entry in fs::read_dir(folder.join(from))? {
            let package = entry?.path();
            let name = package.file_name().context("a package's name")?;
            fs::hard_link(&package, packages.join(name)).context("gathering packages")?;
        }
    }
    let packages = packages.to_str().context("a path in UTF-8")?;
    let words = ["--arch", "arm64", "--cache", "--appliance", packages];
    script("build-base", &words, "shipped/arm64")
}

/// The image for arm64.
///
/// # Errors
/// As [`folder`].
pub fn arm64_image() -> Result<PathBuf> {
    Ok(folder()?.join("arm64/appliance.qcow2"))
}

/// A disk over arm64's image that takes every write.
///
/// # Errors
/// When there is no image, or qemu-img fails.
pub fn arm64_disk(path: &Path) -> Result<()> {
    build::overlay_of(&arm64_image()?, path)
}

/// What `packer/measure-boot` says of an image.
///
/// # Errors
/// When the image does not become ready, or what was asked of it does not hold.
pub fn measure(words: &[&str], image: &Path) -> Result<String> {
    let output = Command::new(Path::new(ROOT).join("packer/measure-boot"))
        .args(words)
        .arg(image)
        .output()
        .context("starting measure-boot")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}\n{said}");
    Ok(said)
}
