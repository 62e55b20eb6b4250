//! memcached over a byte stream: one connection's place in the protocol.
//!
//! Whoever keeps the connection keeps its bytes: what was received and not yet read, in one piece, and a send buffer. A
//! [`Stream`] reads messages off the one and writes replies to the other, in order, until it lacks bytes or room. It
//! holds no bytes itself. A read of many keys is the one message that is answered in pieces: between two keys it can
//! wait for room, and what was answered is consumed meanwhile.

use std::net::SocketAddr;

use super::binary;
use super::command::{Command, Exptime, Get};
use super::parse::{Incomplete, MESSAGE_BYTES_MAX, Parsed, line_bytes_max, parse};
use super::reply::lines;
use super::session::{self, Executed, Session};
use super::statistics::STATISTICS_BYTES_MAX;
use super::token::{Line, Tokens};
use super::udp::key_hint;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::metrics::{DropReason, OpKind};
use crate::request::Origin;
use crate::service::{Context, Next, Output, Progress, ServiceSetup, StreamService};

/// Room with which every reply that there can be fits, so that none is refused: a key, the largest value, and the lines
/// around it.
pub const OUTPUT_BYTES_ENOUGH: usize = VALUE_BYTES_MAX + 2 * KEY_BYTES_MAX + 512;

/// Least capacity of an output: with less some replies of fixed length never fit.
pub const OUTPUT_BYTES_MIN: usize = 2048;

/// Most bytes that a connection may have to hold unread for a message to become whole.
pub const INPUT_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// Most bytes of a connection's place: there may be very many connections.
const STREAM_BYTES_MAX: usize = 32;

const _: () = {
    assert!(size_of::<Stream>() <= STREAM_BYTES_MAX);
    assert!(OUTPUT_BYTES_MIN >= STATISTICS_BYTES_MAX);
    assert!(OUTPUT_BYTES_MIN >= binary::REFUSAL_BYTES);
    // A meta reply repeats a key and an opaque, and tells six numbers.
    assert!(OUTPUT_BYTES_MIN >= 2 * KEY_BYTES_MAX + 4 * session::LINE_BYTES_MAX);
    assert!(OUTPUT_BYTES_ENOUGH >= VALUE_BYTES_MAX + 2 * KEY_BYTES_MAX + 4 * session::LINE_BYTES_MAX);
};

/// A connection's place in the protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Before a message.
    Message {
        /// Unread bytes in which no line ends, so that bytes that come one by one are not searched again and again.
        searched: usize,
    },
    /// Among bytes that are dropped unread: the value of a refused store, mostly.
    Skipping {
        /// So many are left.
        bytes: usize,
    },
    /// Between two keys of a read.
    Keys {
        cas: bool,
        touch: Option<Exptime>,
        /// Bytes of its line that are left, its end included.
        bytes: usize,
    },
    Closed,
}

impl Default for Place {
    fn default() -> Self {
        Self::Message { searched: 0 }
    }
}

/// What one step did: bytes that are done with, and what it waits for, if there is nothing more to do.
struct Step {
    consumed: usize,
    waits: Option<Next>,
}

impl Step {
    fn went(consumed: usize) -> Self {
        Self { consumed, waits: None }
    }

    fn waits(next: Next) -> Self {
        Self { consumed: 0, waits: Some(next) }
    }
}

/// What all of a connection's messages are carried out with.
struct Server<'s, 'c> {
    session: &'s mut Session,
    context: &'s mut Context<'c>,
    origin: Origin,
    item_bytes_max: usize,
}

impl Stream {
    /// Reads all messages that are whole, as far as there is room for their replies. `input` is every unread byte, in
    /// one piece; `item_bytes_max` bounds key and value together; `origin` is what later replies come back under.
    ///
    /// An output of less than [`OUTPUT_BYTES_ENOUGH`] answers what it cannot hold with an error line.
    ///
    /// # Panics
    /// When the output's capacity is below [`OUTPUT_BYTES_MIN`].
    pub fn advance(
        &mut self,
        session: &mut Session,
        context: &mut Context<'_>,
        origin: Origin,
        item_bytes_max: usize,
        input: &[u8],
        output: &mut impl Output,
    ) -> Progress {
        assert!(output.capacity() >= OUTPUT_BYTES_MIN, "an output in which some replies never fit");
        let mut server = Server { session, context, origin, item_bytes_max };
        let mut consumed = 0;
        loop {
            let step = self.step(&mut server, &input[consumed..], output);
            consumed += step.consumed;
            if let Some(next) = step.waits {
                return Progress { consumed, next };
            }
        }
    }

    fn step(&mut self, server: &mut Server<'_, '_>, input: &[u8], output: &mut impl Output) -> Step {
        match self.place {
            Place::Message { searched } => self.message(server, input, searched, output),
            Place::Keys { cas, touch, bytes } => match input.get(..bytes) {
                Some(line) => {
                    let get = Get { keys: Tokens::new(text_of(line)), cas, touch };
                    self.execute(server, line, Command::Get(get), output)
                }
                None => Step::waits(Next::Input { bytes }),
            },
            Place::Skipping { bytes } => {
                let skipped = bytes.min(input.len());
                self.place = match bytes - skipped {
                    0 => Place::default(),
                    bytes => Place::Skipping { bytes },
                };
                if skipped == 0 && bytes > 0 {
                    Step::waits(Next::Input { bytes: 1 })
                } else {
                    Step::went(skipped)
                }
            }
            Place::Closed => Step::waits(Next::Close),
        }
    }

