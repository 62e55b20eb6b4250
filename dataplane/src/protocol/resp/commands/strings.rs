//! One string: `GET`, `SET` and what is like them.

use super::super::Arguments;
use super::super::encode::BULK_FRAME_BYTES_MAX;
use super::super::errors::texts;
use super::super::spec::Command;
use super::options::{Lifetime, MS, Of, Options, S};
use super::{Exchange, Failure, Outcome, next, next_integer, next_key, refusal};
use crate::limits::VALUE_BYTES_MAX;
use crate::request::{Delete, Get, Op, Reply, Store, StoreMode};
use crate::time::Expiry;

#[inline]
pub(super) fn get<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    read(exchange, key, None)
}

/// Reads a value, and sets its expiry on the way.
#[inline]
fn read<'a>(exchange: &mut Exchange<'_>, key: &[u8], touch: Option<Expiry>) -> Outcome<'a> {
    let get = Get { touch, value_bytes_max: Some(exchange.bulk_bytes_max()), ..Get::default() };
    let hit = match exchange.shard.submit(key, Op::Get(get))? {
        Reply::Value(item) => {
            exchange.reply.bulk(item.value);
            true
        }
        Reply::NotFound => {
            exchange.reply.null();
            false
        }
        other => return Err(refusal(&other)),
    };
    exchange.count_reads(usize::from(hit), usize::from(!hit));
    Ok(())
}

#[inline]
pub(super) fn set<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let value = next(&mut arguments);
    let options = Options::parse(arguments, Of::Set)?;
    let expiry = match options.lifetime {
        Some(lifetime) => lifetime.expiry(exchange.shard.now, exchange.spec.name)?,
        None => Expiry::NEVER,
    };
    let old_bytes_max = options.get.then(|| exchange.bulk_bytes_max());
    let store =
        Store { mode: options.mode, expiry, keep_expiry: options.keep, old_bytes_max, ..Store::set(value) };
    match exchange.shard.store(key, store)? {
        Reply::Stored { .. } if !options.get => exchange.reply.ok(),
        Reply::Stored { .. } | Reply::NotStored => exchange.reply.null(),
        Reply::Value(item) => exchange.reply.bulk(item.value),
        other => return Err(refusal(&other)),
    }
    Ok(())
}

pub(super) fn setnx<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let store = Store { mode: StoreMode::Add, ..Store::set(next(&mut arguments)) };
    match exchange.shard.store(key, store)? {
        Reply::Stored { .. } => exchange.reply.integer(1),
        Reply::NotStored => exchange.reply.integer(0),
        other => return Err(refusal(&other)),
    }
    Ok(())
}

/// `SETEX` and `PSETEX`.
pub(super) fn setex<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let unit_ms = if exchange.spec.command == Command::Setex { S } else { MS };
    let lifetime = Lifetime { text: next(&mut arguments), unit_ms, relative: true };
    let expiry = lifetime.expiry(exchange.shard.now, exchange.spec.name)?;
    let store = Store { expiry, ..Store::set(next(&mut arguments)) };
    match exchange.shard.store(key, store)? {
        Reply::Stored { .. } => exchange.reply.ok(),
        other => return Err(refusal(&other)),
    }
    Ok(())
}

pub(super) fn getset<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let old_bytes_max = Some(exchange.bulk_bytes_max());
    let store = Store { old_bytes_max, ..Store::set(next(&mut arguments)) };
    match exchange.shard.store(key, store)? {
        Reply::Value(item) => exchange.reply.bulk(item.value),
        Reply::Stored { .. } => exchange.reply.null(),
        other => return Err(refusal(&other)),
    }
    Ok(())
}

pub(super) fn getdel<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let delete = Delete { old_bytes_max: Some(exchange.bulk_bytes_max()), ..Delete::default() };
    match exchange.shard.submit(key, Op::Delete(delete))? {
        Reply::Value(item) => exchange.reply.bulk(item.value),
        Reply::NotFound => exchange.reply.null(),
        other => return Err(refusal(&other)),
    }
    Ok(())
}

pub(super) fn getex<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let options = Options::parse(arguments, Of::Getex)?;
    let touch = match options.lifetime {
        Some(lifetime) => match lifetime.expiry(exchange.shard.now, exchange.spec.name) {
            Ok(expiry) => Some(expiry),
            // An absent key is told before a wrong time.
            Err(failure) if exchange.shard.peek(key)?.is_some() => return Err(failure),
            Err(_) => None,
        },
        None => options.persist.then_some(Expiry::NEVER),
    };
    read(exchange, key, touch)
}

pub(super) fn append<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    join(exchange, key, StoreMode::Append, next(&mut arguments))
}

/// Puts a value and what is there together, and tells how long that is.
fn join<'a>(exchange: &mut Exchange<'_>, key: &[u8], mode: StoreMode, value: &[u8]) -> Outcome<'a> {
    let store = Store { mode, vivify: Some(Expiry::NEVER), ..Store::set(value) };
    match exchange.shard.submit(key, Op::Store(store))? {
        Reply::Stored { value_bytes, .. } => exchange.reply.count(value_bytes),
        other => return Err(refusal(&other)),
    }
    Ok(())
}

pub(super) fn strlen<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    length(exchange, key)
}

fn length<'a>(exchange: &mut Exchange<'_>, key: &[u8]) -> Outcome<'a> {
    let bytes = match exchange.shard.submit(key, Op::Get(Get::default()))? {
        Reply::Value(item) => item.value.len(),
        _ => 0,
    };
    exchange.reply.count(bytes);
    Ok(())
}

pub(super) fn getrange<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let (start, end) = (next_integer(&mut arguments)?, next_integer(&mut arguments)?);
    let value = match exchange.shard.submit(key, Op::Get(Get::default()))? {
        Reply::Value(item) => slice(item.value, start, end),
        _ => &[],
    };
    let bytes = value.len() + BULK_FRAME_BYTES_MAX;
    if exchange.reply.room() < bytes {
        return Err(Failure::Full { bytes });
    }
    exchange.reply.bulk(value);
    Ok(())
}

/// From `start` to `end`, both included; negative ones count from the value's end.
fn slice(value: &[u8], start: i64, end: i64) -> &[u8] {
    let length = value.len() as i64;
    // Before the beginning is the beginning, unless both are and in the wrong order.
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let from_start = |at: i64| if at < 0 { (length + at).max(0) } else { at };
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end { &[] } else { &value[start as usize..=end as usize] }
}

pub(super) fn setrange<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let offset = next_integer(&mut arguments)?;
    let value = next(&mut arguments);
    let Ok(start) = usize::try_from(offset) else { return Err(texts::OFFSET.into()) };
    if value.is_empty() {
        return length(exchange, key);
    }
    if start.saturating_add(value.len()) > VALUE_BYTES_MAX {
        return Err(texts::STRING_TOO_LONG.into());
    }
    join(exchange, key, StoreMode::Range { offset: start as u32 }, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_value() {
        for (start, end, expected) in [
            (0, 2, "Hel"),
            (-3, -1, "llo"),
            (0, -1, "Hello"),
            (10, 100, ""),
            (-100, 1, "He"),
            (-1, -2, ""),
            (3, 1, ""),
            (-100, -100, "H"),
            (i64::MIN, i64::MAX, "Hello"),
            (i64::MIN, i64::MIN, "H"),
        ] {
            assert_eq!(slice(b"Hello", start, end), expected.as_bytes(), "{start} to {end}");
        }
        assert_eq!(slice(b"", 0, -1), b"");
    }
}
