//! Debian's cloud kernel, fetched as a package and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::prerequisites::{apt_update, output, run};

/// The package that always depends on the current cloud kernel of the machine's Debian release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// `uname -r` of it, e.g. `6.1.0-56-cloud-amd64`.
    pub(super) release: String,
    /// The compressed kernel image.
    pub(super) image: PathBuf,
    /// The root of the unpacked package; modules are in `lib/modules/RELEASE` below it, with `modules.dep` made.
    pub(super) root: PathBuf,
}

/// The kernel to boot: the one unpacked in the folder that `POSTERN_BOOT_KERNEL` names, else [`fetch`]'s.
pub(super) fn choose(work: &Path) -> Result<Kernel> {
    match std::env::var_os("POSTERN_BOOT_KERNEL") {
        Some(root) => open(root.into()),
        None => fetch(work),
    }
}

/// Fetches and unpacks the current cloud kernel into `work`, unless that version is there already.
fn fetch(work: &Path) -> Result<Kernel> {
    let package = match image_package() {
        Ok(package) => package,
        Err(_) => {
            apt_update()?;
            image_package()?
        }
    };
    let version = field(&package, "Version")?;
    let root = work.join(format!("{package}_{}", version.replace(':', "_")));
    if !root.join(".complete").exists() {
        unpack(&package, &root)?;
    }
    open(root)
}

/// The kernel package that the meta-package depends on.
fn image_package() -> Result<String> {
    let depends = field(META_PACKAGE, "Depends")?;
    let package = depends
        .split(',')
        .filter_map(|one| one.split_whitespace().next())
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{META_PACKAGE} depends on no kernel image: {depends}"))?;
    Ok(package.to_owned())
}

/// One field of a package's candidate version.
fn field(package: &str, name: &str) -> Result<String> {
    let shown = output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
    let value = shown
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let value = value.with_context(|| format!("apt-cache shows no {name} for {package}"))?;
    Ok(value.to_owned())
}

fn unpack(package: &str, root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).context("removing a kernel that was unpacked half")?;
    }
    fs::create_dir_all(root)?;
    // Not as the sandbox user `_apt`: it cannot write below the target directory.
    run(Command::new("apt-get").current_dir(root).args([
        "-q",
        "-o",
        "APT::Sandbox::User=root",
        "download",
        package,
    ]))?;
    let deb = fs::read_dir(root)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} left no package"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(root))?;
    fs::remove_file(&deb)?;
    let release = release_in(root)?;
    run(Command::new("/usr/sbin/depmod")
        .arg("-b")
        .arg(root)
        .arg(&release))?;
    fs::write(root.join(".complete"), "")?;
    Ok(())
}

fn release_in(root: &Path) -> Result<String> {
    let modules = root.join("lib/modules");
    let mut releases: Vec<String> = fs::read_dir(&modules)
        .with_context(|| format!("reading {}", modules.display()))?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    ensure!(
        releases.len() == 1,
        "expected one kernel in {}: {releases:?}",
        modules.display()
    );
    releases.pop().context("no kernel release")
}

fn open(root: PathBuf) -> Result<Kernel> {
    let release = release_in(&root)?;
    let image = root.join(format!("boot/vmlinuz-{release}"));
    ensure!(
        image.exists(),
        "{} holds no {}",
        root.display(),
        image.display()
    );
    Ok(Kernel {
        release,
        image,
        root,
    })
}
