//! What the engine counts instead of logging.

/// Running totals since the inspector was made; the daemon adds those of its queues up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets handed in.
    pub packets: u64,
    /// Packets too short to name their own addresses; dropped.
    pub unreadable: u64,
    /// SYNs and claims dropped because their client had used up its look-ups or its places to wait.
    pub dns_budget: u64,
    /// SYNs and claims dropped because their name has more addresses than were learnt in time.
    pub dns_unsettled: u64,
    /// Flows refused after look-ups none of which brought an address, then or before.
    pub dns_negative: u64,
    /// Flows refused after look-ups of names that have addresses, and not this one.
    pub dns_mismatch: u64,
    /// SYNs that passed the address gate as they came.
    pub gate_hits: u64,
    /// Connections whose SYN the kernel let through by itself.
    pub familiar: u64,
    /// SYNs held at the address gate.
    pub gate_misses: u64,
    /// SYNs dropped while their client's inventory entry was awaited.
    pub client_pending: u64,
    /// Flows whose address became bound by a look-up made for them.
    pub rescued: u64,
    /// Refusals, logged or not.
    pub refused: u64,
    /// Refusals not logged because their client had many.
    pub suppressed: u64,
    /// Flows handed to the kernel.
    pub judged: u64,
    /// Packets of a client whose SYN/ACK has not been seen: its answers take another way.
    pub asymmetric: u64,
    /// Packets dropped as repeats of one that is held, out of window or otherwise pointless.
    pub dropped: u64,
}
