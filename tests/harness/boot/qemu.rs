//! One run of qemu, watched from outside: results on the second serial port, a hard end in time.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::kernel::Kernel;
use super::report::Report;

/// How much of the console is quoted when the guest fails.
const CONSOLE_TAIL_LINES: usize = 40;

/// Boots the guest and reads its report. `limit` is power-on to power-off; a guest that takes longer is killed.
pub(super) fn run(
    work: &Path,
    kernel: &Kernel,
    initramfs: &Path,
    limit: Duration,
) -> Result<Report> {
    let console = work.join("console.log");
    let results = work.join("results.jsonl");
    for stale in [&console, &results] {
        File::create(stale).with_context(|| format!("creating {}", stale.display()))?;
    }
    let errors = File::create(work.join("qemu.log"))?;
    let child = command(kernel, initramfs, &console, &results)
        .stdin(Stdio::null())
        .stdout(errors.try_clone()?)
        .stderr(errors)
        .spawn()
        .context("starting qemu-system-x86_64")?;
    let ended = Guest(child).wait(limit)?;
    let lines = fs::read_to_string(&results).context("reading the guest's results")?;
    let report = Report::read(&lines).and_then(|report| {
        if report.finished {
            Ok(report)
        } else {
            bail!("it did not finish its list")
        }
    });
    report.with_context(|| {
        let why = if ended {
            "powered off early"
        } else {
            "ran out of time and was killed"
        };
        format!(
            "the guest {why}; its console ({}) ends:\n{}",
            console.display(),
            tail(&console)
        )
    })
}

/// Everything qemu emulates but `cmpxchg16b`, which 7.2 does wrongly on two processors (the allocator of kernel 6.12
/// faults), and what only costs time: wide registers are many narrow ones to an emulator.
pub const CPU: &str = "max,cx16=off,la57=off,svm=off,avx=off,avx2=off";

/// The machine: two emulated processors, two serial ports, nothing else.
fn command(kernel: &Kernel, initramfs: &Path, console: &Path, results: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        // Emulation: build machines seldom offer KVM, and a verdict does not depend on speed. Two
        // virtual processors, for two queues; they take turns on one thread: on two, qemu 7.2 may run
        // an instruction that the other processor has just patched away (the kernel dies of `int3` in its own code).
        .args([
            "-accel",
            "tcg,thread=single",
            "-cpu",
            CPU,
            "-smp",
            "2",
            "-m",
            "768",
        ])
        .args([
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-serial")
        .arg(format!("file:{}", results.display()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 random.trust_cpu=on",
        ]);
    command
}

/// A running qemu that does not outlive its owner.
struct Guest(Child);

impl Guest {
    /// Whether it ended by itself within `limit`.
    fn wait(mut self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.0.try_wait().context("waiting for qemu")?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(CONSOLE_TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}
