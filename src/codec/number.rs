//! Numbers as they are written: exact, whatever their size.
//!
//! Owns the reading of number texts (JSON's grammar). Promises: no number passes through a float on its way into
//! an integer, a decimal or a key, and no exponent costs memory: `1e999999999` is three facts, not a billion digits.

use ethnum::{I256, U256};
use std::cmp::Ordering;

/// The exact value of a number text: `±0.d₁d₂…dₙ × 10^point`, without leading or trailing zeros among the digits.
/// Zero has no digits (and no sign). Borrows the text.
#[derive(Clone, Copy, Debug)]
pub struct Decimal<'a> {
    negative: bool,
    /// Digits before the written point, then those behind it.
    head: &'a [u8],
    tail: &'a [u8],
    point: i64,
}

/// Why a number does not go into a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// Not a number by JSON's grammar (or an exponent of more than 18 digits).
    NotANumber,
    /// It has more digits behind the point than the type holds.
    Inexact,
    OutOfRange,
}

/// Exponents above this are no number to us; it leaves room to add lengths without overflow.
const EXPONENT_DIGITS_MAX: usize = 18;

impl<'a> Decimal<'a> {
    /// Reads a number by JSON's grammar: no sign but `-`, no leading zeros, no blanks.
    pub fn parse(text: &'a [u8]) -> Option<Decimal<'a>> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (int, rest) = split_digits(rest);
        if int.is_empty() || (int.len() > 1 && int[0] == b'0') {
            return None;
        }
        let (frac, rest) = match rest {
            [b'.', rest @ ..] => match split_digits(rest) {
                ([], _) => return None,
                found => found,
            },
            rest => (&rest[..0], rest),
        };
        let zero = int == b"0" && frac.iter().all(|digit| *digit == b'0');
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => parse_exponent(rest, zero)?,
            _ => return None,
        };
        Some(Decimal::normal(negative, int, frac, exponent))
    }

    fn normal(negative: bool, int: &'a [u8], frac: &'a [u8], exponent: i64) -> Decimal<'a> {
        let head = trim_start(int);
        let mut point = head.len() as i64 + exponent;
        let mut tail = frac;
        if head.is_empty() {
            tail = trim_start(frac);
            point -= (frac.len() - tail.len()) as i64;
        }
        tail = trim_end(tail);
        let head = if tail.is_empty() { trim_end(head) } else { head };
        if head.is_empty() && tail.is_empty() {
            return Decimal { negative: false, head, tail, point: 0 };
        }
        Decimal { negative, head, tail, point }
    }

    pub fn is_zero(&self) -> bool {
        self.len() == 0
    }

    /// Whether the value is a whole number: `1.0` and `1e3` are.
    pub fn is_whole(&self) -> bool {
        self.len() <= self.point
    }

    fn len(&self) -> i64 {
        (self.head.len() + self.tail.len()) as i64
    }

    fn digits(&self) -> impl Iterator<Item = u8> + '_ {
        self.head.iter().chain(self.tail).map(|digit| digit - b'0')
    }

    /// |value| × 10^scale, which must be a whole number.
    pub fn scaled_u128(&self, scale: u32) -> Result<u128, Misfit> {
        let zeros = self.zeros_behind(scale, 39)?;
        let mut value = 0u128;
        for digit in self.digits() {
            value = value.checked_mul(10).and_then(|v| v.checked_add(digit as u128)).ok_or(Misfit::OutOfRange)?;
        }
        value.checked_mul(10u128.checked_pow(zeros).ok_or(Misfit::OutOfRange)?).ok_or(Misfit::OutOfRange)
    }

    /// |value| × 10^scale, which must be a whole number.
    pub fn scaled_u256(&self, scale: u32) -> Result<U256, Misfit> {
        let zeros = self.zeros_behind(scale, 78)?;
        let ten = U256::new(10);
        let mut value = U256::ZERO;
        for digit in self.digits() {
            value = value
                .checked_mul(ten)
                .and_then(|v| v.checked_add(U256::new(digit as u128)))
                .ok_or(Misfit::OutOfRange)?;
        }
        value.checked_mul(ten.checked_pow(zeros).ok_or(Misfit::OutOfRange)?).ok_or(Misfit::OutOfRange)
    }

    /// How many zeros follow the digits once the point has moved `scale` to the right.
    fn zeros_behind(&self, scale: u32, places_max: i64) -> Result<u32, Misfit> {
        if self.is_zero() {
            return Ok(0);
        }
        let places = self.point + scale as i64;
        if places < self.len() {
            return Err(Misfit::Inexact);
        }
        if places > places_max {
            return Err(Misfit::OutOfRange);
        }
        Ok((places - self.len()) as u32)
    }

    /// value × 10^scale rounded towards minus infinity; `None` where it leaves i128.
    pub fn floor_scaled(&self, scale: u32) -> Option<i128> {
        if self.is_zero() {
            return Some(0);
        }
        let places = self.point + scale as i64;
        if places > 38 {
            return None;
        }
        let kept = places.clamp(0, self.len());
        let mut value = 0i128;
        for digit in self.digits().take(kept as usize) {
            value = value.checked_mul(10)?.checked_add(digit as i128)?;
        }
        value = value.checked_mul(10i128.checked_pow((places - kept).max(0) as u32)?)?;
        let cut = kept < self.len();
        Some(match self.negative {
            true => -value - cut as i128,
            false => value,
        })
    }

    /// value × 10^scale as a signed number of at most `precision` (up to 38) digits.
    pub fn decimal_i128(&self, precision: u32, scale: u32) -> Result<i128, Misfit> {
        self.check_precision(precision, scale)?;
        let value = i128::try_from(self.scaled_u128(scale)?).map_err(|_| Misfit::OutOfRange)?;
        Ok(if self.negative { -value } else { value })
    }

    /// value × 10^scale as a signed number of at most `precision` (up to 76) digits.
    pub fn decimal_i256(&self, precision: u32, scale: u32) -> Result<I256, Misfit> {
        self.check_precision(precision, scale)?;
        let value = self.scaled_u256(scale)?.as_i256();
        Ok(if self.negative { -value } else { value })
    }

    fn check_precision(&self, precision: u32, scale: u32) -> Result<(), Misfit> {
        if self.is_zero() {
            return Ok(());
        }
        let places = self.point + scale as i64;
        if places < self.len() {
            return Err(Misfit::Inexact);
        }
        if places > precision as i64 { Err(Misfit::OutOfRange) } else { Ok(()) }
    }

    /// Hands the canonical form to `write`: equal for equal values, prefix-free (the 0xff ends the digits).
    pub fn canonical(&self, mut write: impl FnMut(&[u8])) {
        let mut head = [0u8; 9];
        head[0] = self.is_zero() as u8 | (self.negative as u8) << 1;
        head[1..].copy_from_slice(&self.point.to_le_bytes());
        write(&head);
        write(self.head);
        write(self.tail);
        write(&[0xff]);
    }

    /// Compares by value.
    pub fn compare(&self, other: &Decimal<'_>) -> Ordering {
        match (self.sign(), other.sign()) {
            (1, 1) => self.compare_magnitude(other),
            (-1, -1) => other.compare_magnitude(self),
            (left, right) => left.cmp(&right),
        }
    }

    fn sign(&self) -> i8 {
        match (self.is_zero(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    fn compare_magnitude(&self, other: &Decimal<'_>) -> Ordering {
        // Neither is zero, so the higher point is the higher value, and digits compare as text.
        self.point.cmp(&other.point).then_with(|| self.digits().cmp(other.digits()))
    }
}

macro_rules! integers {
    ($($name:ident, $type:ty, signed: $signed:literal;)*) => {$(
        #[doc = concat!("The number as `", stringify!($type), "`, by value: `1.0` and `1e3` are whole.")]
        pub fn $name(text: &[u8]) -> Result<$type, Misfit> {
            if let Some(value) = parse_short(text) {
                return <$type>::try_from(value).map_err(|_| Misfit::OutOfRange);
            }
            let number = Decimal::parse(text).ok_or(Misfit::NotANumber)?;
            let magnitude = number.scaled_u128(0)?;
            if !number.negative {
                return <$type>::try_from(magnitude).map_err(|_| Misfit::OutOfRange);
            }
            // The lowest value of a signed type has no positive twin.
            let lowest = (<$type>::MIN as i128).unsigned_abs();
            match magnitude {
                magnitude if $signed && magnitude == lowest => Ok(<$type>::MIN),
                magnitude if $signed && magnitude < lowest => Ok((magnitude as i128).wrapping_neg() as $type),
                _ => Err(Misfit::OutOfRange),
            }
        }
    )*};
}

integers! {
    to_i64, i64, signed: true;
    to_u64, u64, signed: false;
    to_i128, i128, signed: true;
    to_u128, u128, signed: false;
}

/// The number as a 256-bit integer, by value.
pub fn to_i256(text: &[u8]) -> Result<I256, Misfit> {
    let number = Decimal::parse(text).ok_or(Misfit::NotANumber)?;
    let magnitude = number.scaled_u256(0)?;
    let lowest = U256::ONE << 255;
    match number.negative {
        false if magnitude < lowest => Ok(magnitude.as_i256()),
        true if magnitude <= lowest => Ok(magnitude.as_i256().wrapping_neg()),
        _ => Err(Misfit::OutOfRange),
    }
}

/// The number as a 256-bit unsigned integer, by value.
pub fn to_u256(text: &[u8]) -> Result<U256, Misfit> {
    let number = Decimal::parse(text).ok_or(Misfit::NotANumber)?;
    if number.negative { Err(Misfit::OutOfRange) } else { number.scaled_u256(0) }
}

/// The nearest f64; a number beyond the range (1e400) does not fit.
pub fn to_f64(text: &[u8]) -> Result<f64, Misfit> {
    let value: f64 = checked_text(text)?.parse().map_err(|_| Misfit::NotANumber)?;
    if value.is_finite() { Ok(value) } else { Err(Misfit::OutOfRange) }
}

/// The nearest f32; rounded once, from the text.
pub fn to_f32(text: &[u8]) -> Result<f32, Misfit> {
    let value: f32 = checked_text(text)?.parse().map_err(|_| Misfit::NotANumber)?;
    if value.is_finite() { Ok(value) } else { Err(Misfit::OutOfRange) }
}

/// Compares two number texts by value; `None` where one is no number.
pub fn compare(left: &[u8], right: &[u8]) -> Option<Ordering> {
    Some(Decimal::parse(left)?.compare(&Decimal::parse(right)?))
}

/// A plain integer of up to 18 digits: nearly all of them.
#[inline]
fn parse_short(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || digits.len() > 18 || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + digit as i64;
    }
    Some(if negative { -value } else { value })
}

/// The text, if it is a number by JSON's grammar: Rust's own parser takes more (`inf`, `+5`, `.5`).
fn checked_text(text: &[u8]) -> Result<&str, Misfit> {
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let (int, rest) = split_digits(rest);
    if int.is_empty() || (int.len() > 1 && int[0] == b'0') {
        return Err(Misfit::NotANumber);
    }
    let rest = match rest {
        [b'.', rest @ ..] => match split_digits(rest) {
            ([], _) => return Err(Misfit::NotANumber),
            (_, rest) => rest,
        },
        rest => rest,
    };
    let ends_well = match rest {
        [] => true,
        [b'e' | b'E', rest @ ..] => {
            let rest = rest.strip_prefix(b"-").or(rest.strip_prefix(b"+")).unwrap_or(rest);
            !rest.is_empty() && rest.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    let text = std::str::from_utf8(text).map_err(|_| Misfit::NotANumber)?;
    if ends_well { Ok(text) } else { Err(Misfit::NotANumber) }
}

fn parse_exponent(text: &[u8], zero: bool) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if zero {
        return Some(0);
    }
    let digits = trim_start(digits);
    if digits.len() > EXPONENT_DIGITS_MAX {
        return None;
    }
    let value = digits.iter().fold(0i64, |value, digit| value * 10 + (digit - b'0') as i64);
    Some(if negative { -value } else { value })
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let len = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(len)
}

fn trim_start(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

fn trim_end(digits: &[u8]) -> &[u8] {
    let len = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    &digits[..len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> Vec<u8> {
        let mut form = Vec::new();
        Decimal::parse(text.as_bytes()).unwrap().canonical(|bytes| form.extend_from_slice(bytes));
        form
    }

    #[test]
    fn whole_numbers_are_integers_however_they_are_written() {
        for (text, value) in [("1.0", 1), ("1e3", 1000), ("-0", 0), ("10e-1", 1), ("-1.50e1", -15), ("0e5", 0)] {
            assert_eq!(to_i64(text.as_bytes()), Ok(value), "{text}");
        }
        assert_eq!(to_i64(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(to_i64(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(to_i64(b"9223372036854775808"), Err(Misfit::OutOfRange));
        assert_eq!(to_i64(b"-9223372036854775809"), Err(Misfit::OutOfRange));
        assert_eq!(to_u64(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(to_u64(b"-1"), Err(Misfit::OutOfRange));
        assert_eq!(to_u64(b"-0.0"), Ok(0));
        assert_eq!(to_i64(b"1.5"), Err(Misfit::Inexact));
        assert_eq!(to_i64(b"1e400"), Err(Misfit::OutOfRange));
        assert_eq!(to_i64(b"1e999999999"), Err(Misfit::OutOfRange));
        assert_eq!(to_i64(b"1e-999999999"), Err(Misfit::Inexact));
        assert_eq!(to_i128(b"-170141183460469231731687303715884105728"), Ok(i128::MIN));
        assert_eq!(to_u128(b"340282366920938463463374607431768211455"), Ok(u128::MAX));
        assert_eq!(to_u128(b"340282366920938463463374607431768211456"), Err(Misfit::OutOfRange));
        assert_eq!(to_u256(U256::MAX.to_string().as_bytes()), Ok(U256::MAX));
        assert_eq!(to_i256(I256::MIN.to_string().as_bytes()), Ok(I256::MIN));
        assert_eq!(to_i256(I256::MAX.to_string().as_bytes()), Ok(I256::MAX));
    }

    #[test]
    fn what_is_no_json_number_is_no_number() {
        for text in ["", "-", "+5", " 5 ", "007", "1.", ".5", "1e", "1e+", "NaN", "inf", "0x10", "1_000", "１"] {
            assert_eq!(to_i64(text.as_bytes()), Err(Misfit::NotANumber), "{text}");
            assert_eq!(to_f64(text.as_bytes()), Err(Misfit::NotANumber), "{text}");
        }
    }

    #[test]
    fn decimals_hold_a_value_exactly_or_not_at_all() {
        let decimal = |text: &str, p, s| Decimal::parse(text.as_bytes()).unwrap().decimal_i128(p, s);
        assert_eq!(decimal("1.000", 10, 2), Ok(100));
        assert_eq!(decimal("1.005", 10, 2), Err(Misfit::Inexact));
        assert_eq!(decimal("-12345678.90", 10, 2), Ok(-1234567890));
        assert_eq!(decimal("123456789", 10, 2), Err(Misfit::OutOfRange));
        assert_eq!(decimal("1e-2", 10, 2), Ok(1));
        assert_eq!(decimal("0.000", 1, 0), Ok(0));
        let wide = "9".repeat(76);
        let value = Decimal::parse(wide.as_bytes()).unwrap().decimal_i256(76, 0).unwrap();
        assert_eq!(value.to_string(), wide);
        let wider = "9".repeat(77);
        assert_eq!(Decimal::parse(wider.as_bytes()).unwrap().decimal_i256(76, 0), Err(Misfit::OutOfRange));
    }

    #[test]
    fn floats_take_the_nearest_and_nothing_beyond_the_range() {
        assert_eq!(to_f64(b"0.1"), Ok(0.1));
        assert_eq!(to_f64(b"1e400"), Err(Misfit::OutOfRange));
        assert_eq!(to_f64(b"1e-400"), Ok(0.0));
        assert_eq!(to_f32(b"1e39"), Err(Misfit::OutOfRange));
        assert_eq!(to_f32(b"0.1"), Ok(0.1f32));
        assert_eq!(to_f64(b"1e99999999999999999999999"), Err(Misfit::OutOfRange));
    }

    #[test]
    fn equal_values_have_one_canonical_form() {
        for texts in
            [vec!["1", "1.0", "1e0", "10e-1", "0.1e1"], vec!["0", "-0", "0.0", "0e99", "-0e99999999999999999999"]]
        {
            for text in &texts {
                assert_eq!(canonical(text), canonical(texts[0]), "{text}");
            }
        }
        assert_ne!(canonical("9007199254740993"), canonical("9007199254740992"));
        assert_ne!(canonical("1"), canonical("-1"));
        assert_ne!(canonical("1"), canonical("10"));
        assert_ne!(canonical("1e999999999"), canonical("1e999999998"));
    }

    #[test]
    fn floor_goes_down_also_below_zero() {
        let floor = |text: &str, scale| Decimal::parse(text.as_bytes()).unwrap().floor_scaled(scale);
        assert_eq!(floor("1.9999", 3), Some(1999));
        assert_eq!(floor("-1.9999", 3), Some(-2000));
        assert_eq!(floor("-0.0001", 3), Some(-1));
        assert_eq!(floor("1.7e9", 3), Some(1_700_000_000_000));
        assert_eq!(floor("-1e-999999", 3), Some(-1));
        assert_eq!(floor("1e999999", 3), None);
    }

    proptest! {
        #[test]
        fn integers_agree_with_rust(value in any::<i128>(), zeros in 0usize..3) {
            let plain = value.to_string();
            let pointed = format!("{plain}.{}", "0".repeat(zeros + 1));
            let shifted = format!("{plain}{}e-{zeros}", "0".repeat(zeros));
            for text in [&plain, &pointed, &shifted] {
                prop_assert_eq!(to_i128(text.as_bytes()), Ok(value));
                prop_assert_eq!(to_i64(text.as_bytes()).ok(), i64::try_from(value).ok());
                prop_assert_eq!(to_u64(text.as_bytes()).ok(), u64::try_from(value).ok());
                prop_assert_eq!(canonical(text), canonical(&plain));
            }
        }

        #[test]
        fn order_is_that_of_the_values(a in any::<i64>(), b in any::<i64>(), s in 0i32..20, t in 0i32..20) {
            // The oracle scales both to whole numbers of a width that holds them.
            let left = format!("{a}e-{s}");
            let right = format!("{b}e-{t}");
            let scale = |value: i64, by: i32| I256::from(value) * I256::from(10).pow(20 - by as u32);
            prop_assert_eq!(compare(left.as_bytes(), right.as_bytes()), Some(scale(a, s).cmp(&scale(b, t))));
            prop_assert_eq!(canonical(&left) == canonical(&right), scale(a, s) == scale(b, t));
        }
    }
}
