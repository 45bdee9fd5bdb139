//! The guest's whole file system: busybox, Debian's network tools, our programs, the modules they load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Programs;
use super::kernel::Kernel;
use super::prerequisites::{output, run};

/// Programs of this machine that the guest needs, each copied with the libraries it is linked with.
const TOOLS: &[&str] = &[
    "/usr/sbin/nft",
    "/usr/sbin/ip",
    "/usr/sbin/dnsmasq",
    "/usr/bin/openssl",
    // How the harness keeps its namespaces.
    "/usr/bin/setpriv",
    "/usr/bin/unshare",
    "/usr/bin/nsenter",
    // The kernel runs /sbin/modprobe when a rule needs a module; busybox's cannot unpack compressed ones.
    "/usr/sbin/modprobe",
];

/// Modules copied with everything they depend on: the packet filter, and virtual Ethernet.
const MODULE_PREFIXES: &[&str] = &["nf_", "nft_", "nfnetlink", "veth"];

/// The folders a root file system is expected to have.
const FOLDERS: &[&str] = &[
    "bin",
    "dev",
    "etc/postern",
    "lib",
    "lib64",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib/ssl",
    "usr/sbin",
    "var/lib",
    "var/log",
    "var/run",
];

/// Small files: accounts that the daemon drops to, and no name service but files.
const FILES: &[(&str, &str)] = &[
    ("init", include_str!("../../boot/files/init.sh")),
    ("etc/passwd", include_str!("../../boot/files/passwd")),
    ("etc/group", include_str!("../../boot/files/group")),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    // openssl req wants one; all that matters is on its command line.
    (
        "usr/lib/ssl/openssl.cnf",
        "[req]\ndistinguished_name = dn\n[dn]\n",
    ),
    // A place to mount a resolver configuration over, per namespace.
    ("etc/resolv.conf", ""),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];

/// Builds the compressed archive and returns its path.
pub(super) fn build(work: &Path, kernel: &Kernel, programs: &Programs<'_>) -> Result<PathBuf> {
    let root = work.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("clearing {}", root.display()))?;
    }
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    for (path, text) in FILES {
        write(&root.join(path), text)?;
    }
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    copy(Path::new("/bin/busybox"), &root.join("bin/busybox"))?;
    for applet in ["sh", "ln", "mount", "poweroff", "sleep", "tee"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    for tool in TOOLS {
        copy_with_libraries(Path::new(tool), &root, tool)?;
    }
    symlink("../usr/sbin/modprobe", root.join("sbin/modprobe"))?;
    copy_with_libraries(programs.guest, &root, "/bin/boot-guest")?;
    copy_with_libraries(programs.postern, &root, "/bin/postern")?;
    copy_modules(kernel, &root)?;
    pack(work, &root)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Copies a dynamically linked program to `name` below `root`, and the libraries the loader would give it to the
/// places it would find them.
fn copy_with_libraries(program: &Path, root: &Path, name: &str) -> Result<()> {
    copy(program, &root.join(name.trim_start_matches('/')))?;
    for library in output(Command::new("ldd").arg(program))?
        .lines()
        .filter_map(library_path)
    {
        let to = root.join(library.trim_start_matches('/'));
        if !to.exists() {
            copy(Path::new(library), &to)?;
        }
    }
    Ok(())
}

/// The path in a line of ldd: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld-… (0x…)`.
fn library_path(line: &str) -> Option<&str> {
    line.split_whitespace().find(|word| word.starts_with('/'))
}

/// Copies the wanted modules, what they depend on, and an index that modprobe understands.
fn copy_modules(kernel: &Kernel, root: &Path) -> Result<()> {
    let folder = PathBuf::from("lib/modules").join(&kernel.release);
    let source = kernel.root.join(&folder);
    let listed = fs::read_to_string(source.join("modules.dep")).context("reading modules.dep")?;
    let dependencies = parse_dependencies(&listed);
    let mut wanted: Vec<&str> = dependencies
        .keys()
        .copied()
        .filter(|path| is_wanted(path))
        .collect();
    if wanted.is_empty() {
        bail!("{} has no netfilter modules", source.display());
    }
    let mut taken = BTreeSet::new();
    while let Some(path) = wanted.pop() {
        if taken.insert(path) {
            copy(&source.join(path), &root.join(&folder).join(path))?;
            wanted.extend(dependencies.get(path).into_iter().flatten());
        }
    }
    for index in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        copy(&source.join(index), &root.join(&folder).join(index))?;
    }
    run(Command::new("/usr/sbin/depmod")
        .arg("-b")
        .arg(root)
        .arg(&kernel.release))
}

fn is_wanted(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    MODULE_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Lines of `modules.dep`: `kernel/net/a.ko: kernel/net/b.ko kernel/net/c.ko`.
fn parse_dependencies(text: &str) -> BTreeMap<&str, Vec<&str>> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needs)| (module, needs.split_whitespace().collect()))
        .collect()
}

/// `cpio -o -H newc | zstd`, the format the kernel unpacks itself; every file belongs to root in the guest.
fn pack(work: &Path, root: &Path) -> Result<PathBuf> {
    let archive = work.join("initramfs.zst");
    run(Command::new("bash")
        .args(["-o", "pipefail", "-c"])
        .arg("cd \"$1\" && find . -print0 | cpio --null --quiet -o -H newc -R 0:0 | zstd -q -3 -T0 -f -o \"$2\"")
        .arg("pack")
        .arg(root)
        .arg(std::path::absolute(&archive)?))?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_lines_yield_the_path_of_the_library() {
        let line = "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)";
        assert_eq!(library_path(line), Some("/lib/x86_64-linux-gnu/libc.so.6"));
        assert_eq!(
            library_path("\t/lib64/ld-linux-x86-64.so.2 (0x7f)"),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(library_path("\tlinux-vdso.so.1 (0x7ffd)"), None);
    }

    #[test]
    fn dependencies_of_a_module_are_read_in_order() {
        let parsed = parse_dependencies("kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko:\n");
        assert_eq!(
            parsed.get("kernel/a.ko"),
            Some(&vec!["kernel/b.ko", "kernel/c.ko"])
        );
        assert_eq!(parsed.get("kernel/b.ko"), Some(&Vec::new()));
        assert!(is_wanted("kernel/net/netfilter/nft_queue.ko.xz"));
        assert!(!is_wanted("kernel/net/ipv6/ip6_gre.ko"));
    }
}
