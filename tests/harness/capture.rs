//! What really crossed a link: an AF_PACKET socket in a namespace and a thread that keeps every packet it yields.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{RcvBuf, ReceiveTimeout, ReceiveTimestampns};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind,
    recvmsg, setsockopt, socket,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};

use crate::netns::Namespace;
use crate::packet::Seen;
use crate::wait;

/// A packet of a capture.
#[derive(Debug, Clone)]
pub struct Captured {
    /// When it crossed, by the kernel's clock, since the Unix epoch: two captures agree on it.
    pub at: Duration,
    /// Whether it left the namespace over the link, rather than arrived.
    pub outgoing: bool,
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// The same, read.
    pub seen: Seen,
}

/// A running capture of one link; ends when dropped.
#[derive(Debug)]
pub struct Capture {
    kept: Arc<Kept>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// The socket and what came out of it. A packet is on the socket before its receiver can see it, so whoever takes the
/// socket's packets first, a reader of this list never misses one whose effect it has seen.
#[derive(Debug)]
struct Kept {
    socket: OwnedFd,
    packets: Mutex<Vec<Captured>>,
}

impl Kept {
    /// Every packet so far, those included that are still on the socket.
    fn drain(&self) -> MutexGuard<'_, Vec<Captured>> {
        let mut packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; 70_000];
        loop {
            match take(&self.socket, &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Taken::Packet(captured) => packets.push(*captured),
                Taken::Other => {}
                Taken::Nothing => return packets,
            }
        }
    }

    fn wait(&self) {
        let mut descriptors = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // Whatever it says: the next drain finds out.
        let _said = poll(&mut descriptors, PollTimeout::from(20_u8));
    }
}

impl Capture {
    /// Starts recording the IP packets of `interface`; whatever crosses it after this returns is in.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        let kept = Arc::new(Kept {
            socket: open(namespace, interface)?,
            packets: Mutex::new(Vec::new()),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (reading, stopped) = (Arc::clone(&kept), Arc::clone(&stop));
        let reader = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                reading.wait();
                drop(reading.drain());
            }
        });
        Ok(Self {
            kept,
            stop,
            reader: Some(reader),
        })
    }

    /// Every packet that has crossed so far.
    pub fn packets(&self) -> Vec<Captured> {
        self.kept.drain().clone()
    }

    /// What `wanted` accepts of the packets so far.
    pub fn matching(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        self.packets()
            .into_iter()
            .map(|captured| captured.seen)
            .filter(|seen| wanted(seen))
            .collect()
    }

    /// Waits for a packet that `wanted` accepts; the first one.
    pub fn wait_for(&self, wanted: impl Fn(&Seen) -> bool) -> Option<Captured> {
        wait::until(wait::PATIENCE, || {
            self.packets()
                .into_iter()
                .find(|captured| wanted(&captured.seen))
        })
    }

    /// Waits until the link has been silent for `quiet`, at most ten times as long, then calls it settled.
    ///
    /// For asserting that something did *not* cross: the evidence that it was judged comes first, this second.
    pub fn settle(&self, quiet: Duration) {
        let mut count = self.packets().len();
        for _ in 0..10 {
            std::thread::sleep(quiet);
            let now = self.packets().len();
            if now == count {
                return;
            }
            count = now;
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// A packet socket bound to one interface of a namespace, and that interface's link address.
pub(crate) fn open(namespace: &Namespace, interface: &str) -> Result<OwnedFd> {
    namespace.enter(|| {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .context("opening a packet socket")?;
        bind(socket.as_raw_fd(), &link(interface)?).context("binding a packet socket")?;
        setsockopt(&socket, RcvBuf, &(8 << 20)).context("sizing its buffer")?;
        setsockopt(&socket, ReceiveTimestampns, &true).context("asking for times")?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(20))
            .context("setting its time-out")?;
        Ok(socket)
    })?
}

/// The link address of an interface of the namespace this thread is in.
pub(crate) fn link(interface: &str) -> Result<LinkAddr> {
    getifaddrs()
        .context("listing interfaces")?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| {
            entry
                .address
                .as_ref()
                .and_then(|address| address.as_link_addr().copied())
        })
        .with_context(|| format!("no interface {interface}"))
}

/// Reads one IP packet; `None` after the socket's time-out, and for anything else.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<Captured> {
    match take(socket, buffer, MsgFlags::empty()) {
        Taken::Packet(captured) => Some(*captured),
        Taken::Other | Taken::Nothing => None,
    }
}

/// What a socket had.
enum Taken {
    Packet(Box<Captured>),
    /// A frame that is not an IP packet.
    Other,
    Nothing,
}

fn take(socket: &OwnedFd, buffer: &mut [u8], flags: MsgFlags) -> Taken {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(TimeSpec);
    let read = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags);
    let Ok(message) = read else {
        return Taken::Nothing;
    };
    let at = message.cmsgs().ok().and_then(|mut controls| {
        controls.find_map(|control| {
            let ControlMessageOwned::ScmTimestampns(at) = control else {
                return None;
            };
            Some(Duration::from(at))
        })
    });
    let length = message.bytes;
    let outgoing = message
        .address
        .map(|from| from.pkttype() == PACKET_OUTGOING);
    let (Some(at), Some(outgoing)) = (at, outgoing) else {
        return Taken::Other;
    };
    let bytes = buffer.get(ETHERNET..length).unwrap_or_default().to_vec();
    match Seen::parse(&bytes) {
        Some(seen) => Taken::Packet(Box::new(Captured {
            at,
            outgoing,
            bytes,
            seen,
        })),
        None => Taken::Other,
    }
}

const ETHERNET: usize = 14;
// linux/if_packet.h
const PACKET_OUTGOING: u8 = 4;
