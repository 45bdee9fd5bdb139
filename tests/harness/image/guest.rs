//! One emulated machine: its disk, its console, and a root shell on a serial port that no image has by itself.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::stage::Stage;
use crate::wait;

/// What the firmware says the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// An EC2 instance.
    Aws,
    /// A Compute Engine instance.
    Gcp,
    /// Neither.
    Elsewhere,
}

/// A running machine; ends when dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    shell: UnixStream,
    console: PathBuf,
    started: Instant,
}

/// The shell's unit (its input is a pipe, or it would prompt), and what pulls it in: systemd reads both from the firmware (systemd-debug-generator(8)), so that
/// the image under test is the image that ships.
const SHELL: &str = "[Unit]\nDescription=Shell of the image tier\nAfter=systemd-remount-fs.service\nDefaultDependencies=no\n\
[Service]\nExecStart=/bin/sh -c 'stty -F /dev/ttyS1 raw -echo; cat | /bin/sh'\nStandardInput=tty-force\nStandardOutput=tty\n\
StandardError=tty\nTTYPath=/dev/ttyS1\nRestart=always\nRestartSec=1\n";
const WANTS: &str = "[Unit]\nWants=image-tier-shell.service\n";

impl Guest {
    /// Powers a machine on, with `disk` for its disk: whatever it writes stays there.
    pub fn start(stage: &Stage, disk: &Path, machine: Machine) -> Result<Self> {
        let folder = stage.folder();
        let socket = folder.join("shell.sock");
        // Not there is as good as removed.
        drop(fs::remove_file(&socket));
        for wire in stage.wires() {
            wire.clear();
        }
        let console = folder.join("console.log");
        File::create(&console).context("making the console's log")?;
        let errors = File::create(folder.join("qemu.log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        hardware(&mut command, disk);
        cards(&mut command, stage);
        firmware(&mut command, folder, machine)?;
        command
            .args([
                "-chardev",
                &format!("file,id=console,path={},append=on", console.display()),
            ])
            .args(["-serial", "chardev:console"])
            .args([
                "-chardev",
                &format!(
                    "socket,id=shell,path={},server=on,wait=off",
                    socket.display()
                ),
            ])
            .args(["-serial", "chardev:shell"]);
        let child = command
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors)
            .spawn()
            .context("starting qemu-system-x86_64")?;
        let shell = wait::until(wait::PATIENCE, || UnixStream::connect(&socket).ok());
        let shell = shell.with_context(|| {
            let said = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
            format!("qemu did not start: {said}")
        })?;
        shell.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self {
            child,
            shell,
            console,
            started: Instant::now(),
        })
    }

    /// Since power-on.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Everything on the first serial port so far.
    pub fn console(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the shell answers.
    pub fn wait_shell(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.run_within("true", Duration::from_secs(3)).is_ok() {
                return Ok(());
            }
        }
        bail!(
            "no shell after {limit:?}; the console ends:\n{}",
            self.tail()
        )
    }

    /// Runs a command inside to its end; what it wrote, or an error when it failed.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.run_within(command, COMMAND_LIMIT)
    }

    /// As [`Guest::run`], with another limit.
    pub fn run_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        let mark = format!("done-{}", self.started.elapsed().as_nanos());
        write!(
            self.shell,
            "echo begin-{mark}; ( {command}\n) 2>&1; echo; echo {mark} $?\n"
        )
        .context("typing")?;
        let deadline = Instant::now() + limit;
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while Instant::now() < deadline {
            if let Ok(length) = self.shell.read(&mut buffer) {
                text.extend(buffer.get(..length).unwrap_or_default());
            }
            let said = String::from_utf8_lossy(&text);
            // What a command before it still had to say is not its answer.
            let Some((_, said)) = said.split_once(&format!("begin-{mark}\n")) else {
                continue;
            };
            let Some((output, rest)) = said.split_once(&format!("\n{mark} ")) else {
                continue;
            };
            let Some((status, _)) = rest.split_once('\n') else {
                continue;
            };
            if status.trim() == "0" {
                return Ok(output.trim().to_owned());
            }
            bail!(
                "{command}: exit status {}: {}",
                status.trim(),
                output.trim()
            );
        }
        bail!(
            "{command}: no end after {limit:?}: {}",
            String::from_utf8_lossy(&text)
        )
    }

    /// Probes a command until it succeeds.
    pub fn wait_for(&mut self, command: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.run(command) {
                Ok(output) => return Ok(output),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!("the console ends:\n{}", self.tail())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// Presses reset: no shutdown, as a host that fails.
    pub fn power_off(mut self) -> Result<()> {
        drop(self.run_within("sync", Duration::from_secs(20)));
        self.child.kill().context("ending qemu")?;
        self.child.wait().map(drop).context("waiting for qemu")
    }

    /// The last lines of the console.
    pub fn tail(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        let from = lines.len().saturating_sub(30);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn hardware(command: &mut Command, disk: &Path) {
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", CPU])
        .args(["-machine", "q35", "-smp", "2", "-m", "1024"])
        .args(["-display", "none", "-monitor", "none"])
        .args(["-bios", "/usr/share/ovmf/OVMF.fd"])
        .arg("-drive")
        .arg(format!(
            "file={},if=virtio,format=qcow2,cache=unsafe",
            disk.display()
        ));
}

/// Two cards: the inner network first.
fn cards(command: &mut Command, stage: &Stage) {
    let [inside, outside] = stage.wires();
    for (wire, id, mac) in [
        (inside, "inside", INSIDE_MAC),
        (outside, "outside", OUTSIDE_MAC),
    ] {
        command.args(["-netdev", &wire.netdev(id)]);
        command.args([
            "-device",
            &format!("virtio-net-pci,romfile=,netdev={id},mac={mac}"),
        ]);
    }
}

fn firmware(command: &mut Command, folder: &Path, machine: Machine) -> Result<()> {
    let kind = match machine {
        Machine::Aws => "manufacturer=Amazon EC2,product=t3.micro",
        Machine::Gcp => "manufacturer=Google,product=Google Compute Engine",
        Machine::Elsewhere => "manufacturer=Nobody,product=Nothing",
    };
    command.args(["-smbios", &format!("type=1,{kind}")]);
    for (name, text) in [
        ("systemd.extra-unit.image-tier-shell.service", SHELL),
        ("systemd.unit-dropin.sysinit.target", WANTS),
    ] {
        let file = folder.join(name);
        let text = format!("io.systemd.credential:{name}={text}");
        fs::write(&file, text).context("writing a credential")?;
        command.args(["-smbios", &format!("type=11,path={}", file.display())]);
    }
    Ok(())
}

/// The card on the clients' side.
pub const INSIDE_MAC: &str = "52:54:00:77:00:01";
/// The card on the internet's side.
pub const OUTSIDE_MAC: &str = "52:54:00:77:00:02";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Everything qemu emulates but `cmpxchg16b`, which 7.2 does wrongly on two processors (the kernel's allocator faults),
/// and what only costs time.
const CPU: &str = "max,cx16=off,la57=off,svm=off";
