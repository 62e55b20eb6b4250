//! Inline requests: a line of words, as a person types it. A word may be quoted; in double quotes `\n`, `\r`, `\t`,
//! `\b`, `\a`, `\xHH` and `\` before any other character mean what they mean in Redis, in single quotes `\'` does. A NUL is
//! a byte like others; Redis finds no end to a line that has one.

use super::LINE_BYTES_MAX;

/// Bytes before a word's own: its length.
const LENGTH_BYTES: usize = 4;

/// Room for the words of the longest line: a word of one byte needs a space behind it, or quotes around it.
const WORDS_BYTES_MAX: usize = LINE_BYTES_MAX + LINE_BYTES_MAX.div_ceil(2) * LENGTH_BYTES;

/// Where the words of an inline request lie once their quotes are taken off: one a worker, allocated once.
#[derive(Debug)]
pub struct Scratch {
    bytes: Box<[u8]>,
    length: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { bytes: vec![0; WORDS_BYTES_MAX].into_boxed_slice(), length: 0 }
    }
}

/// The quotes of a line do not pair, or a quoted word does not end with its quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbalanced;

impl Scratch {
    /// Takes the words of a line, without its end; returns how many there are.
    ///
    /// # Errors
    /// [`Unbalanced`].
    pub(super) fn fill(&mut self, line: &[u8]) -> Result<u32, Unbalanced> {
        assert!(line.len() <= LINE_BYTES_MAX, "a line of {} bytes reached the scratch", line.len());
        let mut rest = line;
        let mut count = 0;
        self.length = 0;
        loop {
            while let [first, behind @ ..] = rest
                && is_space(*first)
            {
                rest = behind;
            }
            if rest.is_empty() {
                return Ok(count);
            }
            let start = self.length;
            self.length += LENGTH_BYTES;
            rest = self.word(rest)?;
            let word_bytes = (self.length - start - LENGTH_BYTES) as u32;
            self.bytes[start..start + LENGTH_BYTES].copy_from_slice(&word_bytes.to_le_bytes());
            count += 1;
        }
    }

    /// All words, each behind its length.
    pub(super) fn words(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// Takes one word; returns what is behind it.
    fn word<'l>(&mut self, mut rest: &'l [u8]) -> Result<&'l [u8], Unbalanced> {
        loop {
            match rest {
                [] => return Ok(rest),
                [first, ..] if is_space(*first) => return Ok(rest),
                [b'"', behind @ ..] => return self.double_quoted(behind),
                [b'\'', behind @ ..] => return self.single_quoted(behind),
                [first, behind @ ..] => {
                    self.push(*first);
                    rest = behind;
                }
            }
        }
    }

    fn double_quoted<'l>(&mut self, mut rest: &'l [u8]) -> Result<&'l [u8], Unbalanced> {
        loop {
            rest = match rest {
                [] => return Err(Unbalanced),
                [b'"', behind @ ..] => return ends_word(behind),
                [b'\\', b'x', high, low, behind @ ..]
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    self.push(hex(*high) << 4 | hex(*low));
                    behind
                }
                [b'\\', escaped, behind @ ..] => {
                    self.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 0x08,
                        b'a' => 0x07,
                        other => *other,
                    });
                    behind
                }
                [first, behind @ ..] => {
                    self.push(*first);
                    behind
                }
            }
        }
    }

    fn single_quoted<'l>(&mut self, mut rest: &'l [u8]) -> Result<&'l [u8], Unbalanced> {
        loop {
            rest = match rest {
                [] => return Err(Unbalanced),
                [b'\\', b'\'', behind @ ..] => {
                    self.push(b'\'');
                    behind
                }
                [b'\'', behind @ ..] => return ends_word(behind),
                [first, behind @ ..] => {
                    self.push(*first);
                    behind
                }
            }
        }
    }
}

/// The next of the words that [`Scratch::words`] gave, and those behind it.
pub(super) fn next_word(words: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = words.split_first_chunk::<LENGTH_BYTES>()?;
    Some(rest.split_at(u32::from_le_bytes(*length) as usize))
}

/// A closing quote ends its word.
fn ends_word(rest: &[u8]) -> Result<&[u8], Unbalanced> {
    match rest.first() {
        Some(&byte) if !is_space(byte) => Err(Unbalanced),
        _ => Ok(rest),
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let mut scratch = Scratch::default();
        let count = scratch.fill(line)?;
        let mut found = Vec::new();
        let mut rest = scratch.words();
        while let Some((word, behind)) = next_word(rest) {
            found.push(word.to_vec());
            rest = behind;
        }
        assert_eq!(found.len(), count as usize);
        Ok(found)
    }

    #[test]
    fn quotes_and_escapes() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b" \t ", &[]),
            (b"set a b", &[b"set", b"a", b"b"]),
            (b"  set\ta\x0bb ", &[b"set", b"a", b"b"]),
            (b"a \"b c\" 'd e'", &[b"a", b"b c", b"d e"]),
            (b"a\"b c\"", &[b"ab c"]),
            (b"\"\" ''", &[b"", b""]),
            (br#""\x41\n\r\t\b\a\"\\\q\x4""#, &[b"A\n\r\t\x08\x07\"\\qx4"]),
            (br"'it\'s \n'", &[br"it's \n"]),
            (b"a\0 b", &[b"a\0", b"b"]),
        ];
        for (line, expected) in cases {
            assert_eq!(
                words(line).as_deref(),
                Ok(&expected.iter().map(|word| word.to_vec()).collect::<Vec<_>>()[..]),
                "{}",
                line.escape_ascii()
            );
        }
        for line in [&b"\"a"[..], b"'a", b"\"a\"b", b"'a'b", b"a\"", b"\"a\\\"", b"\"a\\"] {
            assert_eq!(words(line), Err(Unbalanced), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn the_longest_lines_have_room() {
        assert_eq!(words(&b"a ".repeat(LINE_BYTES_MAX / 2)).map(|words| words.len()), Ok(LINE_BYTES_MAX / 2));
        assert_eq!(
            words(&b"'' ".repeat(LINE_BYTES_MAX / 3)).map(|words| words.len()),
            Ok(LINE_BYTES_MAX / 3)
        );
        assert_eq!(words(&vec![b'a'; LINE_BYTES_MAX]).map(|words| words[0].len()), Ok(LINE_BYTES_MAX));
    }
}
