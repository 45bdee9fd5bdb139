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
    #[must_use]
    pub fn to_bytes(self) -> [u8; 24] {
        let (seconds, millisecond) = (self.0 / 1_000, self.0 % 1_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let [
            y1,
            y2,
            y3,
            y4,
            _,
            mo1,
            mo2,
            _,
            d1,
            d2,
            _,
            h1,
            h2,
            _,
            m1,
            m2,
            _,
            s1,
            s2,
            _,
            f1,
            f2,
            f3,
            _,
        ] = &mut text;
        for (digit, number) in [
            (y1, year / 1_000),
            (y2, year / 100),
            (y3, year / 10),
            (y4, year),
            (mo1, month / 10),
            (mo2, month),
            (d1, day / 10),
            (d2, day),
            (h1, second / 36_000),
            (h2, second / 3_600),
            (m1, second / 600 % 6),
            (m2, second / 60),
            (s1, second / 10 % 6),
            (s2, second),
            (f1, millisecond / 100),
            (f2, millisecond / 10),
            (f3, millisecond),
        ] {
            *digit = DIGITS
                .get(usize::try_from(number % 10).unwrap_or(0))
                .copied()
                .unwrap_or(b'0');
        }
        text
    }
}

const DIGITS: [u8; 10] = *b"0123456789";

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar: years are counted from March, so
/// that the day that may be missing is the last.
const fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let is_next_year = month_from_march >= 10;
    let month = if is_next_year {
        month_from_march - 9
    } else {
        month_from_march + 3
    };
    (era * 400 + year + is_next_year as u64, month, day_of_month)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_bytes()).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_bytes();
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}
