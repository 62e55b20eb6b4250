//! The classic text commands.

use super::super::command::{Exptime, Get, Store};
use super::super::parse::error_lines::TOO_LARGE;
use super::super::reply::{ReplyBuffer, lines};
use super::{Executed, count_read, evict, finish};
use crate::metrics::OpKind;
use crate::request::{self, Arithmetic, Delete, Direction, Item, Op, Reply, Request, StoreMode};
use crate::service::Context;
use crate::table::Submission;

/// Reads key by key; nothing is kept between them.
#[inline]
pub(super) fn get(context: &mut Context<'_>, command: &Get<'_>, reply: &mut ReplyBuffer) -> Executed {
    let touch = command.touch.map(|exptime| exptime.expiry(context.now));
    let op = Op::Get(request::Get { touch, ..request::Get::default() });
    let (mut hits, mut misses) = (0, 0);
    for key in command.keys {
        match context.table.submit(context.now, &Request::new(key, op)) {
            Submission::Done(Reply::Value(item)) => {
                hits += 1;
                push_item(reply, key, &item, command.cas);
            }
            Submission::Done(_) => misses += 1,
            Submission::Pending => return Executed::Pending,
        }
        if reply.overflowed() {
            break;
        }
    }
    count_read(context, hits, misses);
    reply.push(lines::END);
    Executed::Done
}

/// `VALUE <key> <flags> <bytes> [<cas unique>]`, and the value.
#[inline]
fn push_item(reply: &mut ReplyBuffer, key: &[u8], item: &Item<'_>, cas: bool) {
    reply.push(b"VALUE ");
    reply.push(key);
    reply.push(b" ");
    reply.push_number(u64::from(item.flags));
    reply.push(b" ");
    reply.push_number(item.value.len() as u64);
    if cas {
        reply.push(b" ");
        reply.push_number(item.cas);
    }
    reply.push(b"\r\n");
    reply.push(item.value);
    reply.push(b"\r\n");
}

pub(super) fn store(context: &mut Context<'_>, command: &Store<'_>, reply: &mut ReplyBuffer) -> Executed {
    context.metrics.requested(OpKind::Store, 1);
    let op = Op::Store(request::Store {
        mode: command.mode,
        flags: command.flags,
        expiry: command.exptime.expiry(context.now),
        compare_cas: command.cas,
        ..request::Store::set(command.value)
    });
    let line = match context.table.submit(context.now, &Request::new(command.key, op)) {
        Submission::Done(Reply::Stored { .. }) => lines::STORED,
        Submission::Done(Reply::NotStored) => lines::NOT_STORED,
        Submission::Done(Reply::Exists) => lines::EXISTS,
        Submission::Done(Reply::NotFound) => lines::NOT_FOUND,
        Submission::Done(Reply::TooLarge) => TOO_LARGE,
        Submission::Done(Reply::OutOfMemory) => lines::OUT_OF_MEMORY_STORING,
        Submission::Done(_) => lines::UNHANDLED,
        Submission::Pending => return Executed::Pending,
    };
    let failed = line == TOO_LARGE || line == lines::OUT_OF_MEMORY_STORING;
    if failed && command.mode == StoreMode::Set && command.cas.is_none() {
        evict(context, command.key);
    }
    finish(command.quiet, line, reply)
}

pub(super) fn delete(
    context: &mut Context<'_>,
    key: &[u8],
    quiet: bool,
    reply: &mut ReplyBuffer,
) -> Executed {
    context.metrics.requested(OpKind::Delete, 1);
    match context.table.submit(context.now, &Request::new(key, Op::Delete(Delete::default()))) {
        Submission::Done(Reply::Deleted) => finish(quiet, lines::DELETED, reply),
        Submission::Done(Reply::NotFound) => finish(quiet, lines::NOT_FOUND, reply),
        Submission::Done(_) => finish(quiet, lines::UNHANDLED, reply),
        Submission::Pending => Executed::Pending,
    }
}

pub(super) fn touch(
    context: &mut Context<'_>,
    key: &[u8],
    exptime: Exptime,
    quiet: bool,
    reply: &mut ReplyBuffer,
) -> Executed {
    context.metrics.requested(OpKind::Touch, 1);
    let op = Op::Touch(exptime.expiry(context.now));
    match context.table.submit(context.now, &Request::new(key, op)) {
        Submission::Done(Reply::Touched) => finish(quiet, lines::TOUCHED, reply),
        Submission::Done(Reply::NotFound) => finish(quiet, lines::NOT_FOUND, reply),
        Submission::Done(_) => finish(quiet, lines::UNHANDLED, reply),
        Submission::Pending => Executed::Pending,
    }
}

pub(super) fn flush_all(
    context: &mut Context<'_>,
    delay: Exptime,
    quiet: bool,
    reply: &mut ReplyBuffer,
) -> Executed {
    context.metrics.requested(OpKind::Flush, 1);
    let at_unix_ms = if delay.0 > 0 { delay.expiry(context.now).unix_ms() } else { context.now.unix_ms };
    match context.table.submit(context.now, &Request::new(&[], Op::FlushAll { at_unix_ms })) {
        Submission::Done(Reply::Done) => finish(quiet, lines::OK, reply),
        Submission::Done(_) => finish(quiet, lines::UNHANDLED, reply),
        Submission::Pending => Executed::Pending,
    }
}

pub(super) fn arithmetic(
    context: &mut Context<'_>,
    key: &[u8],
    direction: Direction,
    delta: u64,
    quiet: bool,
    reply: &mut ReplyBuffer,
) -> Executed {
    context.metrics.requested(OpKind::Arithmetic, 1);
    let op = Op::Arithmetic(Arithmetic {
        direction,
        delta,
        initial: None,
        touch: None,
        compare_cas: None,
        new_cas: None,
    });
    match context.table.submit(context.now, &Request::new(key, op)) {
        Submission::Done(Reply::Value(item)) => {
            if !quiet {
                reply.push(item.value);
                reply.push(b"\r\n");
            }
            Executed::Done
        }
        Submission::Done(Reply::NotFound) => finish(quiet, lines::NOT_FOUND, reply),
        Submission::Done(Reply::NotANumber) => finish(quiet, lines::NON_NUMERIC, reply),
        Submission::Done(Reply::OutOfMemory | Reply::TooLarge) => finish(quiet, lines::OUT_OF_MEMORY, reply),
        Submission::Done(_) => finish(quiet, lines::UNHANDLED, reply),
        Submission::Pending => Executed::Pending,
    }
}
