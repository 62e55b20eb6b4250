//! Replies, as RESP 2 and RESP 3 write them.
//!
//! What version 3 has and version 2 lacks is written as Redis does for clients of version 2: a map as an array of keys
//! and values, a null as a null bulk string, a boolean as 1 or 0.

use super::number::{I64_BYTES_MAX, format_i64};
use super::parse::ProtocolError;
use crate::service::Output;

/// Which version a connection speaks; it begins with the second and asks for another with `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// RESP 2.
    #[default]
    Two,
    /// RESP 3.
    Three,
}

impl Version {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// Bytes around a bulk string: a mark, its length, and two line ends.
pub const BULK_FRAME_BYTES_MAX: usize = 1 + I64_BYTES_MAX + 2 + 2;

/// Bytes of the head of an aggregate, of an integer, and of everything else that is one number.
pub const NUMBER_BYTES_MAX: usize = 1 + I64_BYTES_MAX + 2;

/// Writes replies to an output. There has to be room: each reply's bytes are bounded by the constants above, its text,
/// and what it is made of.
#[derive(Debug)]
pub struct Encoder<'o, O: ?Sized> {
    output: &'o mut O,
    version: Version,
}

impl<'o, O: Output + ?Sized> Encoder<'o, O> {
    /// An encoder for a connection of this version.
    pub fn new(output: &'o mut O, version: Version) -> Self {
        Self { output, version }
    }

    /// From here on, another version.
    pub fn switch(&mut self, version: Version) {
        self.version = version;
    }

    /// Where it writes to.
    pub fn output(&mut self) -> &mut O {
        self.output
    }

