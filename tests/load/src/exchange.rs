//! The bytes both ends agree on.

/// A request for one record; content of a protected record, which is in the clear here.
pub(crate) const ONE: &[u8] = b"ONE!";
/// A request for records without end.
pub(crate) const STREAM: &[u8] = b"BULK";

/// The record that middleboxes expect (RFC 8446, appendix D.4).
const CHANGE_CIPHER_SPEC: [u8; 6] = [20, 3, 3, 0, 1, 1];
/// The largest fragment of a record (RFC 8446, section 5.1).
const FRAGMENT_MAX: usize = 16_384;

/// A record that claims to be protected, `length` bytes of content beginning with `content`.
pub(crate) fn protected(content: &[u8], length: usize) -> Vec<u8> {
    let length = length.clamp(content.len(), FRAGMENT_MAX);
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut record = vec![23, 3, 3, high, low];
    record.extend_from_slice(content);
    record.resize(length.saturating_add(5), 0);
    record
}

/// What a client sends after the server's flight: its finished message, then a request.
pub(crate) fn finish(request: &[u8]) -> Vec<u8> {
    let mut bytes = CHANGE_CIPHER_SPEC.to_vec();
    bytes.extend(protected(b"finished", 53));
    bytes.extend(protected(request, 120));
    bytes
}

/// Whether `bytes` begin with one whole record.
pub(crate) fn whole_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, rest @ ..] => {
            rest.len() >= usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

/// Whether `needle` is somewhere in `bytes`.
pub(crate) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_with_its_last_byte() {
        let record = protected(ONE, 20);
        assert!(whole_record(&record));
        assert!(!whole_record(record.get(..24).unwrap_or_default()));
    }

    #[test]
    fn the_request_is_found_in_the_clients_second_flight() {
        assert!(contains(&finish(STREAM), STREAM));
        assert!(!contains(&finish(ONE), STREAM));
    }
}
