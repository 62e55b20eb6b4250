//! One message out of a buffer: a command line and, for a store, its value block.
//!
//! [`parse`] keeps no state, so that a datagram and a byte stream use the same code. A stream's reader calls it
//! again with more bytes after [`Parsed::Incomplete`], and drops [`ProtocolError::skip_bytes`] bytes, which may
//! be more than it holds, after [`Parsed::Invalid`]: that is how the value of a refused store is swallowed.

use super::classic;
use super::command::{Command, MetaKey};
use super::meta;
use super::token::{Line, Tokens};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Longest line of a command other than a read of many keys (memcached's own bound).
pub const LINE_BYTES_MAX: usize = 2048;

/// Longest line of a `get`, `gets`, `gat` or `gats`: the largest datagram fits.
pub const GET_LINE_BYTES_MAX: usize = 1 << 16;

/// Longest message: a line, a value and the value's end.
pub const MESSAGE_BYTES_MAX: usize = GET_LINE_BYTES_MAX + VALUE_BYTES_MAX + VALUE_END.len();

/// What follows a value.
pub(super) const VALUE_END: &[u8] = b"\r\n";

const _: () = assert!(LINE_BYTES_MAX > 2 * KEY_BYTES_MAX && GET_LINE_BYTES_MAX > LINE_BYTES_MAX);

/// What was found at the start of a buffer.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'a> {
    /// A command, and the bytes of the buffer it takes up with its value.
    Command(Command<'a>, usize),
    /// More bytes are needed.
    Incomplete(Incomplete),
    /// No command, or one that must not be carried out.
    Invalid(ProtocolError<'a>),
}

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomplete {
    /// The end of the line.
    Line,
    /// The rest of the value.
    Value {
        /// Bytes of the whole message.
        bytes: usize,
        /// `noreply`: errors are not told either.
        quiet: bool,
    },
}

/// Why a message is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError<'a> {
    /// memcached's own line for it, with its end.
    pub line: &'static [u8],
    /// Bytes to drop before the next message; may be more than the buffer holds.
    pub skip_bytes: usize,
    /// The client asked for no reply.
    pub quiet: bool,
    /// Nothing behind it can be understood: a stream closes.
    pub fatal: bool,
    /// A `set` that is too large: the item it was to replace must go, so that nobody reads a value that its
    /// writer believes replaced.
    pub evict: Option<MetaKey<'a>>,
}

/// Every line that refuses a message, as memcached 1.6 words them.
pub mod error_lines {
    /// An unknown command, or a wrong number of words.
    pub const ERROR: &[u8] = b"ERROR\r\n";
    /// A key or a number that is none.
    pub const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
    /// A value that does not end where its length says.
    pub const BAD_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
    /// A line without an end.
    pub const LINE_TOO_LONG: &[u8] = b"CLIENT_ERROR line too long\r\n";
    /// A value beyond the item limit.
    pub const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
    /// `gat`, `touch`, `flush_all`: no number.
    pub const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
    /// `incr`, `decr`: no number.
    pub const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";
    /// `delete` with more words than it takes.
    pub const DELETE_USAGE: &[u8] =
        b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
    /// A meta flag twice, or one that is not ASCII.
    pub const DUPLICATE_FLAG: &[u8] = b"CLIENT_ERROR duplicate flag\r\n";
    /// A meta flag that does not exist.
    pub const INVALID_FLAG: &[u8] = b"CLIENT_ERROR invalid flag\r\n";
    /// `md`, `ma`: whatever is wrong with the flags.
    pub const INVALID_OR_DUPLICATE_FLAG: &[u8] = b"CLIENT_ERROR invalid or duplicate flag\r\n";
    /// A meta flag whose number is none.
    pub const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";
    /// A meta key that is no base64.
    pub const BAD_BASE64: &[u8] = b"CLIENT_ERROR error decoding key\r\n";
    /// `M` with more or less than one character.
    pub const BAD_MODE_LENGTH: &[u8] = b"CLIENT_ERROR incorrect length for M token\r\n";
    /// `ms` with a mode that does not exist.
    pub const BAD_STORE_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ms M token\r\n";
    /// `ma` with a mode that does not exist.
    pub const BAD_ARITHMETIC_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ma M token\r\n";
    /// `J`: no number.
    pub const BAD_INITIAL: &[u8] = b"CLIENT_ERROR invalid numeric initial value\r\n";
    /// `D`: no number.
    pub const BAD_META_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta value\r\n";
    /// An opaque beyond 32 bytes, its flag included.
    pub const OPAQUE_TOO_LONG: &[u8] = b"CLIENT_ERROR opaque token too long\r\n";
    /// More flags than memcached takes, for `mg`.
    pub const FLAGS_ARE_TOO_LONG: &[u8] = b"CLIENT_ERROR options flags are too long\r\n";
    /// More flags than memcached takes, for the other meta commands.
    pub const FLAGS_TOO_LONG: &[u8] = b"CLIENT_ERROR options flags too long\r\n";
}
use error_lines::{BAD_CHUNK, ERROR, LINE_TOO_LONG, TOO_LARGE};

/// A complaint about a line, before it is known what to skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) line: &'static [u8],
    pub(super) quiet: bool,
}

impl From<&'static [u8]> for Refusal {
    fn from(line: &'static [u8]) -> Self {
        Self { line, quiet: false }
    }
}

/// Why a store has no value.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoValue<'a> {
    Incomplete(Incomplete),
    Refused(ProtocolError<'a>),
}

