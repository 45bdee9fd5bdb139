//! DNS names, validated as bytes before anything compares them.
//!
//! A [`Name`] is the only form in which a name reaches policy, so no comparison can meet a
//! NUL, a space, an upper-case letter, a trailing dot or an address in disguise.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

pub(crate) mod literal;

/// Octets in a name without its root dot (RFC 1035, section 2.3.4, less the length bytes).
pub const NAME_BYTES_MAX: usize = 253;

/// Octets in a label (RFC 1035, section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// A well formed DNS name in lower case, without a trailing dot.
///
/// Cloning is cheap: the text is shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why bytes are not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidName {
    /// No bytes at all.
    #[error("the name is empty")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("the name is longer than 253 characters")]
    TooLong,
    /// A label of more than [`LABEL_BYTES_MAX`] bytes.
    #[error("a label is longer than 63 characters")]
    LabelTooLong,
    /// Two dots in a row, or a leading dot.
    #[error("a label is empty")]
    EmptyLabel,
    /// A dot at the end: the root is implied, and comparing would miss.
    #[error("the name ends in a dot")]
    TrailingDot,
    /// A NUL byte, at which many resolvers stop reading.
    #[error("the name contains a NUL")]
    Nul,
    /// A space, tab, line break or other white space.
    #[error("the name contains white space")]
    Space,
    /// A byte past ASCII: a U-label, which must be written as its A-label (`xn--…`).
    #[error("the name is not ASCII: write the A-label (xn--…)")]
    NonAscii,
    /// `*` or `?`, which belong in a pattern and never in a claimed name.
    #[error("the name contains a wildcard")]
    Wildcard,
    /// Another character that no host name holds.
    #[error("the name contains the character {:?}", char::from(*.0))]
    Character(u8),
    /// A label that begins or ends in a hyphen (RFC 5890, section 2.3.1).
    #[error("a label begins or ends with a hyphen")]
    Hyphen,
    /// A last label that is a number, yet the whole is no address (no top-level domain is).
    #[error("the last label is a number")]
    NumericTopLabel,
    /// An IP address: dotted, hexadecimal, octal, a plain integer, shortened, or IPv6, with or
    /// without brackets, zone and trailing dot.
    #[error("the name is an IP address")]
    IpLiteral,
}

impl Name {
    /// Validates bytes and folds them to lower case.
    ///
    /// # Errors
    ///
    /// The first thing found wrong; an address in any notation is always
    /// [`InvalidName::IpLiteral`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidName> {
        let name = check(bytes)?;
        let mut folded = [0_u8; NAME_BYTES_MAX];
        let Some(room) = folded.get_mut(..name.len()) else {
            return Err(InvalidName::TooLong);
        };
        for (place, byte) in room.iter_mut().zip(name) {
            *place = byte.to_ascii_lowercase();
        }
        let text = std::str::from_utf8(room).map_err(|_| InvalidName::NonAscii)?;
        Ok(Self(text.into()))
    }

    /// As [`parse`](Self::parse), sharing the text where it is in lower case already.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_shared(text: &Arc<str>) -> Result<Self, InvalidName> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Self::parse(text.as_bytes());
        }
        check(text.as_bytes())?;
        Ok(Self(Arc::clone(text)))
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }
}

/// What [`Name::parse`] refuses; the bytes of the name.
fn check(bytes: &[u8]) -> Result<&[u8], InvalidName> {
    if bytes.is_empty() {
        return Err(InvalidName::Empty);
    }
    if literal::is_ip_literal(bytes) {
        return Err(InvalidName::IpLiteral);
    }
    if bytes.len() > NAME_BYTES_MAX + usize::from(bytes.ends_with(b".")) {
        return Err(InvalidName::TooLong);
    }
    if let Some(fault) = bytes.iter().find_map(|byte| character_fault(*byte)) {
        return Err(fault);
    }
    let name = match bytes.strip_suffix(b".") {
        Some(rest) if rest.is_empty() || rest.ends_with(b".") => {
            return Err(InvalidName::EmptyLabel);
        }
        Some(_) => return Err(InvalidName::TrailingDot),
        None => bytes,
    };
    name.split(|byte| *byte == b'.').try_for_each(check_label)?;
    if name
        .rsplit(|byte| *byte == b'.')
        .next()
        .is_some_and(literal::is_number)
    {
        return Err(InvalidName::NumericTopLabel);
    }
    Ok(name)
}

/// What is wrong with one byte of a name, dots excepted.
fn character_fault(byte: u8) -> Option<InvalidName> {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => None,
        0 => Some(InvalidName::Nul),
        b' ' | 0x09..=0x0d => Some(InvalidName::Space),
        0x80.. => Some(InvalidName::NonAscii),
        b'*' | b'?' => Some(InvalidName::Wildcard),
        _ => Some(InvalidName::Character(byte)),
    }
}

