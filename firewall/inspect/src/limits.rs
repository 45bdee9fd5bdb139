//! Every bound of the engine, in one place.

/// The bounds of one [`Inspector`](crate::Inspector).
///
/// An inspector serves one queue; the daemon divides deployment-wide figures by the number of
/// queues. Every limit fails closed: what does not fit is refused or dropped, never passed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Undecided TCP flows, all clients together; one more is refused `table_full`.
    pub flows: usize,
    /// Undecided TCP flows of one client; one more is refused `client_limit`.
    pub flows_per_client: usize,
    /// Payload bytes kept for one direction of an undecided flow. 64 KiB holds the largest
    /// hello we accept, a FrodoKEM-1344 key share (21.5 KB) three times over.
    pub bytes_per_direction: usize,
    /// Payload bytes kept for all undecided flows together; what exceeds it is refused
    /// `table_full`.
    pub bytes: usize,
    /// Payload bytes kept for the undecided flows of one client; what exceeds it is refused
    /// `client_limit`, so that one client cannot have everybody else's hellos refused.
    pub bytes_per_client: usize,
    /// Packets held unanswered for one flow.
    pub segments_per_flow: usize,
    /// Packets held unanswered for all flows together. The kernel's queue is as long, and a
    /// queue full of held packets would starve everybody.
    pub segments: usize,
    /// Packets held unanswered for one client; one more ends its flow, `client_limit`.
    pub segments_per_client: usize,
    /// From the SYN/ACK until the client's first message is complete, and from the first
    /// held byte of the server until its first message is, in milliseconds.
    pub hello_ms: u64,
    /// From the release of the client's message until the server has answered, and from
    /// there until both sides have proved themselves, in milliseconds. Nothing is held
    /// meanwhile except segments out of order.
    pub answer_ms: u64,
    /// How long a SYN that has passed the gates may wait for its SYN/ACK, in milliseconds.
    pub syn_ms: u64,
    /// How long a packet may wait for look-ups, in milliseconds.
    pub lookup_ms: u64,
    /// SYNs of one client waiting for look-ups; later ones are dropped silently.
    pub held_syns_per_client: usize,
    /// SYNs of one client that may be held in one second; later ones are dropped silently.
    pub misses_per_client_s: u32,
    /// Names asked for on behalf of one held SYN.
    pub names_per_syn: usize,
    /// Of these, how many are asked for at once; the others when its client turns out not to scan.
    pub names_at_once: usize,
    /// How long after the SYN that is asked, in milliseconds. A scan shows itself long before.
    pub search_after_ms: u64,
    /// Destinations that one client may miss in ten seconds without being taken for a scan.
    pub destinations_missed: usize,
    /// How long an address inside the served ranges may try before it is refused
    /// `client_unknown`, in milliseconds.
    pub unknown_client_ms: u64,
    /// How long that refusal is remembered, in milliseconds.
    pub unknown_client_refused_ms: u64,
    /// Unknown addresses remembered; one more is dropped silently.
    pub unknown_clients: usize,
    /// Reports of unknown clients in one second.
    pub unknown_reports_per_s: u32,
    /// Flows remembered for a short time after their verdict, so that packets which were
    /// already queued when the mark landed meet the same verdict: so many of TCP, and so many of all other protocols.
    pub decided: usize,
    /// How long they are remembered, in milliseconds.
    pub decided_ms: u64,
    /// Refusals of one client logged in one second; the rest are counted.
    pub refusals_logged_per_s: u32,
    /// Clients whose refusals are counted apart; beyond that they share one allowance.
    pub refusal_clients: usize,
    /// Packets of a client with a TTL or hop limit below this are refused while undecided.
    pub ttl_min: u8,
    /// Whether TCP options other than plain TCP's are refused; off only where no ruleset has
    /// taken them out before.
    pub plain_options: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 65_536,
            flows_per_client: 8_192,
            bytes_per_direction: 64 << 10,
            bytes: 256 << 20,
            bytes_per_client: 32 << 20,
            segments_per_flow: 512,
            segments: 49_152,
            segments_per_client: 6_144,
            hello_ms: 10_000,
            answer_ms: 60_000,
            syn_ms: 30_000,
            lookup_ms: 1_000,
            held_syns_per_client: 32,
            misses_per_client_s: 32,
            names_per_syn: 20,
            names_at_once: 6,
            search_after_ms: 150,
            destinations_missed: 4,
            unknown_client_ms: 15_000,
            unknown_client_refused_ms: 30_000,
            unknown_clients: 4_096,
            unknown_reports_per_s: 10,
            decided: 16_384,
            decided_ms: 5_000,
            refusals_logged_per_s: 10,
            refusal_clients: 16_384,
            ttl_min: 32,
            plain_options: true,
        }
    }
}
