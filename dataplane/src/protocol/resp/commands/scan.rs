//! Walks over all keys.
//!
//! How many keys a reply has stands in front of them, so a step of the table's scan is taken twice: to count, and, once
//! there is room, to write. Nothing comes in between.

use super::super::Arguments;
use super::super::encode::BULK_FRAME_BYTES_MAX;
use super::super::errors::texts;
use super::super::glob::{Case, PATTERN_BYTES_MAX, matches};
use super::super::number::parse_cursor;
use super::{Exchange, Failure, Outcome, Shard, integer, next};
use crate::metrics::DropReason;
use crate::protocol::digits::{U64_DIGITS_MAX, format_u64};

/// Keys that one `SCAN` looks at when nothing else is asked for.
const COUNT_DEFAULT: i64 = 10;

/// Keys that one `SCAN` looks at whatever is asked for: others wait meanwhile.
const COUNT_MAX: i64 = 10_000;

/// Keys that `KEYS` looks at.
const KEYS_MAX: u64 = 1 << 20;

/// Keys that a walk over all of them looks at in one step of the table's scan.
const STEP_KEYS: usize = 4096;

/// Which keys are asked for.
#[derive(Clone, Copy)]
struct Filter<'a> {
    pattern: Option<&'a [u8]>,
    /// Only strings are kept.
    strings: bool,
}

impl<'a> Filter<'a> {
    fn matching(pattern: &'a [u8]) -> Result<Option<&'a [u8]>, Failure<'a>> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(texts::PATTERN_TOO_LONG.into());
        }
        // The one pattern that everything matches.
        Ok(Some(pattern).filter(|&pattern| pattern != b"*"))
    }

    fn takes(self, key: &[u8]) -> bool {
        self.strings && self.pattern.is_none_or(|pattern| matches(pattern, key, Case::Kept))
    }
}

/// What a walk found.
#[derive(Clone, Copy, Default)]
struct Found {
    keys: usize,
    /// Room for all of them.
    bytes: usize,
    /// Where the next walk begins; 0 at the end.
    cursor: u64,
}

/// One step from `cursor` on.
fn count(shard: &Shard<'_>, cursor: u64, budget: usize, filter: Filter<'_>) -> Found {
    let (mut keys, mut bytes) = (0, 0);
    let cursor = shard.table.scan(shard.now, cursor, budget, &mut |key, _| {
        if filter.takes(key) {
            keys += 1;
            bytes += key.len() + BULK_FRAME_BYTES_MAX;
        }
    });
    Found { keys, bytes, cursor }
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
pub(super) fn scan<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let cursor = parse_cursor(next(&mut arguments)).ok_or(texts::INVALID_CURSOR)?;
    let mut budget = COUNT_DEFAULT;
    let mut filter = Filter { pattern: None, strings: true };
    while let Some(option) = arguments.next() {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        let argument = arguments.next().ok_or(texts::SYNTAX)?;
        if is("COUNT") {
            budget = integer(argument)?;
            if budget < 1 {
                return Err(texts::SYNTAX.into());
            }
        } else if is("MATCH") {
            filter.pattern = Filter::matching(argument)?;
        } else if is("TYPE") {
            filter.strings = argument.eq_ignore_ascii_case(b"string");
        } else {
            return Err(texts::SYNTAX.into());
        }
    }
    let mut budget = budget.min(COUNT_MAX) as usize;
    let head_bytes = 3 * BULK_FRAME_BYTES_MAX + U64_DIGITS_MAX;
    let found = loop {
        let found = count(&exchange.shard, cursor, budget, filter);
        let bytes = head_bytes + found.bytes;
        if bytes <= exchange.reply.room() {
            break found;
        }
        // A reply that never fits is one of fewer keys.
        if bytes <= exchange.reply.capacity() || budget == 1 {
            return Err(Failure::Full { bytes });
        }
        budget = budget.div_ceil(4);
    };
    let Exchange { shard, reply, .. } = exchange;
    reply.array(2);
    reply.bulk(format_u64(found.cursor, &mut [0; U64_DIGITS_MAX]));
    reply.array(found.keys);
    shard.table.scan(shard.now, cursor, budget, &mut |key, _| {
        if filter.takes(key) {
            reply.bulk(key);
        }
    });
    Ok(())
}

/// `KEYS pattern`: a walk over the whole table, which therefore must not be too large, nor the reply.
pub(super) fn keys<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let filter = Filter { pattern: Filter::matching(next(&mut arguments))?, strings: true };
    if exchange.shard.table.statistics().items > KEYS_MAX {
        return Err(texts::TOO_MANY_KEYS.into());
    }
    let mut total = Found { bytes: BULK_FRAME_BYTES_MAX, ..Found::default() };
    loop {
        let found = count(&exchange.shard, total.cursor, STEP_KEYS, filter);
        total =
            Found { keys: total.keys + found.keys, bytes: total.bytes + found.bytes, cursor: found.cursor };
        if total.bytes > exchange.reply.capacity() {
            exchange.metrics.dropped(DropReason::ReplyTooLarge);
            return Err(texts::TOO_MANY_KEYS.into());
        }
        if total.cursor == 0 {
            break;
        }
    }
    if total.bytes > exchange.reply.room() {
        return Err(Failure::Full { bytes: total.bytes });
    }
    let Exchange { shard, reply, .. } = exchange;
    reply.array(total.keys);
    let mut cursor = 0;
    loop {
        cursor = shard.table.scan(shard.now, cursor, STEP_KEYS, &mut |key, _| {
            if filter.takes(key) {
                reply.bulk(key);
            }
        });
        if cursor == 0 {
            return Ok(());
        }
    }
}
