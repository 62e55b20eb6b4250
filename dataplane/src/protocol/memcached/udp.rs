//! memcached over UDP: the frame header, one message a request datagram, and replies of several datagrams.
//!
//! ```text
//!  0       2       4       6       8
//! +-------+-------+-------+-------+--------------------
//! |request|sequen-| total | zero  | command, or a piece
//! |   id  |  ce   |       |       | of the reply
//! +-------+-------+-------+-------+--------------------
//! ```
//! All numbers are big-endian (protocol.txt, "UDP protocol"). A client knows a reply by its request id, and puts
//! its pieces together by their sequence numbers, 0 to total-1.

use super::command::{Command, Get};
use super::parse::error_lines::{BAD_CHUNK, BAD_FORMAT};
use super::parse::{Incomplete, Parsed, ProtocolError, parse};
use super::reply::{ReplyBuffer, lines};
use super::session::{Executed, Session};
use super::token::Tokens;
use crate::limits::{KEY_BYTES_MAX, MEMCACHED_DATAGRAM_BYTES_MAX, MEMCACHED_DATAGRAM_KEYS_MAX};
use crate::metrics::{DropReason, OpKind};
use crate::request::Origin;
use crate::service::Output;
use crate::service::{Context, Datagram, Replies, Service, ServiceSetup};

/// Bytes of the frame header.
pub const FRAME_HEADER_BYTES: usize = 8;

/// Longest command word with a key behind it: `prepend`, and room to spare.
const COMMAND_BYTES_MAX: usize = 16;

/// The second word of a message: the key of every command that has one first. `gat` has its expiry there, which costs a
/// look at the wrong place.
#[inline]
pub(super) fn key_hint(message: &[u8]) -> Option<&[u8]> {
    let key = &message[message.iter().take(COMMAND_BYTES_MAX).position(|&byte| byte == b' ')? + 1..];
    let length = key.iter().take(KEY_BYTES_MAX + 1).position(|&byte| byte <= b' ')?;
    (length > 0).then(|| &key[..length])
}

/// Smallest reply limit a listener may have: every line of [`lines`] and of the protocol's errors fits.
pub const REPLY_BYTES_MIN: usize = 256;

/// Largest reply that its datagrams can be counted for in 16 bits.
pub const REPLY_BYTES_LIMIT: usize = MEMCACHED_DATAGRAM_BYTES_MAX * u16::MAX as usize;

/// Where datagrams come from: no reply comes later than its datagram is served.
const DATAGRAM: Origin = Origin(0);

/// The header in front of every datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Chosen by the client, repeated in every datagram of the reply.
    pub request_id: u16,
    /// Number of this datagram, from 0.
    pub sequence: u16,
    /// Datagrams there are.
    pub total: u16,
}

impl FrameHeader {
    /// Splits a datagram into its header and the rest. `None` when it is too short, or its reserved bytes are
    /// not zero.
    #[inline]
    #[must_use]
    pub fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (&[id0, id1, sequence0, sequence1, total0, total1, 0, 0], rest) = payload.split_first_chunk()?
        else {
            return None;
        };
        let header = Self {
            request_id: u16::from_be_bytes([id0, id1]),
            sequence: u16::from_be_bytes([sequence0, sequence1]),
            total: u16::from_be_bytes([total0, total1]),
        };
        Some((header, rest))
    }

    /// The header's bytes.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let [id0, id1] = self.request_id.to_be_bytes();
        let [sequence0, sequence1] = self.sequence.to_be_bytes();
        let [total0, total1] = self.total.to_be_bytes();
        [id0, id1, sequence0, sequence1, total0, total1, 0, 0]
    }

    /// Whether this datagram is the whole of its message.
    #[inline]
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.sequence == 0 && self.total == 1
    }
}

/// Why the service cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The reply limit leaves no room for an error line, or exceeds what can be numbered.
    #[error(
        "memcached: reply_bytes_max is {0}, but must be at least {REPLY_BYTES_MIN} and at most {REPLY_BYTES_LIMIT}"
    )]
    ReplyBytes(usize),
}

