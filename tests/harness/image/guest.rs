//! One emulated machine: its disk, its console, and a root shell on a serial port that no image has by itself.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::hardware::{self, Architecture};
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

/// How it is put together, besides two processors and 1 GiB of memory.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// What its firmware says.
    pub machine: Machine,
    /// Whose programs it runs.
    pub architecture: Architecture,
    /// Whether the card towards the internet is the first one the kernel finds.
    pub outside_first: bool,
    /// Whether its cards have cables when it is powered on.
    pub plugged: bool,
    /// Whether the daemon fails whenever it is started, until [`Guest::let_daemon_start`].
    pub held_back: bool,
}

impl Setup {
    /// An ordinary one: the inner card first, both cables in.
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            architecture: Architecture::Amd64,
            outside_first: false,
            plugged: true,
            held_back: false,
        }
    }
}

/// A running machine; ends when dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    shell: UnixStream,
    monitor: UnixStream,
    console: PathBuf,
    started: Instant,
}

/// The shell's unit (its input is a pipe, or it would prompt), and what pulls it in: systemd reads both from the firmware
/// (systemd-debug-generator(8)), so that the image under test is the image that ships.
const SHELL: &str = "[Unit]\nDescription=Shell of the image tier\nAfter=systemd-remount-fs.service\nDefaultDependencies=no\n\
[Service]\nExecStart=/bin/sh -c 'stty -F /dev/@PORT@ raw -echo; cat | /bin/sh'\nStandardInput=tty-force\nStandardOutput=tty\n\
StandardError=tty\nTTYPath=/dev/@PORT@\nRestart=always\nRestartSec=1\n";
/// Notes what the processors have done, idling left out, in seconds, once the daemon is ready.
const CLOCK: &str = "[Unit]\nDefaultDependencies=no\nAfter=postern.service\n[Service]\nType=oneshot\nExecStart=/bin/sh -c \
\"awk '/^cpu / { print ($$2 + $$3 + $$4 + $$7 + $$8) / 100 }' /proc/stat > /run/cpu-at-ready\"\n";
/// Fails before the daemon for as long as a file is not there.
const HELD_BACK: &str = "[Service]\nExecStartPre=/usr/bin/test -e /run/image-tier-start\n";
const WANTS: &str = "[Unit]\nWants=image-tier-shell.service image-tier-clock.service\n";

impl Guest {
    /// Powers a machine on, with `disk` for its disk: whatever it writes stays there. Packages to install are on a second,
    /// where the stage has them.
    pub fn start(stage: &Stage, disk: &Path, setup: Setup) -> Result<Self> {
        let folder = stage.folder();
        let socket = folder.join("shell.sock");
        let monitor = folder.join("monitor.sock");
        for old in [&socket, &monitor] {
            // Not there is as good as removed.
            drop(fs::remove_file(old));
        }
        for wire in stage.wires() {
            wire.clear();
        }
        let console = folder.join("console.log");
        File::create(&console).context("making the console's log")?;
        let errors = File::create(folder.join("qemu.log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", setup.architecture.emulator()]);
        hardware::assemble(&mut command, setup.architecture, setup.machine, disk);
        packages(&mut command, &folder.join(super::build::PACKAGES));
        cards(&mut command, stage, setup);
        firmware(&mut command, folder, setup)?;
        hardware::ports(
            &mut command,
            setup.architecture,
            &console,
            &socket,
            &monitor,
        );
        let child = command
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {}", setup.architecture.emulator()))?;
        let connect = |socket: &Path| {
            let stream = wait::until(SOON, || UnixStream::connect(socket).ok());
            stream.with_context(|| {
                let said = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
                format!("qemu did not start: {said}")
            })
        };
        let (shell, monitor) = (connect(&socket)?, connect(&monitor)?);
        shell.set_read_timeout(Some(Duration::from_millis(100)))?;
        monitor.set_read_timeout(Some(SOON))?;
        let mut this = Self {
            child,
            shell,
            monitor,
            console,
            started: Instant::now(),
        };
        this.prompt()?;
        if !setup.plugged {
            this.plug(false)?;
        }
        this.press("cont")?;
        Ok(this)
    }

