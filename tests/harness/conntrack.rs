//! Entries of a namespace's connection table, made and deleted by the hundred in one system call: faster than any
//! program that asks for each.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendmsg, socket,
};

use crate::netns::Namespace;

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_DELETE`.
const NEW: u16 = 1 << 8;
const DELETE: u16 = (1 << 8) | 2;
/// `NLM_F_REQUEST`, and with it `NLM_F_CREATE | NLM_F_EXCL`.
const REQUEST: u16 = 0x1;
const CREATE: u16 = 0x601;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_TIMEOUT`, `CTA_MARK`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// How long an entry lives by itself, seconds.
const LIFE_S: u32 = 600;
/// Messages of one system call.
const AT_ONCE: usize = 200;

/// A UDP flow over IPv4: who sent first, and to whom.
pub type Ends = (SocketAddrV4, SocketAddrV4);

/// A namespace's connection table.
#[derive(Debug)]
pub struct Table(OwnedFd);

impl Table {
    /// Opens the table of `namespace`.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let open = || {
            socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )
        };
        let opened = namespace.enter(open)?;
        opened.map(Self).context("opening a netfilter socket")
    }

    /// Adds flows whose entries carry `mark`, without translation.
    pub fn add(&self, flows: &[Ends], mark: u32) -> Result<()> {
        self.all(flows, |(from, to)| {
            let mut body = tuple(ORIGINAL, *from, *to);
            body.extend(tuple(REPLY, *to, *from));
            body.extend(attribute(TIMEOUT, &LIFE_S.to_be_bytes()));
            body.extend(attribute(MARK, &mark.to_be_bytes()));
            message(NEW, CREATE, &body)
        })
    }

    /// Deletes the entries of flows; each must be there.
    pub fn delete(&self, flows: &[Ends]) -> Result<()> {
        self.all(flows, |(from, to)| {
            message(DELETE, REQUEST, &tuple(ORIGINAL, *from, *to))
        })
    }

    fn all(&self, flows: &[Ends], write: impl Fn(&Ends) -> Vec<u8>) -> Result<()> {
        for some in flows.chunks(AT_ONCE) {
            let messages: Vec<u8> = some.iter().flat_map(&write).collect();
            let to = NetlinkAddr::new(0, 0);
            let fd = self.0.as_raw_fd();
            sendmsg(
                fd,
                &[IoSlice::new(&messages)],
                &[],
                MsgFlags::empty(),
                Some(&to),
            )
            .context("sending to the connection table")?;
            self.complaint()?;
        }
        Ok(())
    }

    /// The kernel has carried a request out when `sendmsg` returns, and answers only what went wrong.
    fn complaint(&self) -> Result<()> {
        let mut answer = [0; 1_024];
        match recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno).context("reading what the connection table says"),
            Ok(length) if length >= 20 && answer[4..6] == ERROR.to_ne_bytes() => {
                let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
                bail!("the connection table refuses: {}", Errno::from_raw(-code))
            }
            Ok(length) => bail!("the connection table says {:?}", &answer[..length]),
        }
    }
}

/// `mark` of the first entry of `namespace` that `ends` is the original direction of.
pub fn mark_of(namespace: &Namespace, (from, to): Ends) -> Result<u32> {
    let table = namespace.run("cat", &["/proc/net/nf_conntrack"])?;
    let ends = format!(
        "src={} dst={} sport={} dport={} ",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    );
    let line = table.lines().find(|line| line.contains(&ends));
    let mark = line.and_then(|line| line.split(" mark=").nth(1)?.split(' ').next());
    let mark = mark.with_context(|| format!("no entry {ends}in\n{table}"))?;
    mark.parse().context("a mark")
}

/// Messages that sockets of `namespace` had no room for, as `/proc/net/netlink` counts them.
pub fn undelivered(namespace: &Namespace) -> Result<u64> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/netlink");
    let table = namespace
        .enter(read)?
        .context("reading netlink's sockets")?;
    // Socket, protocol, port, groups, bytes in, bytes out, dump, references, drops, inode.
    let drops = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    Ok(drops.sum())
}

/// `count` flows from successive ports of successive addresses.
pub fn flows(first: Ipv4Addr, ports_each: u16, count: usize, to: SocketAddr) -> Vec<Ends> {
    let SocketAddr::V4(to) = to else {
        return Vec::new();
    };
    (0..count)
        .map(|index| {
            let host = u32::from(first) + (index / usize::from(ports_each)) as u32;
            let port = 20_000 + (index % usize::from(ports_each)) as u16;
            (SocketAddrV4::new(host.into(), port), to)
        })
        .collect()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `CTA_TUPLE_IP` with both addresses and `CTA_TUPLE_PROTO` with UDP and both ports.
fn tuple(kind: u16, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let addresses = [
        attribute(1, &from.ip().octets()),
        attribute(2, &to.ip().octets()),
    ];
    let ports = [
        attribute(1, &[17]),
        attribute(2, &from.port().to_be_bytes()),
        attribute(3, &to.port().to_be_bytes()),
    ];
    let both = [
        attribute(1 | NESTED, &addresses.concat()),
        attribute(2 | NESTED, &ports.concat()),
    ];
    attribute(kind | NESTED, &both.concat())
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((20 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port; then `struct nfgenmsg`: AF_INET, version 0, no resource.
    bytes.extend([0; 8]);
    bytes.extend([2, 0, 0, 0]);
    bytes.extend(body);
    bytes
}
