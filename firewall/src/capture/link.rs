//! From a captured frame to the IP packet in it.

use super::CaptureError;

/// A link layer, by its number in the registry of tcpdump.org.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// LINKTYPE_NULL and LINKTYPE_LOOP: four bytes of address family.
    Loopback,
    /// LINKTYPE_ETHERNET.
    Ethernet,
    /// LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6 and the numbers BSDs use.
    Raw,
    /// LINKTYPE_LINUX_SLL.
    Cooked,
    /// LINKTYPE_LINUX_SLL2.
    Cooked2,
}

impl Link {
    pub(super) fn from_number(number: u16) -> Result<Self, CaptureError> {
        match number {
            0 | 108 => Ok(Self::Loopback),
            1 => Ok(Self::Ethernet),
            12 | 14 | 101 | 228 | 229 => Ok(Self::Raw),
            113 => Ok(Self::Cooked),
            276 => Ok(Self::Cooked2),
            other => Err(CaptureError::UnknownLink(other)),
        }
    }

    /// The bytes from the IP header on, when the frame holds IP.
    pub(super) fn ip(self, frame: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Raw => Some(frame),
            Self::Loopback => frame.get(4..),
            Self::Ethernet => tagged(ethertype(frame, 12)?, frame.get(14..)?),
            // RFC-less, described at tcpdump.org: the protocol is in the last two of 16 bytes.
            Self::Cooked => tagged(ethertype(frame, 14)?, frame.get(16..)?),
            // ... and in the first two of 20.
            Self::Cooked2 => tagged(ethertype(frame, 0)?, frame.get(20..)?),
        }
        .filter(|packet| {
            packet
                .first()
                .is_some_and(|first| matches!(first >> 4, 4 | 6))
        })
    }
}

fn ethertype(frame: &[u8], at: usize) -> Option<u16> {
    let bytes = frame.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

/// Steps over VLAN tags (IEEE 802.1Q and 802.1ad).
fn tagged(mut kind: u16, mut rest: &[u8]) -> Option<&[u8]> {
    for _ in 0..TAGS_MAX {
        match kind {
            IPV4 | IPV6 => return Some(rest),
            VLAN | SERVICE_VLAN | OLD_SERVICE_VLAN => {
                kind = ethertype(rest, 2)?;
                rest = rest.get(4..)?;
            }
            _ => return None,
        }
    }
    None
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const OLD_SERVICE_VLAN: u16 = 0x9100;
const TAGS_MAX: usize = 4;
