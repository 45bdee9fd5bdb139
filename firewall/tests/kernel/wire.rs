//! Segments written byte by byte, and a look at what arrives.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use etherparse::{PacketBuilder, TcpHeader, TcpHeaderSlice};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    recvfrom, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::world::{Place, World};

/// A segment that no stack would write.
#[derive(Clone)]
pub(crate) struct Crafted {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) acknowledge: u32,
    pub(crate) flags: u8,
    /// Raw option bytes, a multiple of four.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) hops: u8,
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

impl Crafted {
    pub(crate) fn new(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        Self {
            source,
            destination,
            sequence: 1_000,
            acknowledge: 0,
            flags,
            options: Vec::new(),
            payload: Vec::new(),
            hops: 64,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut tcp = TcpHeader::new(
            self.source.port(),
            self.destination.port(),
            self.sequence,
            65_000,
        );
        tcp.acknowledgment_number = self.acknowledge;
        tcp.fin = self.flags & FIN != 0;
        tcp.syn = self.flags & SYN != 0;
        tcp.rst = self.flags & RST != 0;
        tcp.ack = self.flags & ACK != 0;
        tcp.set_options_raw(&self.options).unwrap();
        let mut bytes = Vec::new();
        let builder = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                PacketBuilder::ipv4(a.octets(), b.octets(), self.hops)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                PacketBuilder::ipv6(a.octets(), b.octets(), self.hops)
            }
            _ => panic!("mixed families"),
        };
        builder
            .tcp_header(tcp)
            .write(&mut bytes, &self.payload)
            .unwrap();
        bytes
    }

    /// Sends it from the client.
    pub(crate) fn send(&self, world: &World) {
        send(world, self.destination.ip(), self.bytes());
    }

    /// Sends it with one byte of its TCP checksum wrong.
    pub(crate) fn send_damaged(&self, world: &World) {
        let mut bytes = self.bytes();
        let header = if self.source.is_ipv4() { 20 } else { 40 };
        bytes[header + 16] ^= 0x5a;
        send(world, self.destination.ip(), bytes);
    }
}

/// An ICMP echo request of the client's.
pub(crate) fn echo_request(source: IpAddr, destination: IpAddr, sequence: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), 64)
            .icmpv4_echo_request(77, sequence)
            .write(&mut bytes, b"echo"),
        (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), 64)
            .icmpv6_echo_request(77, sequence)
            .write(&mut bytes, b"echo"),
        _ => panic!("mixed families"),
    }
    .unwrap();
    bytes
}

/// Sends a whole IP packet from the client.
pub(crate) fn send(world: &World, destination: IpAddr, bytes: Vec<u8>) {
    send_from(world, Place::Client, destination, bytes);
}

/// Sends a whole IP packet from anywhere.
pub(crate) fn send_from(world: &World, place: Place, destination: IpAddr, bytes: Vec<u8>) {
    world.within(place, move || {
        let family = match destination {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let raw = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
        let sent = match destination {
            IpAddr::V4(to) => {
                let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
                sendto(raw.as_raw_fd(), &bytes, &to, MsgFlags::empty())
            }
            IpAddr::V6(to) => {
                let to = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, 0));
                sendto(raw.as_raw_fd(), &bytes, &to, MsgFlags::empty())
            }
        };
        sent.unwrap();
    });
}

/// Everything that arrives somewhere, as IP packets.
pub(crate) struct Tap {
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    /// Begins to look at what arrives in a namespace, before any of its stack does.
    pub(crate) fn open(world: &World, place: Place) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (ready, opened) = std::sync::mpsc::channel();
        let noting = Arc::downgrade(&seen);
        world.start(place, move || {
            let packets = open_packet_socket();
            ready.send(()).unwrap();
            let mut buffer = vec![0; 70_000];
            // Ends with the tap that holds the list.
            while let Some(seen) = noting.upgrade() {
                let Ok((length, Some(from))) =
                    recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut buffer)
                else {
                    continue;
                };
                if from.pkttype() != PACKET_OUTGOING {
                    seen.lock().unwrap().push(buffer[..length].to_vec());
                }
            }
        });
        opened.recv().unwrap();
        Self { seen }
    }

    /// The packets so far.
    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }

    /// TCP headers with their payload so far.
    pub(crate) fn segments(&self) -> Vec<(TcpHeader, Vec<u8>)> {
        let packets = self.packets();
        packets.iter().filter_map(|bytes| tcp(bytes)).collect()
    }

    /// True when some packet holds these bytes.
    pub(crate) fn holds(&self, needle: &[u8]) -> bool {
        let packets = self.packets();
        packets
            .iter()
            .any(|packet| packet.windows(needle.len()).any(|window| window == needle))
    }
}

/// `PACKET_OUTGOING` of `linux/if_packet.h`.
const PACKET_OUTGOING: u8 = 4;

/// A packet socket for everything, without link-layer headers.
fn open_packet_socket() -> OwnedFd {
    let packets = socket(
        AddressFamily::Packet,
        SockType::Datagram,
        SockFlag::empty(),
        SockProtocol::EthAll,
    )
    .unwrap();
    setsockopt(
        &packets,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(20),
    )
    .unwrap();
    packets
}

/// The TCP header and payload of an IP packet.
pub(crate) fn tcp(bytes: &[u8]) -> Option<(TcpHeader, Vec<u8>)> {
    let header = match bytes.first()? >> 4 {
        4 => usize::from(bytes[0] & 0xf) * 4,
        6 => 40,
        _ => return None,
    };
    let protocol = if header == 40 && bytes[0] >> 4 == 6 {
        bytes[6]
    } else {
        bytes[9]
    };
    if protocol != 6 {
        return None;
    }
    let slice = TcpHeaderSlice::from_slice(&bytes[header..]).ok()?;
    let payload = bytes[header + slice.slice().len()..].to_vec();
    Some((slice.to_header(), payload))
}
