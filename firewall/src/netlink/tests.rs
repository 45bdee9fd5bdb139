use super::*;

fn one_message() -> Vec<u8> {
    let mut writer = MessageWriter::default();
    writer.begin(message_type(3, 1), NLM_F_ACK, 7, FAMILY_V4, 5);
    writer.attribute_be32(3, 0x0102_0304);
    writer.attribute(1, b"abc");
    writer.nested(11, |w| w.attribute_be16(2, 443));
    writer.end();
    writer.as_bytes().to_vec()
}

#[test]
fn written_message_reads_back() {
    let bytes = one_message();
    assert_eq!(bytes.len() % 4, 0);
    let message = Messages::new(&bytes).next().unwrap().unwrap();
    assert_eq!(message.kind, 0x0301);
    assert_eq!(message.flags, NLM_F_ACK | NLM_F_REQUEST);
    assert_eq!((message.sequence, message.resource()), (7, Some(5)));
    let attributes: Vec<_> = message.attributes().map(Result::unwrap).collect();
    assert_eq!(attributes[0].be32(), Ok(0x0102_0304));
    assert_eq!(attributes[1].value, b"abc");
    assert_eq!(attributes[2].kind, 11);
    let inner = attributes[2].nested().next().unwrap().unwrap();
    assert_eq!((inner.kind, inner.be16()), (2, Ok(443)));
}

#[test]
fn messages_lie_back_to_back() {
    let mut bytes = one_message();
    bytes.extend(one_message());
    assert_eq!(Messages::new(&bytes).filter(Result::is_ok).count(), 2);
}

#[test]
fn every_cut_of_a_message_is_an_error_and_ends_the_walk() {
    let bytes = one_message();
    for cut in 1..bytes.len() {
        let mut walk = Messages::new(&bytes[..cut]);
        assert!(walk.next().unwrap().is_err(), "cut at {cut}");
        assert!(walk.next().is_none());
    }
}

#[test]
fn attribute_longer_than_its_container_is_an_error() {
    let mut walk = Attributes::new(&[9, 0, 1, 0, 1, 2, 3, 4]);
    assert_eq!(walk.next(), Some(Err(InvalidNetlink::AttributeLength(9))));
    assert_eq!(walk.next(), None);
    let mut walk = Attributes::new(&[3, 0, 1, 0]);
    assert_eq!(walk.next(), Some(Err(InvalidNetlink::AttributeLength(3))));
}

#[test]
fn attribute_of_the_wrong_size_is_an_error() {
    let attribute = Attribute {
        kind: 4,
        value: &[1, 2, 3],
    };
    assert_eq!(attribute.be32(), Err(InvalidNetlink::AttributeSize(4)));
    assert_eq!(attribute.be16(), Err(InvalidNetlink::AttributeSize(4)));
}

#[test]
fn error_code_is_a_positive_errno() {
    let mut bytes = 20_u32.to_ne_bytes().to_vec();
    bytes.extend(NLMSG_ERROR.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend((-2_i32).to_ne_bytes());
    let message = Messages::new(&bytes).next().unwrap().unwrap();
    assert_eq!(message.error_code(), Some(2));
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
        for message in Messages::new(&bytes).flatten() {
            for attribute in message.attributes().flatten() {
                let _nested = attribute.nested().count();
            }
        }
    }
}
