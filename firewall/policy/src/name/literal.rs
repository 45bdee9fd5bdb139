//! Recognises IP addresses in every notation that a resolver or URL parser would take for one.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether some common parser would read these bytes as an IP address.
///
/// IPv6 as in RFC 4291, section 2.2, bare or in brackets, with or without a zone; IPv4 in the
/// forms of `inet_aton(3)`: one to four numbers, each decimal, octal or hexadecimal, the last
/// filling the remaining bytes, with or without a trailing dot, brackets and a port.
pub(crate) fn is_ip_literal(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    if let Some(rest) = text.strip_prefix('[') {
        let inside = rest.split(']').next().unwrap_or_default();
        return is_ipv6(inside) || inet_aton(inside).is_some();
    }
    if is_ipv6(text) {
        return true;
    }
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => text,
    };
    inet_aton(host).is_some()
}

/// Whether a label is a number: decimal digits, or `0x` and hexadecimal digits.
///
/// The rule by which URL parsers tell addresses from names (WHATWG URL, "ends in a number").
pub(crate) fn is_number(label: &[u8]) -> bool {
    match label {
        [b'0', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        [] => false,
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

/// Whether the text is an IPv6 address, a zone allowed.
fn is_ipv6(text: &str) -> bool {
    let address = text.split('%').next().unwrap_or_default();
    address.parse::<Ipv6Addr>().is_ok()
}

/// Reads an IPv4 address as `inet_aton(3)` does.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut parts = [0_u64; 4];
    let mut count = 0_usize;
    for part in text.split('.') {
        *parts.get_mut(count)? = number(part)?;
        count += 1;
    }
    let (last, leading) = parts.get(..count)?.split_last()?;
    let room = 8 * (4 - u32::try_from(leading.len()).ok()?);
    if leading.iter().any(|part| *part > 0xff) || last.checked_shr(room)? != 0 {
        return None;
    }
    let high = leading.iter().fold(0_u64, |sum, part| sum << 8 | part);
    u32::try_from(high << room | last).ok().map(Ipv4Addr::from)
}

/// One number of `inet_aton(3)`: `0x` is hexadecimal, a leading zero octal.
fn number(part: &str) -> Option<u64> {
    let bytes = part.as_bytes();
    if !is_number(bytes) {
        return None;
    }
    match bytes {
        [b'0', b'x' | b'X'] => Some(0),
        [b'0', b'x' | b'X', ..] => u64::from_str_radix(part.get(2..)?, 16).ok(),
        [b'0', _, ..] => u64::from_str_radix(part, 8).ok(),
        _ => part.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_forms_fill_the_remaining_bytes() {
        assert_eq!(inet_aton("127.1"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(inet_aton("10.1.2"), Some(Ipv4Addr::new(10, 1, 0, 2)));
        assert_eq!(
            inet_aton("0xa9fea9fe"),
            Some(Ipv4Addr::new(169, 254, 169, 254))
        );
        assert_eq!(
            inet_aton("0251.0376.0251.0376"),
            Some(Ipv4Addr::new(169, 254, 169, 254))
        );
        assert_eq!(inet_aton("1.16777216"), None);
        assert_eq!(inet_aton("256.1"), None);
    }

    #[test]
    fn names_are_not_taken_for_addresses() {
        for text in [
            "face.example",
            "0x7f.example",
            "1e100.net",
            "a:80",
            "[",
            "[]",
            "1.2.3.x",
        ] {
            assert!(!is_ip_literal(text.as_bytes()), "{text}");
        }
    }
}
