//! Event time: ISO 8601 texts and epoch numbers, exact.
//!
//! Owns the reading of times. Promises: no float, no clock; what is cut off is cut towards minus infinity (also
//! before 1970), so that order is kept. Years 0 to 9999. A local time in a gap of its zone (spring) is moved on by
//! the gap, one that comes twice (autumn) is the first of the two: the "compatible" reading of RFC 5545, which
//! `java.time` and JavaScript's Temporal have, too.

use crate::codec::number::Decimal;
use crate::codec::rows::{Field, Kind, Rows};
use crate::codec::scan::unescape;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::borrow::Cow;

/// A point in time: seconds since the Unix epoch and nanoseconds on top of them (never negative).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment {
    pub seconds: i64,
    pub nanos: u32,
}

/// A date, perhaps with a time of day and an offset, as a text has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    pub year: i16,
    pub month: u8,
    pub day: u8,
    /// 24 for midnight at the end of the day.
    pub hour: u8,
    pub minute: u8,
    /// 60 for a leap second.
    pub second: u8,
    /// Digits beyond nanoseconds are cut.
    pub nanos: u32,
    /// Seconds east of UTC; `None` where the text has none.
    pub offset: Option<i32>,
    /// Whether there is a time of day at all.
    pub has_time: bool,
}

/// How a field holds its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// ISO 8601 text.
    Iso,
    /// Numbers (or numbers in text) since the Unix epoch, with or without a fraction.
    Seconds,
    Millis,
    Micros,
    Nanos,
}

/// The zone of times without an offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone(Option<TimeZone>);

/// Years 0 to 9999, in seconds.
const SECONDS: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;

impl Zone {
    pub const UTC: Zone = Zone(None);

    /// The zone of an IANA name.
    pub fn named(name: &str) -> Result<Zone, String> {
        if matches!(name, "UTC" | "Etc/UTC" | "Z") {
            return Ok(Zone::UTC);
        }
        match TimeZone::get(name) {
            Ok(zone) => Ok(Zone(Some(zone))),
            Err(_) => Err(format!("`{name}` is no time zone; names are those of IANA, such as Europe/Berlin")),
        }
    }

    /// Seconds east of UTC at a moment.
    pub fn offset_at(&self, moment: Moment) -> i64 {
        let Some(zone) = &self.0 else { return 0 };
        // Years 0 to 9999 but for the last day, whose offset is that of the day before.
        let timestamp = jiff::Timestamp::from_second(moment.seconds).unwrap_or(jiff::Timestamp::MAX);
        zone.to_offset(timestamp).seconds() as i64
    }
}

impl Moment {
    pub fn from_ms(ms: i64) -> Moment {
        Moment { seconds: ms.div_euclid(1000), nanos: ms.rem_euclid(1000) as u32 * 1_000_000 }
    }

    /// `None` outside of years 0 to 9999.
    pub fn from_nanos(nanos: i128) -> Option<Moment> {
        let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
        let nanos = nanos.rem_euclid(1_000_000_000) as u32;
        SECONDS.contains(&seconds).then_some(Moment { seconds, nanos })
    }

    /// Cut to milliseconds.
    pub fn ms(self) -> i64 {
        self.seconds * 1000 + (self.nanos / 1_000_000) as i64
    }

    pub fn total_nanos(self) -> i128 {
        self.seconds as i128 * 1_000_000_000 + self.nanos as i128
    }

    /// RFC 3339 in UTC, with as many digits of the fraction as there are (in threes).
    pub fn to_rfc3339(self) -> String {
        match self.nanos {
            0 => self.rfc3339_with(""),
            nanos if nanos % 1_000_000 == 0 => self.to_rfc3339_ms(),
            nanos if nanos % 1000 == 0 => self.rfc3339_with(&format!(".{:06}", nanos / 1000)),
            nanos => self.rfc3339_with(&format!(".{nanos:09}")),
        }
    }

    /// RFC 3339 in UTC with milliseconds, also where there are none; what is finer is cut.
    pub fn to_rfc3339_ms(self) -> String {
        self.rfc3339_with(&format!(".{:03}", self.nanos / 1_000_000))
    }

