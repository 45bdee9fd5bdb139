//! Reading one entry, from an answer, a dump or an event: the attributes are the same.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{
    ICMP_ID, ICMPV6_ID, IP_V4_DESTINATION, IP_V4_SOURCE, IP_V6_DESTINATION, IP_V6_SOURCE, MARK,
    PROTOCOL_DESTINATION_PORT, PROTOCOL_NUMBER, PROTOCOL_SOURCE_PORT, TUPLE_IP, TUPLE_ORIGINAL,
    TUPLE_PROTOCOL, Tuple,
};
use crate::netlink::{Attributes, InvalidNetlink, Message};

/// `CTA_TUPLE_REPLY`, `CTA_STATUS`, `CTA_PROTOINFO`, `CTA_TIMEOUT`, `CTA_COUNTERS_ORIG`,
/// `CTA_COUNTERS_REPLY`, `CTA_ID`, `CTA_TIMESTAMP`.
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const TIMEOUT: u16 = 7;
const COUNTERS_ORIGINAL: u16 = 9;
const COUNTERS_REPLY: u16 = 10;
const TIMESTAMP: u16 = 20;

/// `CTA_COUNTERS_PACKETS`, `CTA_COUNTERS_BYTES`.
const COUNTER_PACKETS: u16 = 1;
const COUNTER_BYTES: u16 = 2;
/// `CTA_TIMESTAMP_START`, `CTA_TIMESTAMP_STOP`.
const TIMESTAMP_START: u16 = 1;
const TIMESTAMP_STOP: u16 = 2;
/// `CTA_PROTOINFO_TCP`, and in it `CTA_PROTOINFO_TCP_STATE`.
const INFO_TCP: u16 = 1;
const INFO_TCP_STATE: u16 = 1;

/// `IPS_ASSURED`, `IPS_DYING`, `IPS_OFFLOAD`.
const STATUS_ASSURED: u32 = 1 << 2;
const STATUS_OFFLOAD: u32 = 1 << 14;

/// Packets and bytes of one direction, IP headers included. Zero while `nf_conntrack_acct` is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// When an entry began and ended, in nanoseconds since the epoch; zero when the kernel did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// The first packet.
    pub start_ns: u64,
    /// The removal, in a destroy event only.
    pub stop_ns: u64,
}

/// The kernel's TCP state, as far as ours differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpState {
    /// `SYN_SENT`, or the simultaneous `SYN_SENT2`.
    SynSent,
    /// `SYN_RECV`.
    SynReceived,
    /// `ESTABLISHED`.
    Established,
    /// `FIN_WAIT`.
    FinWait,
    /// `CLOSE_WAIT`.
    CloseWait,
    /// `LAST_ACK`.
    LastAck,
    /// `TIME_WAIT`.
    TimeWait,
    /// `CLOSE`: a reset was seen.
    Close,
    /// A state this version does not know.
    Other(u8),
}

impl TcpState {
    const fn from_kernel(state: u8) -> Self {
        match state {
            1 | 9 => Self::SynSent,
            2 => Self::SynReceived,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            other => Self::Other(other),
        }
    }
}

/// One entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Client to server, before translation.
    pub original: Tuple,
    /// Server to client as the kernel expects it on the wire: under masquerade its destination is
    /// the appliance's own address.
    pub reply: Tuple,
    /// The ct mark: see [`crate::marks`].
    pub mark: u32,
    /// Client to server.
    pub out: Counters,
    /// Server to client.
    pub back: Counters,
    /// Beginning and end.
    pub timestamps: Timestamps,
    /// What was left of the state's time-out.
    pub timeout: Duration,
    /// The TCP state, when the entry is one of TCP and the kernel said it.
    pub tcp_state: Option<TcpState>,
    /// True once the entry has seen traffic both ways that keeps it from being evicted early.
    pub assured: bool,
    /// True while the entry is in a flowtable.
    pub offloaded: bool,
}

