//! The classic text commands.

use super::super::command::{Exptime, Get, Store};
use super::super::parse::error_lines::TOO_LARGE;
use super::super::reply::lines;
use super::{Exchange, Executed, count_read, evict, finish};
use crate::metrics::OpKind;
use crate::protocol::output::OutputExt;
use crate::request::{self, Arithmetic, Delete, Direction, Item, Op, Reply, StoreMode};
use crate::service::Output;
use crate::table::Submission;

/// Most bytes of an item's reply beside its key and value: `VALUE` and the spaces, flags, length, CAS, and two line ends.
const ITEM_LINE_BYTES_MAX: usize = 6 + 1 + 10 + 1 + 7 + 1 + 20 + 2 + 2;

/// Reads key by key. Without room for an item it stops before that: the command then has the keys that are left.
#[inline]
pub(super) fn get<O: Output>(exchange: &mut Exchange<'_, '_, O>, command: &mut Get<'_>) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    let touch = command.touch.map(|exptime| exptime.expiry(context.now));
    let (mut hits, mut misses) = (0, 0);
    let mut keys = command.keys;
    let executed = loop {
        command.keys = keys;
        let Some(key) = keys.next() else {
            if reply.room() < lines::END.len() {
                break Executed::Full { bytes: lines::END.len() };
            }
            reply.push(lines::END);
            break Executed::Done;
        };
        let line_bytes = ITEM_LINE_BYTES_MAX + key.len();
        let Some(value_bytes_max) = reply.room().checked_sub(line_bytes) else {
            break Executed::Full { bytes: line_bytes };
        };
        let read = request::Get { touch, value_bytes_max: Some(value_bytes_max), ..request::Get::default() };
        match context.table.submit(context.now, &origin.request(key, Op::Get(read))) {
            Submission::Done(Reply::Value(item)) => {
                hits += 1;
                push_item(*reply, key, &item, command.cas);
            }
            Submission::Done(Reply::NoRoom { value_bytes }) => {
                break Executed::Full { bytes: line_bytes + value_bytes };
            }
            Submission::Done(_) => misses += 1,
            Submission::Pending => break Executed::Pending,
        }
    };
    count_read(context, hits, misses);
    executed
}

/// Bytes of room that [`get`] needs for the whole of a reply. Nothing is changed, nor counted.
pub(super) fn get_bytes<O>(exchange: &mut Exchange<'_, '_, O>, command: &Get<'_>) -> usize {
    let Exchange { context, origin, .. } = exchange;
    let peek = request::Get { peek: true, ..request::Get::default() };
    let item_bytes = |key| match context.table.submit(context.now, &origin.request(key, Op::Get(peek))) {
        Submission::Done(Reply::Value(item)) => ITEM_LINE_BYTES_MAX + key.len() + item.value.len(),
        _ => 0,
    };
    command.keys.map(item_bytes).sum::<usize>() + lines::END.len()
}

/// `VALUE <key> <flags> <bytes> [<cas unique>]`, and the value.
#[inline]
fn push_item(reply: &mut impl Output, key: &[u8], item: &Item<'_>, cas: bool) {
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

pub(super) fn store<O: Output>(exchange: &mut Exchange<'_, '_, O>, command: &Store<'_>) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    context.metrics.requested(OpKind::Store, 1);
    let op = Op::Store(request::Store {
        mode: command.mode,
        flags: command.flags,
        expiry: command.exptime.expiry(context.now),
        compare_cas: command.cas,
        ..request::Store::set(command.value)
    });
    let line = match context.table.submit(context.now, &origin.request(command.key, op)) {
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
    finish(command.quiet, line, *reply)
}

pub(super) fn delete<O: Output>(exchange: &mut Exchange<'_, '_, O>, key: &[u8], quiet: bool) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    context.metrics.requested(OpKind::Delete, 1);
    match context.table.submit(context.now, &origin.request(key, Op::Delete(Delete::default()))) {
        Submission::Done(Reply::Deleted) => finish(quiet, lines::DELETED, *reply),
        Submission::Done(Reply::NotFound) => finish(quiet, lines::NOT_FOUND, *reply),
        Submission::Done(_) => finish(quiet, lines::UNHANDLED, *reply),
        Submission::Pending => Executed::Pending,
    }
}

pub(super) fn touch<O: Output>(
    exchange: &mut Exchange<'_, '_, O>,
    key: &[u8],
    exptime: Exptime,
    quiet: bool,
) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    context.metrics.requested(OpKind::Touch, 1);
    let op = Op::Touch(exptime.expiry(context.now));
    match context.table.submit(context.now, &origin.request(key, op)) {
        Submission::Done(Reply::Touched) => finish(quiet, lines::TOUCHED, *reply),
        Submission::Done(Reply::NotFound) => finish(quiet, lines::NOT_FOUND, *reply),
        Submission::Done(_) => finish(quiet, lines::UNHANDLED, *reply),
        Submission::Pending => Executed::Pending,
    }
}

pub(super) fn flush_all<O: Output>(
    exchange: &mut Exchange<'_, '_, O>,
    delay: Exptime,
    quiet: bool,
) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    context.metrics.requested(OpKind::Flush, 1);
    let at_unix_ms = if delay.0 > 0 { delay.expiry(context.now).unix_ms() } else { context.now.unix_ms };
    match context.table.submit(context.now, &origin.request(&[], Op::FlushAll { at_unix_ms })) {
        Submission::Done(Reply::Done) => finish(quiet, lines::OK, *reply),
        Submission::Done(_) => finish(quiet, lines::UNHANDLED, *reply),
        Submission::Pending => Executed::Pending,
    }
}

pub(super) fn arithmetic<O: Output>(
    exchange: &mut Exchange<'_, '_, O>,
    key: &[u8],
    direction: Direction,
    delta: u64,
    quiet: bool,
) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    context.metrics.requested(OpKind::Arithmetic, 1);
    let op = Op::Arithmetic(Arithmetic {
        direction,
        delta,
        initial: None,
        touch: None,
        compare_cas: None,
        new_cas: None,
    });
    match context.table.submit(context.now, &origin.request(key, op)) {
        Submission::Done(Reply::Value(item)) => {
            if !quiet {
                reply.push(item.value);
                reply.push(b"\r\n");
            }
            Executed::Done
        }
        Submission::Done(Reply::NotFound) => finish(quiet, lines::NOT_FOUND, *reply),
        Submission::Done(Reply::NotANumber) => finish(quiet, lines::NON_NUMERIC, *reply),
        Submission::Done(Reply::OutOfMemory | Reply::TooLarge) => finish(quiet, lines::OUT_OF_MEMORY, *reply),
        Submission::Done(_) => finish(quiet, lines::UNHANDLED, *reply),
        Submission::Pending => Executed::Pending,
    }
}
