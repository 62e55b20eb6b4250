//! Decimal fractions, as `INCRBYFLOAT` adds them.
//!
//! Redis adds binary numbers of 64 bits and prints 17 digits behind the point, so that some sums end in digits nobody
//! asked for. Here the digits themselves are added: what is told is the sum. What both can hold exactly is the same in
//! both.

use crate::protocol::digits::{U64_DIGITS_MAX, format_u64};

/// Digits behind the point.
const FRACTION_DIGITS: u32 = 17;

/// One, in units of the last digit.
const ONE: u128 = 10u128.pow(FRACTION_DIGITS);

/// Digits that are read; those of a longer number behind them are zeros of a size that changes nothing.
const DIGITS_MAX: u32 = 38;

/// Most bytes of a number's text: a sign, the digits, a point.
pub const TEXT_BYTES_MAX: usize = 1 + 22 + 1 + FRACTION_DIGITS as usize;

/// A number of up to 21 digits in front of the point and 17 behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal(i128);

/// Why a text is no such number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDecimal {
    /// It is none.
    Invalid,
    /// It is infinite.
    Infinite,
    /// It has too many digits in front of the point.
    TooLong,
}

/// Largest number, in units of the last digit: 21 digits in front of the point.
const LIMIT: u128 = 10u128.pow(21) * ONE;

const _: () = assert!(LIMIT < i128::MAX as u128);

impl Decimal {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads what C's `strtold` reads of all of a text: a sign, digits with a point, an exponent. Digits behind the
    /// seventeenth of the fraction are rounded.
    ///
    /// # Errors
    /// [`NotDecimal`].
    pub fn parse(text: &[u8]) -> Result<Self, NotDecimal> {
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] | rest => (false, rest),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Err(NotDecimal::Infinite);
        }
        let mut mantissa = 0u128;
        let (mut digits, mut digits_read) = (0, 0u32);
        // The power of ten of the mantissa's last digit.
        let mut power = 0i64;
        let mut fraction = false;
        let mut at = 0;
        loop {
            match text.get(at) {
                Some(digit @ b'0'..=b'9') => {
                    digits += 1;
                    if digits_read < DIGITS_MAX {
                        mantissa = mantissa * 10 + u128::from(digit - b'0');
                        digits_read += u32::from(mantissa > 0);
                        power -= i64::from(fraction);
                    } else {
                        power += i64::from(!fraction);
                    }
                }
                Some(b'.') if !fraction => fraction = true,
                _ => break,
            }
            at += 1;
        }
        if digits == 0 {
            return Err(NotDecimal::Invalid);
        }
        let power = power.saturating_add(exponent(&text[at..])?);
        let units = scaled(mantissa, power.saturating_add(i64::from(FRACTION_DIGITS)))?;
        let units = i128::try_from(units).map_err(|_| NotDecimal::TooLong)?;
        Ok(Self(if negative { -units } else { units }))
    }

    /// The sum.
    ///
    /// # Errors
    /// [`NotDecimal::TooLong`].
    pub fn plus(self, other: Self) -> Result<Self, NotDecimal> {
        let sum = self.0.checked_add(other.0).filter(|sum| sum.unsigned_abs() < LIMIT);
        sum.map(Self).ok_or(NotDecimal::TooLong)
    }

    /// Writes its text, without zeros at the end of the fraction.
    #[must_use]
    pub fn format(self, text: &mut [u8; TEXT_BYTES_MAX]) -> &[u8] {
        let (whole, mut fraction) = (self.0.unsigned_abs() / ONE, (self.0.unsigned_abs() % ONE) as u64);
        let mut length = 0;
        let mut push = |bytes: &[u8]| {
            text[length..length + bytes.len()].copy_from_slice(bytes);
            length += bytes.len();
        };
        if self.0 < 0 {
            push(b"-");
        }
        let mut buffer = [0; U64_DIGITS_MAX];
        // Two halves, each of which fits 64 bits.
        const HALF: u128 = 10u128.pow(12);
        if whole >= HALF {
            push(format_u64((whole / HALF) as u64, &mut buffer));
            push(&digits_of::<12>((whole % HALF) as u64));
        } else {
            push(format_u64(whole as u64, &mut buffer));
        }
        if fraction > 0 {
            push(b".");
            let mut digits = FRACTION_DIGITS as usize;
            while fraction % 10 == 0 {
                fraction /= 10;
                digits -= 1;
            }
            let all = digits_of::<{ FRACTION_DIGITS as usize }>(fraction);
            push(&all[all.len() - digits..]);
        }
        &text[..length]
    }
}

