//! Header views over one IPv4 or IPv6 packet. Copies nothing.
//!
//! Reads leniently and says what is wrong: a packet that is to be refused for its headers
//! still names its flow, so that the refusal can reach both ends.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, UdpHeaderSlice};
use policy::{Reason, Transport};

use crate::seq::Seq;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const PORTED_DCCP: u8 = 33;
const PORTED_SCTP: u8 = 132;
const PORTED_UDP_LITE: u8 = 136;
/// Hop-by-hop, routing, fragment, ESP, AH, destination options, mobility, HIP, Shim6 and the
/// two kept for experiments (IANA, IPv6 Extension Header Types), and "no next header".
const EXTENSION_HEADERS: [u8; 12] = [0, 43, 44, 50, 51, 59, 60, 135, 139, 140, 253, 254];

/// One packet.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    pub(crate) body: Body<'a>,
    /// Why the packet must not pass, whatever it carries.
    pub(crate) fault: Option<Reason>,
}

/// What the packet carries.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    Tcp(Segment<'a>),
    Udp {
        src_port: u16,
        dst_port: u16,
    },
    /// With the identifier of an echo, 0 for any other message.
    Icmp {
        id: u16,
    },
    Other {
        protocol: u8,
        /// Source and destination port where the protocol has them where TCP does, else 0.
        ports: (u16, u16),
    },
}

/// One TCP segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) syn: bool,
    pub(crate) has_ack: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    /// The options as they stand in the header, padding included.
    pub(crate) options: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Segment<'_> {
    /// The number after its last byte, SYN and FIN counted.
    pub(crate) fn end(&self) -> Seq {
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        self.seq
            .plus(len)
            .plus(u32::from(self.syn))
            .plus(u32::from(self.fin))
    }
}

impl<'a> Packet<'a> {
    /// Reads the packet that begins at the IP header, or `None` when not even its addresses
    /// can be read.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::read_v4(bytes),
            6 => Self::read_v6(bytes),
            _ => None,
        }
    }

    fn read_v4(bytes: &'a [u8]) -> Option<Self> {
        let ip = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        let header = ip.slice().len();
        let mut fault = None;
        if usize::from(ip.total_len()) != bytes.len() {
            // NFQUEUE cut the copy, or the header lies: we would judge other bytes than leave.
            fault = Some(Reason::Internal);
        } else if header != 20 {
            fault = Some(Reason::IpOptions);
        } else if ip.more_fragments() || ip.fragments_offset().value() != 0 {
            // Conntrack reassembles before the queue; a fragment here is a broken promise.
            fault = Some(Reason::Internal);
        }
        let rest = bytes.get(header..)?;
        let body = Body::read(ip.protocol().0, rest, &mut fault);
        Some(Self {
            src: IpAddr::V4(ip.source_addr()),
            dst: IpAddr::V4(ip.destination_addr()),
            ttl: ip.ttl(),
            body,
            fault,
        })
    }

    fn read_v6(bytes: &'a [u8]) -> Option<Self> {
        let ip = Ipv6HeaderSlice::from_slice(bytes).ok()?;
        let header = ip.slice().len();
        let next = ip.next_header().0;
        let rest = bytes.get(header..)?;
        let mut fault = None;
        if EXTENSION_HEADERS.contains(&next) {
            fault = Some(Reason::ExtensionHeader);
        } else if usize::from(ip.payload_length()) != rest.len() {
            // A length of zero is a jumbogram or BIG TCP: longer than we promise to read.
            fault = Some(Reason::Internal);
        }
        let body = Body::read(next, rest, &mut fault);
        Some(Self {
            src: IpAddr::V6(ip.source_addr()),
            dst: IpAddr::V6(ip.destination_addr()),
            ttl: ip.hop_limit(),
            body,
            fault,
        })
    }

    /// The transport, in the policy's terms.
    pub(crate) const fn transport(&self) -> Transport {
        match self.body {
            Body::Tcp(_) => Transport::Tcp,
            Body::Udp { .. } => Transport::Udp,
            Body::Icmp { .. } => Transport::Icmp,
            Body::Other { protocol, .. } => Transport::Other(protocol),
        }
    }

    /// Sender with its port, or the identifier of an ICMP echo, as conntrack has it; 0 where
    /// there is neither.
    pub(crate) const fn src_socket(&self) -> SocketAddr {
        let port = match &self.body {
            Body::Tcp(segment) => segment.src_port,
            Body::Udp { src_port, .. } => *src_port,
            Body::Icmp { id } => *id,
            Body::Other { ports, .. } => ports.0,
        };
        SocketAddr::new(self.src, port)
    }

    /// Receiver with its port, 0 where there is none.
    pub(crate) const fn dst_socket(&self) -> SocketAddr {
        let port = match &self.body {
            Body::Tcp(segment) => segment.dst_port,
            Body::Udp { dst_port, .. } => *dst_port,
            Body::Icmp { .. } => 0,
            Body::Other { ports, .. } => ports.1,
        };
        SocketAddr::new(self.dst, port)
    }
}

