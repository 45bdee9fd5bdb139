//! Hears of every change of the ruleset from the kernel and has it verified at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::{Kernel, KernelError};
use crate::netlink::{
    Message, Messages, NetfilterSocket, NetlinkError, SUBSYSTEM_NFTABLES, message_type,
};
use crate::ruleset::{QueueForm, TABLE};
use crate::wake::{self, Mailbox, Sender};

/// Who committed a transaction, as the kernel says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Editor {
    /// The program's name, at most 15 bytes of it.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

impl std::fmt::Display for Editor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// What one look at the events brought.
#[derive(Debug, Default)]
struct Heard {
    /// Something of what is ours changed, or may have.
    concerns_us: bool,
    /// Who changed something last.
    editor: Option<Editor>,
}

/// The kernel's announcements of changed rulesets (`NFNLGRP_NFTABLES`).
#[derive(Debug)]
struct Announcements {
    socket: NetfilterSocket,
    buffer: Vec<u8>,
    tables: Vec<&'static [u8]>,
}

impl Announcements {
    fn open(form: QueueForm) -> Result<Self, NetlinkError> {
        let socket = NetfilterSocket::open()?;
        socket.set_receive_buffer(RECEIVE_BUFFER_BYTES)?;
        socket.set_non_blocking(true)?;
        socket.join(GROUP_NFTABLES)?;
        let mut tables = vec![TABLE.as_bytes()];
        if form == QueueForm::IptablesShim {
            tables.push(b"mangle");
        }
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM_BYTES],
            tables,
        })
    }

    /// Takes what is there without waiting.
    fn take(&mut self) -> Result<Heard, NetlinkError> {
        let mut heard = Heard::default();
        for _ in 0..DATAGRAMS_PER_TAKE {
            let length = match self.socket.receive(&mut self.buffer) {
                Ok(length) => length,
                Err(error) => match error.errno().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => break,
                    // Announcements were lost, so anything may have changed.
                    Some(Errno::ENOBUFS) => {
                        heard.concerns_us = true;
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for message in Messages::new(datagram) {
                let Ok(message) = message else {
                    heard.concerns_us = true;
                    break;
                };
                if message.kind == message_type(SUBSYSTEM_NFTABLES, NEW_GENERATION) {
                    heard.editor = editor(&message).or(heard.editor);
                } else {
                    heard.concerns_us |= concerns(&message, &self.tables);
                }
            }
        }
        Ok(heard)
    }
}

impl AsFd for Announcements {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether an announcement is about one of these tables: every object but a generation names its
/// table in its first attribute.
fn concerns(message: &Message<'_>, tables: &[&[u8]]) -> bool {
    let named = message
        .attributes()
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind == ATTRIBUTE_TABLE);
    named.is_none_or(|name| {
        let name = name.value.strip_suffix(b"\0").unwrap_or(name.value);
        tables.contains(&name)
    })
}

fn editor(message: &Message<'_>) -> Option<Editor> {
    let mut pid = None;
    let mut name = None;
    for attribute in message.attributes().filter_map(Result::ok) {
        match attribute.kind {
            GENERATION_PROCESS => pid = attribute.be32().ok(),
            GENERATION_PROGRAM => {
                let text = attribute
                    .value
                    .strip_suffix(b"\0")
                    .unwrap_or(attribute.value);
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            _ => {}
        }
    }
    Some(Editor {
        name: name?,
        pid: pid?,
    })
}

/// The thread that keeps the kernel as it was left.
#[derive(Debug)]
pub struct Guard {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Starts watching. `failed` is called once, when the kernel cannot be held any longer.
    ///
    /// # Errors
    /// When the kernel's announcements cannot be had, or no thread.
    pub fn start(
        kernel: Arc<Kernel>,
        failed: impl FnOnce(KernelError) + Send + 'static,
    ) -> Result<Self, KernelError> {
        let announcements = Announcements::open(kernel.form).map_err(KernelError::Watch)?;
        let (stop, mailbox) =
            wake::mailbox(1).map_err(|error| KernelError::Thread(io::Error::from(error)))?;
        let thread = std::thread::Builder::new()
            .name("guard".to_owned())
            .spawn(move || {
                if let Err(error) = watch(&kernel, announcements, &mailbox) {
                    failed(error);
                }
            })
            .map_err(KernelError::Thread)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the thread; the ruleset stays.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.stop.send(());
        // A panic has aborted the process; there is no result to look at.
        drop(thread.join());
    }
}

fn watch(
    kernel: &Kernel,
    mut announcements: Announcements,
    stop: &Mailbox<()>,
) -> Result<(), KernelError> {
    // What changed before we listened was announced to nobody.
    kernel.hold_ruleset(None)?;
    let mut looked = Instant::now();
    loop {
        let mut watched = [
            PollFd::new(announcements.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        wake::wait(&mut watched, PollTimeout::from(PARAMETERS_EVERY_MS));
        if stop.take().next().is_some() {
            return Ok(());
        }
        let heard = announcements.take().map_err(KernelError::Watch)?;
        if heard.concerns_us || looked.elapsed() >= RULESET_EVERY {
            looked = Instant::now();
            let editor = heard.editor.filter(|_| heard.concerns_us);
            kernel.hold_ruleset(editor.as_ref())?;
        }
        kernel.hold_parameters()?;
    }
}

/// `NFNLGRP_NFTABLES`.
const GROUP_NFTABLES: u32 = 7;
/// `NFT_MSG_NEWGEN`, announced after each transaction.
const NEW_GENERATION: u8 = 15;
/// `NFTA_GEN_PROC_PID` and `NFTA_GEN_PROC_NAME`.
const GENERATION_PROCESS: u16 = 2;
const GENERATION_PROGRAM: u16 = 3;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and so on.
const ATTRIBUTE_TABLE: u16 = 1;
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
const DATAGRAM_BYTES: usize = 64 << 10;
const DATAGRAMS_PER_TAKE: usize = 1_024;
/// How often the parameters are read: nobody announces a change of theirs.
const PARAMETERS_EVERY_MS: u16 = 5_000;
/// How often the ruleset is read back though nobody announced a change.
const RULESET_EVERY: Duration = Duration::from_secs(60);