impl<'a> From<NoValue<'a>> for Parsed<'a> {
    fn from(reason: NoValue<'a>) -> Self {
        match reason {
            NoValue::Incomplete(incomplete) => Self::Incomplete(incomplete),
            NoValue::Refused(error) => Self::Invalid(error),
        }
    }
}

/// Parses the message at the start of `buffer`. `item_bytes_max` bounds key and value together.
#[inline]
#[must_use]
pub fn parse(buffer: &[u8], item_bytes_max: usize) -> Parsed<'_> {
    let Some(line) = Line::first(buffer) else { return unfinished_line(buffer) };
    let mut words = Tokens::new(line.text);
    let name = words.next().unwrap_or_default();
    // Seldom: few lines are longer than the shorter limit.
    if line.bytes > LINE_BYTES_MAX && line.bytes > line_bytes_max(buffer) {
        return too_long(buffer);
    }
    let message = Message { buffer, line, item_bytes_max };
    match name {
        b"get" => message.without_value(classic::get(words, false)),
        b"gets" => message.without_value(classic::get(words, true)),
        b"mg" => message.without_value(meta::get(words)),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => {
            classic::store(message, name, words)
        }
        b"ms" => meta::store(message, words),
        b"md" => message.without_value(meta::delete(words)),
        b"ma" => message.without_value(meta::arithmetic(words)),
        b"me" => message.without_value(meta::debug(words)),
        b"mn" => message.without_value(Ok(Command::MetaNoop)),
        _ => message.without_value(classic::other(name, words)),
    }
}

/// Longest line that may stand at the start of `buffer`. Only what every shorter line could hold is looked at for the
/// name, so that a line is judged alike whether or not its end is there.
#[cold]
pub(super) fn line_bytes_max(buffer: &[u8]) -> usize {
    let name = Tokens::new(&buffer[..buffer.len().min(LINE_BYTES_MAX)]).next().unwrap_or_default();
    if matches!(name, b"get" | b"gets" | b"gat" | b"gats") { GET_LINE_BYTES_MAX } else { LINE_BYTES_MAX }
}

#[cold]
fn unfinished_line(buffer: &[u8]) -> Parsed<'_> {
    if buffer.len() < line_bytes_max(buffer) {
        Parsed::Incomplete(Incomplete::Line)
    } else {
        too_long(buffer)
    }
}

#[cold]
fn too_long(buffer: &[u8]) -> Parsed<'_> {
    Parsed::Invalid(ProtocolError {
        line: LINE_TOO_LONG,
        skip_bytes: buffer.len(),
        quiet: false,
        fatal: true,
        evict: None,
    })
}

/// A line and the buffer it came from.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    buffer: &'a [u8],
    line: Line<'a>,
    item_bytes_max: usize,
}

impl<'a> Message<'a> {
    /// A command that is its line.
    #[inline]
    pub(super) fn without_value(self, command: Result<Command<'a>, Refusal>) -> Parsed<'a> {
        match command {
            Ok(command) => Parsed::Command(command, self.line.bytes),
            Err(refusal) => self.refuse(refusal, 0),
        }
    }

    /// A refused line, with a value of this length behind it to be swallowed (`None`: the line does not say).
    #[cold]
    pub(super) fn refuse_with_value(self, refusal: Refusal, value_bytes: Option<usize>) -> Parsed<'a> {
        self.refuse(refusal, value_bytes.map_or(0, |bytes| bytes + VALUE_END.len()))
    }

    #[cold]
    fn refuse(self, refusal: Refusal, more_bytes: usize) -> Parsed<'a> {
        // What a web browser was tricked into sending: nothing in it is meant for us.
        let is_http = refusal.line == ERROR
            && Tokens::new(self.line.text).last().is_some_and(|word| word.starts_with(b"HTTP/"));
        Parsed::Invalid(ProtocolError {
            line: refusal.line,
            skip_bytes: self.line.bytes + more_bytes,
            quiet: refusal.quiet,
            fatal: is_http,
            evict: None,
        })
    }

    /// The value behind the line, and the bytes of the whole message. `replaces`: see [`ProtocolError::evict`].
    #[inline]
    pub(super) fn value(
        self,
        key: MetaKey<'a>,
        value_bytes: usize,
        quiet: bool,
        replaces: bool,
    ) -> Result<(&'a [u8], usize), NoValue<'a>> {
        let start = self.line.bytes;
        let end = start + value_bytes;
        let message_bytes = end + VALUE_END.len();
        let refuse =
            |line, evict| ProtocolError { line, skip_bytes: message_bytes, quiet, fatal: false, evict };
        if value_bytes > VALUE_BYTES_MAX || key.word.len() + value_bytes > self.item_bytes_max {
            return Err(NoValue::Refused(refuse(TOO_LARGE, replaces.then_some(key))));
        }
        match self.buffer.get(start..message_bytes) {
            None => Err(NoValue::Incomplete(Incomplete::Value { bytes: message_bytes, quiet })),
            Some(block) if block.ends_with(VALUE_END) => Ok((&self.buffer[start..end], message_bytes)),
            Some(_) => Err(NoValue::Refused(refuse(BAD_CHUNK, None))),
        }
    }
}

/// The length of a value, as a store's line has it; memcached keeps room for the value's end in 31 bits.
#[inline]
pub(super) fn value_length(word: &[u8]) -> Option<usize> {
    let length = super::number::parse_u64(word)?;
    (length <= i32::MAX as u64 - VALUE_END.len() as u64).then_some(length as usize)
}
