//! Which connection a packet belongs to.

use std::net::SocketAddr;

/// One TCP connection by its endpoints, oriented from whoever sent the first SYN.
///
/// Both are as the client sees them, before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The initiator.
    pub client: SocketAddr,
    /// Whom it dialled.
    pub server: SocketAddr,
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}