    /// Bytes there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.output.room()
    }

    /// Bytes there is room for at most, once all has gone.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.output.capacity()
    }

    /// `OK`
    pub fn ok(&mut self) {
        self.output.push(b"+OK\r\n");
    }

    /// A status, such as `OK`: one line, which the caller knows to have no end in it.
    pub fn simple(&mut self, status: &str) {
        debug_assert!(!status.contains(['\r', '\n']), "a status of two lines");
        self.line(b"+", status.as_bytes());
    }

    /// An error: a code in capitals and words, such as `ERR syntax error`. Line ends in it become spaces, as it may
    /// repeat what a client sent.
    pub fn error(&mut self, text: &[u8]) {
        self.output.push(b"-");
        for piece in text.split_inclusive(|byte| matches!(byte, b'\r' | b'\n')) {
            match piece.split_last() {
                Some((b'\r' | b'\n', before)) => {
                    self.output.push(before);
                    self.output.push(b" ");
                }
                _ => self.output.push(piece),
            }
        }
        self.output.push(b"\r\n");
    }

    /// The error that closes a connection.
    pub fn protocol_error(&mut self, error: ProtocolError) {
        struct Pushed<'p, O: ?Sized>(&'p mut O);
        impl<O: Output + ?Sized> std::fmt::Write for Pushed<'_, O> {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                self.0.push(text.as_bytes());
                Ok(())
            }
        }
        self.output.push(b"-ERR Protocol error: ");
        match error {
            // The byte itself: its text would be two where it is no ASCII.
            ProtocolError::NoBulk(byte) => {
                self.output.push(b"expected '$', got '");
                self.output.push(&[if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }]);
                self.output.push(b"'");
            }
            error => {
                // Pushing does not fail.
                let _ = std::fmt::Write::write_fmt(&mut Pushed(self.output), format_args!("{error}"));
            }
        }
        self.output.push(b"\r\n");
    }

    /// A count.
    pub fn count(&mut self, count: usize) {
        self.number(b":", count as i64);
    }

    /// An integer.
    pub fn integer(&mut self, number: i64) {
        self.number(b":", number);
    }

    /// A string of any bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.number(b"$", bytes.len() as i64);
        self.output.push(bytes);
        self.output.push(b"\r\n");
    }

    /// An integer as a string.
    pub fn bulk_integer(&mut self, number: i64) {
        self.bulk(format_i64(number, &mut [0; I64_BYTES_MAX]));
    }

    /// Nothing, where there could be a string.
    pub fn null(&mut self) {
        self.output.push(match self.version {
            Version::Two => b"$-1\r\n",
            Version::Three => b"_\r\n",
        });
    }

    /// Nothing, where there could be an array.
    pub fn null_array(&mut self) {
        self.output.push(match self.version {
            Version::Two => b"*-1\r\n",
            Version::Three => b"_\r\n",
        });
    }

    /// The head of an array; its elements follow.
    pub fn array(&mut self, elements: usize) {
        self.number(b"*", elements as i64);
    }

    /// The head of a map; so many keys follow, each with its value behind it.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Two => self.array(2 * pairs),
            Version::Three => self.number(b"%", pairs as i64),
        }
    }

    /// The head of a set; its elements follow.
    pub fn set(&mut self, elements: usize) {
        match self.version {
            Version::Two => self.array(elements),
            Version::Three => self.number(b"~", elements as i64),
        }
    }

    /// Yes or no.
    pub fn boolean(&mut self, value: bool) {
        match self.version {
            Version::Two => self.integer(i64::from(value)),
            Version::Three => self.output.push(if value { b"#t\r\n" } else { b"#f\r\n" }),
        }
    }

    /// A text for people, such as that of `INFO`.
    pub fn text(&mut self, text: &[u8]) {
        const FORMAT: &[u8] = b"txt:";
        match self.version {
            Version::Two => self.bulk(text),
            Version::Three => {
                self.number(b"=", (FORMAT.len() + text.len()) as i64);
                self.output.push(FORMAT);
                self.output.push(text);
                self.output.push(b"\r\n");
            }
        }
    }

    fn number(&mut self, mark: &[u8; 1], number: i64) {
        let mut digits = [0; I64_BYTES_MAX];
        let digits = format_i64(number, &mut digits);
        // In one piece: an output is asked once.
        let mut line = [0; NUMBER_BYTES_MAX];
        let end = 1 + digits.len();
        line[..1].copy_from_slice(mark);
        line[1..end].copy_from_slice(digits);
        line[end..end + 2].copy_from_slice(b"\r\n");
        self.output.push(&line[..end + 2]);
    }

    fn line(&mut self, mark: &[u8; 1], text: &[u8]) {
        self.output.push(mark);
        self.output.push(text);
        self.output.push(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::memcached::reply::ReplyBuffer;

    fn encoded(version: Version, write: fn(&mut Encoder<'_, ReplyBuffer>)) -> String {
        let mut buffer = ReplyBuffer::new(1024);
        write(&mut Encoder::new(&mut buffer, version));
        assert!(!buffer.overflowed());
        buffer.as_bytes().escape_ascii().to_string()
    }

    /// Checks one reply, in version 2 and in version 3.
    fn check(write: fn(&mut Encoder<'_, ReplyBuffer>), two: &[u8], three: &[u8]) {
        assert_eq!(encoded(Version::Two, write), two.escape_ascii().to_string());
        assert_eq!(encoded(Version::Three, write), three.escape_ascii().to_string());
    }

    fn check_same(write: fn(&mut Encoder<'_, ReplyBuffer>), expected: &[u8]) {
        check(write, expected, expected);
    }

    #[test]
    fn what_both_versions_write_alike() {
        check_same(|reply| reply.simple("OK"), b"+OK\r\n");
        check_same(|reply| reply.integer(-5), b":-5\r\n");
        check_same(|reply| reply.bulk(b""), b"$0\r\n\r\n");
        check_same(|reply| reply.bulk(b"a\r\n\0"), b"$4\r\na\r\n\0\r\n");
        check_same(|reply| reply.bulk_integer(i64::MIN), b"$20\r\n-9223372036854775808\r\n");
        check_same(|reply| reply.array(3), b"*3\r\n");
    }

    #[test]
    fn what_version_three_has_of_its_own() {
        check(|reply| reply.null(), b"$-1\r\n", b"_\r\n");
        check(|reply| reply.null_array(), b"*-1\r\n", b"_\r\n");
        check(|reply| reply.map(2), b"*4\r\n", b"%2\r\n");
        check(|reply| reply.set(2), b"*2\r\n", b"~2\r\n");
        check(|reply| reply.boolean(true), b":1\r\n", b"#t\r\n");
        check(|reply| reply.boolean(false), b":0\r\n", b"#f\r\n");
        check(|reply| reply.text(b"x"), b"$1\r\nx\r\n", b"=5\r\ntxt:x\r\n");
    }

    #[test]
    fn an_error_is_one_line_whatever_it_repeats() {
        check_same(|reply| reply.error(b"ERR no such\r\nkey"), b"-ERR no such  key\r\n");
        check_same(
            |reply| reply.protocol_error(ProtocolError::NoBulk(0xe9)),
            b"-ERR Protocol error: expected '$', got '\xe9'\r\n",
        );
        check_same(
            |reply| reply.protocol_error(ProtocolError::NoBulk(b'\n')),
            b"-ERR Protocol error: expected '$', got ' '\r\n",
        );
        check_same(
            |reply| reply.protocol_error(ProtocolError::Length),
            b"-ERR Protocol error: invalid bulk length\r\n",
        );
    }
}