    fn rfc3339_with(self, fraction: &str) -> String {
        let (year, month, day) = civil(self.seconds.div_euclid(86_400));
        let of_day = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
    }
}

impl Written {
    /// Days from 1970-01-01 to the date as written, whatever the offset.
    pub fn days(&self) -> i64 {
        days(self.year as i64, self.month, self.day)
    }

    /// The moment; `zone` counts where the text has no offset. `None` outside of years 0 to 9999.
    pub fn moment(&self, zone: &Zone) -> Option<Moment> {
        let of_day = self.hour as i64 * 3600 + self.minute as i64 * 60 + self.second as i64;
        let local = self.days() * 86_400 + of_day;
        let seconds = match (self.offset, &zone.0) {
            (Some(offset), _) => local - offset as i64,
            (None, None) => local,
            (None, Some(zone)) => self.in_zone(zone)?,
        };
        SECONDS.contains(&seconds).then_some(Moment { seconds, nanos: self.nanos })
    }

    fn in_zone(&self, zone: &TimeZone) -> Option<i64> {
        let second = self.second.min(59) as i8;
        let (year, month, day) = civil(self.days() + (self.hour == 24) as i64);
        let hour = self.hour as i8 % 24;
        let local = DateTime::new(year as i16, month as i8, day as i8, hour, self.minute as i8, second, 0).ok()?;
        let timestamp = zone.to_ambiguous_timestamp(local).compatible().ok()?;
        Some(timestamp.as_second() + (self.second == 60) as i64)
    }
}

/// Reads an ISO 8601 date or date and time: `2024-02-29`, `2024-02-29T12`, `…T12:30`, `…:59.123456789+02:00`, `…Z`; a
/// blank may stand for the T, a comma for the point; the form without hyphens and colons is read too (but for a date
/// alone, which looks like a number). `T24:00:00` is the midnight at which the next day begins.
pub fn parse_iso(text: &[u8]) -> Option<Written> {
    let mut at = Cursor { text };
    let year = at.number(4)? as i16;
    let extended = at.take(b"-");
    let month = at.number(2)? as u8;
    if extended && !at.take(b"-") {
        return None;
    }
    let day = at.number(2)? as u8;
    if month == 0 || month > 12 || day == 0 || day > days_in_month(year as i64, month) {
        return None;
    }
    let mut written =
        Written { year, month, day, hour: 0, minute: 0, second: 0, nanos: 0, offset: None, has_time: false };
    if at.text.is_empty() {
        return extended.then_some(written);
    }
    if !at.take(b"Tt ") {
        return None;
    }
    written.has_time = true;
    written.hour = at.number(2)? as u8;
    if at.goes_on(extended) {
        written.minute = at.number(2)? as u8;
        if at.goes_on(extended) {
            written.second = at.number(2)? as u8;
            if at.take(b".,") {
                written.nanos = at.fraction()?;
            }
        }
    }
    let is_end_of_day = (written.hour, written.minute, written.second, written.nanos) == (24, 0, 0, 0);
    if (written.hour > 23 && !is_end_of_day) || written.minute > 59 || written.second > 60 {
        return None;
    }
    written.offset = at.offset()?;
    Some(written)
}

/// Reads a number (of any JSON form) of the unit since the Unix epoch. `None` where it is no number, the unit is
/// `Iso`, or the time lies outside of years 0 to 9999.
pub fn parse_epoch(text: &[u8], unit: Unit) -> Option<Moment> {
    let scale = match unit {
        Unit::Iso => return None,
        Unit::Seconds => 9,
        Unit::Millis => 6,
        Unit::Micros => 3,
        Unit::Nanos => 0,
    };
    Moment::from_nanos(Decimal::parse(text)?.floor_scaled(scale)?)
}

