//! The kernel's connection table: deletes entries, changes marks, reads entries and the end of each.
//!
//! An entry is named by its original tuple, client to server before address translation, because
//! that is what a queued packet shows. No conntrack id and no `NFQA_CT` is needed, which not every
//! kernel offers.

mod entry;
mod listener;

use std::net::{IpAddr, SocketAddr};

pub use entry::{Counters, Entry, TcpState, Timestamps, read_entry};
pub use listener::{DestroyListener, ListenerReport};

use crate::netlink::{
    FAMILY_UNSPEC, FAMILY_V4, FAMILY_V6, InvalidNetlink, Message, MessageWriter, NLM_F_ACK,
    NLM_F_DUMP, NetlinkError, Reply, Requester, SUBSYSTEM_CONNTRACK, message_type,
};

/// `IPCTNL_MSG_CT_NEW`, `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE`.
const MSG_NEW: u8 = 0;
const MSG_GET: u8 = 1;
const MSG_DELETE: u8 = 2;
/// `IPCTNL_MSG_CT_GET_STATS_CPU` and its `CTA_STATS_INSERT_FAILED`.
const MSG_GET_STATISTICS: u8 = 4;
const INSERT_FAILED: u16 = 9;

/// `CTA_TUPLE_ORIG`, `CTA_MARK`, `CTA_MARK_MASK`.
const TUPLE_ORIGINAL: u16 = 1;
const MARK: u16 = 8;
const MARK_MASK: u16 = 21;

/// Entries looked up by one system call: their answers fit into a socket's buffer as the kernel makes it.
const MET_AT_ONCE: usize = 32;

/// Inside a tuple: `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// `CTA_IP_V4_SRC`, `CTA_IP_V4_DST`, `CTA_IP_V6_SRC`, `CTA_IP_V6_DST`.
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
/// `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`.
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;
/// `CTA_PROTO_ICMP_ID`, `_TYPE`, `_CODE`, and the same for ICMPv6.
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMP_CODE: u16 = 6;
const ICMPV6_ID: u16 = 7;
const ICMPV6_TYPE: u16 = 8;
const ICMPV6_CODE: u16 = 9;

/// Protocol numbers that carry ports or an echo identifier.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Echo requests of both families.
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

/// One direction of an entry. For ICMP echo the ports are: source the identifier, destination zero.
/// For protocols without ports both are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// IP protocol number.
    pub protocol: u8,
    /// Where the direction starts.
    pub source: SocketAddr,
    /// Where it leads; of the same family.
    pub destination: SocketAddr,
}

impl Tuple {
    const fn family(&self) -> u8 {
        match self.source {
            SocketAddr::V4(_) => FAMILY_V4,
            SocketAddr::V6(_) => FAMILY_V6,
        }
    }

    fn write(&self, writer: &mut MessageWriter) {
        writer.nested(TUPLE_ORIGINAL, |w| {
            w.nested(TUPLE_IP, |w| {
                write_address(w, self.source.ip(), IP_V4_SOURCE, IP_V6_SOURCE);
                write_address(
                    w,
                    self.destination.ip(),
                    IP_V4_DESTINATION,
                    IP_V6_DESTINATION,
                );
            });
            w.nested(TUPLE_PROTOCOL, |w| {
                w.attribute(PROTOCOL_NUMBER, &[self.protocol]);
                match self.protocol {
                    ICMP => {
                        w.attribute_be16(ICMP_ID, self.source.port());
                        w.attribute(ICMP_TYPE, &[ECHO_REQUEST]);
                        w.attribute(ICMP_CODE, &[0]);
                    }
                    ICMPV6 => {
                        w.attribute_be16(ICMPV6_ID, self.source.port());
                        w.attribute(ICMPV6_TYPE, &[ECHO_REQUEST_V6]);
                        w.attribute(ICMPV6_CODE, &[0]);
                    }
                    _ => {
                        w.attribute_be16(PROTOCOL_SOURCE_PORT, self.source.port());
                        w.attribute_be16(PROTOCOL_DESTINATION_PORT, self.destination.port());
                    }
                }
            });
        });
    }
}

fn write_address(writer: &mut MessageWriter, address: IpAddr, v4: u16, v6: u16) {
    match address {
        IpAddr::V4(address) => writer.attribute(v4, &address.octets()),
        IpAddr::V6(address) => writer.attribute(v6, &address.octets()),
    }
}

/// Which entries a dump returns: those whose mark, under `mask`, equals `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkFilter {
    /// Compared bits.
    pub value: u32,
    /// Bits compared.
    pub mask: u32,
}

impl MarkFilter {
    /// Whether an entry with this mark passes.
    #[must_use]
    pub const fn passes(&self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

/// A connection to the kernel's table in the network namespace it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    requester: Requester,
}

impl Conntrack {
    /// Opens the table.
    ///
    /// # Errors
    /// When the kernel has no ctnetlink or the process may not use it.
    pub fn open() -> Result<Self, NetlinkError> {
        Requester::open().map(|requester| Self { requester })
    }

