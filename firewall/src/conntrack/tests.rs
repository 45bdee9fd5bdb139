use super::*;
use crate::netlink::{InvalidNetlink, Messages};

const DESTROY_V4: &[u8] = include_bytes!("../../testdata/conntrack-destroy-v4.bin");
const DESTROY_V6: &[u8] = include_bytes!("../../testdata/conntrack-destroy-v6.bin");

fn entry(datagram: &[u8]) -> Result<Entry, InvalidNetlink> {
    read_entry(&Messages::new(datagram).next().unwrap()?)
}

fn tuple(source: &str, destination: &str) -> Tuple {
    Tuple {
        protocol: 6,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

#[test]
fn recorded_end_of_a_masqueraded_flow_reads_in_full() {
    let entry = entry(DESTROY_V4).unwrap();
    assert_eq!(entry.original, tuple("10.77.1.2:40123", "203.0.113.2:443"));
    assert_eq!(entry.reply, tuple("203.0.113.2:443", "203.0.113.1:40123"));
    assert_eq!((entry.out.packets, entry.out.bytes), (4, 1_216));
    assert_eq!((entry.back.packets, entry.back.bytes), (3, 2_164));
    assert_eq!(entry.mark, 0);
    assert_eq!(entry.tcp_state, Some(TcpState::Established));
    assert!(entry.assured && !entry.offloaded);
    assert_eq!(entry.timeout.as_secs(), 431_999);
    let lived = entry.timestamps.stop_ns - entry.timestamps.start_ns;
    assert!((1_000_000..1_000_000_000).contains(&lived), "{lived} ns");
}

#[test]
fn recorded_end_over_ipv6_has_its_mark() {
    let entry = entry(DESTROY_V6).unwrap();
    assert_eq!(
        entry.original,
        tuple("[fd77:1::2]:40123", "[2001:db8:77::2]:443")
    );
    assert_eq!(entry.mark, 0x7_0002);
    assert_eq!(crate::marks::judged_generation(entry.mark), Some(7));
}

#[test]
fn every_cut_of_an_event_is_an_error_or_less() {
    for datagram in [DESTROY_V4, DESTROY_V6] {
        for cut in 1..datagram.len() {
            // The header states the whole length, so nothing short of it is read.
            assert!(entry(&datagram[..cut]).is_err());
        }
        // With the length made to fit, a cut inside an attribute is found.
        for cut in 20..datagram.len() {
            let mut short = datagram[..cut].to_vec();
            let length = u32::try_from(cut).unwrap();
            short[..4].copy_from_slice(&length.to_ne_bytes());
            if let Ok(entry) = entry(&short) {
                assert_eq!(entry.original.destination.port(), 443);
            }
        }
    }
}

#[test]
fn event_without_a_reply_tuple_is_refused() {
    let mut writer = MessageWriter::default();
    writer.begin(
        message_type(SUBSYSTEM_CONNTRACK, MSG_DELETE),
        0,
        0,
        FAMILY_V4,
        0,
    );
    tuple("10.0.0.1:1", "10.0.0.2:2").write(&mut writer);
    writer.end();
    assert_eq!(entry(writer.as_bytes()), Err(InvalidNetlink::Missing(2)));
}

/// The original tuple's attribute of the recorded event, as the kernel wrote it.
fn recorded_tuple(datagram: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_ne_bytes([datagram[20], datagram[21]]));
    &datagram[20..20 + length]
}

#[test]
fn written_tuple_is_byte_for_byte_the_kernels() {
    for datagram in [DESTROY_V4, DESTROY_V6] {
        let mut writer = MessageWriter::default();
        writer.begin(
            message_type(SUBSYSTEM_CONNTRACK, MSG_DELETE),
            0,
            0,
            FAMILY_V4,
            0,
        );
        entry(datagram).unwrap().original.write(&mut writer);
        writer.end();
        assert_eq!(&writer.as_bytes()[20..], recorded_tuple(datagram));
    }
}

#[test]
fn echo_tuple_carries_identifier_type_and_code() {
    for (protocol, address, kinds) in [(1, "192.0.2.1", [4, 5, 6]), (58, "2001:db8::1", [7, 8, 9])]
    {
        let address = address.parse().unwrap();
        let echo = Tuple {
            protocol,
            source: SocketAddr::new(address, 77),
            destination: SocketAddr::new(address, 0),
        };
        let mut writer = MessageWriter::default();
        writer.begin(0, 0, 0, echo.family(), 0);
        echo.write(&mut writer);
        writer.end();
        let message = Messages::new(writer.as_bytes()).next().unwrap().unwrap();
        let tuple = message.attributes().next().unwrap().unwrap();
        let protocol = tuple.nested().nth(1).unwrap().unwrap();
        let found: Vec<u16> = protocol.nested().skip(1).map(|a| a.unwrap().kind).collect();
        assert_eq!(found, kinds);
    }
}

#[test]
fn missing_entry_is_no_error() {
    let refused = |code| {
        Err(NetlinkError::Refused(std::io::Error::from_raw_os_error(
            code,
        )))
    };
    assert!(!found(refused(2)).unwrap());
    assert!(found(Ok(())).unwrap());
    assert!(found(refused(1)).is_err());
}

proptest::proptest! {
    #[test]
    fn hostile_entries_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let mut writer = MessageWriter::default();
        writer.begin(message_type(SUBSYSTEM_CONNTRACK, MSG_DELETE), 0, 0, FAMILY_V4, 0);
        let mut message = writer.as_bytes().to_vec();
        message.extend(bytes);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        for message in Messages::new(&message).flatten() {
            let _entry = read_entry(&message);
        }
    }
}
