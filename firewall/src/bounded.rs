//! A bounded channel that takes up the room of what waits in it, not of what may.
//!
//! The standard library's takes room for as many messages as may ever wait when it is made, and writes to all of it: ten
//! megabytes for the daemon's mailboxes, which are empty nearly always.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, TrySendError};
use std::time::Duration;

/// The sending end; cheap to clone.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    channel: mpsc::Sender<T>,
    waiting: Arc<AtomicUsize>,
    capacity: usize,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    channel: mpsc::Receiver<T>,
    waiting: Arc<AtomicUsize>,
}

/// A channel in which `capacity` messages may wait.
pub(crate) fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let sender = Sender {
        channel: sender,
        waiting: Arc::clone(&waiting),
        capacity,
    };
    let receiver = Receiver {
        channel: receiver,
        waiting,
    };
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Leaves a message if there is room; never waits.
    ///
    /// # Errors
    /// When there is none, or nobody will ever receive; the message comes back.
    pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        // Only the number is shared between threads this way; the channel orders the messages.
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.capacity {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(TrySendError::Full(message));
        }
        let sent = self.channel.send(message);
        sent.map_err(|unsent| TrySendError::Disconnected(unsent.0))
    }

    /// Leaves a message whether or not there is room: for those that are few and must arrive. False when nobody will
    /// ever receive.
    pub(crate) fn send_anyway(&self, message: T) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.channel.send(message).is_ok()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            waiting: Arc::clone(&self.waiting),
            capacity: self.capacity,
        }
    }
}

impl<T> Receiver<T> {
    /// Waits for a message.
    ///
    /// # Errors
    /// When the time is up, or every sender is gone.
    pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let message = self.channel.recv_timeout(timeout)?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(message)
    }

    /// What is waiting, without waiting for more.
    pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        self.channel.try_iter().inspect(|_| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_wait_as_may_and_what_is_taken_makes_room() {
        let (sender, receiver) = channel(2);
        let other = sender.clone();
        assert!(sender.try_send(1).is_ok() && other.try_send(2).is_ok());
        assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
        assert!(sender.send_anyway(4));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(1));
        assert!(matches!(sender.try_send(5), Err(TrySendError::Full(5))));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2, 4]);
        assert!(sender.try_send(6).is_ok());
        drop(receiver);
        assert!(matches!(
            other.try_send(7),
            Err(TrySendError::Disconnected(7))
        ));
        assert!(!sender.send_anyway(8));
    }

    #[test]
    fn no_room_is_lost_between_threads() {
        let (sender, receiver) = channel(64);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for number in 0..20_000 {
                        while sender.try_send(number).is_err() {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let mut seen = 0;
        while receiver.recv_timeout(Duration::from_secs(10)).is_ok() {
            seen += 1 + receiver.try_iter().count();
        }
        assert_eq!(seen, 80_000);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(receiver.waiting.load(Ordering::Relaxed), 0);
    }
}
