//! Which connection a packet belongs to.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

/// One TCP connection by its endpoints, oriented from whoever sent the first SYN.
///
/// Both are as the client sees them, before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    /// The initiator.
    pub client: SocketAddr,
    /// Whom it dialled.
    pub server: SocketAddr,
}

/// What tells flows apart and nothing else, in few pieces: every packet hashes its key several times, and a derived
/// hash is fed field by field.
impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = (u32::from(self.client.port()) << 16) | u32::from(self.server.port());
        match (self.client, self.server) {
            (SocketAddr::V4(client), SocketAddr::V4(server)) => {
                let (client, server) = (u32::from(*client.ip()), u32::from(*server.ip()));
                state.write_u64((u64::from(client) << 32) | u64::from(server));
            }
            (client, server) => {
                client.ip().hash(state);
                server.ip().hash(state);
            }
        }
        state.write_u32(ports);
    }
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
