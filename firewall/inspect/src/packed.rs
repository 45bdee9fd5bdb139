//! A flow's ends in few bytes, for tables that hold many flows for long.

use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};

use crate::flow::FlowKey;

/// A [`FlowKey`] and a byte of its owner's in 16 bytes, where the key itself takes 64: IPv4 as it is, IPv6 behind a
/// pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedKey(Ends);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ends {
    Four {
        tag: u8,
        client_port: u16,
        server_port: u16,
        client: Ipv4Addr,
        server: Ipv4Addr,
    },
    Six(Box<(u8, FlowKey)>),
}

impl Hash for PackedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
        state.write_u8(self.tag());
    }
}

impl PackedKey {
    /// Packs a key and `tag`, which whoever packs it gives a meaning. Allocates for IPv6 alone.
    #[must_use]
    pub fn new(tag: u8, key: &FlowKey) -> Self {
        match (key.client, key.server) {
            (SocketAddr::V4(client), SocketAddr::V4(server)) => Self(Ends::Four {
                tag,
                client_port: client.port(),
                server_port: server.port(),
                client: *client.ip(),
                server: *server.ip(),
            }),
            _ => Self(Ends::Six(Box::new((tag, *key)))),
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> FlowKey {
        match &self.0 {
            Ends::Four {
                client_port,
                server_port,
                client,
                server,
                ..
            } => FlowKey {
                client: SocketAddr::from((*client, *client_port)),
                server: SocketAddr::from((*server, *server_port)),
            },
            Ends::Six(whole) => whole.1,
        }
    }

    /// The owner's byte.
    #[must_use]
    pub const fn tag(&self) -> u8 {
        match &self.0 {
            Ends::Four { tag, .. } => *tag,
            Ends::Six(whole) => whole.0,
        }
    }

    /// Whether it is this key with this tag; allocates nothing.
    #[must_use]
    pub fn is(&self, tag: u8, key: &FlowKey) -> bool {
        self.tag() == tag && self.key() == *key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_comes_back_as_it_was_and_takes_sixteen_bytes() {
        assert_eq!(size_of::<PackedKey>(), 16);
        let four = FlowKey {
            client: "10.0.0.1:40000".parse().unwrap(),
            server: "203.0.113.9:443".parse().unwrap(),
        };
        let six = FlowKey {
            client: "[2001:db8::1]:40000".parse().unwrap(),
            server: "[2001:db8::2]:443".parse().unwrap(),
        };
        let mapped = FlowKey {
            client: "[::ffff:10.0.0.1]:40000".parse().unwrap(),
            server: four.server,
        };
        for key in [four, six, mapped] {
            let packed = PackedKey::new(6, &key);
            assert_eq!((packed.key(), packed.tag()), (key, 6));
            assert!(packed.is(6, &key) && !packed.is(17, &key));
            let turned = FlowKey {
                client: key.server,
                server: key.client,
            };
            assert!(!packed.is(6, &turned));
        }
    }
}
