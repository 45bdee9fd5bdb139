//! Strings that may have been chosen by an attacker.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

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
#[derive(Clone)]
pub struct Text(Words);

/// Where the words are. What is compared, hashed and ordered is the text.
#[derive(Clone)]
enum Words {
    Ours(&'static str),
    Owned(String),
    /// Of a policy, say: a line about it costs no copy.
    Shared(Arc<str>),
}

impl Text {
    /// Takes bytes from anywhere.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // No more is looked at than could be kept: a megabyte of user agent costs as much as 253
        // bytes of it. A character cut here becomes one U+FFFD, and falls to the cut below.
        let head = bytes
            .get(..TEXT_BYTES_MAX.saturating_add(4))
            .unwrap_or(bytes);
        Self(Words::Owned(
            capped(&String::from_utf8_lossy(head)).to_owned(),
        ))
    }

    /// Takes one of our own words, without a copy.
    #[must_use]
    pub fn from_static(text: &'static str) -> Self {
        Self(Words::Ours(capped(text)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Words::Ours(text) => text,
            Words::Owned(text) => text,
            Words::Shared(text) => text,
        }
    }
}

/// `text` up to the last character that ends within [`TEXT_BYTES_MAX`].
fn capped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX))
        .unwrap_or(text)
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Words::Owned(capped(text).to_owned()))
    }
}

/// Shares the text where it fits.
impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        if text.len() <= TEXT_BYTES_MAX {
            Self(Words::Shared(Arc::clone(text)))
        } else {
            Self::from(&**text)
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::from_static("")
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl From<String> for Text {
    fn from(mut text: String) -> Self {
        text.truncate(capped(&text).len());
        Self(Words::Owned(text))
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
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}
