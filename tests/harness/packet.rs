//! IP and TCP packets, made by hand so that every field can be a lie, and read back leniently.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// TCP flag bits, RFC 9293, section 3.1.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Start of a connection.
    pub const SYN: u8 = 0x02;
    /// End of a connection at once.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// The sender has seen congestion (RFC 3168), or part of a count of it (RFC 9768).
    pub const ECE: u8 = 0x40;
    /// The sender has heard of congestion, or part of a count of it.
    pub const CWR: u8 = 0x80;
}

/// TCP option bytes.
pub mod options {
    /// Maximum segment size of 1,460 bytes.
    pub const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];
    /// Multipath TCP, MP_CAPABLE version 1 of a SYN (RFC 8684, section 3.1).
    pub const MP_CAPABLE: [u8; 4] = [30, 4, 0x01, 0x01];
    /// Fast open, a request for a cookie (RFC 7413, section 4.1.1).
    pub const FAST_OPEN: [u8; 2] = [34, 2];
    /// An MD5 signature (RFC 2385) that nobody agreed on.
    pub const MD5: [u8; 18] = [
        19, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    ];
    /// An experimental option (RFC 4727) with room for 36 bytes of smuggled data.
    pub const EXPERIMENT: [u8; 38] = {
        let mut bytes = [0x5a; 38];
        bytes[0] = 254;
        bytes[1] = 38;
        bytes
    };
}

/// One TCP segment and its IP header. [`Tcp::new`] is honest; change fields to lie.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// Source.
    pub from: SocketAddr,
    /// Destination, of the same family.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// [`flags`].
    pub flags: u8,
    /// Window, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options; padded to four bytes with end-of-options.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 options (padded), or raw IPv6 extension headers chained by [`Tcp::first_extension`].
    pub ip_extra: Vec<u8>,
    /// The next-header number of the first IPv6 extension header, when `ip_extra` holds some.
    pub first_extension: u8,
    /// The four bits behind the data offset; the lowest is AE of RFC 9768.
    pub reserved: u8,
    /// Overrides the data offset, in 32-bit words.
    pub data_offset: Option<u8>,
    /// Flips bits of the right checksum.
    pub checksum_flip: u16,
}

impl Tcp {
    /// A segment that tells no lie.
    pub fn new(
        from: SocketAddr,
        to: SocketAddr,
        seq: u32,
        ack: u32,
        flags: u8,
        payload: &[u8],
    ) -> Self {
        Self {
            from,
            to,
            seq,
            ack,
            flags,
            window: 64_000,
            urgent: 0,
            options: Vec::new(),
            payload: payload.to_vec(),
            ttl: 64,
            ip_extra: Vec::new(),
            first_extension: 0,
            reserved: 0,
            data_offset: None,
            checksum_flip: 0,
        }
    }

    /// The TCP header and payload, checksum included.
    pub fn segment(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let words = self.data_offset.unwrap_or((5 + options.len() / 4) as u8);
        let mut out = Vec::with_capacity(20 + options.len() + self.payload.len());
        out.extend(self.from.port().to_be_bytes());
        out.extend(self.to.port().to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        out.extend(self.ack.to_be_bytes());
        out.extend([words << 4 | self.reserved & 0x0f, self.flags]);
        out.extend(self.window.to_be_bytes());
        out.extend([0, 0]);
        out.extend(self.urgent.to_be_bytes());
        out.extend(options);
        out.extend(&self.payload);
        let sum = transport_checksum(self.from.ip(), self.to.ip(), 6, &out) ^ self.checksum_flip;
        out[16..18].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// The whole IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let segment = self.segment();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => ipv4(
                self.from.ip(),
                self.to.ip(),
                6,
                self.ttl,
                &self.ip_extra,
                DO_NOT_FRAGMENT,
                &segment,
            ),
            _ => {
                let next = if self.ip_extra.is_empty() {
                    6
                } else {
                    self.first_extension
                };
                let body = [&self.ip_extra[..], &segment].concat();
                ipv6(self.from.ip(), self.to.ip(), next, self.ttl, &body)
            }
        }
    }

    /// The packet cut into two IP fragments, the first with `first` bytes of the TCP segment (a multiple of 8).
    pub fn fragments(&self, first: usize, id: u16) -> [Vec<u8>; 2] {
        let segment = self.segment();
        let (head, tail) = segment.split_at(first.min(segment.len()));
        let (from, to) = (self.from.ip(), self.to.ip());
        fragment_pair(
            from,
            to,
            6,
            self.ttl,
            id,
            (0, head, true),
            (first, tail, false),
        )
    }
}

