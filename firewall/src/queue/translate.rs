//! Between the words of `inspect` and those of the kernel.

use inspect::{Class, FlowKey, Reset, Verdict};

use crate::conntrack::Tuple;
use crate::marks::{self, QueueClass};
use crate::nfqueue::Action;
use crate::raw::{Segment, SegmentKind};

/// The engine tells a SYN/ACK from other replies; the ruleset queues both alike.
pub(super) fn class_of(class: QueueClass, is_admitted: bool, packet: &[u8]) -> Class {
    match class {
        QueueClass::Original => Class::Original,
        QueueClass::Reply if is_admitted => Class::Admitted,
        QueueClass::Reply if is_syn_ack(packet) => Class::SynAck,
        QueueClass::Reply => Class::Reply,
        QueueClass::Syn => Class::Syn,
        QueueClass::StaleSyn => Class::StaleSyn,
        QueueClass::NonTcp => Class::NonTcp,
        QueueClass::Kill => Class::Kill,
    }
}

/// Whether a TCP packet has SYN set. The kernel has dropped options and extension headers of
/// IP and reassembled fragments, so the TCP header follows the fixed one.
fn is_syn_ack(packet: &[u8]) -> bool {
    /// Offset of the flags in a TCP header (RFC 9293, section 3.1).
    const FLAGS: usize = 13;
    const SYN: u8 = 0x02;
    let header_bytes = match packet.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 0x0f).saturating_mul(4),
        Some(_) => 40,
        None => return false,
    };
    packet
        .get(header_bytes.saturating_add(FLAGS))
        .is_some_and(|flags| flags & SYN != 0)
}

pub(super) fn action_of(verdict: Verdict, generation: u64) -> Action {
    match verdict {
        Verdict::Pass => Action::Continue(marks::VERDICT_PASS),
        Verdict::Judged => Action::Continue(marks::judged(generation)),
        Verdict::Familiar => Action::Continue(marks::judged(generation) | marks::FAMILIAR),
        Verdict::Drop => Action::Drop,
        Verdict::Reject => Action::Continue(marks::VERDICT_REJECT),
    }
}

pub(super) fn segment_of(reset: &Reset) -> Segment {
    Segment {
        source: reset.src,
        destination: reset.dst,
        sequence: reset.seq,
        kind: SegmentKind::Reset {
            acknowledge: Some(reset.ack),
        },
    }
}

/// IANA protocol number of TCP.
const TCP: u8 = 6;

pub(super) fn tuple_of(flow: &FlowKey) -> Tuple {
    Tuple {
        protocol: TCP,
        source: flow.client,
        destination: flow.server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syn_ack_is_told_from_other_replies_in_both_families() {
        let mut v4 = [0_u8; 40];
        v4[0] = 0x45;
        assert!(!is_syn_ack(&v4));
        v4[33] = 0x12;
        assert!(is_syn_ack(&v4));
        let mut v6 = [0_u8; 60];
        v6[0] = 0x60;
        v6[53] = 0x12;
        assert!(is_syn_ack(&v6));
        assert!(!is_syn_ack(&v6[..50]));
        assert!(!is_syn_ack(&[]));
    }

    #[test]
    fn answer_to_a_syn_that_only_the_kernel_saw_is_told_from_others() {
        assert_eq!(class_of(QueueClass::Reply, true, &[]), Class::Admitted);
        assert_eq!(class_of(QueueClass::Reply, false, &[]), Class::Reply);
    }

    #[test]
    fn judged_verdict_carries_its_generation() {
        let familiar = action_of(Verdict::Familiar, 7);
        assert_eq!(familiar, Action::Continue(0x0007_0082));
        assert_eq!(action_of(Verdict::Judged, 7), Action::Continue(0x0007_0002));
        assert_eq!(action_of(Verdict::Drop, 7), Action::Drop);
    }
}
