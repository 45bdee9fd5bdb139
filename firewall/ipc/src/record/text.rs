//! Strings that may have been chosen by an attacker.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// The most bytes of one value in a log line: the length of the longest name (RFC 1035, section
/// 2.3.4).
pub const TEXT_BYTES_MAX: usize = 253;

/// A log value: valid UTF-8, at most [`TEXT_BYTES_MAX`] bytes.
///
/// Whatever it is made from, it fits: bytes that are no UTF-8 become U+FFFD, and what is too
/// long is cut at the last whole character. Characters are kept as they are; that none of them
/// reaches a terminal raw is the business of [`crate::record::to_line`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Text(Cow<'static, str>);

impl Text {
    /// Takes bytes from anywhere.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // No more is looked at than could be kept: a megabyte of user agent costs as much as 253
        // bytes of it. A character cut here becomes one U+FFFD, and falls to the cut below.
        let head = bytes
            .get(..TEXT_BYTES_MAX.saturating_add(4))
            .unwrap_or(bytes);
        Self(Cow::Owned(
            capped(&String::from_utf8_lossy(head)).to_owned(),
        ))
    }

    /// Takes one of our own words, without a copy.
    #[must_use]
    pub fn from_static(text: &'static str) -> Self {
        Self(Cow::Borrowed(capped(text)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `text` up to the last character that ends within [`TEXT_BYTES_MAX`].
fn capped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX))
        .unwrap_or(text)
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Cow::Owned(capped(text).to_owned()))
    }
}

impl From<String> for Text {
    fn from(mut text: String) -> Self {
        text.truncate(capped(&text).len());
        Self(Cow::Owned(text))
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}
