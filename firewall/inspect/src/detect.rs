//! Which parser reads a client's stream, from its first bytes. The first byte decides: nothing is
//! skipped and no later byte is searched (EVASIONS.md, row 29).

use crate::http;

/// What the first bytes of a client's stream say it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// The bytes so far begin more than one thing, or there are none.
    NeedMore,
    /// A TLS handshake record (RFC 8446, section 5.1): first byte 22.
    Tls,
    /// An SSL 2.0 ClientHello (RFC 5246, appendix E.2): refused `sslv2_hello`.
    Sslv2,
    /// An SSH identification string (RFC 4253, section 4.2): `SSH-`.
    Ssh,
    /// A method of the HTTP registry and a space, or the HTTP/2 preface.
    Http,
    /// Nothing this firewall reads: refused `protocol_unknown`.
    Unknown,
}

const SSH: &[u8] = b"SSH-";
const TLS_HANDSHAKE: u8 = 22;

/// Says what a client's stream speaks, from its contiguous prefix.
#[must_use]
pub fn detect(prefix: &[u8]) -> Detected {
    let Some(&first) = prefix.first() else {
        return Detected::NeedMore;
    };
    if first == TLS_HANDSHAKE {
        return Detected::Tls;
    }
    if first & 0x80 != 0 {
        return sslv2(prefix);
    }
    if prefix.starts_with(SSH) {
        return Detected::Ssh;
    }
    match http::method(prefix) {
        http::Method::Known(_) => Detected::Http,
        http::Method::Partial => Detected::NeedMore,
        http::Method::Unknown if SSH.starts_with(prefix) => Detected::NeedMore,
        http::Method::Unknown => Detected::Unknown,
    }
}

/// Two-byte length with the high bit set, message type 1, version 2.0 or 3.x.
fn sslv2(prefix: &[u8]) -> Detected {
    let matches = |at: usize, legal: fn(u8) -> bool| prefix.get(at).is_none_or(|&byte| legal(byte));
    let legal = matches(2, |byte| byte == 1) && matches(3, |byte| byte == 0 || byte == 3);
    match legal {
        false => Detected::Unknown,
        true if prefix.len() < 4 => Detected::NeedMore,
        true => Detected::Sslv2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_decides_for_tls() {
        assert_eq!(detect(b""), Detected::NeedMore);
        assert_eq!(detect(&[22]), Detected::Tls);
        assert_eq!(detect(b"\x16GET / HTTP/1.1\r\n"), Detected::Tls);
        assert_eq!(
            detect(b"GET / HTTP/1.1\r\n\r\n\x16\x03\x01"),
            Detected::Http
        );
        assert_eq!(detect(b"\x00\x16\x03\x01"), Detected::Unknown);
        assert_eq!(detect(b"\x15\x03\x01\x00\x02\x01\x00"), Detected::Unknown);
    }

    #[test]
    fn an_sslv2_hello_is_recognised_at_its_fourth_byte() {
        let hello = [0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0];
        for length in 1..4 {
            assert_eq!(detect(&hello[..length]), Detected::NeedMore, "{length}");
        }
        assert_eq!(detect(&hello), Detected::Sslv2);
        assert_eq!(detect(&[0x80, 0x2e, 1, 0, 2]), Detected::Sslv2);
        assert_eq!(detect(&[0x80, 0x2e, 4]), Detected::Unknown);
    }

    #[test]
    fn ssh_and_http_need_their_whole_token() {
        for length in 1..4 {
            assert_eq!(
                detect(&b"SSH-2.0-x"[..length]),
                Detected::NeedMore,
                "{length}"
            );
        }
        assert_eq!(detect(b"SSH-"), Detected::Ssh);
        assert_eq!(detect(b"SEARC"), Detected::NeedMore);
        assert_eq!(detect(b"SEARCH /"), Detected::Http);
        assert_eq!(detect(b"SSX"), Detected::Unknown);
        assert_eq!(detect(b"EHLO mail.example\r\n"), Detected::Unknown);
        assert_eq!(detect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Detected::Http);
    }
}