/// The time a field holds. The error says what the field holds instead.
pub fn read(rows: &Rows, field: Field, unit: Unit, zone: &Zone) -> Result<Moment, String> {
    let text = match field.kind {
        Kind::Absent | Kind::Null => return Err("nothing".to_owned()),
        Kind::Int => Cow::Owned(field.as_int().to_string().into_bytes()),
        Kind::Escaped => {
            let mut text = Vec::new();
            unescape(rows.text(field), &mut text);
            Cow::Owned(text)
        }
        Kind::Text | Kind::Number => Cow::Borrowed(rows.text(field)),
        Kind::False | Kind::True => return Err("a boolean".to_owned()),
        Kind::Array => return Err("an array".to_owned()),
        Kind::Object => return Err("an object".to_owned()),
        Kind::Bytes => return Err("bytes that are no text".to_owned()),
    };
    let is_text = matches!(field.kind, Kind::Text | Kind::Escaped);
    let moment = match unit {
        Unit::Iso if is_text => parse_iso(&text).and_then(|written| written.moment(zone)),
        Unit::Iso => None,
        unit => parse_epoch(&text, unit),
    };
    moment.ok_or_else(|| {
        let quote = if is_text { "\"" } else { "" };
        format!("{quote}{}{quote}", excerpt(&text))
    })
}

/// The beginning of a text, for a message.
pub fn excerpt(text: &[u8]) -> String {
    const SHOWN: usize = 100;
    let shown = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).into_owned();
    if text.len() > SHOWN { shown + "…" } else { shown }
}

/// What is left of a text.
struct Cursor<'a> {
    text: &'a [u8],
}