/// memcached over UDP, for one worker. It keeps nothing from one datagram to the next.
#[derive(Debug)]
pub struct Memcached {
    session: Session,
    reply: ReplyBuffer,
    item_bytes_max: usize,
}

impl Memcached {
    /// The service of one worker; its one allocation is the reply buffer.
    ///
    /// # Errors
    /// [`SetupError::ReplyBytes`] when the listener's reply limit cannot be kept.
    pub fn new(setup: &ServiceSetup) -> Result<Self, SetupError> {
        let limit = setup.reply_bytes_max;
        if !(REPLY_BYTES_MIN..=REPLY_BYTES_LIMIT).contains(&limit) {
            return Err(SetupError::ReplyBytes(limit));
        }
        // The limit is what goes over the wire: text and frame headers.
        let headers_bytes = limit.div_ceil(MEMCACHED_DATAGRAM_BYTES_MAX) * FRAME_HEADER_BYTES;
        // The line that says "too large" has room of its own behind the buffer.
        let text_bytes = limit - headers_bytes - lines::REPLY_TOO_LARGE.len();
        Ok(Self {
            session: Session::new(setup),
            reply: ReplyBuffer::new(text_bytes),
            item_bytes_max: setup.item_bytes_max,
        })
    }

    /// Carries out one message; its reply is then in the buffer.
    #[inline]
    fn answer(&mut self, context: &mut Context<'_>, message: &[u8]) {
        let refused =
            |line, quiet| ProtocolError { line, skip_bytes: message.len(), quiet, fatal: false, evict: None };
        let error = match parse(message, self.item_bytes_max) {
            Parsed::Command(Command::Get(get), _) if asks_too_much(message, &get) => {
                refused(lines::TOO_MANY_KEYS, false)
            }
            Parsed::Command(mut command, bytes) if bytes == message.len() => {
                return self.execute(context, &mut command);
            }
            Parsed::Command(..) => refused(lines::TRAILING_BYTES, false),
            // What is missing never comes: no state is kept for it.
            Parsed::Incomplete(Incomplete::Line) => refused(BAD_FORMAT, false),
            Parsed::Incomplete(Incomplete::Value { quiet, .. }) => refused(BAD_CHUNK, quiet),
            Parsed::Invalid(error) => error,
        };
        if is_error_reply(message) {
            context.metrics.requested(OpKind::Invalid, 1);
        } else if self.session.refuse(context, &error, &mut self.reply) != Executed::Done {
            self.refuse_reply(context);
        }
    }

    /// Carries out a command whose whole reply fits; of any other nothing happens but an error line, except that the keys
    /// of a plain read that came before the one too many count as used.
    #[inline]
    fn execute(&mut self, context: &mut Context<'_>, command: &mut Command<'_>) {
        if let Command::Get(get @ Get { touch: Some(_), .. }) = command
            && self.session.reply_bytes(context, DATAGRAM, get) > self.reply.room()
        {
            return self.refuse_reply(context);
        }
        match self.session.execute(context, DATAGRAM, command, &mut self.reply) {
            // There is no stream to close.
            Executed::Done | Executed::Close if !self.reply.overflowed() => {}
            Executed::Done | Executed::Close | Executed::Full { .. } => self.refuse_reply(context),
            Executed::Pending => {
                self.reply.clear();
                self.reply.push(lines::REPLY_PENDING);
            }
        }
    }

    /// Puts an error line in the place of a reply that does not fit.
    #[cold]
    fn refuse_reply(&mut self, context: &Context<'_>) {
        self.reply.refuse();
        context.metrics.dropped(DropReason::ReplyTooLarge);
    }

