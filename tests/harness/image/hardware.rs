//! What a machine is made of, for each architecture that packages are built for.

use std::path::Path;
use std::process::Command;

use super::guest::Machine;

/// Whose programs the image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// This tier's own.
    Amd64,
    /// Emulated on a machine of another architecture like this one.
    Arm64,
}

impl Architecture {
    /// The emulator of its machines.
    pub(super) fn emulator(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// The shell's port: the second one of a PC, the first on a card where the board has but one of its own.
    pub(super) fn shell_port(self) -> &'static str {
        match self {
            Self::Amd64 => "ttyS1",
            Self::Arm64 => "ttyS0",
        }
    }

    fn board(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &[
                "-machine",
                "q35",
                "-cpu",
                crate::boot::CPU,
                "-bios",
                "/usr/share/ovmf/OVMF.fd",
            ],
            // Amazon's second and Google's first arm64 processor is a Neoverse N1 (Graviton2, Altra). It has no instruction for random
            // numbers: both clouds hand them in from outside.
            Self::Arm64 => &[
                "-machine",
                "virt,gic-version=3",
                "-cpu",
                "neoverse-n1",
                "-device",
                "virtio-rng-pci",
                "-bios",
                ARM64_FIRMWARE,
            ],
        }
    }
}

/// A board with two processors, 1 GiB and a disk behind what each cloud has: NVMe on EC2, a SCSI controller on Compute Engine.
pub(super) fn assemble(
    command: &mut Command,
    architecture: Architecture,
    machine: Machine,
    disk: &Path,
) {
    command
        .args(architecture.board())
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-display", "none"])
        .arg("-drive")
        .arg(format!(
            "file={},id=disk,if=none,format=qcow2,cache=unsafe",
            disk.display()
        ));
    let devices: &[&str] = match machine {
        Machine::Aws => &["nvme,drive=disk,serial=vol0,bootindex=0"],
        Machine::Gcp => &["virtio-scsi-pci", "scsi-hd,drive=disk,bootindex=0"],
        Machine::Elsewhere => &["virtio-blk-pci,drive=disk,bootindex=0"],
    };
    for device in devices {
        command.args(["-device", device]);
    }
}

/// The console, the shell's port, and qemu's monitor; the machine waits there for `cont`.
pub(super) fn ports(
    command: &mut Command,
    architecture: Architecture,
    console: &Path,
    shell: &Path,
    monitor: &Path,
) {
    command
        .args(["-S", "-monitor"])
        .arg(format!("unix:{},server=on,wait=off", monitor.display()))
        .arg("-chardev")
        .arg(format!("file,id=console,path={}", console.display()))
        .args(["-serial", "chardev:console", "-chardev"])
        .arg(format!(
            "socket,id=shell,path={},server=on,wait=off",
            shell.display()
        ))
        .args(match architecture {
            Architecture::Amd64 => ["-serial", "chardev:shell"],
            Architecture::Arm64 => ["-device", "pci-serial,chardev=shell"],
        });
}

/// UEFI for arm64, of Debian's package qemu-efi-aarch64.
pub const ARM64_FIRMWARE: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
