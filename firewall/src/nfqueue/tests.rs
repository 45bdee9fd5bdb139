use super::*;
use crate::marks::CLASS_ORIGINAL;
use crate::netlink::{FAMILY_V4, Messages};

/// A 24-byte IPv4 packet whose header states `stated` bytes.
fn ipv4(stated: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend(stated.to_be_bytes());
    bytes.extend([0; 20]);
    bytes
}

fn queued(payload: &[u8], extra: &[(u16, u32)]) -> Vec<u8> {
    let mut writer = MessageWriter::default();
    writer.begin(
        message_type(SUBSYSTEM_QUEUE, MSG_PACKET),
        0,
        0,
        FAMILY_V4,
        3,
    );
    writer.attribute(1, &[0, 0, 0, 9, 8, 0, 2]);
    for (kind, value) in extra {
        writer.attribute_be32(*kind, *value);
    }
    writer.attribute(10, payload);
    writer.end();
    writer.as_bytes().to_vec()
}

fn event(bytes: &[u8]) -> Event<'_> {
    read_event(&Messages::new(bytes).next().unwrap().unwrap())
}

/// As received on Linux 6.18 from `iptables-nft -j NFQUEUE`: a 61-byte UDP packet over loopback
/// (queue 0, id 1, mark 0x500), printed by a receive loop on 2026-11-22.
const RECORDED: &[u8] = include_bytes!("../../testdata/nfqueue-udp.bin");

#[test]
fn recorded_packet_reads_as_sent() {
    let Event::Packet(packet) = event(RECORDED) else {
        panic!("not a packet");
    };
    assert_eq!((packet.id, packet.mark), (1, 0x500));
    assert!(!packet.truncated && !packet.gso);
    assert_eq!(packet.bytes[0] >> 4, 4);
    assert!(packet.bytes.ends_with(b"a recorded datagram"));
}

#[test]
fn mark_and_gso_are_read() {
    let bytes = queued(&ipv4(24), &[(3, CLASS_ORIGINAL), (14, 3)]);
    let Event::Packet(packet) = event(&bytes) else {
        panic!("not a packet");
    };
    assert_eq!((packet.id, packet.mark), (9, CLASS_ORIGINAL));
    assert!(packet.gso && !packet.truncated);
}

#[test]
fn cut_or_misstated_packet_is_truncated() {
    for bytes in [
        queued(&ipv4(24), &[(13, 70_000)]),
        queued(&ipv4(23), &[]),
        queued(&ipv4(25), &[]),
        queued(&[], &[]),
        queued(&[0x60; 30], &[]),
        queued(&[0x15; 30], &[]),
    ] {
        assert!(matches!(event(&bytes), Event::Packet(p) if p.truncated));
    }
}

#[test]
fn ipv6_length_excludes_its_header() {
    let mut packet = vec![0x60, 0, 0, 0, 0, 5];
    packet.resize(45, 0);
    assert!(matches!(event(&queued(&packet, &[])), Event::Packet(p) if !p.truncated));
    // A jumbogram states zero.
    packet[5] = 0;
    assert!(matches!(event(&queued(&packet, &[])), Event::Packet(p) if p.truncated));
}

#[test]
fn damaged_packet_keeps_its_id_so_that_it_can_be_dropped() {
    let mut bytes = queued(&ipv4(24), &[(3, 1)]);
    // The mark attribute follows the 16 + 4 byte headers and the 12 bytes of the packet header
    // attribute; make it claim more than there is.
    bytes[32..34].copy_from_slice(&0xfff0_u16.to_ne_bytes());
    assert_eq!(event(&bytes), Event::Damaged(9));
}

#[test]
fn packet_without_an_id_is_unreadable() {
    let mut writer = MessageWriter::default();
    writer.begin(
        message_type(SUBSYSTEM_QUEUE, MSG_PACKET),
        0,
        0,
        FAMILY_V4,
        3,
    );
    writer.end();
    assert!(matches!(event(writer.as_bytes()), Event::Unreadable(_)));
}

