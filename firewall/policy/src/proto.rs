//! Protocols and ports: what a rule can carry and what a flow turned out to be.

use std::fmt;
use std::str::FromStr;

use crate::words::words;

words! {
    /// What a named entry allows: the keyword of an annotation.
    pub enum Kind {
        /// TLS 1.2 or newer, and QUIC where the deployment inspects it.
        Tls = "tls",
        /// SSH 2.
        Ssh = "ssh",
        /// Plain HTTP by Host header.
        Http = "http",
    }
}

words! {
    /// What a flow speaks: the log's `proto`.
    pub enum AppProto {
        /// TLS over TCP.
        Tls = "tls",
        /// SSH over TCP.
        Ssh = "ssh",
        /// Plain HTTP over TCP.
        Http = "http",
        /// QUIC over UDP.
        Quic = "quic",
        /// UDP that is not QUIC.
        Udp = "udp",
        /// ICMP or ICMPv6.
        Icmp = "icmp",
        /// Anything else.
        Unknown = "unknown",
    }
}

impl AppProto {
    /// The kind of entry that judges this protocol by name, if any does.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Tls | Self::Quic => Some(Kind::Tls),
            Self::Ssh => Some(Kind::Ssh),
            Self::Http => Some(Kind::Http),
            Self::Udp | Self::Icmp | Self::Unknown => None,
        }
    }
}

/// The protocol in an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// ICMP (1) or ICMPv6 (58).
    Icmp,
    /// Any other protocol number.
    Other(u8),
}

impl Transport {
    /// Its number in a header, of IPv6 or else of IPv4 (IANA, "Assigned Internet Protocol Numbers").
    #[must_use]
    pub const fn number(self, ipv6: bool) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp if ipv6 => 58,
            Self::Icmp => 1,
            Self::Other(number) => number,
        }
    }
}

words! {
    /// The protocol of a rule.
    pub enum RuleTransport {
        /// TCP only.
        Tcp = "tcp",
        /// UDP only.
        Udp = "udp",
        /// Every IP protocol.
        All = "all",
    }
}

impl RuleTransport {
    /// Whether a rule of this protocol speaks for flows of `transport`.
    pub const fn covers(self, transport: Transport) -> bool {
        match self {
            Self::Tcp => matches!(transport, Transport::Tcp),
            Self::Udp => matches!(transport, Transport::Udp),
            Self::All => true,
        }
    }
}

/// An inclusive range of destination ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub from: u16,
    /// The highest port.
    pub to: u16,
}

impl PortRange {
    /// Any port, and protocols that have none.
    pub const ALL: Self = Self {
        from: 0,
        to: u16::MAX,
    };

    /// The range of one port.
    pub const fn single(port: u16) -> Self {
        Self {
            from: port,
            to: port,
        }
    }

    /// Whether `port` lies in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.from <= port && port <= self.to
    }

    /// Whether the range holds every port, and so also flows without ports.
    pub const fn is_all(self) -> bool {
        self.from == 0 && self.to == u16::MAX
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            f.write_str("all")
        } else if self.from == self.to {
            write!(f, "{}", self.from)
        } else {
            write!(f, "{}-{}", self.from, self.to)
        }
    }
}

/// Text that is no port, range of ports, or `all`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a port, a range such as \"8000-8100\", or \"all\"")]
pub struct InvalidPortRange(pub String);

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    /// Reads `443`, `8000-8100` or `all`.
    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let fault = || InvalidPortRange(text.to_owned());
        let text_trimmed = text.trim();
        if text_trimmed.eq_ignore_ascii_case("all") {
            return Ok(Self::ALL);
        }
        let (from, to) = match text_trimmed.split_once('-') {
            Some((from, to)) => (port(from).ok_or_else(fault)?, port(to).ok_or_else(fault)?),
            None => {
                let port = port(text_trimmed).ok_or_else(fault)?;
                (port, port)
            }
        };
        if from > to {
            return Err(fault());
        }
        Ok(Self { from, to })
    }
}

/// A decimal port; `+1`, which Rust's own parser accepts, is none.
fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_as_one_a_range_or_all() {
        assert_eq!("443".parse(), Ok(PortRange::single(443)));
        assert_eq!(
            " 8000 - 8100 ".parse(),
            Ok(PortRange {
                from: 8000,
                to: 8100
            })
        );
        assert_eq!("All".parse(), Ok(PortRange::ALL));
        assert_eq!("0-65535".parse(), Ok(PortRange::ALL));
    }

    #[test]
    fn ports_refuse_signs_reversed_ranges_and_numbers_past_sixteen_bits() {
        for text in [
            "", "+443", "-1", "65536", "9-8", "443,80", "https", "1-", "-",
        ] {
            assert!(text.parse::<PortRange>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn ports_print_as_they_are_written() {
        for text in ["443", "8000-8100", "all"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_rule_for_all_covers_protocols_without_ports() {
        assert!(RuleTransport::All.covers(Transport::Icmp));
        assert!(RuleTransport::All.covers(Transport::Other(47)));
        assert!(!RuleTransport::Udp.covers(Transport::Tcp));
    }
}