/// So many digits, zeros in front.
fn digits_of<const N: usize>(mut number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// `e`, a sign, digits; nothing is 0.
fn exponent(text: &[u8]) -> Result<i64, NotDecimal> {
    let (negative, digits) = match text {
        [] => return Ok(0),
        [b'e' | b'E', b'-', digits @ ..] => (true, digits),
        [b'e' | b'E', b'+', digits @ ..] | [b'e' | b'E', digits @ ..] => (false, digits),
        _ => return Err(NotDecimal::Invalid),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NotDecimal::Invalid);
    }
    let magnitude = digits
        .iter()
        .fold(0i64, |number, digit| number.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Ok(if negative { -magnitude } else { magnitude })
}

/// A mantissa times a power of ten, rounded to the nearest.
fn scaled(mantissa: u128, power: i64) -> Result<u128, NotDecimal> {
    if mantissa == 0 {
        return Ok(0);
    }
    let factor = u32::try_from(power.unsigned_abs()).ok().and_then(|power| 10u128.checked_pow(power));
    let units = match (power < 0, factor) {
        (false, Some(factor)) => mantissa.checked_mul(factor).ok_or(NotDecimal::TooLong)?,
        (false, None) => return Err(NotDecimal::TooLong),
        (true, Some(factor)) => mantissa / factor + u128::from(mantissa % factor >= factor.div_ceil(2)),
        (true, None) => 0,
    };
    if units < LIMIT { Ok(units) } else { Err(NotDecimal::TooLong) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(number: Decimal) -> String {
        String::from_utf8_lossy(number.format(&mut [0; TEXT_BYTES_MAX])).into_owned()
    }

    fn sum(left: &str, right: &str) -> Result<String, NotDecimal> {
        let (left, right) = (Decimal::parse(left.as_bytes())?, Decimal::parse(right.as_bytes())?);
        left.plus(right).map(text)
    }

    #[test]
    fn sums_are_the_sums_of_the_digits() {
        assert_eq!(sum("10.50", "0.1").as_deref(), Ok("10.6"));
        assert_eq!(sum("0.1", "0.2").as_deref(), Ok("0.3"));
        assert_eq!(sum("5.0e3", "2.0e2").as_deref(), Ok("5200"));
        assert_eq!(sum("1", "-1").as_deref(), Ok("0"));
        assert_eq!(sum("-1.5", "0.25").as_deref(), Ok("-1.25"));
        assert_eq!(sum(".5", "5.").as_deref(), Ok("5.5"));
        assert_eq!(sum("-0", "0").as_deref(), Ok("0"));
        assert_eq!(
            sum("9223372036854775807", "0.00000000000000001").as_deref(),
            Ok("9223372036854775807.00000000000000001")
        );
        assert_eq!(sum("999999999999999999999", "0").as_deref(), Ok("999999999999999999999"));
        assert_eq!(sum("1000000000000", "0.5").as_deref(), Ok("1000000000000.5"));
        assert_eq!(sum("999999999999999999999", "1"), Err(NotDecimal::TooLong));
        assert_eq!(sum("1e-18", "0").as_deref(), Ok("0"));
        assert_eq!(sum("5e-18", "0").as_deref(), Ok("0.00000000000000001"));
        assert_eq!(sum("1e21", "0"), Err(NotDecimal::TooLong));
        assert_eq!(sum("1e99999999999999999999", "0"), Err(NotDecimal::TooLong));
        assert_eq!(sum("1e-99999999999999999999", "0").as_deref(), Ok("0"));
        assert_eq!(sum("0e99999999999999999999", "0").as_deref(), Ok("0"));
        assert_eq!(sum("-Infinity", "0"), Err(NotDecimal::Infinite));
        for wrong in
            ["", "-", "+", ".", "e5", "1e", "1e+", "1 ", " 1", "1.2.3", "0x10", "nan", "--1", "1e5.0"]
        {
            assert_eq!(sum(wrong, "0"), Err(NotDecimal::Invalid), "{wrong:?}");
        }
    }

    #[test]
    fn long_texts_are_read_to_their_end() {
        let zeros = "0".repeat(5000);
        assert_eq!(sum(&format!("{zeros}1.5{zeros}"), "0").as_deref(), Ok("1.5"));
        assert_eq!(sum(&format!("0.{zeros}1"), "0").as_deref(), Ok("0"));
        assert_eq!(sum(&format!("1{zeros}"), "0"), Err(NotDecimal::TooLong));
        assert_eq!(sum(&format!("1{zeros}e-5000"), "0").as_deref(), Ok("1"));
        assert_eq!(sum(&format!("1{zeros}x"), "0"), Err(NotDecimal::Invalid));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(units in -(LIMIT as i128 - 1)..LIMIT as i128) {
            let number = Decimal(units);
            prop_assert_eq!(Decimal::parse(text(number).as_bytes()), Ok(number));
        }
    }
}
