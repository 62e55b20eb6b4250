//! The meta commands. A reply repeats the flags it was asked for in the client's order.

use super::super::command::{Meta, MetaKey};
use super::super::meta::OPAQUE_BYTES_MAX;
use super::super::parse::error_lines::TOO_LARGE;
use super::super::reply::lines;
use super::{Exchange, Executed, count_read, evict, finish};
use crate::metrics::OpKind;
use crate::protocol::digits::U64_DIGITS_MAX;
use crate::protocol::output::OutputExt;
use crate::request::{self, Arithmetic, Delete, Direction, Item, Op, Recache, Reply, StoreMode};
use crate::service::Context;
use crate::service::Output;
use crate::table::Submission;
use crate::time::{Expiry, Now};

/// Room for a status, a length, the marks, a number as value, and two line ends.
const LINE_BYTES_MAX: usize = 64;
/// A space, the flag, and a number.
const NUMBER_FLAG_BYTES_MAX: usize = 2 + U64_DIGITS_MAX;
/// Flags that are answered with a number.
const NUMBER_FLAGS: u128 = 1 << b'c' | 1 << b'f' | 1 << b'h' | 1 << b'l' | 1 << b's' | 1 << b't';

/// Most bytes of a reply but for the value of an `mg`.
#[inline]
pub(super) fn reply_bytes_max(meta: &Meta<'_>) -> usize {
    let numbers = (meta.present & NUMBER_FLAGS).count_ones() as usize;
    let key = if meta.has(b'k') { meta.key.word.len() + " k b".len() } else { 0 };
    let opaque = if meta.has(b'O') { 1 + OPAQUE_BYTES_MAX } else { 0 };
    (LINE_BYTES_MAX + numbers * NUMBER_FLAG_BYTES_MAX + key + opaque).max(super::LINE_BYTES_MAX)
}

/// Most bytes of the reply to `me`.
pub(super) fn debug_bytes_max(name: MetaKey<'_>) -> usize {
    name.word.len() + super::LINE_BYTES_MAX
}

/// `mg`
#[inline]
pub(super) fn get<O: Output>(exchange: &mut Exchange<'_, '_, O>, meta: &Meta<'_>, key: &[u8]) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    let now = context.now;
    let around_bytes = reply_bytes_max(meta);
    let op = Op::Get(request::Get {
        touch: meta.touch.map(|exptime| exptime.expiry(now)),
        vivify: meta.vivify.map(|exptime| exptime.expiry(now)),
        recache_below_s: meta.recache.and_then(|exptime| exptime.seconds(now)),
        new_cas: meta.new_cas,
        claim: true,
        peek: meta.has(b'u'),
        value_bytes_max: meta.has(b'v').then(|| reply.room().saturating_sub(around_bytes)),
    });
    match context.table.submit(now, &origin.request(key, op)) {
        Submission::Done(Reply::Value(item)) => {
            // `C`: a client that has this very item wants no second copy.
            let value = (meta.has(b'v') && meta.compare_cas != Some(item.cas)).then_some(item.value);
            push_status(*reply, value);
            push_flags(*reply, meta, |reply, flag| push_item_flag(reply, flag, &item, now));
            match item.recache {
                Recache::Sent => reply.push(b" Z"),
                Recache::None | Recache::Won => {}
            }
            if item.stale {
                reply.push(b" X");
            }
            if item.recache == Recache::Won {
                reply.push(b" W");
            }
            push_end(*reply, value);
            count_read(context, 1, 0);
        }
        Submission::Done(Reply::NotFound) => {
            count_read(context, 0, 1);
            if !meta.has(b'q') {
                push_outcome(*reply, meta, b"EN");
            }
        }
        Submission::Done(Reply::NoRoom { value_bytes }) => {
            return Executed::Full { bytes: around_bytes + value_bytes };
        }
        Submission::Done(Reply::OutOfMemory | Reply::TooLarge) => {
            count_read(context, 0, 1);
            reply.push(lines::OUT_OF_MEMORY);
        }
        Submission::Done(_) => reply.push(lines::UNHANDLED),
        Submission::Pending => return Executed::Pending,
    }
    Executed::Done
}

