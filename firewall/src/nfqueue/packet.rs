//! Reading what the kernel queued.

use super::MSG_PACKET;
use crate::netlink::{InvalidNetlink, Message, SUBSYSTEM_QUEUE, message_type};

/// `NFQA_PACKET_HDR`, `NFQA_MARK`, `NFQA_PAYLOAD`, `NFQA_CAP_LEN`, `NFQA_SKB_INFO`.
const PACKET_HEADER: u16 = 1;
const MARK: u16 = 3;
const PAYLOAD: u16 = 10;
const CAPTURED_LENGTH: u16 = 13;
const BUFFER_INFO: u16 = 14;

/// `NFQA_SKB_GSO`: the packet stands for several segments.
const INFO_GSO: u32 = 2;

/// A message from the kernel on a queue socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A packet that waits for a verdict.
    Packet(Packet<'a>),
    /// A packet whose attributes cannot be trusted but whose id is known: it has to be dropped.
    Damaged(u32),
    /// The kernel's answer to a verdict it could not apply, as a positive errno. `ENOENT` is normal: the packet was gone,
    /// because a base chain or an interface went away.
    Refused(i32),
    /// Bytes that are no message for a queue.
    Unreadable(InvalidNetlink),
    /// Some other message.
    Other,
}

/// A queued packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Names the packet in its verdict; unique among the packets waiting in one queue.
    pub id: u32,
    /// The packet mark: see [`crate::marks`].
    pub mark: u32,
    /// The bytes from the IP header on.
    pub bytes: &'a [u8],
    /// True when `bytes` is not the whole packet, or its IP header states another length: to be refused, because the
    /// rest cannot be seen.
    pub truncated: bool,
    /// True when the packet stands for several TCP segments.
    pub gso: bool,
}

/// Reads one message. Never panics, allocates nothing.
#[must_use]
pub fn read_event<'a>(message: &Message<'a>) -> Event<'a> {
    if let Some(code) = message.error_code() {
        return if code == 0 {
            Event::Other
        } else {
            Event::Refused(code)
        };
    }
    if message.kind != message_type(SUBSYSTEM_QUEUE, MSG_PACKET) {
        return Event::Other;
    }
    let mut id = None;
    match read_packet(message, &mut id) {
        Ok(packet) => Event::Packet(packet),
        Err(fault) => id.map_or(Event::Unreadable(fault), Event::Damaged),
    }
}

/// Reads a packet; `id` is set as soon as it is known, so that a damaged packet can still be answered.
fn read_packet<'a>(
    message: &Message<'a>,
    id: &mut Option<u32>,
) -> Result<Packet<'a>, InvalidNetlink> {
    let mut mark = 0;
    let mut bytes: &[u8] = &[];
    let mut cut = false;
    let mut info = 0;
    for attribute in message.attributes() {
        let attribute = attribute?;
        match attribute.kind {
            PACKET_HEADER => {
                // struct nfqnl_msg_packet_hdr, packed: id, link-layer protocol, hook.
                let [a, b, c, d, ..] = attribute.bytes::<7>()?;
                *id = Some(u32::from_be_bytes([a, b, c, d]));
            }
            MARK => mark = attribute.be32()?,
            PAYLOAD => bytes = attribute.value,
            CAPTURED_LENGTH => cut = true,
            BUFFER_INFO => info = attribute.be32()?,
            _ => {}
        }
    }
    let id = (*id).ok_or(InvalidNetlink::Missing(PACKET_HEADER))?;
    Ok(Packet {
        id,
        mark,
        bytes,
        truncated: cut || stated_length(bytes) != Some(bytes.len()),
        gso: info & INFO_GSO != 0,
    })
}

/// The length an IP packet states about itself; `None` when there is no whole header.
///
/// A jumbogram (RFC 2675) states zero and is thereby taken as truncated.
fn stated_length(bytes: &[u8]) -> Option<usize> {
    /// Bytes of the fixed IPv6 header.
    const V6_HEADER_BYTES: usize = 40;
    let header = bytes.first_chunk::<20>()?;
    let [version, _, v4_high, v4_low, v6_high, v6_low, ..] = *header;
    match version >> 4 {
        4 => Some(usize::from(u16::from_be_bytes([v4_high, v4_low]))),
        6 => usize::from(u16::from_be_bytes([v6_high, v6_low])).checked_add(V6_HEADER_BYTES),
        _ => None,
    }
}
