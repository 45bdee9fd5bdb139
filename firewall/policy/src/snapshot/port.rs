//! What is open on which TCP port: the first question about a flow, answered before any name.

use std::collections::BTreeMap;

use crate::preferences::{AddressRules, PlaintextHttp, Preferences, Quic};
use crate::{AppProto, Entry, Kind, PortRange, Rule, RuleTransport, Transport};

/// What some rules of a client have: one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lanes(u8);

impl Lanes {
    const EXACT: u8 = 1;
    const PATTERN: u8 = 1 << 1;
    const TLS: u8 = 1 << 2;
    const SSH: u8 = 1 << 3;
    const HTTP: u8 = 1 << 4;
    /// Flows without a name: `address` and see-thru entries.
    const NAMELESS: u8 = 1 << 5;

    /// Whether a named entry is among them.
    pub(super) const fn has_names(self) -> bool {
        self.0 & (Self::EXACT | Self::PATTERN) != 0
    }

    /// Whether a pattern is among them.
    pub(super) const fn has_pattern(self) -> bool {
        self.0 & Self::PATTERN != 0
    }

    /// Whether a named entry of this kind is among them.
    pub(super) const fn has_kind(self, kind: Kind) -> bool {
        self.0 & Self::kind(kind) != 0
    }

    const fn kind(kind: Kind) -> u8 {
        match kind {
            Kind::Tls => Self::TLS,
            Kind::Ssh => Self::SSH,
            Kind::Http => Self::HTTP,
        }
    }

    /// The lanes of one entry over one transport, if it works there at all.
    fn of_entry(
        entry: &Entry,
        rule: &Rule,
        transport: Transport,
        preferences: &Preferences,
    ) -> Option<Self> {
        let named = |kind: Kind, form: u8| {
            let works = works(kind, rule.transport, transport, preferences);
            works.then_some(Self(form | Self::kind(kind)))
        };
        match entry {
            Entry::Name { kind, .. } => named(*kind, Self::EXACT),
            Entry::Pattern { kind, .. } => named(*kind, Self::PATTERN),
            Entry::Address { .. } => {
                let works = preferences.address_rules == AddressRules::Allow;
                (works && rule.transport.covers(transport)).then_some(Self(Self::NAMELESS))
            }
            Entry::SeeThru { .. } => rule
                .transport
                .covers(transport)
                .then_some(Self(Self::NAMELESS)),
        }
    }
}

/// Whether entries of a kind judge flows over a transport, given their rule's protocol.
pub(super) fn works(
    kind: Kind,
    carrier: RuleTransport,
    transport: Transport,
    preferences: &Preferences,
) -> bool {
    carrier.covers(transport)
        && match (kind, transport) {
            (Kind::Tls | Kind::Ssh, Transport::Tcp) => true,
            (Kind::Http, Transport::Tcp) => {
                preferences.plaintext_http == PlaintextHttp::AllowListed
            }
            (Kind::Tls, Transport::Udp) => preferences.quic == Quic::Inspect,
            _ => false,
        }
}

/// One opening: some ports of TCP or UDP, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Facet {
    udp: bool,
    ports: PortRange,
    lanes: Lanes,
}

impl Facet {
    /// What one rule opens.
    pub(super) fn of(rule: &Rule, preferences: &Preferences) -> Vec<Self> {
        [Transport::Tcp, Transport::Udp]
            .into_iter()
            .filter_map(|transport| {
                let lanes = rule
                    .entries
                    .iter()
                    .filter_map(|entry| Lanes::of_entry(entry, rule, transport, preferences))
                    .fold(0, |sum, lanes| sum | lanes.0);
                let udp = transport == Transport::Udp;
                (lanes != 0).then_some(Self {
                    udp,
                    ports: rule.ports,
                    lanes: Lanes(lanes),
                })
            })
            .collect()
    }
}

/// What is open on each TCP port, and over UDP at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PortMap {
    /// Where the lanes change: from this port on, until the next entry.
    steps: Box<[(u16, Lanes)]>,
    /// Lanes on some TCP port.
    tcp: Lanes,
    /// Lanes on some UDP port.
    udp: Lanes,
}

impl PortMap {
    /// Adds up what several groups open.
    pub(super) fn build<'a, I: Iterator<Item = &'a Facet>>(facets: I) -> Self {
        let mut changes: BTreeMap<u32, [i32; 8]> = BTreeMap::new();
        let mut map = Self::default();
        for facet in facets {
            if facet.udp {
                map.udp.0 |= facet.lanes.0;
                continue;
            }
            map.tcp.0 |= facet.lanes.0;
            let (from, past) = (u32::from(facet.ports.from), u32::from(facet.ports.to) + 1);
            for (at, step) in [(from, 1), (past, -1)] {
                let counts = changes.entry(at).or_default();
                for (bit, count) in counts.iter_mut().enumerate() {
                    *count += step * i32::from(facet.lanes.0 >> bit & 1);
                }
            }
        }
        let mut open = [0_i32; 8];
        let mut steps = Vec::with_capacity(changes.len());
        for (at, counts) in changes {
            let mut lanes = 0_u8;
            for (bit, (sum, count)) in open.iter_mut().zip(counts).enumerate() {
                *sum += count;
                lanes |= u8::from(*sum > 0) << bit;
            }
            if let Ok(port) = u16::try_from(at) {
                steps.push((port, Lanes(lanes)));
            }
        }
        map.steps = steps.into();
        map
    }

    /// What is open on a TCP port.
    pub(super) fn at(&self, port: u16) -> Lanes {
        let next = self.steps.partition_point(|(from, _)| *from <= port);
        let step = next.checked_sub(1).and_then(|last| self.steps.get(last));
        step.map_or_else(Lanes::default, |(_, lanes)| *lanes)
    }

    /// Whether nothing is open over TCP.
    pub(super) fn is_empty(&self) -> bool {
        self.tcp == Lanes::default()
    }

    /// Whether some rule, whatever its ports, has named entries that judge this protocol.
    pub(super) fn has_proto(&self, proto: AppProto) -> bool {
        let lanes = if proto == AppProto::Quic {
            self.udp
        } else {
            self.tcp
        };
        proto.kind().is_some_and(|kind| lanes.has_kind(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facet(from: u16, to: u16, lanes: u8) -> Facet {
        Facet {
            udp: false,
            ports: PortRange { from, to },
            lanes: Lanes(lanes),
        }
    }

    #[test]
    fn overlapping_ranges_add_up_port_by_port() {
        let facets = [
            facet(443, 443, Lanes::EXACT | Lanes::TLS),
            facet(400, 500, Lanes::PATTERN | Lanes::TLS),
            facet(65_535, 65_535, Lanes::NAMELESS),
        ];
        let map = PortMap::build(facets.iter());
        assert_eq!(map.at(399), Lanes(0));
        assert_eq!(map.at(400), Lanes(Lanes::PATTERN | Lanes::TLS));
        assert_eq!(
            map.at(443),
            Lanes(Lanes::EXACT | Lanes::PATTERN | Lanes::TLS)
        );
        assert_eq!(map.at(444), Lanes(Lanes::PATTERN | Lanes::TLS));
        assert_eq!(map.at(501), Lanes(0));
        assert_eq!(map.at(65_535), Lanes(Lanes::NAMELESS));
        assert!(!map.is_empty());
        assert!(PortMap::default().is_empty());
    }
}
