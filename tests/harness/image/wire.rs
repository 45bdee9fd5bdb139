//! Carries Ethernet frames between a link of a namespace and a network card of qemu.

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, send};

use crate::capture;
use crate::netns::Namespace;

/// A running carrier; ends when dropped.
#[derive(Debug)]
pub(super) struct Wire {
    ours: PathBuf,
    qemus: PathBuf,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Carries between `interface` of a namespace and the card that [`Wire::netdev`] describes.
    pub(super) fn lay(namespace: &Namespace, interface: &str, folder: &Path) -> Result<Self> {
        // The same socket would also hand back what is sent over it.
        let (link, out) = (
            capture::open(namespace, interface)?,
            capture::open(namespace, interface)?,
        );
        let ours = folder.join(format!("{interface}.host"));
        let qemus = folder.join(format!("{interface}.qemu"));
        let socket = UnixDatagram::bind(&ours).context("binding a wire's socket")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let (sender, to, stopped) = (socket.try_clone()?, qemus.clone(), Arc::clone(&stop));
        threads.push(std::thread::spawn(move || {
            let mut buffer = vec![0; FRAME_MAX];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = recvfrom::<LinkAddr>(link.as_raw_fd(), &mut buffer) else {
                    continue;
                };
                let outgoing = from.is_none_or(|from| from.pkttype() == PACKET_OUTGOING);
                if let (false, Some(frame)) = (outgoing, buffer.get(..length)) {
                    // Between two machines nobody is at the other end, as with any cable.
                    drop(sender.send_to(frame, &to));
                }
            }
        }));
        let stopped = Arc::clone(&stop);
        threads.push(std::thread::spawn(move || {
            let mut buffer = vec![0; FRAME_MAX];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut buffer)
                    && let Some(frame) = buffer.get(..length)
                {
                    // A link that is down takes nothing, as any cable.
                    let _sent = send(out.as_raw_fd(), frame, MsgFlags::empty());
                }
            }
        }));
        Ok(Self {
            ours,
            qemus,
            stop,
            threads,
        })
    }

    /// What qemu has to be told of it.
    pub(super) fn netdev(&self, id: &str) -> String {
        format!(
            "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            self.qemus.display(),
            self.ours.display()
        )
    }

    /// Takes away what a machine that has ended left in the way of the next.
    pub(super) fn clear(&self) {
        // Not there is as good as removed.
        drop(std::fs::remove_file(&self.qemus));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

const FRAME_MAX: usize = 70_000;
// linux/if_packet.h
const PACKET_OUTGOING: u8 = 4;
