//! Points in time: ISO 8601 text and epoch numbers into days, seconds and ticks.
//!
//! Promises: digits beyond the column's precision are cut (towards the past), as ClickHouse does; a time outside of
//! the column's range does not fit. Never reads a clock.

use super::Misfit;
use super::json::Value;
use super::number;
use crate::codec::number::Decimal;
use crate::codec::time::{Zone, parse_iso};
use crate::config::plan::ColumnUnit;

/// 1900-01-01 and 2299-12-31: what every server holds in Date32 and DateTime64.
const DAYS_MIN: i64 = -25_567;
const DAYS_MAX: i64 = 120_529;
const SECONDS_PER_DAY: i64 = 86_400;

/// How a column reads points in time.
#[derive(Clone, PartialEq, Debug)]
pub struct TimeRule {
    /// What a number means; `None`: numbers do not fit.
    pub unit: Option<ColumnUnit>,
    /// The zone of text without an offset.
    pub zone: Zone,
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

#[inline]
fn ticks(value: Value<'_>, rule: &TimeRule, precision: u8) -> Result<i128, Misfit> {
    match value {
        Value::Text(text) => {
            let written = parse_iso(text).ok_or(Misfit::Kind)?;
            let moment = written.moment(&rule.zone).ok_or(Misfit::OutOfRange)?;
            let nanos_per_tick = number::pow10(9 - u32::from(precision));
            let per_second = number::pow10(u32::from(precision));
            Ok(i128::from(moment.seconds) * i128::from(per_second)
                + i128::from(i64::from(moment.nanos) / nanos_per_tick))
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
        for text in [
            "2024-13-45",
            "2024-02-30",
            "2024-01-01T24:00:00",
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
