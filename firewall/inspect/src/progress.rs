//! What a parser says about a stream that is still growing.

use policy::Reason;

/// What is known after reading the contiguous prefix of one direction's stream.
///
/// Parsers are total and pure: the same bytes give the same answer, and once the answer is not
/// [`Progress::Incomplete`] no longer input changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<T, R = Reason> {
    /// A message has begun and every byte so far is legal; more are needed.
    Incomplete,
    /// The message is whole.
    Complete(T),
    /// No continuation of these bytes can be accepted.
    Refused(R),
}

/// How much of one direction has been understood since its message state machine was made.
///
/// Returned by the `Conversation` of [`crate::tls`] and [`crate::ssh`] for every piece of stream
/// handed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Framed {
    /// Stream bytes, counted from the first one ever given for this direction, that have been
    /// judged and may leave. A packet that ends beyond this is held.
    pub safe: u64,
    /// A whole protected record (or, for SSH, a byte after NEWKEYS) has been seen in this
    /// direction: nothing further in it can be read.
    pub protected: bool,
    /// The sender has said it is done (a fatal alert, close_notify, SSH_MSG_DISCONNECT):
    /// bytes after `safe` are never accepted.
    pub ended: bool,
}

impl<T, R> Progress<T, R> {
    /// The whole message, if there is one.
    pub fn complete(self) -> Option<T> {
        match self {
            Self::Complete(message) => Some(message),
            Self::Incomplete | Self::Refused(_) => None,
        }
    }

    /// The refusal, if there is one.
    pub fn refusal(self) -> Option<R> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Incomplete | Self::Complete(_) => None,
        }
    }
}
