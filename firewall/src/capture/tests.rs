use super::*;

/// The start of an IPv4 packet, which is all that is looked at here.
const IP: [u8; 5] = [0x45, 1, 2, 3, 4];

fn read_all(file: &[u8]) -> Result<Vec<Captured>, CaptureError> {
    let mut capture = Capture::open(file)?;
    let mut packets = Vec::new();
    while let Some(packet) = capture.next_packet()? {
        packets.push(packet);
    }
    Ok(packets)
}

fn pcap(link: u32, frames: &[&[u8]]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(link.to_le_bytes());
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        for field in [1_700_000_000, 250_000, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(*frame);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = u32::try_from(body.len() + 12).unwrap().to_be_bytes();
    [&kind.to_be_bytes()[..], &length, &body, &length].concat()
}

fn pcapng(frames: &[&[u8]]) -> Vec<u8> {
    let mut header = vec![0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0];
    header.extend([0xff; 8]);
    let mut file = block(0x0a0d_0d0a, &header);
    // Ethernet, snapshot length, if_tsresol = nanoseconds, end of options.
    file.extend(block(
        1,
        &[0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0],
    ));
    file.extend(block(0x0000_0bad, b"an unknown block"));
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        let time = 1_700_000_000_250_000_000_u64.to_be_bytes();
        file.extend(block(
            6,
            &[&[0; 4][..], &time, &length, &length, frame].concat(),
        ));
    }
    file
}

fn ethernet(kinds: &[u8]) -> Vec<u8> {
    [&[0; 12][..], kinds, &IP].concat()
}

#[test]
fn link_layers_lead_to_the_ip_packet() {
    let plain = ethernet(&[0x08, 0x00]);
    let tagged = ethernet(&[0x88, 0xa8, 0, 1, 0x81, 0x00, 0, 2, 0x08, 0x00]);
    let cooked = [&[0; 14][..], &[0x08, 0x00], &IP].concat();
    let cooked2 = [&[0x08, 0x00][..], &[0; 18], &IP].concat();
    let loopback = [&[2, 0, 0, 0][..], &IP].concat();
    let cases: [(u32, &[u8]); 7] = [
        (1, &plain),
        (1, &tagged),
        (101, &IP),
        (228, &IP),
        (113, &cooked),
        (276, &cooked2),
        (0, &loopback),
    ];
    for (link, frame) in cases {
        let packets = read_all(&pcap(link, &[frame])).unwrap();
        assert_eq!(packets.len(), 1, "link {link}");
        assert_eq!(packets[0].packet, IP, "link {link}");
        assert_eq!(packets[0].unix_ms, 1_700_000_000_250);
    }
}

#[test]
fn frames_without_ip_are_skipped() {
    let arp = [&[0; 12][..], &[0x08, 0x06], &[0; 28]].concat();
    let packets = read_all(&pcap(1, &[&arp, &ethernet(&[0x08, 0x00]), &[]])).unwrap();
    assert_eq!(packets.len(), 1);
}

#[test]
fn pcapng_is_read_with_its_own_byte_order_and_resolution() {
    let frame = ethernet(&[0x08, 0x00]);
    let packets = read_all(&pcapng(&[&frame, &frame])).unwrap();
    assert_eq!(packets.len(), 2);
    assert_eq!(
        packets[0],
        Captured {
            unix_ms: 1_700_000_000_250,
            packet: IP.to_vec()
        }
    );
}

#[test]
fn every_cut_of_a_capture_is_read_as_far_as_it_goes() {
    let frame = ethernet(&[0x08, 0x00]);
    for file in [pcap(1, &[&frame, &frame]), pcapng(&[&frame, &frame])] {
        for length in 0..file.len() {
            match read_all(&file[..length]) {
                Ok(packets) => assert!(packets.len() < 2),
                Err(CaptureError::UnknownFormat | CaptureError::Malformed { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn hostile_lengths_end_the_reading() {
    let mut file = pcap(1, &[&IP]);
    file[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        read_all(&file),
        Err(CaptureError::Malformed { at: 40, .. })
    ));
    assert!(matches!(
        read_all(b"GIF89a"),
        Err(CaptureError::UnknownFormat)
    ));
    assert!(matches!(
        read_all(&pcap(999, &[])),
        Err(CaptureError::UnknownLink(999))
    ));
}