    /// Sends the reply in as many datagrams as it takes, or not at all.
    #[inline]
    fn send(&self, context: &Context<'_>, request_id: u16, replies: &mut dyn Replies) {
        let text = self.reply.as_bytes();
        if text.is_empty() {
            return;
        }
        let datagram_bytes_max = replies.payload_bytes_max().min(MEMCACHED_DATAGRAM_BYTES_MAX);
        let piece_bytes_max = datagram_bytes_max.saturating_sub(FRAME_HEADER_BYTES).max(1);
        let Ok(total) = u16::try_from(text.len().div_ceil(piece_bytes_max)) else {
            return context.metrics.dropped(DropReason::ReplyTooLarge);
        };
        if replies.room() < usize::from(total) {
            return context.metrics.dropped(DropReason::NoFrame);
        }
        for (sequence, piece) in (0..total).zip(text.chunks(piece_bytes_max)) {
            let header = FrameHeader { request_id, sequence, total }.to_bytes();
            if !replies.send(&[&header, piece]) {
                return;
            }
        }
    }
}

/// Whether a read has more keys than one datagram may ask for. A key takes two bytes at least, so that few messages are
/// long enough for their keys to be counted.
#[inline]
fn asks_too_much(message: &[u8], get: &Get<'_>) -> bool {
    message.len() > 2 * MEMCACHED_DATAGRAM_KEYS_MAX && get.keys.count() > MEMCACHED_DATAGRAM_KEYS_MAX
}

/// Whether a message is some server's error line. It is never answered: two servers whose errors answer each
/// other, set off by one datagram with a forged source, would never stop.
#[cold]
fn is_error_reply(message: &[u8]) -> bool {
    let word = message.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    matches!(Tokens::new(word).next(), Some(b"ERROR" | b"ERROR:" | b"CLIENT_ERROR" | b"SERVER_ERROR"))
}

impl Service for Memcached {
    #[inline]
    fn datagram(&mut self, context: &mut Context<'_>, datagram: &Datagram<'_>, replies: &mut dyn Replies) {
        let Some((header, message)) = FrameHeader::split(datagram.payload) else {
            return context.metrics.dropped(DropReason::FrameHeader);
        };
        if !header.is_whole() {
            return context.metrics.dropped(DropReason::SplitRequest);
        }
        self.reply.clear();
        self.answer(context, message);
        self.send(context, header.request_id, replies);
    }

    #[inline]
    fn key_hint<'d>(&self, payload: &'d [u8]) -> Option<&'d [u8]> {
        key_hint(payload.get(FRAME_HEADER_BYTES..)?)
    }

    fn unavailable(&self, request: &[u8], reply: &mut [u8]) -> usize {
        match FrameHeader::split(request) {
            Some((header, message)) if header.is_whole() && !is_error_reply(message) => {
                let text = lines::UNAVAILABLE;
                let length = FRAME_HEADER_BYTES + text.len();
                let Some(reply) = reply.get_mut(..length) else { return 0 };
                let (header_bytes, text_bytes) = reply.split_at_mut(FRAME_HEADER_BYTES);
                header_bytes.copy_from_slice(&header.to_bytes());
                text_bytes.copy_from_slice(text);
                length
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    #[test]
    fn the_hint_is_the_key_where_there_is_one_and_never_more_than_a_key() {
        let setup = ServiceSetup {
            worker: 0,
            workers: 1,
            reply_bytes_max: 65_536,
            connections_max: 16,
            item_bytes_max: 1 << 20,
            started: Now::default(),
        };
        let service = Memcached::new(&setup).expect("a service");
        let long = [&[0; 8], &b"get "[..], &[b'k'; 300], b"\r\n"].concat();
        for (payload, hint) in [
            (&b"\0\0\0\0\0\x01\0\0get key\r\n"[..], Some(&b"key"[..])),
            (b"\0\0\0\0\0\x01\0\0gets key other\r\n", Some(b"key")),
            (b"\0\0\0\0\0\x01\0\0ms key 2 T0\r\nhi\r\n", Some(b"key")),
            (b"\0\0\0\0\0\x01\0\0version\r\n", None),
            (b"\0\0\0\0\0\x01\0\0get  key\r\n", None),
            (b"\0\0\0\0\0\x01\0\0get key", None),
            (b"\0\0\0", None),
            (&long, None),
        ] {
            assert_eq!(service.key_hint(payload), hint, "{}", payload.escape_ascii());
        }
    }
}
