//! Calendar days in UTC, for see-thru.

use std::fmt;
use std::str::FromStr;

/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;

/// Days from 1970-01-01 to 9999-12-31.
const LAST_DAY: u32 = 2_932_896;

/// A day in UTC, between 1970-01-01 and 9999-12-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(u32);

/// Text that is no day of the calendar in the form `YYYY-MM-DD`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a date such as 2027-01-31")]
pub struct InvalidDate(pub String);

impl Date {
    /// The day of a moment given in milliseconds since 1970-01-01T00:00:00Z.
    pub fn from_unix_ms(ms: u64) -> Self {
        let day = u32::try_from(ms / DAY_MS).unwrap_or(LAST_DAY);
        Self(day.min(LAST_DAY))
    }

    /// Days since 1970-01-01.
    pub const fn days_since_epoch(self) -> u32 {
        self.0
    }

    /// Reads `YYYY-MM-DD`; months and days may be unpadded, as in `2027-1-2`.
    ///
    /// # Errors
    ///
    /// When the text has another form, the day does not exist, or the year is before 1970.
    pub fn parse(text: &str) -> Result<Self, InvalidDate> {
        Self::parse_parts(text).ok_or_else(|| InvalidDate(text.to_owned()))
    }

    fn parse_parts(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || year.len() != 4 || month.len() > 2 || day.len() > 2 {
            return None;
        }
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits {
                part.parse::<u32>().ok()
            } else {
                None
            }
        };
        Self::from_civil(number(year)?, number(month)?, number(day)?)
    }

    /// The date of a day in the proleptic Gregorian calendar, if there is such a day.
    fn from_civil(year: u32, month: u32, day: u32) -> Option<Self> {
        if !(1970..=9999).contains(&year) || day < 1 || day > days_in_month(year, month)? {
            return None;
        }
        let before_year: u32 = (1970..year).map(days_in_year).sum();
        let before_month: u32 = (1..month).filter_map(|m| days_in_month(year, m)).sum();
        Some(Self(before_year + before_month + day - 1))
    }

    /// Year, month and day.
    fn civil(self) -> (u32, u32, u32) {
        let (mut year, mut rest) = (1970, self.0);
        while rest >= days_in_year(year) {
            rest -= days_in_year(year);
            year += 1;
        }
        let mut month = 1;
        while let Some(days) = days_in_month(year, month).filter(|days| rest >= *days) {
            rest -= days;
            month += 1;
        }
        (year, month, rest + 1)
    }

    /// Whole days from this day until `end`: 0 on that very day, `None` after it.
    pub fn days_until(self, end: Self) -> Option<u32> {
        end.0.checked_sub(self.0)
    }
}

/// 365, or 366 in a leap year.
const fn days_in_year(year: u32) -> u32 {
    if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) {
        366
    } else {
        365
    }
}

/// The length of a month, `None` when there is no such month.
fn days_in_month(year: u32, month: u32) -> Option<u32> {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(days_in_year(year) - 337),
        _ => None,
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Date {
    type Err = InvalidDate;

    fn from_str(text: &str) -> Result<Self, InvalidDate> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpadded_months_and_days_are_accepted() {
        assert_eq!(Date::parse("2027-1-2").unwrap().to_string(), "2027-01-02");
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in [
            "2027-02-29",
            "2100-02-29",
            "2027-13-01",
            "2027-00-10",
            "2027-01-00",
            "2027-1-32",
            "27-01-01",
            "02027-01-01",
            "2027-01",
            "2027-01-01-01",
            "2027/01/01",
            "1969-12-31",
            "2027-+1-01",
            "2027--01",
            "",
            "null",
        ] {
            assert!(Date::parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(Date::parse("2000-02-29").is_ok());
        assert!(Date::parse("2028-2-29").is_ok());
    }

    #[test]
    fn every_day_of_four_centuries_prints_and_reads_back() {
        for day in (0..40_000).chain((40_000..146_097).step_by(37)) {
            let date = Date(day);
            assert_eq!(Date::parse(&date.to_string()), Ok(date));
        }
        assert_eq!(Date(LAST_DAY).to_string(), "9999-12-31");
    }

    #[test]
    fn a_moment_belongs_to_its_utc_day() {
        assert_eq!(Date::from_unix_ms(0).to_string(), "1970-01-01");
        assert_eq!(
            Date::from_unix_ms(1_790_000_000_000).to_string(),
            "2026-09-21"
        );
        assert_eq!(Date::from_unix_ms(u64::MAX).to_string(), "9999-12-31");
    }

    #[test]
    fn the_last_day_counts_and_the_day_after_does_not() {
        let today = Date::parse("2027-01-31").unwrap();
        assert_eq!(
            today.days_until(Date::parse("2027-02-01").unwrap()),
            Some(1)
        );
        assert_eq!(today.days_until(today), Some(0));
        assert_eq!(today.days_until(Date::parse("2027-01-30").unwrap()), None);
    }
}
