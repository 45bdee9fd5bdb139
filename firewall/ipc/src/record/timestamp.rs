//! Wall-clock time in log lines: RFC 3339, UTC, milliseconds.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z, written `2026-11-22T11:08:25.042Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(u64);

/// A text that is no RFC 3339 time at or after 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time as in RFC 3339")]
pub struct InvalidTimestamp;

/// The last millisecond of the year 9999, the last RFC 3339 can write.
const LATEST_MS: u64 = 253_402_300_799_999;

impl Timestamp {
    /// From a clock. A clock beyond the year 9999 stops there.
    #[must_use]
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(if ms > LATEST_MS { LATEST_MS } else { ms })
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// Reads RFC 3339 with any offset and any number of decimals.
    ///
    /// # Errors
    ///
    /// When it is something else, or before 1970.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTimestamp)?;
        let ms = time.unix_timestamp_nanos().div_euclid(1_000_000);
        u64::try_from(ms)
            .map(Self::from_unix_ms)
            .map_err(|_| InvalidTimestamp)
    }
}

impl Timestamp {
    /// The text, byte by byte: every line has one, and the formatting machinery costs more than the rest of it.
    fn text(self) -> Option<[u8; 24]> {
        let seconds = i64::try_from(self.0 / 1_000).ok()?;
        let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        let millisecond = u32::try_from(self.0 % 1_000).ok()?;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (place, number) in [
            (0..4, u32::try_from(time.year()).ok()?),
            (5..7, u32::from(u8::from(time.month()))),
            (8..10, u32::from(time.day())),
            (11..13, u32::from(time.hour())),
            (14..16, u32::from(time.minute())),
            (17..19, u32::from(time.second())),
            (20..23, millisecond),
        ] {
            let mut left = number;
            for digit in text.get_mut(place)?.iter_mut().rev() {
                *digit = b'0'.saturating_add(u8::try_from(left % 10).ok()?);
                left /= 10;
            }
        }
        Some(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text().ok_or(fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.text();
        let text = text
            .as_ref()
            .and_then(|text| std::str::from_utf8(text).ok());
        serializer.serialize_str(text.unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}