impl Cursor<'_> {
    /// Exactly `len` digits.
    #[inline(always)]
    fn number(&mut self, len: usize) -> Option<u32> {
        let (digits, rest) = self.text.split_at_checked(len)?;
        let mut value = 0;
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value * 10 + digit as u32;
        }
        self.text = rest;
        Some(value)
    }

    /// Whether one of these bytes comes, and then goes on.
    #[inline(always)]
    fn take(&mut self, bytes: &[u8]) -> bool {
        match self.text.split_first() {
            Some((first, rest)) if bytes.contains(first) => {
                self.text = rest;
                true
            }
            _ => false,
        }
    }

    /// Whether another part of the time of day comes: behind a colon in the extended form, right here in the basic one.
    #[inline(always)]
    fn goes_on(&mut self, extended: bool) -> bool {
        if extended { self.take(b":") } else { self.text.first().is_some_and(u8::is_ascii_digit) }
    }

    /// The digits behind the point, as nanoseconds.
    fn fraction(&mut self) -> Option<u32> {
        let len = self.text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.text.len());
        let (digits, rest) = self.text.split_at(len);
        if digits.is_empty() {
            return None;
        }
        self.text = rest;
        let kept = digits.iter().take(9);
        let value = kept.fold(0, |value, digit| value * 10 + (digit - b'0') as u32);
        Some(value * 10u32.pow(9 - digits.len().min(9) as u32))
    }

    /// Nothing, `Z`, `±hh`, `±hhmm`, `±hh:mm`; then the text ends.
    fn offset(&mut self) -> Option<Option<i32>> {
        if self.text.is_empty() {
            return Some(None);
        }
        if self.take(b"Zz") {
            return self.text.is_empty().then_some(Some(0));
        }
        let sign = match (self.take(b"+"), self.take(b"-")) {
            (true, false) => 1,
            (false, true) => -1,
            _ => return None,
        };
        let hours = self.number(2)? as i32;
        let minutes = if self.text.is_empty() {
            0
        } else {
            self.take(b":");
            self.number(2)? as i32
        };
        let valid = self.text.is_empty() && hours <= 23 && minutes <= 59;
        valid.then_some(Some(sign * (hours * 3600 + minutes * 60)))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        2 => 28 + is_leap(year) as u8,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar: years counted from March, so that the leap day is the
/// last of a year.
fn days(year: i64, month: u8, day: u8) -> i64 {
    let year = year - (month <= 2) as i64;
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month as i64 + 9) % 12) + 2) / 5 + day as i64 - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day number: the way back from `days`.
pub fn civil(days: i64) -> (i64, u8, u8) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month_from_march + 2) / 5 + 1) as u8;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u8;
    (year_of_era + era * 400 + (month <= 2) as i64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(text: &str, zone: &str) -> Option<i64> {
        Some(parse_iso(text.as_bytes())?.moment(&Zone::named(zone).unwrap())?.ms())
    }

    #[test]
    fn iso_texts_of_any_offset_are_read() {
        let noon = Some(1_709_208_000_000);
        for text in [
            "2024-02-29T12:00:00Z",
            "2024-02-29T12:00:00.000Z",
            "2024-02-29 12:00:00",
            "2024-02-29T12:00",
            "2024-02-29T12:00:00,0",
            "2024-02-29T14:00:00+02:00",
            "2024-02-29T14:00:00+0200",
            "2024-02-29T14:00:00+02",
            "2024-02-29t06:30:00-05:30",
            "20240229T120000Z",
            "20240229T1200Z",
            "20240229T12",
            "20240229T140000+0200",
            "2024-02-29T12",
            "2024-02-29T12Z",
            "2024-02-29T14+02",
            "2024-02-29 07-0500",
        ] {
            assert_eq!(ms(text, "UTC"), noon, "{text}");
        }
        assert_eq!(ms("2024-02-29", "UTC"), Some(1_709_164_800_000));
        assert_eq!(ms("1969-12-31T23:59:59.9999Z", "UTC"), Some(-1), "floor");
        assert_eq!(ms("2024-02-29T12:00:00.123999999999Z", "UTC"), Some(1_709_208_000_123));
        assert_eq!(ms("2016-12-31T23:59:60Z", "UTC"), ms("2017-01-01T00:00:00Z", "UTC"));
    }

    #[test]
    fn a_time_without_an_offset_is_one_of_its_zone() {
        assert_eq!(ms("2024-07-01T12:00:00", "Europe/Berlin"), ms("2024-07-01T10:00:00Z", "UTC"));
        assert_eq!(ms("2024-01-01T12:00:00", "Europe/Berlin"), ms("2024-01-01T11:00:00Z", "UTC"));
        assert_eq!(ms("2024-07-01T12:00:00Z", "Europe/Berlin"), ms("2024-07-01T12:00:00Z", "UTC"));
        assert!(Zone::named("Mars/Olympus").is_err());
    }

    /// Moved on by the gap; the first of the two.
    #[test]
    fn a_time_in_a_gap_or_a_fold_of_its_zone_is_read_as_this_page_says() {
        for (local, zone, meant) in [
            ("2024-03-31T02:30:00", "Europe/Berlin", "2024-03-31T01:30:00Z"),
            ("2024-10-27T02:30:00", "Europe/Berlin", "2024-10-27T00:30:00Z"),
            ("2024-10-06T02:15:00", "Australia/Lord_Howe", "2024-10-05T15:45:00Z"),
            ("2024-04-07T01:45:00", "Australia/Lord_Howe", "2024-04-06T14:45:00Z"),
        ] {
            assert_eq!(ms(local, zone), ms(meant, "UTC"), "{local} in {zone}");
        }
    }

    #[test]
    fn a_day_ends_at_24_which_is_the_next_midnight() {
        for (text, midnight) in [
            ("2024-02-29T24:00:00Z", "2024-03-01T00:00:00Z"),
            ("2024-02-29T24:00", "2024-03-01"),
            ("2024-12-31T24:00:00.000+01:00", "2025-01-01T00:00:00+01:00"),
            ("20241231T24", "2025-01-01"),
        ] {
            for zone in ["UTC", "Europe/Berlin"] {
                assert_eq!(ms(text, zone), ms(midnight, zone), "{text}");
                assert!(ms(text, zone).is_some(), "{text}");
            }
        }
        for text in ["2024-02-29T24:00:01", "2024-02-29T24:01", "2024-02-29T24:00:00.1", "9999-12-31T24:00:00Z"] {
            assert_eq!(ms(text, "UTC"), None, "{text}");
        }
    }

    #[test]
    fn a_local_time_that_a_zone_leaves_out_or_has_twice_is_one_instant() {
        let berlin = |text: &str| ms(text, "Europe/Berlin");
        // On 31 March 2024 the clocks went from 02:00 to 03:00: what is left out is moved on by the hour.
        assert_eq!(berlin("2024-03-31T01:59:59"), ms("2024-03-31T00:59:59Z", "UTC"));
        assert_eq!(berlin("2024-03-31T02:00:00"), ms("2024-03-31T01:00:00Z", "UTC"));
        assert_eq!(berlin("2024-03-31T02:30:00"), ms("2024-03-31T01:30:00Z", "UTC"));
        assert_eq!(berlin("2024-03-31T02:30:00"), berlin("2024-03-31T03:30:00"));
        // On 27 October 2024 they went from 03:00 to 02:00: of the two hours it is the first.
        assert_eq!(berlin("2024-10-27T01:59:59"), ms("2024-10-26T23:59:59Z", "UTC"));
        assert_eq!(berlin("2024-10-27T02:00:00"), ms("2024-10-27T00:00:00Z", "UTC"));
        assert_eq!(berlin("2024-10-27T02:59:59"), ms("2024-10-27T00:59:59Z", "UTC"));
        assert_eq!(berlin("2024-10-27T03:00:00"), ms("2024-10-27T02:00:00Z", "UTC"));
        // With an offset there is nothing to choose.
        assert_eq!(berlin("2024-10-27T02:30:00+01:00"), ms("2024-10-27T01:30:00Z", "UTC"));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2024",
            "2024-2-29",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-02-29T",
            "2024-02-29T25:00:00",
            "2024-02-29T1",
            "2024-02-29T12:",
            "2024-02-29T12.5",
            "20240229T12:00",
            "2024-02-29T1200",
            "2024-02-29T12:60",
            "2024-02-29T12:00:00.",
            "2024-02-29T12:00:00+",
            "2024-02-29Z",
            "2024-02-29T12:00:00Zx",
            "20240229",
            "1709208000",
            "2024-02-29T12:00:00+24:00",
            "24-02-29T12:00:00Z",
            "0000-01-01T00:00:00+01:00",
        ] {
            assert_eq!(ms(text, "UTC"), None, "{text}");
        }
    }

    #[test]
    fn epoch_numbers_are_exact_and_cut_to_milliseconds() {
        let ms = |text: &str, unit| parse_epoch(text.as_bytes(), unit).map(Moment::ms);
        assert_eq!(ms("1700000000", Unit::Seconds), Some(1_700_000_000_000));
        assert_eq!(ms("1700000000.9999", Unit::Seconds), Some(1_700_000_000_999));
        assert_eq!(ms("1.7e9", Unit::Seconds), Some(1_700_000_000_000));
        assert_eq!(ms("-0.0001", Unit::Seconds), Some(-1));
        assert_eq!(ms("1700000000123.9", Unit::Millis), Some(1_700_000_000_123));
        assert_eq!(ms("1700000000123999", Unit::Micros), Some(1_700_000_000_123));
        assert_eq!(ms("1700000000123999999", Unit::Nanos), Some(1_700_000_000_123));
        assert_eq!(ms("-1", Unit::Nanos), Some(-1));
        assert_eq!(ms("1700000000123", Unit::Seconds), None, "beyond the year 9999");
        assert_eq!(ms("1e999999999", Unit::Seconds), None);
        assert_eq!(ms("abc", Unit::Seconds), None);
    }

    #[test]
    fn the_date_is_the_one_written_whatever_the_offset() {
        let written = parse_iso(b"2024-03-01T00:30:00+05:00").unwrap();
        assert_eq!(written.days(), 19_783);
        assert_eq!(written.offset, Some(18_000));
    }

    proptest! {
        #[test]
        fn calendar_and_text_round_trip(seconds in SECONDS, nanos in 0u32..1_000_000_000) {
            let moment = Moment { seconds, nanos };
            let text = moment.to_rfc3339();
            let read = parse_iso(text.as_bytes()).unwrap().moment(&Zone::UTC);
            prop_assert_eq!(read, Some(moment), "{}", text);
            let jiff: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(jiff.as_second() , seconds + (seconds < 0 && nanos > 0) as i64);
        }
    }
}
