//! The sockets clients ask: one for each family and transport, on every address of the machine.
//!
//! A datagram is answered from the very address it was sent to, which need not be the one a route would choose: a load
//! balancer's address is made local beside the interface's own.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    SockaddrStorage, bind, listen, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use tokio::io::Interest;
use tokio::net::{TcpListener, UdpSocket};

/// A socket for datagrams of one family.
#[derive(Debug)]
pub(in crate::witness) struct Datagrams {
    socket: UdpSocket,
    ipv6: bool,
}

/// Who sent a datagram, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::witness) struct Route {
    /// The sender.
    pub(super) from: SocketAddr,
    /// The address it was sent to, which the answer comes from.
    pub(super) to: IpAddr,
}

impl Datagrams {
    /// Listens on a port of every address of one family.
    pub(super) fn open(ipv6: bool, port: u16) -> io::Result<Self> {
        let socket = bound(SockType::Datagram, ipv6, port)?;
        if ipv6 {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        Ok(Self {
            socket: UdpSocket::from_std(std::net::UdpSocket::from(socket))?,
            ipv6,
        })
    }

    /// Waits for a datagram; its length and its route. One whose route the kernel does not tell is left out.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Route)> {
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || receive(&self.socket, buffer))
                .await?;
            if let (length, Some(route)) = received {
                return Ok((length, route));
            }
        }
    }

    /// Sends a datagram, or not: whoever asked asks again.
    pub(super) fn send(&self, bytes: &[u8], route: Route) -> io::Result<()> {
        let to = SockaddrStorage::from(route.from);
        let parts = [IoSlice::new(bytes)];
        let socket = self.socket.as_raw_fd();
        match (self.ipv6, route.to) {
            (false, IpAddr::V4(from)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from(from).to_be(),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(socket, &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
            }
            (true, IpAddr::V6(from)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: from.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(socket, &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Option<Route>)> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let to = message.cmsgs()?.find_map(|control| {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = control {
            let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
            return Some(IpAddr::V4(address));
        }
        if let ControlMessageOwned::Ipv6PacketInfo(info) = control {
            return Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
        }
        None
    });
    let from = message.address.as_ref().and_then(sender);
    let route = from.zip(to).map(|(from, to)| Route { from, to });
    Ok((message.bytes, route))
}

fn sender(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::V6(SocketAddrV6::from(*v6)))
}

/// Listens for connections on a port of every address of one family.
pub(super) fn listener(ipv6: bool, port: u16) -> io::Result<TcpListener> {
    let socket = bound(SockType::Stream, ipv6, port)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

fn bound(kind: SockType, ipv6: bool, port: u16) -> io::Result<OwnedFd> {
    let (family, any) = if ipv6 {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        (AddressFamily::Inet6, any)
    } else {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        (AddressFamily::Inet, any)
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, kind, flags, None)?;
    if ipv6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        // The port stays taken for a minute otherwise, by connections of a witness that has ended.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
    Ok(socket)
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
