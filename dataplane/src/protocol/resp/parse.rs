//! One request out of a buffer: an array of bulk strings, or an inline line.
//!
//! ```text
//! *2\r\n$3\r\nGET\r\n$3\r\nkey\r\n          GET key\r\n
//! ```
//! As in Redis, the two bytes behind a bulk string are skipped unread, and a count of none or less is no request.

use super::inline::{self, Scratch, Unbalanced};
use super::number::parse_i64;
use super::swallow::{Swallow, TooLarge};
use super::{
    ARGUMENTS_MAX, BULK_BYTES_MAX, LINE_BYTES_MAX, NUMBER_LINE_BYTES_MAX, REQUEST_BYTES_MAX,
    SWALLOWED_BYTES_MAX,
};
use crate::limits::KEY_BYTES_MAX;

/// Bytes of a line's end, and behind a bulk string.
pub(super) const END_BYTES: usize = 2;

/// Fewest bytes of an argument: `$0`, and two ends.
const ARGUMENT_BYTES_MIN: usize = 2 + 2 * END_BYTES;

/// What was found at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A request, and the bytes of the buffer it takes up.
    Request(Arguments<'a>, usize),
    /// So many bytes that ask for nothing.
    Nothing(usize),
    /// There is something to do once there are so many bytes.
    Incomplete(usize),
    /// So many bytes of a request that is larger than is kept, and what is to be done with the rest of it.
    TooLarge(Swallow, usize),
    /// No request, and nothing behind it can be understood: the connection closes after the error.
    Invalid(ProtocolError),
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// More than [`LINE_BYTES_MAX`] bytes without an end.
    #[error("too big inline request")]
    InlineTooLong,
    /// Quotes that do not pair.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A count of more than [`NUMBER_LINE_BYTES_MAX`] bytes.
    #[error("too big mbulk count string")]
    CountTooLong,
    /// A count that is no number, or more than [`ARGUMENTS_MAX`].
    #[error("invalid multibulk length")]
    Count,
    /// A length of more than [`NUMBER_LINE_BYTES_MAX`] bytes.
    #[error("too big bulk count string")]
    LengthTooLong,
    /// Something else than a bulk string in a request; its first byte.
    #[error("expected '$', got '{}'", printable(*.0))]
    NoBulk(u8),
    /// A length that is no number, negative, or more than [`SWALLOWED_BYTES_MAX`].
    #[error("invalid bulk length")]
    Length,
}

/// An error is one line.
fn printable(byte: u8) -> char {
    if matches!(byte, b'\r' | b'\n') { ' ' } else { char::from(byte) }
}

/// How far a request has been read that is not whole yet, so that what has come is not read again for every byte more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes before the first argument that is not whole; 0 before the request.
    at: u32,
    /// Bytes before the first argument.
    first_at: u32,
    /// Arguments there are.
    count: u32,
    /// Arguments that are not whole.
    left: u32,
}

/// A request's arguments, the command's name first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments<'a> {
    form: Form,
    rest: &'a [u8],
    left: u32,
}

/// How arguments lie in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As bulk strings, which the parser has seen to be whole.
    Bulk,
    /// As the words of a [`Scratch`].
    Words,
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (argument, rest) = match self.form {
            Form::Words => inline::next_word(self.rest)?,
            Form::Bulk => {
                let (length, line_bytes) = match short_length(self.rest) {
                    Some(short) => short,
                    None => {
                        let line = Line::first(self.rest)?;
                        (usize::try_from(parse_i64(line.text.get(1..)?)?).ok()?, line.bytes)
                    }
                };
                let (argument, behind) = self.rest.get(line_bytes..)?.split_at_checked(length)?;
                (argument, behind.get(END_BYTES..)?)
            }
        };
        self.rest = rest;
        Some(argument)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Arguments<'_> {}

impl<'a> Arguments<'a> {
    /// What is left of the bulk strings of a request that was parsed before.
    pub(super) fn left_of(rest: &'a [u8], left: usize) -> Self {
        Self { form: Form::Bulk, rest, left: left as u32 }
    }

    /// Bytes of the buffer that those have that are left; `None` for the words of an inline request, which lie elsewhere.
    #[must_use]
    pub fn left_bytes(&self) -> Option<usize> {
        (self.form == Form::Bulk).then_some(self.rest.len())
    }

    /// The next two.
    pub fn next_pair(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        Some((self.next()?, self.next()?))
    }
}