    /// Plugs both cables in, or out.
    pub fn plug(&mut self, plugged: bool) -> Result<()> {
        let word = if plugged { "on" } else { "off" };
        for id in ["inside", "outside"] {
            self.press(&format!("set_link {id} {word}"))?;
        }
        Ok(())
    }

    /// Ends [`Setup::held_back`].
    pub fn let_daemon_start(&mut self) -> Result<()> {
        self.run("touch /run/image-tier-start").map(drop)
    }

    /// A word to qemu's own monitor, done when this returns.
    fn press(&mut self, word: &str) -> Result<()> {
        writeln!(self.monitor, "{word}").context("talking to qemu")?;
        self.prompt()
    }

    fn prompt(&mut self) -> Result<()> {
        let mut said = Vec::new();
        let mut byte = [0];
        while !said.ends_with(b"(qemu) ") {
            self.monitor.read_exact(&mut byte).context("qemu")?;
            said.extend(byte);
        }
        Ok(())
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

    /// Waits for a word on the first serial port.
    pub fn wait_console(&self, text: &str, limit: Duration) -> Result<()> {
        if wait::holds(limit, || self.console().contains(text)) {
            return Ok(());
        }
        bail!("the console never said {text:?}; it ends:\n{}", self.tail())
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
            "echo begin-{mark}; ( {command}\n) 2>&1; status=$?; echo; echo {mark} $status\n"
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

    /// Pulls the plug: no shutdown, as a host that fails.
    pub fn power_off(mut self) -> Result<()> {
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

/// A second disk, which is an archive, at [`ARCHIVE`].
fn packages(command: &mut Command, archive: &Path) {
    if archive.exists() {
        command.arg("-drive").arg(format!(
            "file={},id=packages,if=none,format=raw,readonly=on",
            archive.display()
        ));
        command.args(["-device", "virtio-blk-pci,drive=packages,serial=packages"]);
    }
}

/// Two cards: the inner network first, unless asked otherwise.
fn cards(command: &mut Command, stage: &Stage, setup: Setup) {
    let [inside, outside] = stage.wires();
    let mut cards = [
        (inside, "inside", INSIDE_MAC),
        (outside, "outside", OUTSIDE_MAC),
    ];
    if setup.outside_first {
        cards.reverse();
    }
    for (wire, id, mac) in cards {
        command.args(["-netdev", &wire.netdev(id)]);
        command.args([
            "-device",
            &format!("virtio-net-pci,romfile=,netdev={id},mac={mac}"),
        ]);
    }
}

fn firmware(command: &mut Command, folder: &Path, setup: Setup) -> Result<()> {
    let kind = match setup.machine {
        Machine::Aws => "manufacturer=Amazon EC2,product=t3.micro",
        Machine::Gcp => "manufacturer=Google,product=Google Compute Engine",
        Machine::Elsewhere => "manufacturer=Nobody,product=Nothing",
    };
    command.args(["-smbios", &format!("type=1,{kind}")]);
    let shell = SHELL.replace("@PORT@", setup.architecture.shell_port());
    let mut units = vec![
        (
            "systemd.extra-unit.image-tier-shell.service",
            shell.as_str(),
        ),
        ("systemd.extra-unit.image-tier-clock.service", CLOCK),
        ("systemd.unit-dropin.sysinit.target", WANTS),
    ];
    if setup.held_back {
        units.push(("systemd.unit-dropin.postern.service", HELD_BACK));
    }
    for (name, text) in units {
        let file = folder.join(name);
        let text = format!("io.systemd.credential:{name}={text}");
        fs::write(&file, text).context("writing a credential")?;
        command.args(["-smbios", &format!("type=11,path={}", file.display())]);
    }
    Ok(())
}

/// Where the machine finds the archive of packages.
pub const ARCHIVE: &str = "/dev/disk/by-id/virtio-packages";
/// The card on the clients' side.
pub const INSIDE_MAC: &str = "52:54:00:77:00:01";
/// The card on the internet's side.
pub const OUTSIDE_MAC: &str = "52:54:00:77:00:02";
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(60);
