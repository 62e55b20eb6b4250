//! Carries out one command against a table and writes its reply.

mod classic;
mod meta;

use super::VERSION_LINE;
use super::base64::DECODED_BYTES_MAX;
use super::command::{Command, Get};
use super::parse::ProtocolError;
use super::parse::error_lines::DELETE_USAGE;
use super::reply::lines;
use super::statistics::{STATISTICS_BYTES_MAX, Statistics};
use crate::metrics::OpKind;
use crate::request::{Delete, Op, Origin, Request};
use crate::service::Output;
use crate::service::{Context, ServiceSetup};

/// Room for every reply that is one line and repeats nothing of the client's.
pub const LINE_BYTES_MAX: usize = 128;

const _: () = {
    assert!(VERSION_LINE.len() <= LINE_BYTES_MAX);
    assert!(DELETE_USAGE.len() <= LINE_BYTES_MAX);
    assert!(lines::NON_NUMERIC.len() <= LINE_BYTES_MAX);
};

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Executed {
    /// Carried out; its reply, which may be nothing, is in the output.
    Done,
    /// The client wants its stream closed.
    Close,
    /// The output has no room for the reply, so that the command was not carried out; or, of a read of many keys, not
    /// for all of them: [`Get::keys`] are then those that are left, and the command goes on with them once there is
    /// room. A reply that needs more than [`Output::capacity`] never fits.
    Full {
        /// Bytes of room that are needed to go on.
        bytes: usize,
    },
    /// The table took the request and answers later. What waits for a table is the front end's to keep, under the
    /// [`Origin`] it gave: the frame header or the place in the stream, and how the reply is to be written.
    /// Datagrams keep nothing, and answer with an error ([`lines::REPLY_PENDING`]); a memory table never lets
    /// it come to that.
    Pending,
}

/// What a command is carried out with.
struct Exchange<'e, 'c, O> {
    context: &'e mut Context<'c>,
    origin: Origin,
    reply: &'e mut O,
}

/// One worker's end of the protocol. It keeps nothing between commands but the starting point of the statistics, so that
/// all datagrams and streams of a worker share one.
#[derive(Debug)]
pub struct Session {
    statistics: Statistics,
}

impl Session {
    /// A session of one worker's service.
    #[must_use]
    pub fn new(setup: &ServiceSetup) -> Self {
        Self { statistics: Statistics::new(setup) }
    }

    /// Writes a refused message's error line, unless it is to be quiet. [`Executed::Done`] or [`Executed::Full`].
    pub fn refuse(
        &mut self,
        context: &mut Context<'_>,
        error: &ProtocolError<'_>,
        reply: &mut impl Output,
    ) -> Executed {
        if reply.room() < LINE_BYTES_MAX {
            return Executed::Full { bytes: LINE_BYTES_MAX };
        }
        context.metrics.requested(OpKind::Invalid, 1);
        if let Some(key) = error.evict {
            evict(context, key.bytes(&mut [0; DECODED_BYTES_MAX]));
        }
        finish(error.quiet, error.line, reply)
    }

    /// Carries out one command and writes its reply, if there is room; `origin` is what a later reply comes back under.
    #[inline]
    pub fn execute<O: Output>(
        &mut self,
        context: &mut Context<'_>,
        origin: Origin,
        command: &mut Command<'_>,
        reply: &mut O,
    ) -> Executed {
        let mut exchange = Exchange { context, origin, reply };
        match command {
            Command::Get(get) => classic::get(&mut exchange, get),
            other => self.execute_other(&mut exchange, other),
        }
    }

    /// Bytes of room that a read needs for the whole of its reply, when it is carried out next. Nothing is changed.
    pub fn reply_bytes(&mut self, context: &mut Context<'_>, origin: Origin, get: &Get<'_>) -> usize {
        classic::get_bytes(&mut Exchange { context, origin, reply: &mut () }, get)
    }

    fn execute_other<O: Output>(
        &mut self,
        exchange: &mut Exchange<'_, '_, O>,
        command: &Command<'_>,
    ) -> Executed {
        let bytes = match command {
            Command::MetaGet(meta)
            | Command::MetaStore { meta, .. }
            | Command::MetaDelete(meta)
            | Command::MetaArithmetic { meta, .. } => meta::reply_bytes_max(meta),
            Command::MetaDebug(key) => meta::debug_bytes_max(*key),
            Command::Statistics(_) => STATISTICS_BYTES_MAX,
            _ => LINE_BYTES_MAX,
        };
        if exchange.reply.room() < bytes {
            return Executed::Full { bytes };
        }
        let mut scratch = [0; DECODED_BYTES_MAX];
        match *command {
            Command::Get(_) => unreachable!("reads are carried out by `execute`"),
            Command::Store(ref store) => classic::store(exchange, store),
            Command::Delete { key, quiet } => classic::delete(exchange, key, quiet),
            Command::Touch { key, exptime, quiet } => classic::touch(exchange, key, exptime, quiet),
            Command::FlushAll { delay, quiet } => classic::flush_all(exchange, delay, quiet),
            Command::Arithmetic { key, direction, delta, quiet } => {
                classic::arithmetic(exchange, key, direction, delta, quiet)
            }
            Command::MetaGet(ref meta) => meta::get(exchange, meta, meta.key.bytes(&mut scratch)),
            Command::MetaStore { ref meta, mode, value } => {
                meta::store(exchange, meta, meta.key.bytes(&mut scratch), mode, value)
            }
            Command::MetaDelete(ref meta) => meta::delete(exchange, meta, meta.key.bytes(&mut scratch)),
            Command::MetaArithmetic { ref meta, direction } => {
                meta::arithmetic(exchange, meta, meta.key.bytes(&mut scratch), direction)
            }
            Command::MetaDebug(key) => meta::debug(exchange, key, key.bytes(&mut scratch)),
            Command::MetaNoop => answer(exchange, false, lines::META_NOOP),
            Command::Verbosity { quiet } => answer(exchange, quiet, lines::OK),
            Command::Version => answer(exchange, false, VERSION_LINE),
            Command::Shutdown => answer(exchange, false, lines::SHUTDOWN_OFF),
            Command::Statistics(words) => {
                exchange.context.metrics.requested(OpKind::Other, 1);
                self.statistics.write(exchange.context, words, exchange.reply);
                Executed::Done
            }
            Command::Quit => {
                exchange.context.metrics.requested(OpKind::Other, 1);
                Executed::Close
            }
        }
    }
}

/// A command that touches no item.
fn answer<O: Output>(exchange: &mut Exchange<'_, '_, O>, quiet: bool, line: &[u8]) -> Executed {
    exchange.context.metrics.requested(OpKind::Other, 1);
    finish(quiet, line, exchange.reply)
}

/// Appends a line, unless the client wants none.
#[inline]
fn finish(quiet: bool, line: &[u8], reply: &mut impl Output) -> Executed {
    if !quiet {
        reply.push(line);
    }
    Executed::Done
}

/// Lets an item go whose writer believes it replaced.
#[cold]
fn evict(context: &mut Context<'_>, key: &[u8]) {
    // Its outcome is nobody's: the reply is the error that led here, and a table that answers later keeps its own
    // copy of the request.
    let _ = context.table.submit(context.now, &Request::new(key, Op::Delete(Delete::default())));
}

/// Counts a read.
#[inline]
fn count_read(context: &Context<'_>, hits: u64, misses: u64) {
    context.metrics.requested(OpKind::Get, hits + misses);
    context.metrics.hits.add(hits);
    context.metrics.misses.add(misses);
}
