//! Everything the kernel drops or refuses by itself, by name.

/// A named counter of the ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Packets conntrack could not place, or that were kept from it.
    Invalid,
    /// IPv4 packets with options.
    IpOptions,
    /// IPv6 packets with an extension header other than a fragment's.
    ExtensionHeader,
    /// From or to an address that is never forwarded.
    SpecialAddress,
    /// A SYN without ACK from the server's side.
    SplitHandshake,
    /// SYN in a combination that opens no connection.
    HandshakeFlags,
    /// A TCP option of a length that its kind does not have.
    TcpOption,
    /// Unannounced traffic from outside towards a client.
    Stranger,
    /// New flows beyond a source's limit.
    NewFlowLimit,
    /// Acknowledgements of undecided flows with a TTL or hop limit below 32.
    LowHopLimit,
    /// ICMP of a type that is neither an echo nor an error that may pass.
    Icmp,
    /// IPv6 while it is switched off.
    Ipv6Off,
    /// Packets that should have been queued and were not.
    NotQueued,
    /// Packets of flows that are being ended.
    Killed,
    /// Packets that reached the end of the last chain without evidence.
    Undecided,
    /// Refusals the kernel answered.
    Refused,
    /// Refusals beyond a source's limit, dropped.
    RefusalLimit,
    /// Packets to the appliance that no service of its answers.
    Input,
    /// Packets of the appliance's own that its users may not send.
    Output,
    /// Attempts to reach the metadata service by a user who may not.
    Metadata,
}

impl Counter {
    /// All of them, in the order they are made.
    pub const ALL: [Self; 20] = [
        Self::Invalid,
        Self::IpOptions,
        Self::ExtensionHeader,
        Self::SpecialAddress,
        Self::SplitHandshake,
        Self::HandshakeFlags,
        Self::TcpOption,
        Self::Stranger,
        Self::NewFlowLimit,
        Self::LowHopLimit,
        Self::Icmp,
        Self::Ipv6Off,
        Self::NotQueued,
        Self::Killed,
        Self::Undecided,
        Self::Refused,
        Self::RefusalLimit,
        Self::Input,
        Self::Output,
        Self::Metadata,
    ];

    /// Its name in the ruleset, and the label of its metric.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::IpOptions => "ip_options",
            Self::ExtensionHeader => "extension_header",
            Self::SpecialAddress => "special_address",
            Self::SplitHandshake => "split_handshake",
            Self::HandshakeFlags => "handshake_flags",
            Self::TcpOption => "tcp_option",
            Self::Stranger => "stranger",
            Self::NewFlowLimit => "new_flow_limit",
            Self::LowHopLimit => "low_hop_limit",
            Self::Icmp => "icmp_other",
            Self::Ipv6Off => "ipv6_off",
            Self::NotQueued => "not_queued",
            Self::Killed => "killed",
            Self::Undecided => "undecided",
            Self::Refused => "refused",
            Self::RefusalLimit => "refusal_limit",
            Self::Input => "input",
            Self::Output => "output",
            Self::Metadata => "metadata",
        }
    }

    /// The counter of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }
}
