//! A connection's place in its stream.
//!
//! Whoever keeps the connection keeps its bytes: what was received and not yet read, in one piece, and a send buffer. A
//! [`Connection`] reads requests off the one and writes replies to the other, in order, until it lacks bytes or room. It
//! holds no bytes itself. A request takes effect only once there is room for its whole reply, but for `MGET`, which can be
//! answered in pieces.

use std::net::SocketAddr;

use super::Arguments;
use super::client::Client;
use super::commands::{self, Failure};
use super::encode::{BULK_FRAME_BYTES_MAX, Encoder};
use super::errors::{Error, texts};
use super::parse::{Parsed, Place, ProtocolError, parse};
use super::session::{Session, Worker};
use super::swallow::{Swallow, Swallowed};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::metrics::{DropReason, OpKind};
use crate::request::Origin;
use crate::service::{Context, Next, Output, Progress};

/// Room with which every reply of one value fits, so that none is refused.
pub const OUTPUT_BYTES_ENOUGH: usize = VALUE_BYTES_MAX + SHORT_REPLY_BYTES;

/// Least capacity of an output: with less, some replies of bounded length never fit.
pub const OUTPUT_BYTES_MIN: usize = 4096;

/// Room that is there before any request is carried out: every reply fits that repeats no value.
pub(super) const SHORT_REPLY_BYTES: usize = 512;

/// Most bytes of a connection: there may be very many.
const CONNECTION_BYTES_MAX: usize = 512;

const _: () = {
    assert!(size_of::<Connection>() <= CONNECTION_BYTES_MAX);
    assert!(SHORT_REPLY_BYTES <= OUTPUT_BYTES_MIN);
    assert!(SHORT_REPLY_BYTES > KEY_BYTES_MAX + BULK_FRAME_BYTES_MAX);
};

/// One connection.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    place: Place,
    /// It is amid a request that is larger than is kept.
    swallow: Option<Swallow>,
    /// Room that the next request waits for.
    room_bytes: usize,
    closed: bool,
}

/// What became of a request.
enum Served {
    Done,
    /// It waits for so much room.
    Waits(usize),
}

impl Connection {
    /// A connection that was just made, between these two ends.
    #[must_use]
    pub fn new(session: &mut Session, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            client: Client::new(session.worker.connect(), local, peer),
            place: Place::default(),
            swallow: None,
            room_bytes: SHORT_REPLY_BYTES,
            closed: false,
        }
    }

    /// It is over.
    pub fn close(self, session: &mut Session) {
        session.worker.connected -= 1;
    }

    /// Reads all requests that are whole, as far as there is room for their replies. `input` is every unread byte, in one
    /// piece; `origin` is what later replies come back under.
    pub fn advance(
        &mut self,
        session: &mut Session,
        context: &mut Context<'_>,
        origin: Origin,
        input: &[u8],
        output: &mut dyn Output,
    ) -> Progress {
        debug_assert!(output.capacity() >= OUTPUT_BYTES_MIN, "an output that holds no error line");
        let Session { scratch, worker } = session;
        let mut consumed = 0;
        while !self.closed {
            // Whoever waits for room is not read again before there is as much.
            if output.room() < self.room_bytes && consumed < input.len() {
                return Progress { consumed, next: Next::Room { bytes: self.room_bytes } };
            }
            if let Some(left) = self.client.left {
                let Some(keys) = input.get(consumed..consumed + left.bytes) else {
                    return Progress { consumed, next: Next::Input { bytes: left.bytes } };
                };
                let served = self.go_on(worker, context, origin, Arguments::left_of(keys, left.keys), output);
                consumed += left.bytes - self.client.left.map_or(0, |left| left.bytes);
                if let Served::Waits(bytes) = served {
                    self.room_bytes = bytes;
                }
                continue;
            }
            if let Some(swallow) = &mut self.swallow {
                match swallow.advance(&input[consumed..]) {
                    Ok(Swallowed::Part(bytes, wanted)) => {
                        return Progress { consumed: consumed + bytes, next: Next::Input { bytes: wanted } };
                    }
                    Ok(Swallowed::Whole(bytes)) => {
                        consumed += bytes;
                        refuse(context, Error::Text(swallow.why().text()), output);
                        self.swallow = None;
                    }
                    Err(error) => self.fail(context, error, output),
                }
                continue;
            }
            let (served, bytes) = match parse(&input[consumed..], &mut self.place, scratch) {
                Parsed::Incomplete(bytes) => return Progress { consumed, next: Next::Input { bytes } },
                Parsed::Nothing(bytes) => (Served::Done, bytes),
                Parsed::Request(arguments, bytes) => {
                    (self.serve(worker, context, origin, arguments, output), bytes)
                }
                Parsed::TooLarge(swallow, bytes) => {
                    self.swallow = Some(swallow);
                    consumed += bytes;
                    continue;
                }
                Parsed::Invalid(error) => {
                    self.fail(context, error, output);
                    break;
                }
            };
            match served {
                Served::Done => {
                    self.room_bytes = SHORT_REPLY_BYTES;
                    consumed += bytes;
                    self.closed = self.client.quits;
                }
                Served::Waits(room_bytes) => {
                    self.room_bytes = room_bytes;
                    // The keys that were answered are done with.
                    consumed += self.client.left.map_or(0, |left| bytes - left.bytes);
                }
            }
        }
        Progress { consumed: input.len(), next: Next::Close }
    }

    /// Says why nothing that follows can be understood, and reads no further.
    #[cold]
    fn fail(&mut self, context: &Context<'_>, error: ProtocolError, output: &mut dyn Output) {
        context.metrics.requested(OpKind::Invalid, 1);
        Encoder::new(output, self.client.version).protocol_error(error);
        self.closed = true;
    }

    /// Goes on with the keys that are left of a command.
    fn go_on(
        &mut self,
        worker: &mut Worker,
        context: &mut Context<'_>,
        origin: Origin,
        keys: Arguments<'_>,
        output: &mut dyn Output,
    ) -> Served {
        self.client.left = None;
        self.room_bytes = SHORT_REPLY_BYTES;
        match commands::go_on(worker, &mut self.client, context, origin, keys, output) {
            Err(Failure::Full { bytes }) => Served::Waits(bytes),
            Ok(()) | Err(Failure::Error(_)) => Served::Done,
        }
    }

    /// Carries out one request, if there is room for its reply.
    fn serve(
        &mut self,
        worker: &mut Worker,
        context: &mut Context<'_>,
        origin: Origin,
        arguments: Arguments<'_>,
        output: &mut dyn Output,
    ) -> Served {
        let error = match commands::execute(worker, &mut self.client, context, origin, arguments, output) {
            Ok(()) => return Served::Done,
            Err(Failure::Full { bytes }) if bytes <= output.capacity() => return Served::Waits(bytes),
            Err(Failure::Full { .. }) => {
                context.metrics.dropped(DropReason::ReplyTooLarge);
                Error::Text(texts::REPLY_TOO_LARGE)
            }
            Err(Failure::Error(error)) => error,
        };
        refuse(context, error, output);
        Served::Done
    }
}

/// Answers a request with an error.
#[cold]
fn refuse(context: &Context<'_>, error: Error<'_>, output: &mut dyn Output) {
    context.metrics.requested(OpKind::Invalid, 1);
    error.write(output);
}