    /// Deletes the entry with this original tuple. False when there is none, which is as good.
    ///
    /// Packets of the old entry that are still queued keep referring to it, so a verdict on one of
    /// them cannot mark the entry that a later packet makes.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than a missing entry.
    pub fn delete(&mut self, original: &Tuple) -> Result<bool, NetlinkError> {
        found(self.requester.acknowledged(|w, sequence| {
            let kind = message_type(SUBSYSTEM_CONNTRACK, MSG_DELETE);
            w.begin(kind, NLM_F_ACK, sequence, original.family(), 0);
            original.write(w);
            w.end();
        }))
    }

    /// Sets the bits `mask` of an entry's ct mark to `value` and keeps the others. False when there
    /// is no such entry.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than a missing entry.
    pub fn set_mark(
        &mut self,
        original: &Tuple,
        value: u32,
        mask: u32,
    ) -> Result<bool, NetlinkError> {
        found(self.requester.acknowledged(|w, sequence| {
            let kind = message_type(SUBSYSTEM_CONNTRACK, MSG_NEW);
            // Neither NLM_F_CREATE nor NLM_F_EXCL: an update of what exists and nothing else.
            w.begin(kind, NLM_F_ACK, sequence, original.family(), 0);
            original.write(w);
            w.attribute_be32(MARK, value);
            w.attribute_be32(MARK_MASK, mask);
            w.end();
        }))
    }

    /// Reads the entry with this original tuple.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than a missing entry.
    pub fn get(&mut self, original: &Tuple) -> Result<Option<Entry>, NetlinkError> {
        let mut entry = None;
        let answered = self.requester.exchange(
            |w, sequence| {
                let kind = message_type(SUBSYSTEM_CONNTRACK, MSG_GET);
                w.begin(kind, NLM_F_ACK, sequence, original.family(), 0);
                original.write(w);
                w.end();
            },
            |message| {
                entry = Some(read_entry(message)?);
                Ok(Reply::More)
            },
        );
        found(answered)?;
        Ok(entry)
    }

    /// How many entries the kernel could not put into the table since it counts, over all processors: two connections
    /// would have looked alike behind the translation, as they do when no source port is left.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn insert_failures(&mut self) -> Result<u64, NetlinkError> {
        let mut failures = 0_u64;
        self.requester.exchange(
            |w, sequence| {
                let kind = message_type(SUBSYSTEM_CONNTRACK, MSG_GET_STATISTICS);
                w.begin(kind, NLM_F_DUMP, sequence, FAMILY_UNSPEC, 0);
                w.end();
            },
            |message| {
                failures = failures.saturating_add(read_insert_failures(message)?);
                Ok(Reply::More)
            },
        )?;
        Ok(failures)
    }

    /// Looks these up and does nothing with what is found: the kernel removes an entry whose time is up when it meets
    /// it, and says so like of any other.
    ///
    /// # Errors
    /// The transport's own.
    pub fn meet(&mut self, originals: &[Tuple]) -> Result<(), NetlinkError> {
        for some in originals.chunks(MET_AT_ONCE) {
            self.requester.ask(some.len(), |w, sequence, index| {
                if let Some(original) = some.get(index) {
                    let kind = message_type(SUBSYSTEM_CONNTRACK, MSG_GET);
                    w.begin(kind, 0, sequence, original.family(), 0);
                    original.write(w);
                    w.end();
                }
            })?;
        }
        Ok(())
    }

    /// Hands every entry of both families that passes the filter to `each`. The kernel filters by
    /// mark, so a table of undecided flows costs no copies.
    ///
    /// Not for every day: the kernel takes no packet on this processor from one full answer to the next, which in a
    /// table of a million places and few entries that pass are tens of milliseconds.
    ///
    /// # Errors
    /// [`NetlinkError::Interrupted`] when the table changed so much that entries may be missing:
    /// ask again. Otherwise the transport's own.
    pub fn dump(
        &mut self,
        filter: Option<MarkFilter>,
        mut each: impl FnMut(Entry),
    ) -> Result<(), NetlinkError> {
        self.requester.exchange(
            |w, sequence| {
                let kind = message_type(SUBSYSTEM_CONNTRACK, MSG_GET);
                w.begin(kind, NLM_F_DUMP, sequence, FAMILY_UNSPEC, 0);
                if let Some(filter) = filter {
                    w.attribute_be32(MARK, filter.value);
                    w.attribute_be32(MARK_MASK, filter.mask);
                }
                w.end();
            },
            |message| {
                each(read_entry(message)?);
                Ok(Reply::More)
            },
        )
    }
}

/// One processor's count.
fn read_insert_failures(message: &Message<'_>) -> Result<u64, InvalidNetlink> {
    let mut failures = 0;
    for attribute in message.attributes() {
        let attribute = attribute?;
        if attribute.kind == INSERT_FAILED {
            failures = u64::from(attribute.be32()?);
        }
    }
    Ok(failures)
}

/// Turns "no such entry" into `false`.
fn found(answered: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match answered {
        Ok(()) => Ok(true),
        Err(NetlinkError::Refused(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests;
