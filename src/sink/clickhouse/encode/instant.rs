//! Points in time: ISO 8601 text and epoch numbers into days, seconds and ticks.
//!
//! Promises: digits beyond the column's precision are cut (towards the past), as ClickHouse does; a time outside of
//! the column's range does not fit. Never reads a clock.

use super::Misfit;
use super::json::Value;
use super::number;
use crate::codec::number::Decimal;
use crate::config::plan::ColumnUnit;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// 1900-01-01 and 2299-12-31: what every server holds in Date32 and DateTime64.
const DAYS_MIN: i64 = -25_567;
const DAYS_MAX: i64 = 120_529;
const SECONDS_PER_DAY: i64 = 86_400;

/// How a column reads points in time.
#[derive(Clone, PartialEq, Debug)]
pub struct TimeRule {
    /// What a number means; `None`: numbers do not fit.
    pub unit: Option<ColumnUnit>,
    /// The zone of text without an offset; `None`: UTC.
    pub zone: Option<TimeZone>,
}

/// A date and time as written, with its offset where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Written {
    /// Days since 1970-01-01.
    days: i64,
    second_of_day: i64,
    nanos: u32,
    offset_seconds: Option<i64>,
}

/// Seconds since the epoch, for DateTime.
#[inline]
pub fn date_time(value: Value<'_>, rule: &TimeRule) -> Result<u32, Misfit> {
    let ticks = ticks(value, rule, 0)?;
    u32::try_from(ticks).map_err(|_| Misfit::OutOfRange)
}

/// Ticks of 10^-`precision` seconds since the epoch, for DateTime64.
#[inline]
pub fn date_time_64(value: Value<'_>, rule: &TimeRule, precision: u8) -> Result<i64, Misfit> {
    let ticks = ticks(value, rule, precision)?;
    let per_second = number::pow10(u32::from(precision));
    let seconds = ticks.div_euclid(i128::from(per_second));
    let range = i128::from(DAYS_MIN * SECONDS_PER_DAY)..i128::from((DAYS_MAX + 1) * SECONDS_PER_DAY);
    if !range.contains(&seconds) {
        return Err(Misfit::OutOfRange);
    }
    i64::try_from(ticks).map_err(|_| Misfit::OutOfRange)
}

/// Days since 1970-01-01, for Date: the calendar date as written.
#[inline]
pub fn date(value: Value<'_>, rule: &TimeRule) -> Result<u16, Misfit> {
    u16::try_from(days(value, rule)?).map_err(|_| Misfit::OutOfRange)
}

/// Days since 1970-01-01, for Date32.
#[inline]
pub fn date_32(value: Value<'_>, rule: &TimeRule) -> Result<i32, Misfit> {
    let days = days(value, rule)?;
    if !(DAYS_MIN..=DAYS_MAX).contains(&days) {
        return Err(Misfit::OutOfRange);
    }
    Ok(days as i32)
}

fn days(value: Value<'_>, rule: &TimeRule) -> Result<i64, Misfit> {
    match value {
        Value::Text(text) => Ok(written(text).ok_or(Misfit::Kind)?.days),
        Value::Number(text) => match rule.unit {
            Some(ColumnUnit::Days) => Ok(crate::codec::number::to_i64(text)?),
            _ => Err(Misfit::NoUnit),
        },
        Value::Int(days) if rule.unit == Some(ColumnUnit::Days) => Ok(days),
        Value::Int(_) => Err(Misfit::NoUnit),
        _ => Err(Misfit::Kind),
    }
}

#[inline]
fn ticks(value: Value<'_>, rule: &TimeRule, precision: u8) -> Result<i128, Misfit> {
    match value {
        Value::Text(text) => {
            let written = written(text).ok_or(Misfit::Kind)?;
            let seconds = written.epoch_seconds(rule)?;
            let nanos_per_tick = number::pow10(9 - u32::from(precision));
            let per_second = number::pow10(u32::from(precision));
            Ok(i128::from(seconds) * i128::from(per_second) + i128::from(i64::from(written.nanos) / nanos_per_tick))
        }
        Value::Number(text) => {
            let unit_digits = unit_digits(rule)?;
            match number::small(text) {
                Some((epoch, 0)) => Ok(rescaled(epoch, unit_digits, precision)),
                _ => epoch_text(text, unit_digits, precision),
            }
        }
        Value::Int(epoch) => Ok(rescaled(epoch, unit_digits(rule)?, precision)),
        _ => Err(Misfit::Kind),
    }
}

fn unit_digits(rule: &TimeRule) -> Result<u8, Misfit> {
    match rule.unit {
        Some(ColumnUnit::Seconds) => Ok(0),
        Some(ColumnUnit::Millis) => Ok(3),
        Some(ColumnUnit::Micros) => Ok(6),
        Some(ColumnUnit::Nanos) => Ok(9),
        Some(ColumnUnit::Days) | None => Err(Misfit::NoUnit),
    }
}

