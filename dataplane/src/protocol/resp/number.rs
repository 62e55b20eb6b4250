//! Integers, as Redis reads them: one spelling for each.

use crate::protocol::digits::{U64_DIGITS_MAX, format_u64};

/// Characters of the longest integer, its sign included.
pub const I64_BYTES_MAX: usize = 20;

/// A 64-bit integer of decimal digits, a minus before a negative one; `None` for anything else: a plus, leading zeros,
/// spaces, and numbers beyond 64 bits.
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_negative = digits.len() < text.len();
    match digits {
        [] => return None,
        [b'0'] if !is_negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let magnitude = digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    if is_negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// Writes an integer to the end of `buffer` and returns it.
#[must_use]
pub fn format_i64(number: i64, buffer: &mut [u8; I64_BYTES_MAX]) -> &[u8] {
    let mut digits = [0; U64_DIGITS_MAX];
    let digits = format_u64(number.unsigned_abs(), &mut digits);
    let mut at = I64_BYTES_MAX - digits.len();
    buffer[at..].copy_from_slice(digits);
    if number < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

/// An unsigned number of 64 bits as C's `strtoul` reads one that is all of a text: a sign of either kind, leading zeros.
/// A negative one wraps around.
#[must_use]
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        // All that `strtoul` reads of an empty text is nothing, and that is all there is.
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_read_as_c_does() {
        assert_eq!(parse_cursor(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_cursor(b"18446744073709551616"), None);
        assert_eq!(parse_cursor(b"-1"), Some(u64::MAX));
        assert_eq!(parse_cursor(b"+007"), Some(7));
        assert_eq!(parse_cursor(b"1x"), None);
        assert_eq!(parse_cursor(b"-"), None);
    }

    #[test]
    fn an_integer_has_one_spelling() {
        for bad in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: i64, shift in 0u32..64) {
            for number in [number >> shift, i64::MIN, i64::MAX, 0] {
                let mut buffer = [0; I64_BYTES_MAX];
                let text = format_i64(number, &mut buffer);
                prop_assert_eq!(std::str::from_utf8(text), Ok(&number.to_string()[..]));
                prop_assert_eq!(parse_i64(text), Some(number));
            }
        }
    }
}
