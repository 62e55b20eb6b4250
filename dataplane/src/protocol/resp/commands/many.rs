//! Many strings at once. A shard is one thread, so nothing comes between them.

use super::super::Arguments;
use super::super::client::Left;
use super::super::encode::BULK_FRAME_BYTES_MAX;
use super::super::errors::{Error, texts};
use super::{Exchange, Failure, Outcome, checked, refusal};
use crate::metrics::{DropReason, OpKind};
use crate::request::{Get, Op, Reply, Store};

/// `MGET`: the one reply that may be far larger than what there is room for. Where it fits once there is room, it is
/// written in one piece; where it never fits, value by value as room comes, and then each value is what it is when it is
/// written. An inline request, whose words lie nowhere meanwhile, is then refused.
pub(super) fn mget<'a>(exchange: &mut Exchange<'_>, keys: Arguments<'a>) -> Outcome<'a> {
    for key in keys {
        checked(key)?;
    }
    let capacity = exchange.reply.capacity();
    let is_inline = keys.left_bytes().is_none();
    // With the output empty there is no more room to wait for.
    if is_inline || exchange.reply.room() < capacity {
        let bytes = reply_bytes(exchange, keys)?;
        if bytes > exchange.reply.room() && (is_inline || bytes <= capacity) {
            return Err(Failure::Full { bytes });
        }
    }
    exchange.reply.array(keys.len());
    values(exchange, keys)
}

/// Writes the values of these keys, and leaves to the client those that there is no room for.
pub(super) fn values<'a>(exchange: &mut Exchange<'_>, mut keys: Arguments<'a>) -> Outcome<'a> {
    let (asked, mut hits) = (keys.len(), 0);
    let outcome = loop {
        let left = keys;
        let Some(key) = keys.next() else { break Ok(()) };
        match value(exchange, key) {
            Ok(hit) => hits += usize::from(hit),
            Err(Failure::Full { bytes }) if bytes > exchange.reply.capacity() => {
                Error::Text(texts::REPLY_TOO_LARGE).write(exchange.reply.output());
                exchange.metrics.dropped(DropReason::ReplyTooLarge);
            }
            Err(Failure::Full { bytes }) => {
                let left_bytes = left.left_bytes().unwrap_or_default();
                exchange.client.left = Some(Left { keys: left.len(), bytes: left_bytes });
                keys = left;
                break Err(Failure::Full { bytes });
            }
            // The array has begun: what is wrong stands in the value's place.
            Err(Failure::Error(error)) => error.write(exchange.reply.output()),
        }
    };
    let answered = asked - keys.len();
    exchange.count_reads(hits, answered - hits);
    exchange.metrics.requested(OpKind::Get, answered as u64);
    outcome
}

/// Room that an element may need beside its value, were it an error.
const ELEMENT_BYTES_MAX: usize = 128;

const _: () = assert!(
    BULK_FRAME_BYTES_MAX <= ELEMENT_BYTES_MAX && texts::REPLY_TOO_LARGE.len() + 3 <= ELEMENT_BYTES_MAX
);

/// Writes one element; whether there was a value.
#[inline]
fn value<'f>(exchange: &mut Exchange<'_>, key: &[u8]) -> Result<bool, Failure<'f>> {
    let Some(bytes_max) = exchange.reply.room().checked_sub(ELEMENT_BYTES_MAX) else {
        return Err(Failure::Full { bytes: ELEMENT_BYTES_MAX });
    };
    let get = Get { value_bytes_max: Some(bytes_max), ..Get::default() };
    match exchange.shard.submit(key, Op::Get(get))? {
        Reply::Value(item) => {
            exchange.reply.bulk(item.value);
            Ok(true)
        }
        Reply::NoRoom { value_bytes } => Err(Failure::Full { bytes: value_bytes + ELEMENT_BYTES_MAX }),
        _ => {
            exchange.reply.null();
            Ok(false)
        }
    }
}

/// Room that the whole reply needs. Nothing is used by it.
fn reply_bytes<'f>(exchange: &mut Exchange<'_>, keys: Arguments<'_>) -> Result<usize, Failure<'f>> {
    let mut bytes = BULK_FRAME_BYTES_MAX + ELEMENT_BYTES_MAX;
    for key in keys {
        let value_bytes = exchange.shard.peek(key)?.map_or(0, |item| item.value.len());
        bytes += value_bytes + BULK_FRAME_BYTES_MAX;
    }
    Ok(bytes)
}

pub(super) fn mset<'a>(exchange: &mut Exchange<'_>, pairs: Arguments<'a>) -> Outcome<'a> {
    check_pairs(exchange, pairs)?;
    store(exchange, pairs)?;
    exchange.reply.ok();
    Ok(())
}

pub(super) fn msetnx<'a>(exchange: &mut Exchange<'_>, pairs: Arguments<'a>) -> Outcome<'a> {
    check_pairs(exchange, pairs)?;
    let mut left = pairs;
    while let Some((key, _)) = left.next_pair() {
        if exchange.shard.peek(key)?.is_some() {
            exchange.reply.integer(0);
            return Ok(());
        }
    }
    store(exchange, pairs)?;
    exchange.reply.integer(1);
    Ok(())
}

/// Looks for all that can be wrong before anything is stored.
fn check_pairs<'a>(exchange: &Exchange<'_>, mut pairs: Arguments<'a>) -> Outcome<'a> {
    if !pairs.len().is_multiple_of(2) {
        return Err(Error::WrongArity(exchange.spec.name).into());
    }
    while let Some((key, value)) = pairs.next_pair() {
        checked(key)?;
        if key.len() + value.len() > exchange.worker.item_bytes_max {
            return Err(texts::STRING_TOO_LONG.into());
        }
    }
    Ok(())
}

/// Stores every pair. A table that finds no room for one, after all it could evict, has kept those before it.
fn store<'a>(exchange: &mut Exchange<'_>, mut pairs: Arguments<'a>) -> Outcome<'a> {
    while let Some((key, value)) = pairs.next_pair() {
        match exchange.shard.store(key, Store::set(value))? {
            Reply::Stored { .. } => {}
            other => return Err(refusal(&other)),
        }
    }
    Ok(())
}