#[test]
fn every_cut_of_a_recorded_packet_is_survived() {
    for cut in 0..RECORDED.len() {
        for message in Messages::new(&RECORDED[..cut]).flatten() {
            let _event = read_event(&message);
        }
    }
}

#[test]
fn verdict_bytes_are_those_of_the_kernel_header() {
    let mut verdicts = VerdictBatch::new(7, 4);
    verdicts.push(0x0a0b_0c0d, Action::Continue(0x0001_0002));
    verdicts.push(2, Action::Drop);
    assert_eq!(verdicts.len(), 2);
    let mut expected = Vec::new();
    expected.extend(40_u32.to_ne_bytes());
    expected.extend(0x0301_u16.to_ne_bytes());
    expected.extend(1_u16.to_ne_bytes());
    expected.extend([0; 8]);
    expected.extend([0, 0, 0, 7]);
    expected.extend([12_u16.to_ne_bytes(), 2_u16.to_ne_bytes()].concat());
    expected.extend([0, 0, 0, 1, 0x0a, 0x0b, 0x0c, 0x0d]);
    expected.extend([8_u16.to_ne_bytes(), 3_u16.to_ne_bytes()].concat());
    expected.extend([0, 1, 0, 2]);
    let drop_starts = expected.len();
    assert_eq!(verdicts.as_bytes()[..drop_starts], expected);
    assert_eq!(verdicts.as_bytes().len(), drop_starts + 32);
    assert_eq!(
        verdicts.as_bytes()[drop_starts + 24..],
        [0, 0, 0, 0, 0, 0, 0, 2]
    );
}

#[test]
fn a_batch_of_verdicts_does_not_grow_its_buffer() {
    let mut verdicts = VerdictBatch::new(0, 64);
    for id in 0..64 {
        verdicts.push(id, Action::Continue(1));
    }
    let room = verdicts.as_bytes().as_ptr();
    verdicts.clear();
    for id in 0..64 {
        verdicts.push(id, Action::Continue(1));
    }
    assert_eq!(verdicts.as_bytes().as_ptr(), room);
}

#[test]
fn kernel_errors_are_told_apart() {
    let refused = |code| NetlinkError::Refused(io::Error::from_raw_os_error(code));
    let kind = |step, code| configuring(4, step)(refused(code));
    assert!(matches!(kind("bind", 16), QueueError::Taken(4)));
    assert!(matches!(kind("bind", 1), QueueError::Taken(4)));
    assert!(matches!(kind("privilege", 1), QueueError::Privilege(4)));
    assert!(matches!(kind("privilege", 22), QueueError::Unsupported));
    assert!(matches!(
        configuring(4, "flags")(refused(22)),
        QueueError::Configure { step: "flags", .. }
    ));
}

#[test]
fn drops_are_read_from_the_kernels_table() {
    let table = "    0   4711     3 2 65535     7     2    99  1\n    1   4711     0 2 65535     1     0    12  1\n";
    let (queue, socket) = (8, 2);
    assert_eq!(drops_of(table), Drops { queue, socket });
    assert_eq!(drops_of("no table\n\n"), Drops::default());
}

#[test]
fn a_queue_takes_more_packets_than_the_engine_holds() {
    let queue = QueueOptions::default().max_packets as usize;
    assert!(queue > inspect::Limits::default().segments);
}

proptest::proptest! {
    #[test]
    fn hostile_packets_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let mut writer = MessageWriter::default();
        writer.begin(message_type(SUBSYSTEM_QUEUE, MSG_PACKET), 0, 0, FAMILY_V4, 3);
        let mut message = writer.as_bytes().to_vec();
        message.extend(bytes);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        for message in Messages::new(&message).flatten() {
            let _event = read_event(&message);
        }
    }
}
