//! What is booted: both packages of the programs that tests have built, on a disk that Packer's scripts provisioned.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::prerequisites::find;
use crate::suite::{ROOT, target_dir};

/// A file that proves a package is there, and the package.
const NEEDED: [(&str, &str); 16] = [
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
    ("/usr/bin/ssh-keygen", "openssh-client"),
    ("/usr/bin/xz", "xz-utils"),
    ("/usr/sbin/depmod", "kmod"),
    ("/usr/bin/packer", "packer"),
    ("/usr/bin/shellcheck", "shellcheck"),
];

/// Our shell scripts: a folder, and names in it.
const SCRIPTS: [&str; 7] = [
    "packer/build-base build-packages manifest measure-boot",
    "packer/provision/*",
    "packer/files/initramfs/*",
    "firewall/packaging/libexec/*",
    "firewall/packaging/debian/postinst prerm postrm",
    "cloudsync/packaging/libexec/*",
    "cloudsync/packaging/debian/postinst prerm postrm",
];

/// Makes sure every program is installed.
///
/// # Errors
/// With the line that installs what is missing, where that cannot be done here.
pub fn prerequisites() -> Result<()> {
    if !geteuid().is_root() {
        bail!("an image has files of many owners: run this tier as root");
    }
    crate::prerequisites::ensure()?;
    install(&NEEDED)
}

/// Makes sure that files are there, by the packages that bring them.
pub(super) fn install(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
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
    pack("packages")
}

fn pack(out: &str) -> Result<()> {
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    script("build-packages", &["--no-build", "--profile", profile], out)
}

/// Makes the disk: a new one each time, of what the archive held today or, at most, a week ago.
///
/// # Errors
/// When the archive cannot be reached or a tool fails.
pub fn appliance() -> Result<()> {
    let packages = folder()?.join("packages");
    let packages = packages.to_str().context("a path in UTF-8")?;
    script("build-base", &["--cache", "--appliance", packages], "")
}

/// The image.
///
/// # Errors
/// When this program is not where cargo puts programs.
pub fn disk() -> Result<PathBuf> {
    Ok(folder()?.join("appliance.qcow2"))
}

/// Has Packer check every source, for both architectures and without a network, and shellcheck every script.
///
/// # Errors
/// With what either says.
pub fn validate() -> Result<()> {
    let folder = folder()?;
    for architecture in ["amd64", "arm64"] {
        let variable = format!("architecture={architecture}");
        run(Command::new("packer")
            .args(["validate", "-var", &variable, "packer"])
            .current_dir(ROOT)
            // It asks its maker for news otherwise.
            .env("CHECKPOINT_DISABLE", "1")
            .env("PACKER_CACHE_DIR", folder.join("packer-cache"))
            .env("PKR_VAR_packages", folder.join("packages"))
            .env("PKR_VAR_qemu_base", folder.join("appliance.qcow2"))
            .env("PKR_VAR_qemu_key", folder.join("packer-key"))
            .env("PKR_VAR_qemu_output", folder.join("qemu")))?;
    }
    let mut shellcheck = Command::new("shellcheck");
    shellcheck.current_dir(ROOT);
    for pattern in SCRIPTS {
        let (under, names) = pattern.rsplit_once('/').context("a folder")?;
        for entry in fs::read_dir(Path::new(ROOT).join(under))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if names == "*" || names.split(' ').any(|one| one == name) {
                shellcheck.arg(format!("{under}/{name}"));
            }
        }
    }
    run(&mut shellcheck)
}

/// A disk over the image that takes every write.
///
/// # Errors
/// When qemu-img fails.
pub fn overlay(path: &Path) -> Result<()> {
    overlay_of(&disk()?, path)
}

/// As [`overlay`], over another image.
pub(super) fn overlay_of(image: &Path, path: &Path) -> Result<()> {
    let image = fs::canonicalize(image).context("no image: run cargo suite --only image")?;
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(image)
        .arg(path))
}

/// What two packings and the two images made of them differ in, by path.
///
/// # Errors
/// When one cannot be made.
pub fn differences() -> Result<BTreeSet<String>> {
    let folder = folder()?;
    let made = [folder.join("first"), folder.join("second")];
    for folder in &made {
        once_more(folder)?;
    }
    let [first, second] = &made;
    let mut differ = different_files(&first.join("packages"), &second.join("packages"))?;
    let lines = |folder: &Path| -> Result<BTreeSet<String>> {
        let text = fs::read_to_string(folder.join("appliance.manifest")).context("no manifest")?;
        Ok(text.lines().map(ToOwned::to_owned).collect())
    };
    differ.extend(
        lines(first)?
            .symmetric_difference(&lines(second)?)
            .map(|line| path_of(line).to_owned()),
    );
    for folder in &made {
        fs::remove_dir_all(folder).context("clearing up")?;
    }
    Ok(differ)
}

