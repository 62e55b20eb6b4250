//! What is left of a request that is larger than is kept: it is read past, so that it can be refused in its turn and the
//! connection goes on. Redis closes; a client that is still sending then often sees the reset and not the error.

use super::errors::texts;
use super::parse::{END_BYTES, Head, ProtocolError, Unread};

/// What of a request is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// An argument, with more than [`BULK_BYTES_MAX`](super::BULK_BYTES_MAX) bytes.
    Argument,
    /// All of it, with more than [`REQUEST_BYTES_MAX`](super::REQUEST_BYTES_MAX) bytes.
    Request,
}

impl TooLarge {
    /// What the request is refused with.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Argument => texts::STRING_TOO_LONG,
            Self::Request => texts::REQUEST_TOO_LONG,
        }
    }
}

/// A place in such a request. It keeps none of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swallow {
    why: TooLarge,
    /// Bytes left of the present argument, its end included.
    bytes: u32,
    /// Arguments behind it.
    arguments: u32,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swallowed {
    /// The request has ended behind so many bytes.
    Whole(usize),
    /// So many bytes are done with; there is something to do once there are so many behind them.
    Part(usize, usize),
}

impl Swallow {
    /// Before so many bytes that end an argument, and so many arguments behind it.
    pub(super) fn new(why: TooLarge, bytes: usize, arguments: u32) -> Self {
        Self { why, bytes: bytes as u32, arguments }
    }

    /// What of the request is too large.
    #[must_use]
    pub fn why(&self) -> TooLarge {
        self.why
    }

    /// Reads past what has come.
    ///
    /// # Errors
    /// What follows is no argument.
    pub fn advance(&mut self, input: &[u8]) -> Result<Swallowed, ProtocolError> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let bytes = rest.len().min(self.bytes as usize);
            consumed += bytes;
            self.bytes -= bytes as u32;
            if self.bytes > 0 {
                return Ok(Swallowed::Part(consumed, 1));
            }
            if self.arguments == 0 {
                return Ok(Swallowed::Whole(consumed));
            }
            let head = match Head::read(&input[consumed..]) {
                Ok(head) => head,
                Err(Unread::Incomplete(wanted)) => return Ok(Swallowed::Part(consumed, wanted)),
                Err(Unread::Invalid(error)) => return Err(error),
            };
            consumed += head.line_bytes;
            self.bytes = (head.argument_bytes + END_BYTES) as u32;
            self.arguments -= 1;
        }
    }
}
