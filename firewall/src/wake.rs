//! Bounded mailboxes for threads that sleep in `poll`.
//!
//! A channel says nothing to `poll`, so each mailbox pairs one with an eventfd. Sending never
//! waits: what does not fit is refused to the sender.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::poll::{PollFd, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The sending end; cheap to clone.
#[derive(Debug)]
pub struct Sender<T> {
    channel: SyncSender<T>,
    event: Arc<EventFd>,
}

/// The receiving end; its descriptor is readable while something may be waiting.
#[derive(Debug)]
pub struct Mailbox<T> {
    channel: Receiver<T>,
    event: Arc<EventFd>,
}

/// A mailbox with room for `capacity` messages.
///
/// # Errors
/// When the kernel gives no eventfd.
pub fn mailbox<T>(capacity: usize) -> nix::Result<(Sender<T>, Mailbox<T>)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = Arc::new(EventFd::from_flags(flags)?);
    let (sender, receiver) = sync_channel(capacity);
    let sender = Sender {
        channel: sender,
        event: Arc::clone(&event),
    };
    Ok((
        sender,
        Mailbox {
            channel: receiver,
            event,
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
        match self.event.write(1) {
            // Fails only when the counter is at its ceiling, and then the receiver is awake.
            Ok(_) | Err(_) => {}
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            event: Arc::clone(&self.event),
        }
    }
}

impl<T> Mailbox<T> {
    /// Takes what is waiting; call after `poll` found the descriptor readable.
    pub fn take(&self) -> impl Iterator<Item = T> + '_ {
        match self.event.read() {
            // Before the channel is read, so that a message left in between wakes us again.
            Ok(_) | Err(_) => {}
        }
        self.channel.try_iter()
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
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
}
