//! Carries out one command against a table and appends its reply.

mod classic;
mod meta;

use super::VERSION_LINE;
use super::base64::DECODED_BYTES_MAX;
use super::command::Command;
use super::parse::ProtocolError;
use super::reply::{ReplyBuffer, lines};
use super::statistics::Statistics;
use crate::metrics::{DropReason, OpKind};
use crate::request::{Delete, Op, Request};
use crate::service::{Context, ServiceSetup};

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Executed {
    /// Carried out; its reply, which may be nothing, is in the buffer.
    Done,
    /// The client wants its stream closed.
    Close,
    /// The table took the request and answers later; nothing is in the buffer. What waits for a table is the
    /// front end's to keep: the frame header or the place in the stream, and how the reply is to be written.
    /// Datagrams keep nothing, and answer with an error ([`lines::REPLY_PENDING`]); a memory table never lets
    /// it come to that.
    Pending,
}

/// One conversation's end of the protocol. It keeps nothing between commands but the starting point of the
/// statistics, so that all datagrams of a worker share one.
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

    /// Writes a refused message's error line, unless it is to be quiet; `reply` is empty.
    pub fn refuse(&mut self, context: &mut Context<'_>, error: &ProtocolError<'_>, reply: &mut ReplyBuffer) {
        context.metrics.requested(OpKind::Invalid, 1);
        if let Some(key) = error.evict {
            evict(context, key.bytes(&mut [0; DECODED_BYTES_MAX]));
        }
        if !error.quiet {
            reply.push(error.line);
            if !reply.settle() {
                context.metrics.dropped(DropReason::ReplyTooLarge);
            }
        }
    }

    /// Carries out one command and writes its reply into `reply`, which is empty; one that does not fit is replaced
    /// by an error line and counted as [`DropReason::ReplyTooLarge`].
    #[inline]
    pub fn execute(
        &mut self,
        context: &mut Context<'_>,
        command: &Command<'_>,
        reply: &mut ReplyBuffer,
    ) -> Executed {
        let executed = match command {
            Command::Get(get) => classic::get(context, get, reply),
            other => self.execute_other(context, other, reply),
        };
        if executed == Executed::Pending {
            reply.clear();
        } else if !reply.settle() {
            context.metrics.dropped(DropReason::ReplyTooLarge);
        }
        executed
    }

    fn execute_other(
        &mut self,
        context: &mut Context<'_>,
        command: &Command<'_>,
        reply: &mut ReplyBuffer,
    ) -> Executed {
        let mut scratch = [0; DECODED_BYTES_MAX];
        match *command {
            Command::Get(ref get) => classic::get(context, get, reply),
            Command::Store(ref store) => classic::store(context, store, reply),
            Command::Delete { key, quiet } => classic::delete(context, key, quiet, reply),
            Command::Touch { key, exptime, quiet } => classic::touch(context, key, exptime, quiet, reply),
            Command::FlushAll { delay, quiet } => classic::flush_all(context, delay, quiet, reply),
            Command::Arithmetic { key, direction, delta, quiet } => {
                classic::arithmetic(context, key, direction, delta, quiet, reply)
            }
            Command::MetaGet(ref meta) => meta::get(context, meta, meta.key.bytes(&mut scratch), reply),
            Command::MetaStore { ref meta, mode, value } => {
                meta::store(context, meta, meta.key.bytes(&mut scratch), mode, value, reply)
            }
            Command::MetaDelete(ref meta) => meta::delete(context, meta, meta.key.bytes(&mut scratch), reply),
            Command::MetaArithmetic { ref meta, direction } => {
                meta::arithmetic(context, meta, meta.key.bytes(&mut scratch), direction, reply)
            }
            Command::MetaDebug(key) => meta::debug(context, key, key.bytes(&mut scratch), reply),
            Command::MetaNoop => answer(context, false, lines::META_NOOP, reply),
            Command::Verbosity { quiet } => answer(context, quiet, lines::OK, reply),
            Command::Version => answer(context, false, VERSION_LINE, reply),
            Command::Shutdown => answer(context, false, lines::SHUTDOWN_OFF, reply),
            Command::Statistics(words) => {
                context.metrics.requested(OpKind::Other, 1);
                self.statistics.write(context, words, reply);
                Executed::Done
            }
            Command::Quit => {
                context.metrics.requested(OpKind::Other, 1);
                Executed::Close
            }
        }
    }
}

/// A command that touches no item.
fn answer(context: &Context<'_>, quiet: bool, line: &[u8], reply: &mut ReplyBuffer) -> Executed {
    context.metrics.requested(OpKind::Other, 1);
    finish(quiet, line, reply)
}

/// Appends a line, unless the client wants none.
#[inline]
fn finish(quiet: bool, line: &[u8], reply: &mut ReplyBuffer) -> Executed {
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
