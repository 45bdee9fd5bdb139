//! Why a flow was refused: the stable codes of both logs, the command line and the metrics.
//!
//! This is the only list of them. A new code is added here, documented in the log reference
//! and given an end-to-end test.

use crate::words::words;

words! {
    /// The stable code of a refusal.
    pub enum Reason {
        /// The source address is outside the served prefixes, or no inventory knows it.
        ClientUnknown = "client_unknown",
        /// None of the client's groups has a rule for this protocol.
        NoRule = "no_rule",
        /// No entry of the client's rules covers the claimed name.
        NameNotAllowed = "name_not_allowed",
        /// The name is allowed, but by no rule whose ports hold the destination port.
        PortNotAllowed = "port_not_allowed",
        /// The destination is no address that we have seen the claimed name resolve to.
        AddressNotOfName = "address_not_of_name",
        /// The claimed name has no address at all, or no resolver answered.
        NameUnresolvable = "name_unresolvable",
        /// The destination is not in globally reachable address space.
        AddressNotGlobal = "address_not_global",
        /// A ClientHello without a server name.
        SniMissing = "sni_missing",
        /// A ClientHello with more than one server name.
        SniMultiple = "sni_multiple",
        /// A server name that is not a well formed DNS name.
        SniMalformed = "sni_malformed",
        /// A server name that is an IP address in some notation.
        SniIpLiteral = "sni_ip_literal",
        /// A ClientHello that hides its name (Encrypted Client Hello).
        Ech = "ech",
        /// The client offers no TLS 1.2 or newer.
        TlsVersionClient = "tls_version_client",
        /// The server selected a version below TLS 1.2.
        TlsVersionServer = "tls_version_server",
        /// The server's random carries a downgrade sentinel (RFC 8446, section 4.1.3).
        TlsDowngrade = "tls_downgrade",
        /// A TLS message that does not follow its own grammar.
        TlsMalformed = "tls_malformed",
        /// A ClientHello in SSLv2 framing.
        Sslv2Hello = "sslv2_hello",
        /// Empty, oversized or interleaved TLS records before the handshake is complete.
        RecordAbuse = "record_abuse",
        /// The first message was not complete within its deadline.
        HelloIncomplete = "hello_incomplete",
        /// The first message does not fit what is held for one flow.
        HelloTooBig = "hello_too_big",
        /// The server answered a ClientHello with something that is not TLS.
        ServerNotTls = "server_not_tls",
        /// The server's certificate does not prove the claimed name.
        CertificateInvalid = "certificate_invalid",
        /// The server's certificate has been revoked.
        CertificateRevoked = "certificate_revoked",
        /// One side does not speak SSH 2.
        SshVersion = "ssh_version",
        /// An SSH message that does not follow its own grammar.
        SshMalformed = "ssh_malformed",
        /// The server's host key is none of the pinned ones.
        SshHostKey = "ssh_host_key",
        /// The first bytes belong to no protocol that a rule can allow.
        ProtocolUnknown = "protocol_unknown",
        /// Plain HTTP.
        PlaintextHttp = "plaintext_http",
        /// QUIC.
        Quic = "quic",
        /// Any other UDP.
        Udp = "udp",
        /// ICMP that belongs to no judged flow.
        Icmp = "icmp",
        /// An IP protocol other than TCP, UDP and ICMP.
        IpProtocol = "ip_protocol",
        /// Data on a SYN, or before the server's SYN/ACK.
        SynData = "syn_data",
        /// Two different byte strings for one range of sequence numbers.
        TcpOverlap = "tcp_overlap",
        /// Urgent data while undecided.
        TcpUrgent = "tcp_urgent",
        /// A segment that fits no connection we have seen being made.
        TcpState = "tcp_state",
        /// IPv4 options.
        IpOptions = "ip_options",
        /// An IPv6 extension header other than the fragment header.
        ExtensionHeader = "extension_header",
        /// The table of undecided flows is full.
        TableFull = "table_full",
        /// This client has too many undecided flows.
        ClientLimit = "client_limit",
        /// No source port is left for translation.
        NatPorts = "nat_ports",
        /// A question to the DNS front for a type of records that it does not pass on.
        DnsRecordType = "dns_record_type",
        /// A live flow that the newly adopted policy refuses.
        PolicyChanged = "policy_changed",
        /// A broken invariant of our own.
        Internal = "internal",
    }
}
