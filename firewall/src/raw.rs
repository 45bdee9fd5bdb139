//! Segments the daemon sends itself: resets to both ends of a refused or ended flow, and the probe
//! that makes a silent server tell its numbers.
//!
//! A held packet cannot be rewritten into a reset (a GSO packet stays one), so resets come from
//! raw sockets with the other end's address as source. They leave through the OUTPUT hooks, where
//! conntrack finds the flow and translates the source as for any packet of it. Needs
//! `CAP_NET_RAW`.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};

/// TTL and hop limit of what we send: the usual one, so that it survives any path.
const HOP_LIMIT: u8 = 64;
/// Window stated in a probe; a reset states none.
const PROBE_WINDOW: u16 = 1024;
/// Bytes of an IPv6 header and a TCP header without options.
const SEGMENT_BYTES: usize = 60;

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// A reset. With an acknowledgement number it is RST+ACK.
    Reset {
        /// Acknowledgement number, when the receiver is in a state that wants one.
        acknowledge: Option<u32>,
    },
    /// A bare SYN towards the server of a live flow; its challenge ACK (RFC 5961, section 4) gives
    /// the exact numbers of both directions.
    Probe,
}

/// A TCP segment without payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The end it claims to come from, as the receiver's side of the appliance knows it before
    /// translation: the client's address towards the server, the server's towards the client.
    pub source: SocketAddr,
    /// The end it goes to, of the same family.
    pub destination: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// What it is for.
    pub kind: SegmentKind,
}

/// A segment that could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The process may not open raw sockets.
    #[error("opening a raw socket needs CAP_NET_RAW")]
    Privilege,
    /// Opening a raw socket.
    #[error("opening a raw {0} socket")]
    Open(&'static str, #[source] io::Error),
    /// One end is IPv4 and the other IPv6.
    #[error("segment between two address families")]
    MixedFamilies,
    /// Encoding.
    #[error("encoding a segment")]
    Encode(#[from] etherparse::err::packet::BuildWriteError),
    /// Sending.
    #[error("sending a segment to {destination}")]
    Send {
        /// Where to.
        destination: IpAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Raw sockets of both families in the network namespace they were opened in.
#[derive(Debug)]
pub struct RawSender {
    v4: OwnedFd,
    /// Absent when the kernel has no IPv6.
    v6: Option<OwnedFd>,
}

impl RawSender {
    /// Opens the sockets.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or when no IPv4 raw socket can be had.
    pub fn open() -> Result<Self, RawError> {
        let v4 = open(AddressFamily::Inet).map_err(opening("IPv4"))?;
        let v6 = match open(AddressFamily::Inet6) {
            Ok(v6) => Some(v6),
            Err(Errno::EAFNOSUPPORT) => None,
            Err(errno) => return Err(opening("IPv6")(errno)),
        };
        Ok(Self { v4, v6 })
    }

    /// Sends one segment without waiting.
    ///
    /// # Errors
    /// `ENOBUFS` or `EAGAIN` when the interface's queue is full, `ENETUNREACH` when there is no
    /// route, `EPERM` when the output chain dropped it.
    pub fn send(&self, segment: &Segment) -> Result<(), RawError> {
        let mut buffer = [0; SEGMENT_BYTES];
        let length = encode(segment, &mut buffer)?;
        let bytes = buffer.get(..length).unwrap_or_default();
        let sent = match segment.destination {
            SocketAddr::V4(to) => {
                // The port means nothing to a raw socket.
                let to = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
                sendto(self.v4.as_raw_fd(), bytes, &to, MsgFlags::MSG_DONTWAIT)
            }
            SocketAddr::V6(to) => {
                let to = SockaddrIn6::from(SocketAddrV6::new(*to.ip(), 0, 0, to.scope_id()));
                match &self.v6 {
                    Some(v6) => sendto(v6.as_raw_fd(), bytes, &to, MsgFlags::MSG_DONTWAIT),
                    None => Err(Errno::EAFNOSUPPORT),
                }
            }
        };
        sent.map(|_| ()).map_err(|errno| RawError::Send {
            destination: segment.destination.ip(),
            source: errno.into(),
        })
    }
}

/// Opens a socket of protocol `IPPROTO_RAW`, for which both families imply that the caller writes
/// the IP header (raw(7); `inet6_create` does the same for IPv6).
fn open(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::Raw,
    )
}

fn opening(family: &'static str) -> impl FnOnce(Errno) -> RawError {
    move |errno| {
        if [Errno::EPERM, Errno::EACCES].contains(&errno) {
            return RawError::Privilege;
        }
        RawError::Open(family, errno.into())
    }
}

/// Writes the packet with both checksums and returns its length.
fn encode(segment: &Segment, buffer: &mut [u8]) -> Result<usize, RawError> {
    let room = buffer.len();
    let mut rest = buffer;
    let window = match segment.kind {
        SegmentKind::Reset { .. } => 0,
        SegmentKind::Probe => PROBE_WINDOW,
    };
    let builder = match (segment.source.ip(), segment.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), HOP_LIMIT)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), HOP_LIMIT)
        }
        _ => return Err(RawError::MixedFamilies),
    }
    .tcp(
        segment.source.port(),
        segment.destination.port(),
        segment.sequence,
        window,
    );
    flagged(builder, segment.kind).write(&mut rest, &[])?;
    Ok(room.saturating_sub(rest.len()))
}

