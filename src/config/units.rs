//! Durations and sizes as people write them.

/// How durations are written, for help texts.
pub const DURATION_HELP: &str = "durations are written 500ms, 90s, 5m, 24h, 7d or 1h30m";
/// How sizes are written, for help texts.
pub const SIZE_HELP: &str = "sizes are written 64KiB, 32MiB, 4GiB (1024s), 500MB (1000s), or as a number of bytes";

const DURATIONS: &[(&str, i64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Milliseconds of `90s`, `1h30m`, `-5s`, or `0`. The error is help for the writer.
pub fn duration_ms(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if digits == "0" {
        return Ok(0);
    }
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("the unit is missing: `{text}s`, `{text}m`, `{text}h`"));
    }
    let mut total: i64 = 0;
    let mut rest = digits;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest);
        let (Ok(number), true) = (number.parse::<i64>(), !number.is_empty()) else {
            return Err(DURATION_HELP.into());
        };
        let Some(factor) = find(DURATIONS, unit) else { return Err(duration_unit_help(number, unit)) };
        let part = number.checked_mul(factor).and_then(|part| total.checked_add(part));
        total = part.ok_or("that is longer than time can be counted; write `forever` where it may be endless")?;
        rest = after;
    }
    if digits.is_empty() { Err(DURATION_HELP.into()) } else { Ok(if negative { -total } else { total }) }
}

/// Bytes of `4GiB` or `1048576`. The error is help for the writer.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    let (number, unit, after) = number_and_unit(text);
    let unit_begins = unit.trim_start_matches(' ');
    let (Ok(number), "") = (number.parse::<u64>(), after) else { return Err(SIZE_HELP.into()) };
    let Some(factor) = find(SIZES, unit_begins) else { return Err(size_unit_help(number, unit_begins)) };
    number.checked_mul(factor).ok_or_else(|| "that is more than can be counted".into())
}

fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let number = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(number);
    let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(unit);
    (number, unit, after)
}

fn find<T: Copy>(units: &[(&str, T)], unit: &str) -> Option<T> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

fn duration_unit_help(number: i64, unit: &str) -> String {
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => "ms",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "w" | "week" | "weeks" => return format!("weeks are written in days: `{}d`", number.saturating_mul(7)),
        _ => return DURATION_HELP.into(),
    };
    format!("did you mean `{number}{meant}`?")
}

fn size_unit_help(number: u64, unit: &str) -> String {
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "ki" | "kib" | "kb" => "KiB",
        "m" | "mi" | "mib" | "mb" => "MiB",
        "g" | "gi" | "gib" | "gb" => "GiB",
        "t" | "ti" | "tib" | "tb" => "TiB",
        _ => return SIZE_HELP.into(),
    };
    format!("did you mean `{number}{meant}`?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds() {
        for (text, ms) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("3650d", 315_360_000_000),
            ("1h30m", 5_400_000),
            ("0", 0),
            ("0s", 0),
            ("-5s", -5_000),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn a_duration_that_is_none_says_what_was_meant() {
        for (text, help) in [
            ("24", "`24s`, `24m`, `24h`"),
            ("24 hours", "`24h`"),
            ("5min", "`5m`"),
            ("2w", "`14d`"),
            ("10H", "`10h`"),
            ("", "are written"),
            ("h", "are written"),
            ("1.5h", "are written"),
            ("-", "are written"),
            ("soon", "are written"),
            ("99999999999999999d", "longer than time"),
            ("99999999999999999999s", "are written"),
        ] {
            let error = duration_ms(text).unwrap_err();
            assert!(error.contains(help), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_bytes() {
        for (text, bytes) in [
            ("4GiB", 4 << 30),
            ("32MiB", 32 << 20),
            ("32 MiB", 32 << 20),
            ("500MB", 500_000_000),
            ("17", 17),
            ("1B", 1),
        ] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_none_says_what_was_meant() {
        for (text, help) in [
            ("4G", "`4GiB`"),
            ("4gib", "`4GiB`"),
            ("32 megabytes", "are written"),
            ("", "are written"),
            ("1.5GiB", "are written"),
            ("-1", "are written"),
            ("99999999999TiB", "more than can be counted"),
        ] {
            let error = size_bytes(text).unwrap_err();
            assert!(error.contains(help), "{text}: {error}");
        }
    }
}
