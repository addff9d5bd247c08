//! Points in time: ISO 8601 text and epoch numbers into days, seconds and ticks.
//!
//! Promises: digits beyond the column's precision are cut (towards the past), as ClickHouse does; a time outside of
//! the column's range does not fit. Never reads a clock.

use super::Misfit;
use super::json::Value;
use super::number;
use crate::codec::number::Decimal;
use crate::codec::time::{Moment, Written, Zone, parse_iso};
use crate::config::plan::ColumnUnit;

/// 1900-01-01 and 2299-12-31: what every server holds in Date32 and DateTime64.
const DAYS_MIN: i64 = -25_567;
const DAYS_MAX: i64 = 120_529;
const SECONDS_PER_DAY: i64 = 86_400;
/// The same in milliseconds; with nine digits the end comes earlier.
pub const HELD_MS: std::ops::Range<i64> = DAYS_MIN * SECONDS_PER_DAY * 1000..(DAYS_MAX + 1) * SECONDS_PER_DAY * 1000;

/// How a column reads points in time.
#[derive(Clone, PartialEq, Debug)]
pub struct TimeRule {
    /// What a number means; `None`: numbers do not fit.
    pub unit: Option<ColumnUnit>,
    /// The zone of text without an offset.
    pub zone: Zone,
}

/// Seconds since the epoch, for DateTime.
#[inline(always)]
pub fn date_time(value: Value<'_>, rule: &TimeRule) -> Result<u32, Misfit> {
    let ticks = ticks(value, rule, 0)?;
    u32::try_from(ticks).map_err(|_| Misfit::OutOfRange)
}

/// Ticks of 10^-`precision` seconds since the epoch, for DateTime64.
#[inline(always)]
pub fn date_time_64(value: Value<'_>, rule: &TimeRule, precision: u8) -> Result<i64, Misfit> {
    let ticks = ticks(value, rule, precision)?;
    let per_second = number::pow10(u32::from(precision));
    let first = DAYS_MIN * SECONDS_PER_DAY * per_second;
    let end = ((DAYS_MAX + 1) * SECONDS_PER_DAY).saturating_mul(per_second);
    // With nine digits the end of i64 comes first, in 2262.
    if ticks < first || (ticks >= end && end < i64::MAX) { Err(Misfit::OutOfRange) } else { Ok(ticks) }
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
        Value::Text(text) => Ok(parse_iso(text).ok_or(Misfit::Kind)?.days()),
        Value::Number(text) => match rule.unit {
            Some(ColumnUnit::Days) => Ok(crate::codec::number::to_i64(text)?),
            _ => Err(Misfit::NoUnit),
        },
        Value::Int(days) if rule.unit == Some(ColumnUnit::Days) => Ok(days),
        Value::Int(_) => Err(Misfit::NoUnit),
        _ => Err(Misfit::Kind),
    }
}

#[inline(always)]
fn ticks(value: Value<'_>, rule: &TimeRule, precision: u8) -> Result<i64, Misfit> {
    match value {
        Value::Text(text) => {
            let moment = match usual_moment(text) {
                Some(moment) => moment,
                None => parse_iso(text).ok_or(Misfit::Kind)?.moment(&rule.zone).ok_or(Misfit::OutOfRange)?,
            };
            let nanos_per_tick = number::pow10(9 - u32::from(precision));
            let per_second = number::pow10(u32::from(precision));
            let of_second = i64::from(moment.nanos) / nanos_per_tick;
            let ticks = moment.seconds.checked_mul(per_second).and_then(|ticks| ticks.checked_add(of_second));
            ticks.ok_or(Misfit::OutOfRange)
        }
        Value::Number(text) => {
            let unit_digits = unit_digits(rule)?;
            match number::small(text) {
                Some((epoch, 0)) => rescaled(epoch, unit_digits, precision),
                _ => epoch_text(text, unit_digits, precision),
            }
        }
        Value::Int(epoch) => rescaled(epoch, unit_digits(rule)?, precision),
        _ => Err(Misfit::Kind),
    }
}

/// The fast way for `YYYY-MM-DDThh:mm:ss[.digits]Z` and the like: with seconds, in UTC. `None`: ask the full parser.
#[inline(always)]
fn usual_moment(text: &[u8]) -> Option<Moment> {
    let (head, rest) = text.split_first_chunk::<19>()?;
    let separated =
        head[4] == b'-' && head[7] == b'-' && matches!(head[10], b'T' | b' ') && head[13] == b':' && head[16] == b':';
    let (century, year, month, day) = (two(head, 0), two(head, 2), two(head, 5), two(head, 8));
    let (hour, minute, second) = (two(head, 11), two(head, 14), two(head, 17));
    // Days that not every month has take the long way, as does all that is wrong.
    let in_range = century < 100 && year < 100 && (1..=12).contains(&month) && (1..=28).contains(&day);
    if !separated || !in_range || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = match rest {
        b"Z" | b"+00:00" => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => {
            let (value, count) = number::small_digits(digits)?;
            (value * number::pow10(9 - count)) as u32
        }
        _ => return None,
    };
    let written = Written {
        year: (century * 100 + year) as i16,
        month: month as u8,
        day: day as u8,
        hour: 0,
        minute: 0,
        second: 0,
        nanos: 0,
        offset: None,
        has_time: true,
    };
    let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(Moment { seconds: written.days() * SECONDS_PER_DAY + of_day, nanos })
}

/// The number of two digits at a place; above 99 where they are none.
#[inline(always)]
fn two(text: &[u8; 19], at: usize) -> u32 {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { 128 } else { u32::from(tens) * 10 + u32::from(ones) }
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

fn rescaled(epoch: i64, unit_digits: u8, precision: u8) -> Result<i64, Misfit> {
    if precision >= unit_digits {
        epoch.checked_mul(number::pow10(u32::from(precision - unit_digits))).ok_or(Misfit::OutOfRange)
    } else {
        Ok(epoch.div_euclid(number::pow10(u32::from(unit_digits - precision))))
    }
}

/// An epoch number with a fraction or an exponent.
fn epoch_text(text: &[u8], unit_digits: u8, precision: u8) -> Result<i64, Misfit> {
    let epoch = Decimal::parse(text).ok_or(Misfit::Kind)?;
    let digits = u32::from(precision.saturating_sub(unit_digits));
    let scaled = epoch.floor_scaled(digits).and_then(|scaled| i64::try_from(scaled).ok()).ok_or(Misfit::OutOfRange)?;
    Ok(scaled.div_euclid(number::pow10(u32::from(unit_digits.saturating_sub(precision)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(unit: Option<ColumnUnit>, zone: Option<&str>) -> TimeRule {
        TimeRule { unit, zone: Zone::named(zone.unwrap_or("UTC")).unwrap() }
    }

    fn millis(text: &str, zone: Option<&str>) -> Result<i64, Misfit> {
        date_time_64(Value::Text(text.as_bytes()), &rule(None, zone), 3)
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
        assert_eq!(millis("2023-12-31T24:00:00", None), Ok(1_704_067_200_000));
        for text in [
            "2024-13-45",
            "2024-02-30",
            "2024-01-01T24:00:01",
            "2024-1-1",
            "20240101",
            "",
            "2024-01-01T00:00:00.",
            "2024-01-01x",
            " 2024-01-01",
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
