//! Python environments of their own under the target folder, one for each set of packages.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// The environment `name` with these requirements in it; one process at a time makes it.
///
/// # Errors
/// When it cannot be installed; the error says which command would.
pub fn environment(name: &str, requirements: &[&str]) -> Result<PathBuf> {
    let target = target()?;
    let folder = target.join(name);
    locked(&target.join(format!("{name}.lock")), || {
        let stamp = folder.join("requirement");
        // Its programs name the folder it was made in: a checkout that was moved needs another one.
        let wanted = format!("{}\n{}", folder.display(), requirements.join("\n"));
        if !std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
            install(&folder, requirements)?;
            std::fs::write(&stamp, wanted).context("noting what is installed")?;
        }
        Ok(())
    })?;
    Ok(folder)
}

/// Runs `work` while no other process holds the lock at `path`.
///
/// # Errors
/// When it cannot be locked, or `work` fails.
pub fn locked<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let lock = File::create(path).with_context(|| format!("making {}", path.display()))?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive);
    let lock = lock
        .map_err(|(_, error)| error)
        .with_context(|| format!("locking {}", path.display()))?;
    let result = work();
    drop(lock);
    result
}

fn install(folder: &Path, requirements: &[&str]) -> Result<()> {
    let venv = || {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder))
    };
    if let Err(error) = venv() {
        // Debian keeps the part of Python that makes environments in a package of its own.
        let root = nix::unistd::geteuid().is_root();
        if !root || crate::prerequisites::find("apt-get").is_none() {
            return Err(error.context("run: apt-get install python3 python3-venv"));
        }
        run(Command::new("apt-get")
            .args([
                "-o",
                "DPkg::Lock::Timeout=300",
                "install",
                "-y",
                "-qq",
                "--no-install-recommends",
            ])
            .args(["python3", "python3-venv"])
            .env("DEBIAN_FRONTEND", "noninteractive"))?;
        venv()?;
    }
    run(Command::new(folder.join("bin/pip"))
        .args(["install", "--quiet"])
        .args(requirements))
}

/// Runs a command that says nothing when all is well, and fails with what it said otherwise.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Where cargo builds: a test is in `<target>/<profile>/deps`, a program in `<target>/<profile>`.
///
/// # Errors
/// When this program is in neither.
pub fn target() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding this program")?;
    let folder = me.parent().context("a folder above this program")?;
    let up = if folder.ends_with("deps") { 2 } else { 1 };
    let target = folder.ancestors().nth(up);
    Ok(target
        .context("a target folder above this program")?
        .to_owned())
}