/// `ms`
pub(super) fn store<O: Output>(
    exchange: &mut Exchange<'_, '_, O>,
    meta: &Meta<'_>,
    key: &[u8],
    mode: StoreMode,
    value: &[u8],
) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    let now = context.now;
    context.metrics.requested(OpKind::Store, 1);
    let joins = mode.joins();
    let compare_cas = match mode {
        StoreMode::Add => None,
        StoreMode::Set | StoreMode::Replace => meta.compare_cas,
        // Here, and not for a set, memcached takes 0 for "no CAS".
        StoreMode::Append | StoreMode::Prepend | StoreMode::Range { .. } => {
            meta.compare_cas.filter(|&cas| cas != 0)
        }
    };
    let op = Op::Store(request::Store {
        mode,
        flags: meta.flags,
        expiry: meta.touch.map_or(Expiry::NEVER, |exptime| exptime.expiry(now)),
        compare_cas,
        new_cas: meta.new_cas,
        invalidate: meta.has(b'I') && !joins && compare_cas.is_some(),
        vivify: meta.vivify.filter(|_| joins).map(|exptime| exptime.expiry(now)),
        ..request::Store::set(value)
    });
    let (status, cas, value_bytes) = match context.table.submit(now, &origin.request(key, op)) {
        Submission::Done(Reply::Stored { cas, value_bytes }) => (b"HD", cas, value_bytes),
        Submission::Done(Reply::NotStored) => (b"NS", 0, value.len()),
        Submission::Done(Reply::Exists) => (b"EX", 0, value.len()),
        Submission::Done(Reply::NotFound) => (b"NF", 0, value.len()),
        Submission::Done(Reply::TooLarge) => return store_failed(context, key, joins, TOO_LARGE, *reply),
        Submission::Done(Reply::OutOfMemory) => {
            return store_failed(context, key, joins, lines::OUT_OF_MEMORY_STORING, *reply);
        }
        Submission::Done(_) => return finish(false, lines::UNHANDLED, *reply),
        Submission::Pending => return Executed::Pending,
    };
    if meta.has(b'q') && status == b"HD" {
        return Executed::Done;
    }
    reply.push(status);
    push_flags(*reply, meta, |reply, flag| match flag {
        b'c' => push_flag_number(reply, b'c', cas),
        b's' => push_flag_number(reply, b's', value_bytes as u64),
        _ => {}
    });
    reply.push(b"\r\n");
    Executed::Done
}

/// Answers a store that found no room. What it was to replace goes, so that nobody reads a value that its writer
/// believes replaced; what it was to be joined to is still what everybody believes it to be, and stays.
#[cold]
fn store_failed(
    context: &mut Context<'_>,
    key: &[u8],
    joins: bool,
    line: &[u8],
    reply: &mut impl Output,
) -> Executed {
    if !joins {
        evict(context, key);
    }
    finish(false, line, reply)
}

/// `md`
pub(super) fn delete<O: Output>(exchange: &mut Exchange<'_, '_, O>, meta: &Meta<'_>, key: &[u8]) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    let now = context.now;
    context.metrics.requested(OpKind::Delete, 1);
    let mark_stale = meta.has(b'I');
    let op = Op::Delete(Delete {
        compare_cas: meta.compare_cas,
        mark_stale,
        drop_value: meta.has(b'x'),
        touch: meta.touch.filter(|_| mark_stale).map(|exptime| exptime.expiry(now)),
        new_cas: meta.new_cas,
        old_bytes_max: None,
    });
    match context.table.submit(now, &origin.request(key, op)) {
        Submission::Done(Reply::Deleted) if meta.has(b'q') => {}
        Submission::Done(Reply::Deleted) => push_outcome(*reply, meta, b"HD"),
        Submission::Done(Reply::NotFound) => push_outcome(*reply, meta, b"NF"),
        Submission::Done(Reply::Exists) => push_outcome(*reply, meta, b"EX"),
        Submission::Done(Reply::OutOfMemory) => reply.push(lines::OUT_OF_MEMORY),
        Submission::Done(_) => reply.push(lines::UNHANDLED),
        Submission::Pending => return Executed::Pending,
    }
    Executed::Done
}

/// `ma`
pub(super) fn arithmetic<O: Output>(
    exchange: &mut Exchange<'_, '_, O>,
    meta: &Meta<'_>,
    key: &[u8],
    direction: Direction,
) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    let now = context.now;
    context.metrics.requested(OpKind::Arithmetic, 1);
    let op = Op::Arithmetic(Arithmetic {
        direction,
        delta: meta.delta,
        initial: meta.vivify.map(|exptime| (meta.initial, exptime.expiry(now))),
        touch: meta.touch.map(|exptime| exptime.expiry(now)),
        compare_cas: meta.compare_cas.filter(|&cas| cas != 0),
        new_cas: meta.new_cas,
    });
    match context.table.submit(now, &origin.request(key, op)) {
        Submission::Done(Reply::Value(_)) if meta.has(b'q') => {}
        Submission::Done(Reply::Value(item)) => {
            let value = meta.has(b'v').then_some(item.value);
            push_status(*reply, value);
            push_flags(*reply, meta, |reply, flag| {
                if matches!(flag, b'c' | b't') {
                    push_item_flag(reply, flag, &item, now);
                }
            });
            push_end(*reply, value);
        }
        Submission::Done(Reply::NotFound) => push_outcome(*reply, meta, b"NF"),
        Submission::Done(Reply::NotStored) => push_outcome(*reply, meta, b"NS"),
        Submission::Done(Reply::Exists) => push_outcome(*reply, meta, b"EX"),
        Submission::Done(Reply::NotANumber) => reply.push(lines::NON_NUMERIC),
        Submission::Done(Reply::OutOfMemory | Reply::TooLarge) => reply.push(lines::OUT_OF_MEMORY),
        Submission::Done(_) => reply.push(lines::UNHANDLED),
        Submission::Pending => return Executed::Pending,
    }
    Executed::Done
}

