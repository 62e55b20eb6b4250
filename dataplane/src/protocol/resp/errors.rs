//! Errors in Redis's own words, and ours where Redis has none.

use super::Arguments;
use crate::limits::KEY_BYTES_MAX;
use crate::protocol::output::OutputExt as _;
use crate::service::Output;

/// Most bytes that an error repeats of a client's word, and of all its arguments.
const REPEATED_BYTES_MAX: usize = 128;

/// Errors that are always the same.
pub(super) mod texts {
    pub(in crate::protocol::resp) const SYNTAX: &str = "ERR syntax error";
    pub(in crate::protocol::resp) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
    pub(in crate::protocol::resp) const NOT_A_FLOAT: &str = "ERR value is not a valid float";
    pub(in crate::protocol::resp) const NAN_OR_INFINITY: &str = "ERR increment would produce NaN or Infinity";
    pub(in crate::protocol::resp) const FLOAT_TOO_LONG: &str =
        "ERR value is beyond the range of this server: 21 digits before the point";
    pub(in crate::protocol::resp) const OVERFLOW: &str = "ERR increment or decrement would overflow";
    pub(in crate::protocol::resp) const DECREMENT_OVERFLOW: &str = "ERR decrement would overflow";
    pub(in crate::protocol::resp) const OFFSET: &str = "ERR offset is out of range";
    pub(in crate::protocol::resp) const STRING_TOO_LONG: &str =
        "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    pub(in crate::protocol::resp) const REQUEST_TOO_LONG: &str =
        "ERR request is longer than this server takes: 2097152 bytes";
    pub(in crate::protocol::resp) const NO_SUCH_KEY: &str = "ERR no such key";
    pub(in crate::protocol::resp) const OUT_OF_MEMORY: &str =
        "OOM command not allowed when used memory > 'maxmemory'.";
    pub(in crate::protocol::resp) const DATABASE_INDEX: &str = "ERR DB index is out of range";
    pub(in crate::protocol::resp) const NOT_AN_INT: &str =
        "ERR value is out of range, value must between -2147483648 and 2147483647";
    pub(in crate::protocol::resp) const INVALID_CURSOR: &str = "ERR invalid cursor";
    pub(in crate::protocol::resp) const EXPIRE_NX: &str =
        "ERR NX and XX, GT or LT options at the same time are not compatible";
    pub(in crate::protocol::resp) const EXPIRE_GT_LT: &str =
        "ERR GT and LT options at the same time are not compatible";
    pub(in crate::protocol::resp) const NO_PROTOCOL: &str = "NOPROTO unsupported protocol version";
    pub(in crate::protocol::resp) const PROTOCOL_VERSION: &str =
        "ERR Protocol version is not an integer or out of range";
    pub(in crate::protocol::resp) const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default \
                                   user. Are you sure your configuration is correct?";
    pub(in crate::protocol::resp) const WRONG_PASSWORD: &str =
        "WRONGPASS invalid username-password pair or user is disabled.";
    pub(in crate::protocol::resp) const CLIENT_NAME: &str =
        "ERR Client names cannot contain spaces, newlines or special characters.";
    pub(in crate::protocol::resp) const CLIENT_NAME_TOO_LONG: &str =
        "ERR client name is longer than this server keeps: 64 bytes";
    pub(in crate::protocol::resp) const CLIENT_ID: &str = "ERR Invalid client ID";
    pub(in crate::protocol::resp) const PATTERN_TOO_LONG: &str =
        "ERR pattern is longer than this server matches: 1024 bytes";
    pub(in crate::protocol::resp) const TOO_MANY_KEYS: &str = "ERR too many keys for one reply: use SCAN";
    pub(in crate::protocol::resp) const REPLY_TOO_LARGE: &str =
        "ERR reply is larger than this connection's buffer";
    pub(in crate::protocol::resp) const PENDING: &str =
        "ERR the table answers later, which this service cannot wait for";
    pub(in crate::protocol::resp) const UNHANDLED: &str = "ERR the table refused the request";
}

/// What a request is refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error<'a> {
    /// All of the text, its first word included.
    Text(&'static str),
    /// An empty key, or one that is too long.
    KeyLength {
        /// What it has.
        bytes: usize,
    },
    /// Too many or too few arguments for this command.
    WrongArity(&'static str),
    /// A time to live that is none, for this command.
    ExpireTime(&'static str),
    /// No such command: its name, and what came with it.
    UnknownCommand(&'a [u8], Arguments<'a>),
    /// A container command has no such subcommand; the container's name in capitals.
    UnknownSubcommand(&'a [u8], &'static str),
    /// A word of the client's between two texts.
    Word(&'static str, &'a [u8], &'static str),
}

/// What a client sent, as an error may repeat it: up to the first zero byte, on one line.
fn push_word(output: &mut dyn Output, word: &[u8], bytes_max: usize) -> usize {
    let word = &word[..word.len().min(bytes_max)];
    let word = word.split(|&byte| byte == 0).next().unwrap_or_default();
    for piece in word.split_inclusive(|byte| matches!(byte, b'\r' | b'\n')) {
        match piece {
            [line @ .., b'\r' | b'\n'] => {
                output.push(line);
                output.push(b" ");
            }
            line => output.push(line),
        }
    }
    word.len()
}

impl Error<'_> {
    /// Writes it; in RESP2 and RESP3 alike.
    pub(super) fn write(&self, output: &mut dyn Output) {
        output.push(b"-");
        match *self {
            Error::Text(text) => output.push(text.as_bytes()),
            Error::KeyLength { bytes } => {
                output.push(b"ERR key of ");
                output.push_number(bytes as u64);
                output.push(b" bytes: a key has 1 to ");
                output.push_number(KEY_BYTES_MAX as u64);
                output.push(b" bytes");
            }
            Error::WrongArity(name) => {
                push_texts(output, &["ERR wrong number of arguments for '", name, "' command"]);
            }
            Error::ExpireTime(name) => {
                push_texts(output, &["ERR invalid expire time in '", name, "' command"])
            }
            Error::UnknownCommand(name, arguments) => {
                output.push(b"ERR unknown command '");
                push_word(output, name, REPEATED_BYTES_MAX);
                output.push(b"', with args beginning with: ");
                let mut repeated_bytes = 0;
                for argument in arguments {
                    if repeated_bytes >= REPEATED_BYTES_MAX {
                        break;
                    }
                    output.push(b"'");
                    repeated_bytes += push_word(output, argument, REPEATED_BYTES_MAX - repeated_bytes) + 3;
                    output.push(b"' ");
                }
            }
            Error::UnknownSubcommand(name, container) => {
                output.push(b"ERR unknown subcommand '");
                push_word(output, name, REPEATED_BYTES_MAX);
                push_texts(output, &["'. Try ", container, " HELP."]);
            }
            Error::Word(before, word, after) => {
                output.push(before.as_bytes());
                // Line ends at the end of an error are nothing.
                let end =
                    word.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
                push_word(output, if after.is_empty() { &word[..end] } else { word }, REPEATED_BYTES_MAX);
                output.push(after.as_bytes());
            }
        }
        output.push(b"\r\n");
    }
}

fn push_texts(output: &mut dyn Output, texts: &[&str]) {
    for text in texts {
        output.push(text.as_bytes());
    }
}
