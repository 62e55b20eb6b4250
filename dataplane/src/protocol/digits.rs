//! Decimal digits, as every protocol writes them.

/// Digits of the largest `u64`.
pub const U64_DIGITS_MAX: usize = 20;

/// Two digits for each number below 100: halves the divisions of printing.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Writes a number's digits at the end of `buffer` and returns them.
#[inline]
#[must_use]
pub fn format_u64(value: u64, buffer: &mut [u8; U64_DIGITS_MAX]) -> &[u8] {
    let mut rest = value;
    let mut start = U64_DIGITS_MAX;
    while rest >= 100 {
        start -= 2;
        buffer[start..start + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    if rest >= 10 {
        start -= 2;
        buffer[start..start + 2].copy_from_slice(&PAIRS[rest as usize]);
    } else {
        start -= 1;
        buffer[start] = b'0' + rest as u8;
    }
    &buffer[start..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn printing_agrees_with_the_standard_library(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut buffer = [0; U64_DIGITS_MAX];
            prop_assert_eq!(std::str::from_utf8(format_u64(value, &mut buffer)), Ok(&value.to_string()[..]));
        }
    }
}
