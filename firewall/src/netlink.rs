//! Netlink messages as bytes: a strict reader, a writer into a reused buffer, and the socket both travel on.
//!
//! Knows the framing of `linux/netlink.h` and `linux/netfilter/nfnetlink.h` and nothing about any subsystem. Reading
//! never panics and never looks past a length the kernel stated; attributes that do not fit end the walk with an error.

mod reader;
mod socket;
mod writer;

pub use reader::{Attribute, Attributes, InvalidNetlink, Message, Messages};
pub use socket::{NetfilterSocket, NetlinkError, Reply, Requester};
pub use writer::MessageWriter;

/// Bytes of `struct nlmsghdr`.
pub const HEADER_BYTES: usize = 16;
/// Bytes of `struct nfgenmsg`, which follows the header in every nfnetlink message.
pub const GENERIC_BYTES: usize = 4;
/// Bytes of `struct nlattr`.
pub const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// `NLMSG_ERROR`: an error, or an acknowledgement when its code is zero.
pub const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const NLMSG_DONE: u16 = 3;

/// `NLM_F_REQUEST`.
pub const NLM_F_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub const NLM_F_ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: a dump was interrupted by a change and may miss entries.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_ROOT | NLM_F_MATCH`, a dump.
pub const NLM_F_DUMP: u16 = 0x300;

/// `NFNL_SUBSYS_CTNETLINK`.
pub const SUBSYSTEM_CONNTRACK: u8 = 1;
/// `NFNL_SUBSYS_QUEUE`.
pub const SUBSYSTEM_QUEUE: u8 = 3;

/// `NFNL_SUBSYS_NFTABLES`.
pub const SUBSYSTEM_NFTABLES: u8 = 10;

/// `AF_UNSPEC` as the family of an nfnetlink message.
pub const FAMILY_UNSPEC: u8 = 0;
/// `AF_INET`.
pub const FAMILY_V4: u8 = 2;
/// `AF_INET6`.
pub const FAMILY_V6: u8 = 10;

/// The type of an nfnetlink message: subsystem in the high byte, message in the low one.
#[must_use]
pub const fn message_type(subsystem: u8, message: u8) -> u16 {
    u16::from_be_bytes([subsystem, message])
}

/// Rounds up to the four bytes netlink aligns to.
const fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests;
