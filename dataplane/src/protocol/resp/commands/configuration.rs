//! `CONFIG GET`: what a client may ask of a Redis's configuration, as far as there is an answer here.

use super::super::Arguments;
use super::super::errors::texts;
use super::super::glob::{Case, PATTERN_BYTES_MAX, matches};
use super::{Exchange, Outcome};
use crate::limits::VALUE_BYTES_MAX;
use crate::protocol::digits::{U64_DIGITS_MAX, format_u64};

/// A parameter's value.
enum Value {
    Word(&'static str),
    Bytes(usize),
    /// What the table was given.
    Capacity,
}

/// The parameters, by name.
const PARAMETERS: [(&str, Value); 9] = [
    ("appendonly", Value::Word("no")),
    ("cluster-enabled", Value::Word("no")),
    ("databases", Value::Word("1")),
    ("io-threads", Value::Word("1")),
    ("maxmemory", Value::Capacity),
    ("maxmemory-policy", Value::Word("allkeys-lru")),
    ("proto-max-bulk-len", Value::Bytes(VALUE_BYTES_MAX)),
    ("save", Value::Word("")),
    ("timeout", Value::Word("0")),
];

pub(super) fn get<'a>(exchange: &mut Exchange<'_>, patterns: Arguments<'a>) -> Outcome<'a> {
    if { patterns }.any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        return Err(texts::PATTERN_TOO_LONG.into());
    }
    let named = |name: &str| { patterns }.any(|pattern| matches(pattern, name.as_bytes(), Case::Ignored));
    let capacity_bytes = exchange.shard.table.statistics().capacity_bytes;
    exchange.whole(|reply| {
        let asked = || PARAMETERS.iter().filter(|(name, _)| named(name));
        reply.map(asked().count());
        for (name, value) in asked() {
            reply.bulk(name.as_bytes());
            let mut digits = [0; U64_DIGITS_MAX];
            reply.bulk(match value {
                Value::Word(word) => word.as_bytes(),
                Value::Bytes(bytes) => format_u64(*bytes as u64, &mut digits),
                Value::Capacity => format_u64(capacity_bytes, &mut digits),
            });
        }
    })
}
