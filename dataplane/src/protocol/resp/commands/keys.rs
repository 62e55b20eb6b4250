//! Keys, whatever is behind them.

use super::super::Arguments;
use super::super::errors::texts;
use super::super::spec::Command;
use super::{Exchange, Outcome, checked, next, next_key, refusal};
use crate::request::{Delete, Get, Op, Reply, Store, StoreMode};

/// Does something with each key, once all of them are known to be keys, and tells how many it was done with.
fn count<'a>(exchange: &mut Exchange<'_>, keys: Arguments<'a>, op: Op<'_>) -> Outcome<'a> {
    for key in keys {
        checked(key)?;
    }
    let mut done = 0;
    for key in keys {
        done += usize::from(!matches!(exchange.shard.submit(key, op)?, Reply::NotFound));
    }
    exchange.reply.count(done);
    Ok(())
}

/// `DEL` and `UNLINK`: a string is freed at once, whichever it is.
pub(super) fn del<'a>(exchange: &mut Exchange<'_>, keys: Arguments<'a>) -> Outcome<'a> {
    count(exchange, keys, Op::Delete(Delete::default()))
}

pub(super) fn exists<'a>(exchange: &mut Exchange<'_>, keys: Arguments<'a>) -> Outcome<'a> {
    count(exchange, keys, Op::Get(Get { peek: true, ..Get::default() }))
}

pub(super) fn touch<'a>(exchange: &mut Exchange<'_>, keys: Arguments<'a>) -> Outcome<'a> {
    count(exchange, keys, Op::Get(Get::default()))
}

pub(super) fn type_of<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let kind = if exchange.shard.peek(key)?.is_some() { "string" } else { "none" };
    exchange.reply.simple(kind);
    Ok(())
}

/// `RENAME` and `RENAMENX`: the value waits in the session while the table takes it under its new key.
pub(super) fn rename<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let (from, to) = (next_key(&mut arguments)?, next_key(&mut arguments)?);
    let only_new = exchange.spec.command == Command::Renamenx;
    let Some(item) = exchange.shard.peek(from)? else { return Err(texts::NO_SUCH_KEY.into()) };
    let value = exchange.worker.value.get_mut(..item.value.len()).ok_or(texts::STRING_TOO_LONG)?;
    value.copy_from_slice(item.value);
    let (flags, expiry) = (item.flags, item.expiry);
    let renamed = from != to && {
        let mode = if only_new { StoreMode::Add } else { StoreMode::Set };
        let store = Store { mode, flags, expiry, ..Store::set(value) };
        match exchange.shard.store(to, store)? {
            Reply::Stored { .. } => true,
            Reply::NotStored => false,
            other => return Err(refusal(&other)),
        }
    };
    if renamed {
        // To make room for it, the table may have evicted the old one.
        exchange.shard.submit(from, Op::Delete(Delete::default()))?;
    }
    if only_new {
        exchange.reply.integer(i64::from(renamed));
    } else {
        exchange.reply.ok();
    }
    Ok(())
}

pub(super) fn randomkey<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    let random = exchange.worker.random();
    match exchange.shard.table.random_key(exchange.shard.now, random) {
        Some(key) => exchange.reply.bulk(key),
        None => exchange.reply.null(),
    }
    Ok(())
}

pub(super) fn dbsize<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    let items = exchange.shard.table.statistics().items;
    exchange.reply.integer(items as i64);
    Ok(())
}

/// `FLUSHDB` and `FLUSHALL`: there is one database.
pub(super) fn flush<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let mode = match arguments.len() {
        0 => &b"SYNC"[..],
        1 => next(&mut arguments),
        _ => &[],
    };
    if !mode.eq_ignore_ascii_case(b"SYNC") && !mode.eq_ignore_ascii_case(b"ASYNC") {
        return Err(texts::SYNTAX.into());
    }
    let at_unix_ms = exchange.shard.now.unix_ms;
    match exchange.shard.submit(&[], Op::FlushAll { at_unix_ms })? {
        Reply::Done => exchange.reply.ok(),
        other => return Err(refusal(&other)),
    }
    Ok(())
}