fn rescaled(epoch: i64, unit_digits: u8, precision: u8) -> i128 {
    let epoch = i128::from(epoch);
    if precision >= unit_digits {
        epoch * i128::from(number::pow10(u32::from(precision - unit_digits)))
    } else {
        epoch.div_euclid(i128::from(number::pow10(u32::from(unit_digits - precision))))
    }
}

/// An epoch number with a fraction or an exponent.
fn epoch_text(text: &[u8], unit_digits: u8, precision: u8) -> Result<i128, Misfit> {
    let epoch = Decimal::parse(text).ok_or(Misfit::Kind)?;
    let whole = |scale: u32| epoch.floor_scaled(scale).ok_or(Misfit::OutOfRange);
    if precision >= unit_digits {
        return whole(u32::from(precision - unit_digits));
    }
    Ok(whole(0)?.div_euclid(i128::from(number::pow10(u32::from(unit_digits - precision)))))
}

impl Written {
    #[inline]
    fn epoch_seconds(&self, rule: &TimeRule) -> Result<i64, Misfit> {
        let local = self.days * SECONDS_PER_DAY + self.second_of_day;
        match (self.offset_seconds, &rule.zone) {
            (Some(offset), _) => Ok(local - offset),
            (None, None) => Ok(local),
            (None, Some(zone)) => self.in_zone(zone),
        }
    }

    /// A local time that comes twice is the earlier one; one that does not exist is moved on by the gap.
    fn in_zone(&self, zone: &TimeZone) -> Result<i64, Misfit> {
        let (year, month, day) = civil_of_days(self.days);
        let second = self.second_of_day;
        let local = DateTime::new(
            year as i16,
            month as i8,
            day as i8,
            (second / 3600) as i8,
            (second / 60 % 60) as i8,
            (second % 60) as i8,
            0,
        );
        let instant = local.and_then(|local| zone.to_ambiguous_timestamp(local).compatible());
        Ok(instant.map_err(|_| Misfit::OutOfRange)?.as_second())
    }
}