/// Checks length and hyphens of one label.
fn check_label(label: &[u8]) -> Result<(), InvalidName> {
    if label.is_empty() {
        return Err(InvalidName::EmptyLabel);
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(InvalidName::LabelTooLong);
    }
    if label.starts_with(b"-") || label.ends_with(b"-") {
        return Err(InvalidName::Hyphen);
    }
    Ok(())
}

impl std::str::FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse(text.as_bytes())
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> InvalidName {
        Name::parse(text.as_bytes()).expect_err(text)
    }

    #[test]
    fn letters_digits_hyphens_and_underscores_make_a_name_in_lower_case() {
        for (text, expected) in [
            ("API.GitHub.com", "api.github.com"),
            ("_dmarc.example.org", "_dmarc.example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("r4---sn-4g5e6nzz.example", "r4---sn-4g5e6nzz.example"),
            ("1.example", "1.example"),
            ("localhost", "localhost"),
            ("4.3.2.1.in-addr.arpa", "4.3.2.1.in-addr.arpa"),
        ] {
            assert_eq!(Name::parse(text.as_bytes()).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn a_shared_text_is_checked_like_any_other() {
        let shared: Arc<str> = Arc::from("api.example.com");
        let name = Name::parse_shared(&shared).unwrap();
        assert!(Arc::ptr_eq(&name.shared(), &shared));
        let folded = Name::parse_shared(&Arc::from("API.example.com")).unwrap();
        assert_eq!(folded, name);
        for text in ["", "127.0.0.1", "a..example", "example.com.", "a b.example"] {
            let shared = Arc::<str>::from(text);
            assert_eq!(Name::parse_shared(&shared), Name::parse(text.as_bytes()));
        }
    }

    #[test]
    fn each_defect_has_its_own_variant() {
        assert_eq!(fault(""), InvalidName::Empty);
        assert_eq!(fault("attacker.example\0.google.com"), InvalidName::Nul);
        assert_eq!(fault("a b.example"), InvalidName::Space);
        assert_eq!(fault("a\t.example"), InvalidName::Space);
        assert_eq!(fault("example.com."), InvalidName::TrailingDot);
        assert_eq!(fault("example.com.."), InvalidName::EmptyLabel);
        assert_eq!(fault("."), InvalidName::EmptyLabel);
        assert_eq!(fault("a..example"), InvalidName::EmptyLabel);
        assert_eq!(fault(".example"), InvalidName::EmptyLabel);
        assert_eq!(fault("bücher.example"), InvalidName::NonAscii);
        assert_eq!(fault("*.example"), InvalidName::Wildcard);
        assert_eq!(fault("a/b.example"), InvalidName::Character(b'/'));
        assert_eq!(fault("a@b.example"), InvalidName::Character(b'@'));
        assert_eq!(fault("-a.example"), InvalidName::Hyphen);
        assert_eq!(fault("a-.example"), InvalidName::Hyphen);
        assert_eq!(fault("example.123"), InvalidName::NumericTopLabel);
        assert_eq!(fault("example.0x1f"), InvalidName::NumericTopLabel);
    }

    #[test]
    fn lengths_are_bounded_at_63_and_253() {
        let label = "a".repeat(63);
        assert!(Name::parse(format!("{label}.example").as_bytes()).is_ok());
        assert_eq!(
            fault(&format!("a{label}.example")),
            InvalidName::LabelTooLong
        );
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(Name::parse(longest.as_bytes()).is_ok());
        assert_eq!(fault(&format!("{longest}a")), InvalidName::TooLong);
        assert_eq!(fault(&format!("{longest}.")), InvalidName::TrailingDot);
    }

    #[test]
    fn an_address_is_no_name_in_any_notation() {
        for text in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0177.0.0.1",
            "017700000001",
            "0x7f.0x0.0x0.0x1",
            "127.0.0.1.",
            "0",
            "0x",
            "4294967295",
            "::1",
            "[::1]",
            "fe80::1%eth0",
            "[fe80::1%25eth0]",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
            "[127.0.0.1]",
            "255.255.255.255",
            "127.0.0.1:443",
            "[::1]:443",
        ] {
            assert_eq!(fault(text), InvalidName::IpLiteral, "{text}");
        }
    }

    #[test]
    fn numbers_too_large_for_an_address_are_still_no_name() {
        for text in [
            "256.1.1.1",
            "4294967296",
            "1.2.3.4.5",
            "0x1ffffffff",
            "09.1",
            "127.0.0.08",
        ] {
            assert_eq!(fault(text), InvalidName::NumericTopLabel, "{text}");
        }
    }
}