/// A line that ends with a carriage return and whatever byte follows, as Redis has it.
struct Line<'a> {
    text: &'a [u8],
    bytes: usize,
}

impl<'a> Line<'a> {
    fn first(buffer: &'a [u8]) -> Option<Self> {
        let end = buffer.iter().take(NUMBER_LINE_BYTES_MAX + 1).position(|&byte| byte == b'\r')?;
        (end + END_BYTES <= buffer.len()).then(|| Self { text: &buffer[..end], bytes: end + END_BYTES })
    }

    /// A line, or what is to be done without one.
    fn read(buffer: &'a [u8], too_long: ProtocolError) -> Result<Self, Unread> {
        Self::first(buffer).ok_or(if buffer.len() > NUMBER_LINE_BYTES_MAX + END_BYTES {
            Unread::Invalid(too_long)
        } else {
            Unread::Incomplete(buffer.len() + 1)
        })
    }
}

/// The length of a bulk string and the bytes of its line, where that is as short as nearly all are.
#[inline]
fn short_length(buffer: &[u8]) -> Option<(usize, usize)> {
    let digit =
        |at: usize| Some(buffer.get(at)?.wrapping_sub(b'0')).filter(|digit| *digit < 10).map(usize::from);
    if buffer.first() != Some(&b'$') {
        return None;
    }
    let mut length = digit(1)?;
    let mut at = 2;
    // Digits that cannot overflow; a zero in front is no length.
    while let Some(digit) = digit(at).filter(|_| length > 0 && at < 7) {
        length = length * 10 + digit;
        at += 1;
    }
    let end = at + END_BYTES;
    (buffer.get(at) == Some(&b'\r') && end <= buffer.len() && length <= BULK_BYTES_MAX)
        .then_some((length, end))
}

/// The second argument of the first request: the key of every command that has one first. Only requests as clients write
/// them are looked at, arrays of bulk strings with short headers.
#[inline]
pub(super) fn key_hint(input: &[u8]) -> Option<&[u8]> {
    let [b'*', rest @ ..] = input else { return None };
    let bulk = rest.get(rest.iter().take(4).position(|&byte| byte == b'\r')? + END_BYTES..)?;
    let (name_bytes, line_bytes) = short_length(bulk)?;
    let bulk = bulk.get(line_bytes + name_bytes + END_BYTES..)?;
    let (key_bytes, line_bytes) = short_length(bulk)?;
    bulk.get(line_bytes..line_bytes + key_bytes).filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
}

/// Why there is no request yet, or none at all. Bytes are counted from where it stopped.
pub(super) enum Unread {
    Incomplete(usize),
    Invalid(ProtocolError),
}

/// Parses the request at the start of `buffer`. `place` is how far it came the last time, when that found too little at
/// the same start; a new one for every request. Only an inline request uses `scratch`.
pub fn parse<'a>(buffer: &'a [u8], place: &mut Place, scratch: &'a mut Scratch) -> Parsed<'a> {
    match buffer.first() {
        None => Parsed::Incomplete(1),
        Some(b'*') => parse_array(buffer, place),
        Some(_) => parse_inline(buffer, place, scratch),
    }
}

fn parse_inline<'a>(buffer: &'a [u8], place: &mut Place, scratch: &'a mut Scratch) -> Parsed<'a> {
    let searched = place.at as usize;
    let news = buffer.get(searched..(LINE_BYTES_MAX + END_BYTES).min(buffer.len())).unwrap_or_default();
    let Some(end) = news.iter().position(|&byte| byte == b'\n').map(|end| searched + end) else {
        if buffer.len() >= LINE_BYTES_MAX + END_BYTES {
            return Parsed::Invalid(ProtocolError::InlineTooLong);
        }
        place.at = buffer.len() as u32;
        return Parsed::Incomplete(buffer.len() + 1);
    };
    *place = Place::default();
    let text = &buffer[..end];
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.len() > LINE_BYTES_MAX {
        return Parsed::Invalid(ProtocolError::InlineTooLong);
    }
    match scratch.fill(text) {
        Err(Unbalanced) => Parsed::Invalid(ProtocolError::UnbalancedQuotes),
        Ok(0) => Parsed::Nothing(end + 1),
        Ok(left) => Parsed::Request(Arguments { form: Form::Words, rest: scratch.words(), left }, end + 1),
    }
}