/// `YYYY-MM-DD`, then nothing or `T` or a blank and `hh:mm[:ss[.digits]]`, then nothing, `Z`, `±hh`, `±hhmm` or
/// `±hh:mm`.
#[inline]
fn written(text: &[u8]) -> Option<Written> {
    let (date, rest) = text.split_at_checked(10)?;
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let year = i64::from(two(date, 0)?) * 100 + i64::from(two(date, 2)?);
    let (month, day) = (two(date, 5)?, two(date, 8)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let mut written =
        Written { days: days_of_civil(year, month, day), second_of_day: 0, nanos: 0, offset_seconds: None };
    let [separator, time @ ..] = rest else {
        return Some(written);
    };
    if !matches!(separator, b'T' | b't' | b' ') || time.len() < 5 || time[2] != b':' {
        return None;
    }
    let (hour, minute) = (two(time, 0)?, two(time, 3)?);
    let mut rest = &time[5..];
    let mut second = 0;
    if let [b':', behind @ ..] = rest {
        second = two(behind, 0)?;
        rest = &behind[2..];
        if let [b'.' | b',', digits @ ..] = rest {
            (written.nanos, rest) = fraction(digits)?;
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    written.second_of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    written.offset_seconds = offset(rest)?;
    Some(written)
}

/// Two digits at a place.
#[inline(always)]
fn two(text: &[u8], at: usize) -> Option<u32> {
    let tens = text.get(at)?.wrapping_sub(b'0');
    let ones = text.get(at + 1)?.wrapping_sub(b'0');
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

/// The nanoseconds of a fraction's digits (at least one; those beyond the ninth are cut), and what follows.
#[inline(always)]
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let kept = len.min(9);
    let value = text[..kept].iter().fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some((value * number::pow10(9 - kept as u32) as u32, &text[len..]))
}

/// The outer `None`: not an offset. The inner: none was written.
#[inline(always)]
fn offset(text: &[u8]) -> Option<Option<i64>> {
    let (sign, rest) = match text {
        [] => return Some(None),
        b"Z" | b"z" => return Some(Some(0)),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let hours = two(rest, 0)?;
    let minutes = match &rest[2..] {
        [] => 0,
        [b':', minutes @ ..] if minutes.len() == 2 => two(minutes, 0)?,
        minutes if minutes.len() == 2 => two(minutes, 0)?,
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    Some(Some(sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60)))
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the Gregorian calendar: years begin in March, so that the leap day is last.
fn days_of_civil(year: i64, month: u32, day: u32) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = i64::from((153 * month + 2) / 5 + day - 1);
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The date of a day since 1970-01-01.
fn civil_of_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year_of_era, month + 3) } else { (year_of_era + 1, month - 9) };
    (year + era * 400, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(unit: Option<ColumnUnit>, zone: Option<&str>) -> TimeRule {
        TimeRule { unit, zone: zone.map(|zone| TimeZone::get(zone).unwrap()) }
    }

    fn millis(text: &str, zone: Option<&str>) -> Result<i64, Misfit> {
        date_time_64(Value::Text(text.as_bytes()), &rule(None, zone), 3)
    }

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for days in (-30_000..130_000).step_by(7) {
            let (year, month, day) = civil_of_days(days);
            assert_eq!(days_of_civil(year, month, day), days);
        }
        assert_eq!(days_of_civil(1900, 1, 1), DAYS_MIN);
        assert_eq!(days_of_civil(2299, 12, 31), DAYS_MAX);
    }

    #[test]
    fn iso_text_is_read_in_all_its_forms() {
        let expected = 1_704_067_200_123;
        for text in [
            "2024-01-01T00:00:00.123Z",
            "2024-01-01 00:00:00.123",
            "2024-01-01T02:00:00.1239+02:00",
            "2023-12-31T22:30:00.123999999999-0130",
            "2024-01-01T01:00:00.123+01",
        ] {
            assert_eq!(millis(text, None), Ok(expected), "{text}");
        }
        assert_eq!(millis("2024-01-01", None), Ok(1_704_067_200_000));
        assert_eq!(millis("2024-01-01T00:00", None), Ok(1_704_067_200_000));
        for text in [
            "2024-13-45", "2024-02-30", "2024-01-01T24:00:00", "2024-01-01T00:00:60", "2024-1-1", "20240101", "",
            "2024-01-01T00:00:00.", "2024-01-01T00:00:00 Z", "2024-01-01T00:00:00+1", "2024-01-01x", " 2024-01-01",
        ] {
            assert_eq!(millis(text, None), Err(Misfit::Kind), "{text}");
        }
    }

    #[test]
    fn text_without_an_offset_is_in_the_zone() {
        assert_eq!(millis("2024-07-01 12:00:00", Some("Europe/Berlin")), millis("2024-07-01T10:00:00Z", None));
        assert_eq!(millis("2024-01-01 12:00:00", Some("Europe/Berlin")), millis("2024-01-01T11:00:00Z", None));
        assert_eq!(millis("2024-07-01T12:00:00Z", Some("Europe/Berlin")), millis("2024-07-01T12:00:00Z", None));
    }

    #[test]
    fn numbers_need_a_unit_and_are_cut_not_rounded() {
        let ms = rule(Some(ColumnUnit::Millis), None);
        assert_eq!(date_time_64(Value::Number(b"1704067200123"), &ms, 6), Ok(1_704_067_200_123_000));
        assert_eq!(date_time_64(Value::Number(b"1704067200999.9"), &ms, 0), Ok(1_704_067_200));
        assert_eq!(date_time_64(Value::Number(b"-1"), &ms, 0), Ok(-1));
        assert_eq!(date_time_64(Value::Int(1_704_067_200_123), &ms, 3), Ok(1_704_067_200_123));
        assert_eq!(date_time_64(Value::Number(b"1704067200123"), &rule(None, None), 3), Err(Misfit::NoUnit));
        assert_eq!(date_time_64(Value::Text(b"1704067200123"), &ms, 3), Err(Misfit::Kind));
    }

    #[test]
    fn ranges_hold() {
        assert_eq!(date_time(Value::Text(b"2106-02-07T06:28:15Z"), &rule(None, None)), Ok(u32::MAX));
        assert_eq!(date_time(Value::Text(b"2106-02-07T06:28:16Z"), &rule(None, None)), Err(Misfit::OutOfRange));
        assert_eq!(date_time(Value::Text(b"1969-12-31T23:59:59Z"), &rule(None, None)), Err(Misfit::OutOfRange));
        assert_eq!(date(Value::Text(b"2149-06-06"), &rule(None, None)), Ok(u16::MAX));
        assert_eq!(date(Value::Text(b"2149-06-07"), &rule(None, None)), Err(Misfit::OutOfRange));
        assert_eq!(date_32(Value::Text(b"1900-01-01"), &rule(None, None)), Ok(-25_567));
        assert_eq!(date_32(Value::Text(b"1899-12-31"), &rule(None, None)), Err(Misfit::OutOfRange));
        assert_eq!(millis("2299-12-31T23:59:59.999Z", None), Ok(10_413_791_999_999));
        assert_eq!(millis("2300-01-01T00:00:00Z", None), Err(Misfit::OutOfRange));
        let nanos = |text: &str| date_time_64(Value::Text(text.as_bytes()), &rule(None, None), 9);
        assert_eq!(nanos("2262-04-11T23:47:16.854775807Z"), Ok(i64::MAX));
        assert_eq!(nanos("2262-04-11T23:47:16.854775808Z"), Err(Misfit::OutOfRange));
    }

    #[test]
    fn a_date_is_the_one_that_was_written() {
        let days = rule(Some(ColumnUnit::Days), None);
        assert_eq!(date(Value::Text(b"2024-01-15T23:59:00-05:00"), &days), Ok(19_737));
        assert_eq!(date(Value::Number(b"19737"), &days), Ok(19_737));
        assert_eq!(date(Value::Number(b"19737"), &rule(None, None)), Err(Misfit::NoUnit));
    }
}
