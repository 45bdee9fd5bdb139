//! Bounded mailboxes for threads that sleep in `poll`.
//!
//! A channel says nothing to `poll`, so each mailbox pairs one with an eventfd. Sending never
//! waits: what does not fit is refused to the sender. It costs a system call only when the receiver
//! has looked since the last one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::bounded;

/// The sending end; cheap to clone.
#[derive(Debug)]
pub struct Sender<T> {
    channel: bounded::Sender<T>,
    bell: Arc<Bell>,
}

/// The receiving end; its descriptor is readable while something may be waiting.
#[derive(Debug)]
pub struct Mailbox<T> {
    channel: bounded::Receiver<T>,
    bell: Arc<Bell>,
}

/// What wakes the receiver.
#[derive(Debug)]
struct Bell {
    event: EventFd,
    /// Set by the first to ring and cleared by the receiver before it looks: whoever finds it set
    /// may rely on a look that comes after.
    rung: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.event.write(1) {
            // Fails only when the counter is at its ceiling, and then the receiver is awake.
            Ok(_) | Err(_) => {}
        }
    }

    /// Silences it. In this order: a ring in between leaves the descriptor readable or is heard by
    /// the look that follows; the other way round it could be lost with the bell left set.
    fn silence(&self) {
        match self.event.read() {
            // Not readable when the receiver woke for another reason.
            Ok(_) | Err(_) => {}
        }
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// A mailbox with room for `capacity` messages.
///
/// # Errors
/// When the kernel gives no eventfd.
pub fn mailbox<T>(capacity: usize) -> nix::Result<(Sender<T>, Mailbox<T>)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bell = Arc::new(Bell {
        event: EventFd::from_flags(flags)?,
        rung: AtomicBool::new(false),
    });
    let (sender, receiver) = bounded::channel(capacity);
    let sender = Sender {
        channel: sender,
        bell: Arc::clone(&bell),
    };
    Ok((
        sender,
        Mailbox {
            channel: receiver,
            bell,
        },
    ))
}

impl<T> Sender<T> {
    /// Leaves a message and wakes the receiver; false when the mailbox is full or gone.
    pub fn send(&self, message: T) -> bool {
        let sent = self.channel.try_send(message).is_ok();
        self.wake();
        sent
    }

    /// Wakes the receiver without a message.
    pub fn wake(&self) {
        self.bell.ring();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<T> Mailbox<T> {
    /// Whether somebody has rung since the last look: what `poll` would say, without asking the kernel.
    pub fn is_rung(&self) -> bool {
        self.bell.rung.load(Ordering::Acquire)
    }

    /// Takes what is waiting; call after `poll` found the descriptor readable.
    pub fn take(&self) -> impl Iterator<Item = T> + '_ {
        self.bell.silence();
        self.channel.try_iter()
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.event.as_fd()
    }
}

/// Sleeps until a descriptor is readable or the time is up. A signal ends the sleep early, as
/// any wake-up may: whoever is woken looks at everything.
pub fn wait(watched: &mut [PollFd<'_>], timeout: PollTimeout) {
    match poll(watched, timeout) {
        Ok(_) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_mailbox_refuses_and_never_waits() {
        let (sender, mailbox) = mailbox(2).unwrap();
        assert!(sender.send(1));
        assert!(sender.send(2));
        assert!(!sender.send(3));
        assert_eq!(mailbox.take().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(mailbox.take().count(), 0);
    }

    #[test]
    fn no_message_waits_for_a_bell_that_never_rings() {
        let (sender, mailbox) = mailbox(1_024).unwrap();
        let count = 200_000_u32;
        let thread = std::thread::spawn(move || {
            for number in 0..count {
                while !sender.send(number) {
                    std::thread::yield_now();
                }
            }
        });
        let mut seen = 0;
        while seen < count {
            let mut watched = [PollFd::new(mailbox.as_fd(), nix::poll::PollFlags::POLLIN)];
            let ready = poll(&mut watched, PollTimeout::from(10_000_u16)).unwrap();
            assert_eq!(
                ready, 1,
                "a message left, and no wake-up: {seen} of {count}"
            );
            seen += u32::try_from(mailbox.take().count()).unwrap();
        }
        thread.join().unwrap();
    }
}
