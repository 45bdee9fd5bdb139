//! Tries what is forbidden, from inside a process that gave it up as the daemon does.
//!
//! `postern trial`, a hidden command: it prints one JSON object per attempt. Tests, and whoever doubts a machine's
//! kernel, run it; as `nobody` nothing is given up, which shows that the attempts would succeed.

use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Uid, getppid, setuid};

use super::ConfineError;
use crate::config::Config;

/// Whose rights are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Gives nothing up.
    Nobody,
    /// The daemon after its start.
    Daemon,
    /// A thread that judges packets.
    Queue,
    /// The process that asks resolvers.
    Witness,
    /// The same while it has the DNS front.
    Front,
}

/// One attempt: what it was called, and how it ended.
pub type Attempt = (&'static str, io::Result<()>);

/// Gives up what `role` does and makes every attempt. `secret` is a file outside of what the daemon may read, `metadata`
/// an address that only the sidecar may dial.
///
/// # Errors
/// When rights cannot be given up.
pub fn run(
    role: Role,
    config: &Config,
    secret: &Path,
    metadata: SocketAddr,
) -> Result<Vec<Attempt>, ConfineError> {
    match role {
        Role::Nobody => {}
        Role::Daemon => drop(super::daemon(config)?),
        Role::Witness | Role::Front => {
            super::daemon(config)?;
            super::witness(role == Role::Front)?;
        }
        Role::Queue => {
            super::daemon(config)?;
            // As in the daemon: its own thread, so that the others keep what they need.
            let thread = std::thread::Builder::new().spawn({
                let secret = secret.to_owned();
                move || {
                    super::queue_thread()?;
                    let mut attempts = common(&secret, metadata);
                    attempts.extend(confined());
                    Ok(attempts)
                }
            });
            let thread = thread.map_err(|error| ConfineError::Flag("thread", nix_error(&error)))?;
            return thread.join().unwrap_or_else(|_| Ok(Vec::new()));
        }
    }
    let mut attempts = common(secret, metadata);
    if role != Role::Daemon {
        attempts.extend(confined());
    }
    // Last, since it changes who asks.
    attempts.push((
        "become another user",
        setuid(Uid::from_raw(OTHER_USER)).map_err(Into::into),
    ));
    Ok(attempts)
}

/// What none of the three may do.
fn common(secret: &Path, metadata: SocketAddr) -> Vec<Attempt> {
    let writable = |path: &str| OpenOptions::new().write(true).open(path).map(drop);
    let created = |path: &Path| {
        let made = OpenOptions::new().write(true).create_new(true).open(path);
        // Where it succeeded it must not stay.
        made.and_then(|_| std::fs::remove_file(path))
    };
    let beside = secret.with_file_name("postern-trial");
    vec![
        ("read a file elsewhere", std::fs::read(secret).map(drop)),
        ("write a file elsewhere", created(&beside)),
        ("write /etc", created(Path::new("/etc/postern-trial"))),
        ("write /etc/passwd", writable("/etc/passwd")),
        (
            "change a kernel parameter",
            writable("/proc/sys/kernel/core_pattern"),
        ),
        (
            "run a program",
            Command::new("/bin/true").status().map(drop),
        ),
        ("trace a process", traced()),
        ("mount", mounted(secret)),
        ("load a module", module()),
        (
            "make a namespace",
            unshare(CloneFlags::CLONE_NEWUTS).map_err(Into::into),
        ),
        ("reach the metadata service", dialled(metadata)),
    ]
}

/// What the daemon's own thread may do, and neither a queue thread nor a witness.
fn confined() -> Vec<Attempt> {
    vec![
        (
            "run ourselves",
            Command::new("/proc/self/exe")
                .arg("--version")
                .output()
                .map(drop),
        ),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        (
            "open a netlink socket",
            opened(AddressFamily::Netlink, SockType::Raw),
        ),
        (
            "open a packet socket",
            opened(AddressFamily::Packet, SockType::Raw),
        ),
        (
            "write /proc/sys/net",
            OpenOptions::new()
                .write(true)
                .open(HELD_PARAMETER)
                .map(drop),
        ),
    ]
}

fn traced() -> io::Result<()> {
    ptrace::seize(getppid(), ptrace::Options::empty())?;
    Ok(())
}

fn mounted(secret: &Path) -> io::Result<()> {
    let folder = secret.parent().unwrap_or(secret);
    nix::mount::mount(
        Some("tmpfs"),
        folder,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )?;
    nix::mount::umount(folder)?;
    Ok(())
}

/// An empty module: a kernel that looks at it finds no module in it, which is what the attempt was after.
fn module() -> io::Result<()> {
    match nix::kmod::init_module(&[], c"") {
        Ok(()) | Err(nix::Error::ENOEXEC) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn dialled(metadata: SocketAddr) -> io::Result<()> {
    // A datagram first: the route must exist for the refusal to mean something.
    UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?.connect(metadata)?;
    TcpStream::connect_timeout(&metadata, Duration::from_secs(1)).map(drop)
}

fn opened(family: AddressFamily, kind: SockType) -> io::Result<()> {
    socket(family, kind, SockFlag::empty(), None)?;
    Ok(())
}

fn nix_error(error: &io::Error) -> nix::Error {
    nix::Error::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Nobody in particular.
const OTHER_USER: u32 = 61_999;
/// A parameter that the daemon holds.
const HELD_PARAMETER: &str = "/proc/sys/net/ipv4/ip_forward";