/// The path that a line of a manifest (`packer/manifest`) is about.
pub fn path_of(line: &str) -> &str {
    line.rsplit(' ').next().unwrap_or(line)
}

/// The files of a folder that another one has not, or not with the same bytes.
///
/// # Errors
/// When one cannot be read.
pub fn different_files(first: &Path, second: &Path) -> Result<BTreeSet<String>> {
    let mut differ = BTreeSet::new();
    for entry in fs::read_dir(first).with_context(|| format!("reading {}", first.display()))? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default();
        if fs::read(&file)? != fs::read(second.join(name)).unwrap_or_default() {
            differ.insert(name.display().to_string());
        }
    }
    Ok(differ)
}

/// Packs, and makes an image of that, in a folder of its own.
fn once_more(to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).context("clearing what was made before")?;
    }
    fs::create_dir_all(to)?;
    share_base(to)?;
    let name = to
        .file_name()
        .and_then(|name| name.to_str())
        .context("a name in UTF-8")?;
    pack(&format!("{name}/packages"))?;
    let packages = to.join("packages");
    let words = packages.to_str().context("a path in UTF-8")?;
    script("build-base", &["--cache", "--appliance", words], name)
}

/// Has a folder's images made of what the archive held for ours: that is not ours to compare.
pub(super) fn share_base(to: &Path) -> Result<()> {
    for entry in fs::read_dir(folder()?)? {
        let path = entry?.path();
        let link = to.join(path.file_name().unwrap_or_default());
        if path.extension().is_some_and(|ending| ending == "tar") && !link.exists() {
            fs::hard_link(&path, link)?;
        }
    }
    Ok(())
}

/// Unpacks the image's kernel for the boot tier's guest, which runs what needs hand-made packets: its folder.
///
/// # Errors
/// When there is no image yet, or a tool fails.
pub fn kernel() -> Result<PathBuf> {
    let folder = folder()?;
    let root = folder.join("kernel");
    if root.exists() {
        fs::remove_dir_all(&root).context("clearing the kernel of before")?;
    }
    fs::create_dir_all(&root)?;
    let base = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "tar"))
        .context("no base: run cargo suite --only image")?;
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .args(["--transform", "s,^./usr/lib/,./lib/,", "--wildcards"])
        .arg("-xf")
        .arg(&base)
        .args(["./boot/vmlinuz-*", "./usr/lib/modules/*"]))?;
    let release = fs::read_dir(root.join("lib/modules"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .next()
        .context("no kernel in the base")?;
    run(Command::new("/usr/sbin/depmod")
        .arg("-b")
        .arg(&root)
        .arg(release))?;
    Ok(root)
}

/// An archive of both packages in a version that comes after theirs, as [`PACKAGES`] in a folder.
///
/// # Errors
/// When there are none, or a tool fails.
pub fn newer_packages(to: &Path) -> Result<()> {
    let packages = folder()?.join("packages");
    let made = to.join("newer");
    fs::create_dir_all(&made).context("making a folder")?;
    for entry in fs::read_dir(&packages).context("no packages")? {
        let package = entry?.path();
        let root = to.join("unpacked");
        run(Command::new("dpkg-deb")
            .arg("--raw-extract")
            .args([&package, &root]))?;
        let control = root.join("DEBIAN/control");
        let text = fs::read_to_string(&control).context("reading a package's control")?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("Version: "))
            .context("a package without a version")?;
        // The sidecar depends on the daemon's version exactly.
        let text = text
            .replace(
                &format!("Version: {version}\n"),
                &format!("Version: {version}+1\n"),
            )
            .replace(&format!("= {version})"), &format!("= {version}+1)"));
        fs::write(&control, text).context("writing a package's control")?;
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "--build"])
            .arg(&root)
            .arg(&made))?;
        fs::remove_dir_all(&root).context("clearing up")?;
    }
    run(Command::new("tar")
        .arg("-C")
        .arg(&made)
        .arg("-cf")
        .arg(to.join(PACKAGES))
        .arg("."))
}

/// Runs one of Packer's scripts, whose output goes to a folder below [`folder`].
pub(super) fn script(name: &str, words: &[&str], out: &str) -> Result<()> {
    let folder = folder()?;
    let mut command = Command::new(Path::new(ROOT).join("packer").join(name));
    command.args(words).arg("--out").arg(folder.join(out));
    if let Some(target) = folder.parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    run(command.current_dir(ROOT))
}

/// Runs to the end; what it says is kept, and its end quoted when it fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
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

/// What the archive of packages is called that a machine has for its second disk.
pub const PACKAGES: &str = "packages.tar";
