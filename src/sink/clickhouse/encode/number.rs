//! The fast way for ordinary numbers: at most 18 digits, no exponent. All others go to `codec::number`.

/// Powers of ten that fit i64.
const POW10: [i64; 19] = {
    let mut powers = [1i64; 19];
    let mut at = 1;
    while at < 19 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// Ten to the `exponent`, up to 18.
#[inline]
pub fn pow10(exponent: u32) -> i64 {
    POW10[exponent as usize]
}

/// A number of at most 18 digits without an exponent, as its digits and how many of them stand behind the point.
/// `None`: not of that form; ask the exact functions.
#[inline(always)]
pub fn small(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 || (digits[0] == b'0' && digits.len() > 1 && digits[1] != b'.') {
        return None;
    }
    let (whole, rest) = run(digits);
    let count = digits.len() - rest.len();
    let (value, fraction) = match rest {
        [] if count <= 18 => (whole, 0),
        [b'.', tail @ ..] if count > 0 => {
            let (value, fraction) = small_digits(tail)?;
            (whole * pow10(fraction) + value, fraction)
        }
        _ => return None,
    };
    Some((if negative { -value } else { value }, fraction))
}

/// The nearest float of an ordinary number: digits and power of ten are both exact in a double, so that the one
/// division rounds once (Clinger's fast path).
#[inline(always)]
pub fn small_float(text: &[u8]) -> Option<f64> {
    let (value, fraction) = small(text)?;
    // Negative zero has no integer.
    let exact = value.unsigned_abs() < 1 << 53 && (value != 0 || text[0] != b'-');
    exact.then(|| value as f64 / pow10(fraction) as f64)
}

/// One to 17 digits and nothing else: their value and count.
#[inline(always)]
pub fn small_digits(digits: &[u8]) -> Option<(i64, u32)> {
    let (value, rest) = run(digits);
    (rest.is_empty() && (1..18).contains(&digits.len())).then_some((value, digits.len() as u32))
}

/// The value of the digits at the start (19 at most are right), and what follows them.
#[inline(always)]
fn run(mut text: &[u8]) -> (i64, &[u8]) {
    let mut value: i64 = 0;
    while let Some((eight, rest)) = text.split_first_chunk::<8>() {
        let Some(next) = eight_digits(u64::from_le_bytes(*eight)) else { break };
        value = value.wrapping_mul(100_000_000).wrapping_add(next);
        text = rest;
    }
    while let [byte, rest @ ..] = text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
        text = rest;
    }
    (value, text)
}

/// Eight ASCII digits at once, the first in the lowest byte: neighbours are joined into pairs, fours, eight.
#[inline(always)]
fn eight_digits(chunk: u64) -> Option<i64> {
    let low = chunk ^ 0x3030_3030_3030_3030;
    if (low.wrapping_add(0x0606_0606_0606_0606) | low) & 0xf0f0_f0f0_f0f0_f0f0 != 0 {
        return None;
    }
    let pairs = (low.wrapping_mul(10) + (low >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::number::Decimal;

    #[test]
    fn the_fast_float_is_the_nearest_one() {
        for text in ["0", "0.1", "-2.5", "123.456", "9007199254740991", "0.00000000000000001", "3.14159265358979"] {
            assert_eq!(small_float(text.as_bytes()).map(f64::to_bits), text.parse().ok().map(f64::to_bits), "{text}");
        }
        assert_eq!(small_float(b"9007199254740993"), None);
        assert_eq!(small_float(b"-0"), None);
    }

    #[test]
    fn the_fast_way_agrees_with_the_exact_one() {
        for text in ["0", "7", "-7", "12.34", "-0.5", "999999999999999999", "0.00000000000000001", "1.10"] {
            let (value, fraction) = small(text.as_bytes()).expect(text);
            let exact = Decimal::parse(text.as_bytes()).and_then(|exact| exact.decimal_i128(38, fraction).ok());
            assert_eq!(exact, Some(i128::from(value)), "{text}");
        }
        for text in [
            "1234567890123456789",
            "0.000000000000000001",
            "1e3",
            "007",
            "+5",
            " 5 ",
            "",
            "-",
            "1.",
            ".5",
            "5 ",
            "1.2.3",
            "-.5",
        ] {
            assert_eq!(small(text.as_bytes()), None, "{text}");
        }
    }
}
