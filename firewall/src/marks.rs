//! The bits that the ruleset and the daemon agree on.
//!
//! A *packet mark* lives as long as one packet: a class put on by the first chain (why the packet is queued), replaced by
//! a verdict put on by the daemon. A *ct mark* lives as long as the conntrack entry. Every number of either kind is in
//! this file; the rendered ruleset, the queue threads and the conntrack code read them from here.

/// Packet mark bits that say "to be queued, and why". A packet that still carries one of them at the last chain was
/// never judged and is dropped there.
pub const CLASS_MASK: u32 = 0x700;

/// Client to server: payload, FIN, RST or an urgent pointer.
pub const CLASS_ORIGINAL: u32 = 0x100;
/// Server to client: SYN/ACK, payload, FIN, RST or an urgent pointer.
pub const CLASS_REPLY: u32 = 0x200;
/// A bare SYN that made a new conntrack entry.
pub const CLASS_SYN: u32 = 0x300;
/// A bare SYN on a conntrack entry that is not new: the entry has to go before the SYN may be judged.
pub const CLASS_STALE_SYN: u32 = 0x400;
/// A packet of an undecided flow of any protocol but TCP.
pub const CLASS_NON_TCP: u32 = 0x500;
/// Any packet of a flow that is being ended.
pub const CLASS_KILL: u32 = 0x600;

/// Packet mark bit of a packet that the first chain found to carry nothing worth judging: a bare acknowledgement, or an
/// inbound ICMP error about a tracked flow. The last chain accepts it as positive evidence; without the first chain no
/// packet has it.
pub const UNQUEUED: u32 = 0x10;

/// Packet mark bit beside [`CLASS_SYN`]: written to the last byte as a known stack writes its SYNs, without payload and
/// with hops enough, so that the daemon would find nothing to object to in the packet itself.
pub const PLAIN: u32 = 0x20;
/// Ct mark bit, and packet mark bit beside [`CLASS_REPLY`]: the SYN of this connection was let through by the kernel,
/// because its pair is familiar; the daemon has not seen it.
pub const ADMITTED: u32 = 0x40;
/// Packet mark bit beside [`VERDICT_JUDGED`]: the flow's client, server and port are a familiar pair from now on.
pub const FAMILIAR: u32 = 0x80;

/// Packet mark and ct mark bits that hold a verdict.
pub const VERDICT_MASK: u32 = 0x3;
/// This packet may pass; the flow stays undecided.
pub const VERDICT_PASS: u32 = 0x1;
/// The flow is judged: the last chain copies the packet mark to the ct mark and the kernel carries the rest.
pub const VERDICT_JUDGED: u32 = 0x2;
/// The kernel refuses the packet with an ICMP error. TCP refusals are a drop and two raw resets instead.
pub const VERDICT_REJECT: u32 = 0x3;

/// Ct mark bit of a flow that is being ended; it wins over a judged mark.
pub const CT_KILL: u32 = 0x8;
/// Ct mark bits that hold the low 16 bits of the generation that judged the flow.
pub const GENERATION_MASK: u32 = 0xffff_0000;

/// Position of the generation in a ct mark.
const GENERATION_SHIFT: u32 = 16;

/// Why the kernel queued a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueClass {
    /// [`CLASS_ORIGINAL`].
    Original,
    /// [`CLASS_REPLY`].
    Reply,
    /// [`CLASS_SYN`].
    Syn,
    /// [`CLASS_STALE_SYN`].
    StaleSyn,
    /// [`CLASS_NON_TCP`].
    NonTcp,
    /// [`CLASS_KILL`].
    Kill,
}

impl QueueClass {
    /// Reads the class from a packet mark; `None` when the mark was not put on by our first chain, in which case the
    /// packet must be dropped.
    #[must_use]
    pub const fn from_mark(mark: u32) -> Option<Self> {
        match mark & CLASS_MASK {
            CLASS_ORIGINAL => Some(Self::Original),
            CLASS_REPLY => Some(Self::Reply),
            CLASS_SYN => Some(Self::Syn),
            CLASS_STALE_SYN => Some(Self::StaleSyn),
            CLASS_NON_TCP => Some(Self::NonTcp),
            CLASS_KILL => Some(Self::Kill),
            _ => None,
        }
    }
}

/// The packet mark (and so, later, the ct mark) of a flow judged under `generation`; only its low 16 bits fit.
#[must_use]
pub const fn judged(generation: u64) -> u32 {
    (((generation & 0xffff) as u32) << GENERATION_SHIFT) | VERDICT_JUDGED
}

/// The low 16 bits of the generation that judged a flow, from its ct mark; `None` while it is undecided or being ended.
#[must_use]
pub const fn judged_generation(ct_mark: u32) -> Option<u16> {
    if ct_mark & VERDICT_MASK != VERDICT_JUDGED || ct_mark & CT_KILL != 0 {
        return None;
    }
    let [high, low, ..] = ct_mark.to_be_bytes();
    Some(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judged_mark_carries_the_generation_and_no_class() {
        let mark = judged(0x0001_2345_6789);
        assert_eq!(mark, 0x6789_0002);
        assert_eq!(mark & CLASS_MASK, 0);
        assert_eq!(judged_generation(mark), Some(0x6789));
    }

    #[test]
    fn killed_flow_is_not_judged() {
        assert_eq!(judged_generation(judged(7) | CT_KILL), None);
        assert_eq!(judged_generation(0), None);
        assert_eq!(judged_generation(VERDICT_PASS), None);
    }

    #[test]
    fn only_our_classes_are_classes() {
        assert_eq!(QueueClass::from_mark(0x300), Some(QueueClass::Syn));
        assert_eq!(QueueClass::from_mark(0), None);
        assert_eq!(QueueClass::from_mark(0x700), None);
    }

    #[test]
    fn verdict_class_and_kill_bits_do_not_overlap() {
        let fields = [
            CLASS_MASK,
            UNQUEUED,
            PLAIN,
            ADMITTED,
            FAMILIAR,
            VERDICT_MASK,
            CT_KILL,
            GENERATION_MASK,
        ];
        for (i, a) in fields.iter().enumerate() {
            for b in fields.iter().skip(i + 1) {
                assert_eq!(a & b, 0);
            }
        }
    }
}
