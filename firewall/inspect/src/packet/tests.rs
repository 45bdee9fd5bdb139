use super::*;

fn v4(ihl_words: u8, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let header = usize::from(ihl_words) * 4;
    let total = u16::try_from(header + rest.len()).unwrap();
    let mut p = vec![0u8; header];
    p[0] = 0x40 | ihl_words;
    p[2..4].copy_from_slice(&total.to_be_bytes());
    p[8] = 64;
    p[9] = protocol;
    p[12..16].copy_from_slice(&[10, 0, 0, 1]);
    p[16..20].copy_from_slice(&[192, 0, 2, 1]);
    p.extend_from_slice(rest);
    p
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0u8; 40];
    p[0] = 0x60;
    p[4..6].copy_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
    p[6] = next;
    p[7] = 64;
    p.extend_from_slice(rest);
    p
}

fn tcp(flags: u8, urgent: u16, payload: &[u8]) -> Vec<u8> {
    let mut t = vec![0u8; 20];
    t[..2].copy_from_slice(&40_000u16.to_be_bytes());
    t[2..4].copy_from_slice(&443u16.to_be_bytes());
    t[4..8].copy_from_slice(&7u32.to_be_bytes());
    t[12] = 0x50;
    t[13] = flags;
    t[18..20].copy_from_slice(&urgent.to_be_bytes());
    t.extend_from_slice(payload);
    t
}

fn fault(bytes: &[u8]) -> Option<Reason> {
    Packet::read(bytes).unwrap().fault
}

#[test]
fn an_ordinary_segment_is_read_in_both_families() {
    for bytes in [
        v4(5, TCP, &tcp(0x18, 0, b"hi")),
        v6(TCP, &tcp(0x18, 0, b"hi")),
    ] {
        let packet = Packet::read(&bytes).unwrap();
        assert_eq!(packet.fault, None);
        let Body::Tcp(segment) = packet.body else {
            panic!("not TCP")
        };
        assert_eq!((segment.seq, segment.payload), (Seq(7), &b"hi"[..]));
        assert_eq!(segment.end(), Seq(9));
    }
}

#[test]
fn options_extension_headers_and_fragments_are_named() {
    assert_eq!(
        fault(&v4(6, TCP, &tcp(0x18, 0, b"hi"))),
        Some(Reason::IpOptions)
    );
    for next in EXTENSION_HEADERS {
        assert_eq!(
            fault(&v6(next, &[0; 32])),
            Some(Reason::ExtensionHeader),
            "{next}"
        );
    }
    let mut fragment = v4(5, TCP, &tcp(0x18, 0, b"hi"));
    fragment[6] = 0x20;
    assert_eq!(fault(&fragment), Some(Reason::Internal));
}

#[test]
fn a_length_that_is_not_the_bytes_given_is_internal() {
    let mut cut = v4(5, TCP, &tcp(0x18, 0, b"hello"));
    cut.pop();
    // Too short a buffer is unreadable or internal, never fine.
    assert!(Packet::read(&cut).is_none_or(|p| p.fault == Some(Reason::Internal)));
    let mut long = v4(5, TCP, &tcp(0x18, 0, b"hello"));
    long.push(0);
    assert_eq!(fault(&long), Some(Reason::Internal));
    let mut jumbo = v6(TCP, &tcp(0x18, 0, b"hello"));
    jumbo[4..6].copy_from_slice(&[0, 0]);
    assert_eq!(fault(&jumbo), Some(Reason::Internal));
}

#[test]
fn urgent_data_and_data_on_a_syn_are_named() {
    assert_eq!(
        fault(&v4(5, TCP, &tcp(0x38, 0, b"x"))),
        Some(Reason::TcpUrgent)
    );
    assert_eq!(
        fault(&v4(5, TCP, &tcp(0x18, 1, b"x"))),
        Some(Reason::TcpUrgent)
    );
    assert_eq!(
        fault(&v4(5, TCP, &tcp(0x02, 0, b"x"))),
        Some(Reason::SynData)
    );
    assert_eq!(fault(&v6(TCP, &tcp(0x12, 0, b"x"))), Some(Reason::SynData));
}

#[test]
fn a_data_offset_outside_the_segment_is_tcp_state() {
    for offset in [0x40, 0xf0] {
        let mut segment = tcp(0x18, 0, b"x");
        segment[12] = offset;
        assert_eq!(fault(&v4(5, TCP, &segment)), Some(Reason::TcpState));
    }
}

#[test]
fn a_gso_super_packet_is_read_whole() {
    let payload = vec![7u8; 65_000];
    let bytes = v4(5, TCP, &tcp(0x18, 0, &payload));
    let packet = Packet::read(&bytes).unwrap();
    assert_eq!(packet.fault, None);
    let Body::Tcp(segment) = packet.body else {
        panic!("not TCP")
    };
    assert_eq!(segment.payload.len(), 65_000);
}

#[test]
fn noise_is_never_a_panic() {
    for len in 0..80 {
        for first in [0x00, 0x45, 0x46, 0x4f, 0x60, 0xff] {
            let mut bytes = vec![0xffu8; len];
            if let Some(b) = bytes.first_mut() {
                *b = first;
            }
            let _ = Packet::read(&bytes);
        }
    }
}