/// A piece of a fragmented packet: its offset, its bytes, and whether more follow.
pub type Piece<'a> = (usize, &'a [u8], bool);

/// Two fragments with offsets of one's own choosing, so that they may overlap.
pub fn fragment_pair(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    ttl: u8,
    id: u16,
    first: Piece<'_>,
    second: Piece<'_>,
) -> [Vec<u8>; 2] {
    [first, second].map(|(offset, bytes, more)| {
        let units = (offset / 8) as u16;
        if from.is_ipv4() {
            let field = (u32::from(id) << 16) | u32::from(units | (u16::from(more) << 13));
            ipv4(from, to, protocol, ttl, &[], field, bytes)
        } else {
            let mut header = vec![protocol, 0];
            header.extend(((units << 3) | u16::from(more)).to_be_bytes());
            header.extend(u32::from(id).to_be_bytes());
            header.extend(bytes);
            ipv6(from, to, 44, ttl, &header)
        }
    })
}

/// An IPv4 packet; `fragment` is the identification and the flags-and-offset field, as on the wire.
pub fn ipv4(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    ttl: u8,
    options: &[u8],
    fragment: u32,
    body: &[u8],
) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let length = 20 + options.len() + body.len();
    let mut out = vec![0x40 | (5 + options.len() / 4) as u8, 0];
    out.extend((length as u16).to_be_bytes());
    out.extend(fragment.to_be_bytes());
    out.extend([ttl, protocol, 0, 0]);
    out.extend(octets(from));
    out.extend(octets(to));
    out.extend(options);
    let sum = !fold(sum(&out));
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend(body);
    out
}

/// An IPv6 packet.
pub fn ipv6(from: IpAddr, to: IpAddr, next: u8, hop_limit: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0];
    out.extend((body.len() as u16).to_be_bytes());
    out.extend([next, hop_limit]);
    out.extend(octets(from));
    out.extend(octets(to));
    out.extend(body);
    out
}

/// An IP packet of any protocol with honest headers and no checksum of the transport's own.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    match from {
        IpAddr::V4(_) => ipv4(from, to, protocol, 64, &[], 0, body),
        IpAddr::V6(_) => ipv6(from, to, protocol, 64, body),
    }
}

/// A UDP datagram.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    body.extend(((8 + payload.len()) as u16).to_be_bytes());
    body.extend([0, 0]);
    body.extend(payload);
    let sum = transport_checksum(from.ip(), to.ip(), 17, &body);
    body[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(from.ip(), to.ip(), 17, &body)
}

/// The first packet of an SCTP association (RFC 9260, section 3.3.2), with `payload` in a parameter that every
/// server skips.
pub fn sctp_init(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    // Verification tag and checksum.
    body.extend([0; 8]);
    let padding = payload.len().next_multiple_of(4) - payload.len();
    let parameter = 4 + payload.len() as u16;
    body.extend([1, 0]);
    body.extend((20 + parameter + padding as u16).to_be_bytes());
    // Initiate tag, window, streams out and in, first number.
    body.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]);
    body.extend([0x80, 0x77]);
    body.extend(parameter.to_be_bytes());
    body.extend(payload);
    body.extend(vec![0; padding]);
    let sum = crc32c(&body);
    body[8..12].copy_from_slice(&sum.to_le_bytes());
    ip(from.ip(), to.ip(), 132, &body)
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            let carry = if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
            (sum >> 1) ^ carry
        })
    });
    !sum
}

/// An ICMP or ICMPv6 message.
pub fn icmp(
    from: IpAddr,
    to: IpAddr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = vec![kind, code, 0, 0];
    body.extend(rest);
    body.extend(payload);
    let (protocol, sum) = match from {
        IpAddr::V4(_) => (1, !fold(sum(&body))),
        IpAddr::V6(_) => (58, transport_checksum(from, to, 58, &body)),
    };
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, protocol, &body)
}

