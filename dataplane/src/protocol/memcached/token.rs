//! Lines and the words in them.
//!
//! A line ends with LF or CR LF. Words are separated by spaces and by nothing else, as memcached has it.

use crate::limits::KEY_BYTES_MAX;

/// One line out of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line without its end.
    pub text: &'a [u8],
    /// Bytes of the buffer it takes up, its end included.
    pub bytes: usize,
}

impl<'a> Line<'a> {
    /// The first line of `buffer`; `None` while its end is not there.
    #[inline]
    #[must_use]
    pub fn first(buffer: &'a [u8]) -> Option<Self> {
        let end = find(buffer, b'\n')?;
        let text = &buffer[..end];
        Some(Self { text: text.strip_suffix(b"\r").unwrap_or(text), bytes: end + 1 })
    }
}

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// The high bit of each byte that is zero. Above the lowest such byte others may be marked falsely, so what it
/// tells is whether there is one, and which is the first.
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Eight bytes from `start` on.
#[inline]
fn word_at(bytes: &[u8], start: usize) -> u64 {
    u64::from_le_bytes(bytes[start..start + 8].try_into().expect("a range of eight"))
}

/// Where a byte is first. Eight bytes at a time: lines and words are too short for more to pay. The last eight are
/// looked at together, whether or not some of them were looked at before.
#[inline]
fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    let Some(last) = bytes.len().checked_sub(8) else {
        return bytes.iter().position(|&byte| byte == wanted);
    };
    let pattern = ONES * wanted as u64;
    let mut start = 0;
    loop {
        let found = zero_bytes(word_at(bytes, start) ^ pattern);
        if found != 0 {
            return Some(start + found.trailing_zeros() as usize / 8);
        }
        if start == last {
            return None;
        }
        start = (start + 8).min(last);
    }
}

/// The words of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// The words of `text`.
    #[inline]
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// What is left of the text.
    #[inline]
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let mut start = 0;
        while self.rest.get(start) == Some(&b' ') {
            start += 1;
        }
        let text = &self.rest[start..];
        if text.is_empty() {
            self.rest = text;
            return None;
        }
        let end = find(text, b' ').unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        self.rest = rest;
        Some(token)
    }
}

/// Whether a word can be a key: 1 to 250 bytes, none of them a control character. (It has no space, being a
/// word. protocol.txt, "Keys".)
#[inline]
#[must_use]
pub fn is_key(token: &[u8]) -> bool {
    let is_clean = |byte: u8| byte > b' ' && byte != 0x7f;
    let Some(last) = token.len().checked_sub(8) else {
        return !token.is_empty() && token.iter().all(|&byte| is_clean(byte));
    };
    if token.len() > KEY_BYTES_MAX {
        return false;
    }
    // As `find` goes; a byte below 0x21 borrows into its high bit.
    let mut start = 0;
    loop {
        let word = word_at(token, start);
        let controls = word.wrapping_sub(ONES * 0x21) & !word & HIGHS;
        if (controls | zero_bytes(word ^ (ONES * 0x7f))) != 0 {
            return false;
        }
        if start == last {
            return true;
        }
        start = (start + 8).min(last);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_loses_one_carriage_return() {
        assert_eq!(Line::first(b"get a\r\nx"), Some(Line { text: b"get a", bytes: 7 }));
        assert_eq!(Line::first(b"get a\n"), Some(Line { text: b"get a", bytes: 6 }));
        assert_eq!(Line::first(b"a\r\r\n"), Some(Line { text: b"a\r", bytes: 4 }));
        assert_eq!(Line::first(b"\n"), Some(Line { text: b"", bytes: 1 }));
        assert_eq!(Line::first(b"get a\r"), None);
        assert_eq!(Line::first(b""), None);
    }

    #[test]
    fn only_spaces_separate() {
        let words: Vec<_> = Tokens::new(b"  set\tx  k ").collect();
        assert_eq!(words, [&b"set\tx"[..], b"k"]);
    }

    #[test]
    fn keys_are_short_and_printable() {
        assert!(is_key(&[b'k'; 250]));
        assert!(is_key("schlüssel".as_bytes()));
        assert!(!is_key(&[b'k'; 251]));
        for key in [&b""[..], b"a\0b", b"a\tb", b"a\rb", b"a\x7fb"] {
            assert!(!is_key(key), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn a_byte_is_found_where_it_is_first(
            buffer in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(0x0b), Just(0x8a), any::<u8>()], 0..64),
        ) {
            prop_assert_eq!(find(&buffer, b'\n'), buffer.iter().position(|&byte| byte == b'\n'));
        }

        #[test]
        fn a_key_is_what_has_no_control_character(
            mut key in proptest::collection::vec(b'!'..=0x7e, 0..260), at: prop::sample::Index, byte: u8,
        ) {
            if !key.is_empty() {
                let at = at.index(key.len());
                key[at] = byte;
            }
            let plain = key.iter().all(|&byte| byte > b' ' && byte != 0x7f) && (1..=250).contains(&key.len());
            prop_assert_eq!(is_key(&key), plain);
        }

        #[test]
        fn words_agree_with_split(text in "[ ab\t]{0,40}") {
            let expected: Vec<_> = text.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes).collect();
            prop_assert_eq!(Tokens::new(text.as_bytes()).collect::<Vec<_>>(), expected);
        }
    }
}
