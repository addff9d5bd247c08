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
    let mut value: i64 = 0;
    let mut point = usize::MAX;
    for (at, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
        } else if byte == b'.' && point == usize::MAX && at > 0 {
            point = at;
        } else {
            return None;
        }
    }
    let fraction = if point == usize::MAX {
        if digits.len() > 18 {
            return None;
        }
        0
    } else {
        digits.len() - 1 - point
    };
    if point != usize::MAX && fraction == 0 {
        return None;
    }
    Some((if negative { -value } else { value }, fraction as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::number::Decimal;

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
