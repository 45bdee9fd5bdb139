//! Makes hostile bytes fit for a log line: printable ASCII, short, unambiguous.

/// Greatest length in bytes of any text taken from the wire into a record (DESIGN.md, section 5;
/// 253 is also the longest DNS name in text form).
pub const TEXT_MAX: usize = 253;

/// Writes `bytes` as printable ASCII, at most [`TEXT_MAX`] bytes long.
///
/// A space to `~` stays, except the backslash; everything else becomes `\xNN`. An escape is
/// never cut in half. The result holds no quote-breaking, control or non-ASCII character other
/// than `"`, which the writer of JSON escapes as ever.
#[must_use]
pub fn escape(bytes: &[u8]) -> Box<str> {
    let mut text = String::with_capacity(bytes.len().min(TEXT_MAX));
    for &byte in bytes {
        let plain = matches!(byte, 0x20..=0x7e) && byte != b'\\';
        let width = if plain { 1 } else { 4 };
        if text.len() + width > TEXT_MAX {
            break;
        }
        if plain {
            text.push(char::from(byte));
        } else {
            text.push_str("\\x");
            text.push(hex(byte >> 4));
            text.push(hex(byte & 0xf));
        }
    }
    text.into_boxed_str()
}

fn hex(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_and_backslashes_are_escaped() {
        assert_eq!(&*escape(b"a\0b\\c\n\xff"), "a\\x00b\\x5cc\\x0a\\xff");
    }

    #[test]
    fn text_is_capped_without_cutting_an_escape() {
        let text = escape(&[0u8; 1000]);
        assert_eq!(text.len(), 252);
        assert!(text.ends_with("\\x00"));
        assert_eq!(escape(&[b'a'; 1000]).len(), TEXT_MAX);
    }
}