// The flags-and-offset field of a packet that honest TCP sends.
const DO_NOT_FRAGMENT: u32 = 0x4000;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// RFC 9293, section 3.1: over a pseudo header and the segment, its checksum field taken as zero.
fn transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> u16 {
    let pseudo = sum(&octets(from)) + sum(&octets(to)) + u32::from(protocol) + body.len() as u32;
    !fold(pseudo + sum(body))
}

/// What of a packet tests ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Source; port 0 without TCP or UDP.
    pub from: SocketAddr,
    /// Destination; port 0 without TCP or UDP.
    pub to: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flag bits; 0 for the rest.
    pub flags: u8,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// TCP option bytes.
    pub options: Vec<u8>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What TCP or UDP carries; the ICMP message after its type and code; else all after the IP header.
    pub payload: Vec<u8>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
}

impl Seen {
    /// Reads an IP packet, however broken what it carries; `None` for what is not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ip(bytes).ok()?;
        let (from, to, ttl, protocol, rest) = match packet.net.as_ref()? {
            LaxNetSlice::Ipv4(v4) => {
                let header = v4.header();
                let rest = v4.payload();
                let (from, to) = (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                );
                (from, to, header.ttl(), rest.ip_number.0, rest.payload)
            }
            LaxNetSlice::Ipv6(v6) => {
                let header = v6.header();
                let rest = v6.payload();
                let (from, to) = (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                );
                (from, to, header.hop_limit(), rest.ip_number.0, rest.payload)
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let mut seen = Self {
            from: SocketAddr::new(from, 0),
            to: SocketAddr::new(to, 0),
            protocol,
            flags: 0,
            seq: 0,
            ack: 0,
            options: Vec::new(),
            ttl,
            payload: rest.to_vec(),
            icmp: None,
        };
        seen.read_transport(packet.transport.as_ref());
        Some(seen)
    }

    fn read_transport(&mut self, transport: Option<&TransportSlice<'_>>) {
        match transport {
            Some(TransportSlice::Tcp(tcp)) => {
                self.from.set_port(tcp.source_port());
                self.to.set_port(tcp.destination_port());
                self.flags = tcp.slice()[13];
                self.seq = tcp.sequence_number();
                self.ack = tcp.acknowledgment_number();
                self.options = tcp.options().to_vec();
                self.payload = tcp.payload().to_vec();
            }
            Some(TransportSlice::Udp(udp)) => {
                self.from.set_port(udp.source_port());
                self.to.set_port(udp.destination_port());
                self.payload = udp.payload().to_vec();
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                self.icmp = Some((icmp.type_u8(), icmp.code_u8()));
                self.payload = icmp.payload().to_vec();
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                self.icmp = Some((icmp.type_u8(), icmp.code_u8()));
                self.payload = icmp.payload().to_vec();
            }
            Some(TransportSlice::Igmp(_)) | None => {}
        }
    }

    /// Whether all of these flag bits are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether it is TCP with all of these flag bits set.
    pub fn is_tcp(&self, flags: u8) -> bool {
        self.protocol == 6 && self.has(flags)
    }

    /// The kinds of its TCP options, no-operation and end left out.
    pub fn option_kinds(&self) -> Vec<u8> {
        let mut kinds = Vec::new();
        let mut rest = &self.options[..];
        while let Some(&kind) = rest.first() {
            let length = match kind {
                0 => break,
                1 => 1,
                _ => {
                    kinds.push(kind);
                    rest.get(1)
                        .map_or(rest.len(), |&length| usize::from(length.max(2)))
                }
            };
            rest = rest.get(length..).unwrap_or(&[]);
        }
        kinds
    }

    /// Whether `needle` is anywhere in its payload.
    pub fn carries(&self, needle: &[u8]) -> bool {
        contains(&self.payload, needle)
    }
}

/// Whether `needle` is anywhere in `bytes`.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_packet_reads_back_in_both_families() {
        for (from, to) in [
            ("10.0.0.1:7", "10.0.0.2:443"),
            ("[fd00::1]:7", "[fd00::2]:443"),
        ] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let mut tcp = Tcp::new(from, to, 5, 6, flags::ACK | flags::PSH, b"hello");
            tcp.options = options::MD5.to_vec();
            let seen = Seen::parse(&tcp.packet()).unwrap();
            assert_eq!((seen.from, seen.to, seen.seq, seen.ack), (from, to, 5, 6));
            assert_eq!(
                (seen.option_kinds(), seen.payload),
                (vec![19], b"hello".to_vec())
            );
        }
    }
}