/// The identifier of an echo (RFC 792; RFC 4443, section 4.1), which tells one ping from another.
fn echo_id(message: &[u8]) -> u16 {
    match message {
        [0 | 8 | 128 | 129, _, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// The ports of a protocol that begins with them (RFC 4340, section 5.1; RFC 9260, section 3.1;
/// RFC 3828, section 3.1). Conntrack tells flows apart by them, and so do records.
const fn first_ports(header: &[u8]) -> (u16, u16) {
    match header {
        [a, b, c, d, ..] => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        _ => (0, 0),
    }
}

impl<'a> Body<'a> {
    fn read(protocol: u8, bytes: &'a [u8], fault: &mut Option<Reason>) -> Self {
        match protocol {
            TCP => Self::read_tcp(bytes, fault),
            UDP => match UdpHeaderSlice::from_slice(bytes) {
                Ok(udp) => Self::Udp {
                    src_port: udp.source_port(),
                    dst_port: udp.destination_port(),
                },
                Err(_) => Self::portless(UDP),
            },
            ICMP | ICMPV6 => Self::Icmp { id: echo_id(bytes) },
            PORTED_DCCP | PORTED_SCTP | PORTED_UDP_LITE => Self::Other {
                protocol,
                ports: first_ports(bytes),
            },
            other => Self::portless(other),
        }
    }

    const fn portless(protocol: u8) -> Self {
        Self::Other {
            protocol,
            ports: (0, 0),
        }
    }

    fn read_tcp(bytes: &'a [u8], fault: &mut Option<Reason>) -> Self {
        let Ok(tcp) = TcpHeaderSlice::from_slice(bytes) else {
            // Shorter than its own header; conntrack calls it invalid, so do we.
            fault.get_or_insert(Reason::TcpState);
            return Self::portless(TCP);
        };
        let header = tcp.slice().len();
        let (Some(options), Some(payload)) = (bytes.get(20..header), bytes.get(header..)) else {
            fault.get_or_insert(Reason::TcpState);
            return Self::portless(TCP);
        };
        if tcp.urg() || tcp.urgent_pointer() != 0 {
            fault.get_or_insert(Reason::TcpUrgent);
        }
        if tcp.syn() && !payload.is_empty() {
            fault.get_or_insert(Reason::SynData);
        }
        Self::Tcp(Segment {
            src_port: tcp.source_port(),
            dst_port: tcp.destination_port(),
            seq: Seq(tcp.sequence_number()),
            ack: Seq(tcp.acknowledgment_number()),
            syn: tcp.syn(),
            has_ack: tcp.ack(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            options,
            payload,
        })
    }
}

pub(crate) mod options;

#[cfg(test)]
mod tests;