    fn message(
        &mut self,
        server: &mut Server<'_, '_>,
        input: &[u8],
        searched: usize,
        output: &mut impl Output,
    ) -> Step {
        if input.first() == Some(&binary::REQUEST_MAGIC) {
            return self.refuse_binary(server, input, output);
        }
        let news = input.get(searched..).unwrap_or_default();
        if !news.contains(&b'\n') && input.len() < line_bytes_max(input) {
            self.place = Place::Message { searched: input.len() };
            return Step::waits(Next::Input { bytes: input.len() + 1 });
        }
        match parse(input, server.item_bytes_max) {
            Parsed::Command(command, bytes) => self.execute(server, &input[..bytes], command, output),
            Parsed::Incomplete(Incomplete::Value { bytes, .. }) => Step::waits(Next::Input { bytes }),
            Parsed::Incomplete(Incomplete::Line) => Step::waits(Next::Input { bytes: input.len() + 1 }),
            Parsed::Invalid(error) => {
                if let Executed::Full { bytes } = server.session.refuse(server.context, &error, output) {
                    return Step::waits(Next::Room { bytes });
                }
                self.place =
                    if error.fatal { Place::Closed } else { Place::Skipping { bytes: error.skip_bytes } };
                Step::went(0)
            }
        }
    }

    /// Answers what begins as a request of the binary protocol, once its header is there, and reads no further.
    #[cold]
    fn refuse_binary(&mut self, server: &mut Server<'_, '_>, input: &[u8], output: &mut impl Output) -> Step {
        let Some(header) = input.first_chunk() else {
            return Step::waits(Next::Input { bytes: binary::HEADER_BYTES });
        };
        if output.room() < binary::REFUSAL_BYTES {
            return Step::waits(Next::Room { bytes: binary::REFUSAL_BYTES });
        }
        server.context.metrics.requested(OpKind::Invalid, 1);
        output.push(&binary::refusal(header));
        self.place = Place::Closed;
        Step::went(0)
    }

    /// Carries out a command; `message` is all of it, or what is left of the line of a read.
    fn execute(
        &mut self,
        server: &mut Server<'_, '_>,
        message: &[u8],
        mut command: Command<'_>,
        output: &mut impl Output,
    ) -> Step {
        let Server { session, context, origin, .. } = server;
        match session.execute(context, *origin, &mut command, output) {
            Executed::Done => {}
            Executed::Close => {
                self.place = Place::Closed;
                return Step::went(message.len());
            }
            Executed::Full { bytes } if bytes <= output.capacity() => {
                return self.wait_for_room(&command, message, bytes);
            }
            // It never fits. The line in its place ends the reply, also one of which a part has gone.
            Executed::Full { .. } if output.room() < session::LINE_BYTES_MAX => {
                return self.wait_for_room(&command, message, session::LINE_BYTES_MAX);
            }
            Executed::Full { .. } => {
                output.push(lines::REPLY_TOO_LARGE);
                context.metrics.dropped(DropReason::ReplyTooLarge);
            }
            Executed::Pending if output.room() < session::LINE_BYTES_MAX => {
                return self.wait_for_room(&command, message, session::LINE_BYTES_MAX);
            }
            Executed::Pending => output.push(lines::REPLY_PENDING),
        }
        self.place = Place::default();
        Step::went(message.len())
    }

    /// Of a read, the keys that were answered are done with; anything else begins again when there is room.
    fn wait_for_room(&mut self, command: &Command<'_>, message: &[u8], bytes: usize) -> Step {
        let mut consumed = 0;
        if let Command::Get(Get { keys, cas, touch }) = *command {
            let line_end_bytes = message.len() - text_of(message).len();
            let left_bytes = keys.rest().len() + line_end_bytes;
            consumed = message.len() - left_bytes;
            self.place = Place::Keys { cas, touch, bytes: left_bytes };
        }
        Step { consumed, waits: Some(Next::Room { bytes }) }
    }
}

/// A line without its end.
fn text_of(line: &[u8]) -> &[u8] {
    Line::first(line).map_or(line, |line| line.text)
}

/// memcached over byte streams, for one transport of a worker.
#[derive(Debug)]
pub struct MemcachedStreams {
    session: Session,
    streams: Box<[Stream]>,
    item_bytes_max: usize,
}

impl MemcachedStreams {
    /// The service; its one allocation is the places of its connections.
    #[must_use]
    pub fn new(setup: &ServiceSetup) -> Self {
        Self {
            session: Session::new(setup),
            streams: vec![Stream::default(); setup.connections_max].into_boxed_slice(),
            item_bytes_max: setup.item_bytes_max,
        }
    }
}

impl StreamService for MemcachedStreams {
    fn opened(&mut self, connection: usize, _local: SocketAddr, _peer: SocketAddr) {
        self.streams[connection] = Stream::default();
    }

    #[inline]
    fn advance(
        &mut self,
        context: &mut Context<'_>,
        connection: usize,
        input: &[u8],
        mut output: &mut dyn Output,
    ) -> Progress {
        let Self { session, streams, item_bytes_max } = self;
        let origin = Origin(connection as u64);
        streams[connection].advance(session, context, origin, *item_bytes_max, input, &mut output)
    }

    #[inline]
    fn key_hint<'i>(&self, input: &'i [u8]) -> Option<&'i [u8]> {
        key_hint(input)
    }

    fn closed(&mut self, _connection: usize) {}

    fn unavailable(&self) -> &'static [u8] {
        lines::UNAVAILABLE
    }
}