/// Reads an entry. Unknown attributes are skipped.
///
/// # Errors
/// When an attribute has the wrong size or one of the two tuples is missing.
pub fn read_entry(message: &Message<'_>) -> Result<Entry, InvalidNetlink> {
    let mut original = None;
    let mut reply = None;
    let mut status = 0;
    let mut partial = Partial::default();
    for attribute in message.attributes() {
        let attribute = attribute?;
        match attribute.kind {
            TUPLE_ORIGINAL => original = Some(read_tuple(attribute.nested())?),
            TUPLE_REPLY => reply = Some(read_tuple(attribute.nested())?),
            STATUS => status = attribute.be32()?,
            MARK => partial.mark = attribute.be32()?,
            TIMEOUT => partial.timeout = Duration::from_secs(u64::from(attribute.be32()?)),
            COUNTERS_ORIGINAL => partial.out = read_counters(attribute.nested())?,
            COUNTERS_REPLY => partial.back = read_counters(attribute.nested())?,
            TIMESTAMP => partial.timestamps = read_timestamps(attribute.nested())?,
            PROTOCOL_INFO => partial.tcp_state = read_tcp_state(attribute.nested())?,
            _ => {}
        }
    }
    Ok(Entry {
        original: original.ok_or(InvalidNetlink::Missing(TUPLE_ORIGINAL))?,
        reply: reply.ok_or(InvalidNetlink::Missing(TUPLE_REPLY))?,
        mark: partial.mark,
        out: partial.out,
        back: partial.back,
        timestamps: partial.timestamps,
        timeout: partial.timeout,
        tcp_state: partial.tcp_state,
        assured: status & STATUS_ASSURED != 0,
        offloaded: status & STATUS_OFFLOAD != 0,
    })
}

/// The attributes an entry may lack.
#[derive(Default)]
struct Partial {
    mark: u32,
    out: Counters,
    back: Counters,
    timestamps: Timestamps,
    timeout: Duration,
    tcp_state: Option<TcpState>,
}

fn read_tuple(attributes: Attributes<'_>) -> Result<Tuple, InvalidNetlink> {
    let mut addresses = None;
    let mut protocol = None;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            TUPLE_IP => addresses = Some(read_addresses(attribute.nested())?),
            TUPLE_PROTOCOL => protocol = Some(read_protocol(attribute.nested())?),
            _ => {}
        }
    }
    let (source, destination) = addresses.ok_or(InvalidNetlink::Missing(TUPLE_IP))?;
    let (protocol, source_port, destination_port) =
        protocol.ok_or(InvalidNetlink::Missing(TUPLE_PROTOCOL))?;
    Ok(Tuple {
        protocol,
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn read_addresses(attributes: Attributes<'_>) -> Result<(IpAddr, IpAddr), InvalidNetlink> {
    let mut source = None;
    let mut destination = None;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IP_V4_SOURCE => source = Some(IpAddr::from(attribute.bytes::<4>()?)),
            IP_V6_SOURCE => source = Some(IpAddr::from(attribute.bytes::<16>()?)),
            IP_V4_DESTINATION => destination = Some(IpAddr::from(attribute.bytes::<4>()?)),
            IP_V6_DESTINATION => destination = Some(IpAddr::from(attribute.bytes::<16>()?)),
            _ => {}
        }
    }
    source
        .zip(destination)
        .ok_or(InvalidNetlink::Missing(TUPLE_IP))
}

/// The protocol number and both ports.
fn read_protocol(attributes: Attributes<'_>) -> Result<(u8, u16, u16), InvalidNetlink> {
    let mut number = None;
    let (mut source, mut destination) = (0, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            PROTOCOL_NUMBER => number = Some(attribute.u8()?),
            PROTOCOL_SOURCE_PORT | ICMP_ID | ICMPV6_ID => source = attribute.be16()?,
            PROTOCOL_DESTINATION_PORT => destination = attribute.be16()?,
            _ => {}
        }
    }
    let number = number.ok_or(InvalidNetlink::Missing(PROTOCOL_NUMBER))?;
    Ok((number, source, destination))
}

fn read_counters(attributes: Attributes<'_>) -> Result<Counters, InvalidNetlink> {
    let mut counters = Counters::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            COUNTER_PACKETS => counters.packets = attribute.be64()?,
            COUNTER_BYTES => counters.bytes = attribute.be64()?,
            _ => {}
        }
    }
    Ok(counters)
}

fn read_timestamps(attributes: Attributes<'_>) -> Result<Timestamps, InvalidNetlink> {
    let mut timestamps = Timestamps::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            TIMESTAMP_START => timestamps.start_ns = attribute.be64()?,
            TIMESTAMP_STOP => timestamps.stop_ns = attribute.be64()?,
            _ => {}
        }
    }
    Ok(timestamps)
}

fn read_tcp_state(attributes: Attributes<'_>) -> Result<Option<TcpState>, InvalidNetlink> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind != INFO_TCP {
            continue;
        }
        for inner in attribute.nested() {
            let inner = inner?;
            if inner.kind == INFO_TCP_STATE {
                return inner.u8().map(TcpState::from_kernel).map(Some);
            }
        }
    }
    Ok(None)
}
