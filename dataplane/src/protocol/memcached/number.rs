//! Decimal numbers, as memcached reads them.

/// An unsigned number of decimal digits, with an optional `+`; `None` for anything else, and beyond 64 bits.
#[inline]
#[must_use]
pub fn parse_u64(token: &[u8]) -> Option<u64> {
    let digits = token.strip_prefix(b"+").unwrap_or(token);
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// As [`parse_u64`], within 32 bits.
#[inline]
#[must_use]
pub fn parse_u32(token: &[u8]) -> Option<u32> {
    u32::try_from(parse_u64(token)?).ok()
}

/// A number with an optional sign, within 64 bits.
#[inline]
#[must_use]
pub fn parse_i64(token: &[u8]) -> Option<i64> {
    match token.strip_prefix(b"-") {
        Some(digits) if digits.first() != Some(&b'+') => 0i64.checked_sub_unsigned(parse_u64(digits)?),
        Some(_) => None,
        None => i64::try_from(parse_u64(token)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_end_where_their_type_does() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_u32(b"4294967296"), None);
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"-9223372036854775809"), None);
        assert_eq!(parse_i64(b"9223372036854775808"), None);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for token in
            [&b""[..], b"-", b"+", b"--1", b"-+1", b"++1", b"1 ", b" 1", b"0x1", b"1.0", b"1e3", b"\xb2"]
        {
            assert_eq!(parse_i64(token), None, "{token:?}");
            assert_eq!(parse_u64(token), None, "{token:?}");
        }
        assert_eq!(parse_u64(b"-1"), None);
        assert_eq!(parse_u64(b"+17"), Some(17));
        assert_eq!(parse_u64(b"007"), Some(7));
    }

    proptest! {
        #[test]
        fn reading_agrees_with_the_standard_library(text in "[+-]?[0-9]{0,21}") {
            prop_assert_eq!(parse_u64(text.as_bytes()), text.parse::<u64>().ok());
            prop_assert_eq!(parse_i64(text.as_bytes()), text.parse::<i64>().ok());
        }
    }
}