fn flagged(
    builder: PacketBuilderStep<TcpHeader>,
    kind: SegmentKind,
) -> PacketBuilderStep<TcpHeader> {
    match kind {
        SegmentKind::Probe => builder.syn(),
        SegmentKind::Reset { acknowledge: None } => builder.rst(),
        SegmentKind::Reset {
            acknowledge: Some(number),
        } => builder.rst().ack(number),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketHeaders;

    use super::*;

    fn segment(source: &str, destination: &str, kind: SegmentKind) -> Segment {
        Segment {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            sequence: 0xfeed_0001,
            kind,
        }
    }

    fn bytes(segment: &Segment) -> Vec<u8> {
        let mut buffer = [0; SEGMENT_BYTES];
        let length = encode(segment, &mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn reset_has_exact_numbers_and_valid_checksums() {
        let kind = SegmentKind::Reset {
            acknowledge: Some(77),
        };
        for (source, destination, length) in [
            ("10.0.0.5:40000", "192.0.2.1:443", 40),
            ("[2001:db8::5]:40000", "[2001:db8::1]:443", 60),
        ] {
            let bytes = bytes(&segment(source, destination, kind));
            assert_eq!(bytes.len(), length);
            let headers = PacketHeaders::from_ip_slice(&bytes).unwrap();
            let tcp = headers.transport.unwrap().tcp().unwrap();
            assert_eq!(
                (tcp.sequence_number, tcp.acknowledgment_number),
                (0xfeed_0001, 77)
            );
            assert!(tcp.rst && tcp.ack && !tcp.syn && !tcp.fin);
            let sum = match headers.net.unwrap() {
                etherparse::NetHeaders::Ipv4(ip, _) => {
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    tcp.calc_checksum_ipv4(&ip, &[])
                }
                etherparse::NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(&ip, &[]),
                etherparse::NetHeaders::Arp(_) => panic!("not IP"),
            };
            assert_eq!(tcp.checksum, sum.unwrap());
        }
    }

    #[test]
    fn reset_without_acknowledgement_has_no_ack_flag() {
        let kind = SegmentKind::Reset { acknowledge: None };
        let bytes = bytes(&segment("10.0.0.5:1", "192.0.2.1:2", kind));
        assert_eq!(bytes[33], 0x04);
    }

    #[test]
    fn probe_is_a_bare_syn() {
        let bytes = bytes(&segment("10.0.0.5:1", "192.0.2.1:2", SegmentKind::Probe));
        assert_eq!(bytes[33], 0x02);
        assert_eq!(bytes.len(), 40);
    }

    #[test]
    fn families_do_not_mix() {
        let mixed = segment("10.0.0.5:1", "[2001:db8::1]:2", SegmentKind::Probe);
        let mut buffer = [0; SEGMENT_BYTES];
        assert!(matches!(
            encode(&mixed, &mut buffer),
            Err(RawError::MixedFamilies)
        ));
    }
}
