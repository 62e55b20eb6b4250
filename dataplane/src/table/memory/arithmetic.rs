//! Arithmetic on numbers stored as decimal digits.

use super::record::Meta;
use super::{Found, KeyHash, MemoryTable, record, seconds};
use crate::request::{Arithmetic, Direction, Recache, Reply};
use crate::time::Now;

/// Characters of the longest 64-bit number, a sign included.
const DIGITS_MAX: usize = 20;

impl MemoryTable {
    pub(super) fn arithmetic(
        &mut self,
        now: Now,
        hash: KeyHash,
        key: &[u8],
        request: &Arithmetic,
    ) -> Reply<'_> {
        let mut digits = [0; DIGITS_MAX];
        let Some(found) = self.find(now, hash, key) else {
            let Some((initial, expiry)) = request.initial else { return Reply::NotFound };
            let value = format(initial, &mut digits);
            if !self.takes(key, value.len()) {
                return Reply::TooLarge;
            }
            let meta = Meta { expiry, ..self.new_meta(now, request.new_cas) };
            let offset = self.insert(now, hash, &meta, key, value);
            let word = self.arena.word(offset);
            return Reply::Value(self.item(now, offset, word, word, Recache::None));
        };
        let bytes = self.arena.at(found.offset);
        let old = Meta::read(bytes, found.word);
        if request.compare_cas.is_some_and(|cas| cas != old.cas) {
            return Reply::Exists;
        }
        let Some(number) = parse(record::value(bytes, found.word)) else { return Reply::NotANumber };
        let number = match request.direction {
            Direction::Increment => number.wrapping_add(request.delta),
            Direction::Decrement => number.saturating_sub(request.delta),
        };
        let meta = Meta { expiry: request.touch.unwrap_or(old.expiry), ..old };
        self.write_number(now, found, meta, request.new_cas, key, format(number, &mut digits))
    }

    pub(super) fn add(&mut self, now: Now, hash: KeyHash, key: &[u8], delta: i64) -> Reply<'_> {
        let mut digits = [0; DIGITS_MAX];
        let Some(found) = self.find(now, hash, key) else {
            let value = format_signed(delta, &mut digits);
            if !self.takes(key, value.len()) {
                return Reply::TooLarge;
            }
            let meta = self.new_meta(now, None);
            let offset = self.insert(now, hash, &meta, key, value);
            let word = self.arena.word(offset);
            return Reply::Value(self.item(now, offset, word, word, Recache::None));
        };
        let bytes = self.arena.at(found.offset);
        let meta = Meta::read(bytes, found.word);
        let Some(number) = parse_signed(record::value(bytes, found.word)) else { return Reply::NotANumber };
        let Some(sum) = number.checked_add(delta) else { return Reply::Overflow };
        self.write_number(now, found, meta, None, key, format_signed(sum, &mut digits))
    }

    /// Writes a number over another; `meta` is the item's but for what the request changes in it.
    fn write_number(
        &mut self,
        now: Now,
        found: Found,
        meta: Meta,
        new_cas: Option<u64>,
        key: &[u8],
        value: &[u8],
    ) -> Reply<'_> {
        if !self.takes(key, value.len()) {
            return Reply::TooLarge;
        }
        let used = found.word.accessed(seconds(now));
        let meta = Meta { cas: self.next_cas(new_cas), access_s: seconds(now), clock: used.clock(), ..meta };
        let offset = self.overwrite(now, found, &meta, key, value);
        Reply::Value(self.item(now, offset, self.arena.word(offset), found.word, Recache::None))
    }
}

/// The signed number that a value spells as Redis does: no sign but a minus, no leading zeros, no `-0`.
fn parse_signed(value: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match value {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.first()? == &b'0' && (is_negative || digits.len() > 1) {
        return None;
    }
    let magnitude = parse(digits)?;
    if is_negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// As [`format`], with a minus before a negative number.
fn format_signed(number: i64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let count = format(number.unsigned_abs(), digits).len();
    let mut at = DIGITS_MAX - count;
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    &digits[at..]
}

/// The number that 1 to 20 digits make, if 64 bits hold it.
fn parse(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > DIGITS_MAX {
        return None;
    }
    value.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Writes a number's digits to the end of `digits` and returns them.
fn format(mut number: u64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(parse(b"0"), Some(0));
        assert_eq!(parse(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"000000000000000000001", b"1 ", b" 1", b"-1", b"1a"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn signed_numbers_are_spelt_in_one_way() {
        for number in [0, 7, -7, 10, i64::MAX, i64::MIN] {
            let text = number.to_string();
            assert_eq!(parse_signed(text.as_bytes()), Some(number));
            assert_eq!(format_signed(number, &mut [0; DIGITS_MAX]), text.as_bytes());
        }
        for bad in
            ["", "-", "-0", "00", "01", "+1", " 1", "1 ", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(parse_signed(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_written_without_leading_zeros() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            assert_eq!(format(number, &mut [0; DIGITS_MAX]), number.to_string().as_bytes());
        }
    }
}
