//! Strings that are numbers.

use super::super::Arguments;
use super::super::decimal::{Decimal, NotDecimal, TEXT_BYTES_MAX};
use super::super::errors::texts;
use super::super::spec::Command;
use super::{Exchange, Failure, Outcome, next, next_integer, next_key, refusal};
use crate::request::{Get, Op, Reply, Store};

/// `INCR`, `DECR`, `INCRBY` and `DECRBY`.
#[inline]
pub(super) fn increment<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let delta = match exchange.spec.command {
        Command::Incr => 1,
        Command::Decr => -1,
        Command::Incrby => next_integer(&mut arguments)?,
        _ => next_integer(&mut arguments)?.checked_neg().ok_or(texts::DECREMENT_OVERFLOW)?,
    };
    match exchange.shard.submit(key, Op::Add(delta))? {
        Reply::Value(item) => {
            let output = exchange.reply.output();
            output.push(b":");
            output.push(item.value);
            output.push(b"\r\n");
            Ok(())
        }
        other => Err(refusal(&other)),
    }
}

pub(super) fn incrbyfloat<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let (value, flags) = match exchange.shard.submit(key, Op::Get(Get::default()))? {
        Reply::Value(item) => (Decimal::parse(item.value), item.flags),
        _ => (Ok(Decimal::ZERO), 0),
    };
    // A text that is no number is told before one that is too long to be added.
    let increment = Decimal::parse(next(&mut arguments));
    let sum = match (value, increment) {
        (Err(NotDecimal::Invalid), _) | (_, Err(NotDecimal::Invalid)) => Err(NotDecimal::Invalid),
        (value, increment) => value.and_then(|value| value.plus(increment?)),
    };
    let sum = sum.map_err(not_decimal)?;
    let mut text = [0; TEXT_BYTES_MAX];
    let text = sum.format(&mut text);
    let store = Store { keep_expiry: true, flags, ..Store::set(text) };
    match exchange.shard.store(key, store)? {
        Reply::Stored { .. } => exchange.reply.bulk(text),
        other => return Err(refusal(&other)),
    }
    Ok(())
}

fn not_decimal<'f>(why: NotDecimal) -> Failure<'f> {
    match why {
        NotDecimal::Invalid => texts::NOT_A_FLOAT,
        NotDecimal::Infinite => texts::NAN_OR_INFINITY,
        NotDecimal::TooLong => texts::FLOAT_TOO_LONG,
    }
    .into()
}