fn parse_array<'a>(buffer: &'a [u8], place: &mut Place) -> Parsed<'a> {
    if place.at == 0 {
        let line = match Line::read(buffer, ProtocolError::CountTooLong) {
            Ok(line) => line,
            Err(Unread::Incomplete(bytes)) => return Parsed::Incomplete(bytes),
            Err(Unread::Invalid(error)) => return Parsed::Invalid(error),
        };
        let count = match parse_i64(&line.text[1..]) {
            Some(..=0) => return Parsed::Nothing(line.bytes),
            Some(count) if count <= ARGUMENTS_MAX as i64 => count as u32,
            _ => return Parsed::Invalid(ProtocolError::Count),
        };
        let at = line.bytes as u32;
        if line.bytes + count as usize * ARGUMENT_BYTES_MIN > REQUEST_BYTES_MAX {
            return Parsed::TooLarge(Swallow::new(TooLarge::Request, 0, count), line.bytes);
        }
        *place = Place { at, first_at: at, count, left: count };
    }
    while place.left > 0 {
        let at = place.at as usize;
        let head = match Head::read(buffer.get(at..).unwrap_or_default()) {
            Ok(head) => head,
            Err(Unread::Invalid(error)) => return Parsed::Invalid(error),
            Err(Unread::Incomplete(bytes)) => return Parsed::Incomplete(at + bytes),
        };
        let end = at + head.line_bytes + head.argument_bytes + END_BYTES;
        // Judged as soon as the length is known, so that it does not depend on how the bytes arrive.
        let too_large = if head.argument_bytes > BULK_BYTES_MAX {
            Some(TooLarge::Argument)
        } else {
            (end + (place.left as usize - 1) * ARGUMENT_BYTES_MIN > REQUEST_BYTES_MAX)
                .then_some(TooLarge::Request)
        };
        if let Some(why) = too_large {
            let left = std::mem::take(place).left - 1;
            let swallow = Swallow::new(why, head.argument_bytes + END_BYTES, left);
            return Parsed::TooLarge(swallow, at + head.line_bytes);
        }
        if buffer.len() < end {
            // Not for those behind it too: one of them may be wrong, and is to be told when it has come.
            return Parsed::Incomplete(end);
        }
        place.at = end as u32;
        place.left -= 1;
    }
    let Place { at, first_at, count, .. } = std::mem::take(place);
    let (first, end) = (first_at as usize, at as usize);
    Parsed::Request(Arguments { form: Form::Bulk, rest: &buffer[first..end], left: count }, end)
}

/// The line in front of a bulk string.
pub(super) struct Head {
    /// Its own bytes.
    pub(super) line_bytes: usize,
    /// Those of the string, its end not included; at most [`SWALLOWED_BYTES_MAX`].
    pub(super) argument_bytes: usize,
}

impl Head {
    /// The one that begins `buffer`.
    #[inline]
    pub(super) fn read(buffer: &[u8]) -> Result<Self, Unread> {
        if let Some((argument_bytes, line_bytes)) = short_length(buffer) {
            return Ok(Self { line_bytes, argument_bytes });
        }
        let too_long = match buffer.first() {
            Some(&first) if first != b'$' => ProtocolError::NoBulk(first),
            _ => ProtocolError::LengthTooLong,
        };
        let line = Line::read(buffer, too_long)?;
        let length = match line.text.split_first() {
            Some((b'$', length)) => parse_i64(length),
            other => {
                return Err(Unread::Invalid(ProtocolError::NoBulk(other.map_or(b'\r', |(&first, _)| first))));
            }
        };
        match length.map(usize::try_from) {
            Some(Ok(argument_bytes)) if argument_bytes <= SWALLOWED_BYTES_MAX => {
                Ok(Self { line_bytes: line.bytes, argument_bytes })
            }
            _ => Err(Unread::Invalid(ProtocolError::Length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_the_first_key_where_there_is_one_and_never_more_than_a_key() {
        let long = [&b"*2\r\n$3\r\nGET\r\n$300\r\n"[..], &[b'k'; 300], b"\r\n"].concat();
        for (input, hint) in [
            (&b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n*1\r\n"[..], Some(&b"key"[..])),
            (b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$100\r\nvalue", Some(b"key")),
            (b"*1\r\n$4\r\nPING\r\n", None),
            (b"*2\r\n$3\r\nGET\r\n$3\r\nke", None),
            (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", None),
            (b"*2\r\n$30000\r\nGET", None),
            (b"*2\r\n$3", None),
            (b"*2222222\r\n", None),
            (b"GET key\r\n", None),
            (b"", None),
            (&long, None),
        ] {
            assert_eq!(key_hint(input), hint, "{}", input.escape_ascii());
        }
    }
}