/// `me`
pub(super) fn debug<O: Output>(
    exchange: &mut Exchange<'_, '_, O>,
    name: MetaKey<'_>,
    key: &[u8],
) -> Executed {
    let Exchange { context, origin, reply } = exchange;
    let now = context.now;
    context.metrics.requested(OpKind::Other, 1);
    let peek = Op::Get(request::Get { peek: true, ..request::Get::default() });
    match context.table.submit(now, &origin.request(key, peek)) {
        Submission::Done(Reply::Value(item)) => {
            reply.push(b"ME ");
            reply.push(name.word);
            reply.push(b" exp=");
            push_remaining(*reply, &item, now);
            reply.push(b" la=");
            reply.push_number(u64::from(item.idle_s));
            reply.push(b" cas=");
            reply.push_number(item.cas);
            reply.push(if item.fetched { b" fetch=yes" } else { b" fetch=no" });
            // There are no slab classes; clients that read the line expect a number.
            reply.push(b" cls=1 size=");
            reply.push_number((key.len() + item.value.len()) as u64);
            reply.push(b"\r\n");
        }
        Submission::Done(_) => reply.push(lines::META_MISS),
        Submission::Pending => return Executed::Pending,
    }
    Executed::Done
}

/// `VA <size>` before a value, `HD` without.
#[inline]
fn push_status(reply: &mut impl Output, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            reply.push(b"VA ");
            reply.push_number(value.len() as u64);
        }
        None => reply.push(b"HD"),
    }
}

/// The end of the line, and the value.
#[inline]
fn push_end(reply: &mut impl Output, value: Option<&[u8]>) {
    reply.push(b"\r\n");
    if let Some(value) = value {
        reply.push(value);
        reply.push(b"\r\n");
    }
}

/// A line of nothing but a code and what a client sent along to know the reply by.
fn push_outcome(reply: &mut impl Output, meta: &Meta<'_>, code: &[u8; 2]) {
    reply.push(code);
    push_flags(reply, meta, |_, _| {});
    reply.push(b"\r\n");
}

/// Key and opaque where the client had them, and `push_other` for every other flag.
#[inline]
fn push_flags<O: Output>(reply: &mut O, meta: &Meta<'_>, mut push_other: impl FnMut(&mut O, u8)) {
    for word in meta.words {
        match word[0] {
            b'O' => {
                reply.push(b" ");
                reply.push(word);
            }
            b'k' => {
                reply.push(b" k");
                reply.push(meta.key.word);
                if meta.key.binary {
                    reply.push(b" b");
                }
            }
            flag => push_other(reply, flag),
        }
    }
}

/// What `mg` tells of an item.
#[inline]
fn push_item_flag(reply: &mut impl Output, flag: u8, item: &Item<'_>, now: Now) {
    match flag {
        b'c' => push_flag_number(reply, b'c', item.cas),
        b'f' => push_flag_number(reply, b'f', u64::from(item.flags)),
        b'h' => push_flag_number(reply, b'h', u64::from(item.fetched)),
        b'l' => push_flag_number(reply, b'l', u64::from(item.idle_s)),
        b's' => push_flag_number(reply, b's', item.value.len() as u64),
        b't' => {
            reply.push(b" t");
            push_remaining(reply, item, now);
        }
        _ => {}
    }
}

#[inline]
fn push_flag_number(reply: &mut impl Output, flag: u8, number: u64) {
    reply.push(&[b' ', flag]);
    reply.push_number(number);
}

/// Seconds left, -1 for an item that stays.
#[inline]
fn push_remaining(reply: &mut impl Output, item: &Item<'_>, now: Now) {
    match item.expiry.remaining_s(now) {
        Some(seconds) => reply.push_number(seconds),
        None => reply.push(b"-1"),
    }
}
