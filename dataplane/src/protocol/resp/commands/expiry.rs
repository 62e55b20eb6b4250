//! Times to live.

use super::super::Arguments;
use super::super::errors::{Error, texts};
use super::super::spec::Command;
use super::options::{MS, S};
use super::{Exchange, Failure, Outcome, integer, next, next_key, refusal};
use crate::request::{Delete, Op, Reply};
use crate::time::{Expiry, MS_PER_S, Now};

/// When an expiry is to be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Conditions {
    /// There is none yet.
    none: bool,
    /// There is one.
    some: bool,
    /// It is earlier.
    later: bool,
    /// It is later, or there is none.
    earlier: bool,
}

impl Conditions {
    fn parse<'a>(words: Arguments<'a>) -> Result<Self, Failure<'a>> {
        let mut conditions = Self::default();
        for word in words {
            let condition = match () {
                () if word.eq_ignore_ascii_case(b"NX") => &mut conditions.none,
                () if word.eq_ignore_ascii_case(b"XX") => &mut conditions.some,
                () if word.eq_ignore_ascii_case(b"GT") => &mut conditions.later,
                () if word.eq_ignore_ascii_case(b"LT") => &mut conditions.earlier,
                () => return Err(Error::Word("ERR Unsupported option ", word, "").into()),
            };
            *condition = true;
        }
        let Self { none, some, later, earlier } = conditions;
        if none && (some || later || earlier) {
            return Err(texts::EXPIRE_NX.into());
        }
        if later && earlier {
            return Err(texts::EXPIRE_GT_LT.into());
        }
        Ok(conditions)
    }

    /// Whether the present expiry lets `at_unix_ms` take its place.
    fn hold(self, present: Expiry, at_unix_ms: i64) -> bool {
        let never = present == Expiry::NEVER;
        let present_ms = i64::try_from(present.unix_ms()).unwrap_or(i64::MAX);
        !(self.none && !never
            || self.some && never
            || self.later && (never || at_unix_ms <= present_ms)
            || self.earlier && !never && at_unix_ms >= present_ms)
    }
}

/// `EXPIRE`, `PEXPIRE`, `EXPIREAT` and `PEXPIREAT`. A time that has passed deletes the key.
pub(super) fn expire<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let (key, time) = (next_key(&mut arguments)?, next(&mut arguments));
    let conditions = Conditions::parse(arguments)?;
    let number = integer(time)?;
    let now = exchange.shard.now;
    let (unit_ms, start_ms) = match exchange.spec.command {
        Command::Expire => (S, now.unix_ms as i64),
        Command::Pexpire => (MS, now.unix_ms as i64),
        Command::Expireat => (S, 0),
        _ => (MS, 0),
    };
    let at_unix_ms = number
        .checked_mul(unit_ms)
        .and_then(|offset_ms| offset_ms.checked_add(start_ms))
        .ok_or(Error::ExpireTime(exchange.spec.name))?;
    if conditions != Conditions::default() {
        let present = exchange.shard.peek(key)?.map(|item| item.expiry);
        if !present.is_some_and(|present| conditions.hold(present, at_unix_ms)) {
            exchange.reply.integer(0);
            return Ok(());
        }
    }
    let op = match u64::try_from(at_unix_ms) {
        Ok(at_unix_ms) if at_unix_ms > now.unix_ms => Op::Touch(Expiry::at_unix_ms(at_unix_ms)),
        _ => Op::Delete(Delete::default()),
    };
    match exchange.shard.submit(key, op)? {
        Reply::Touched | Reply::Deleted => exchange.reply.integer(1),
        Reply::NotFound => exchange.reply.integer(0),
        other => return Err(refusal(&other)),
    }
    Ok(())
}

/// `TTL`, `PTTL`, `EXPIRETIME` and `PEXPIRETIME`.
pub(super) fn ttl<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let now = exchange.shard.now;
    let expiry = exchange.shard.peek(key)?.map(|item| item.expiry);
    let number = match (expiry, exchange.spec.command) {
        (None, _) => -2,
        (Some(Expiry::NEVER), _) => -1,
        (Some(expiry), Command::Ttl) => rounded_s(left_ms(expiry, now)),
        (Some(expiry), Command::Pttl) => left_ms(expiry, now) as i64,
        (Some(expiry), Command::Expiretime) => rounded_s(expiry.unix_ms()),
        (Some(expiry), _) => expiry.unix_ms() as i64,
    };
    exchange.reply.integer(number);
    Ok(())
}

fn left_ms(expiry: Expiry, now: Now) -> u64 {
    expiry.unix_ms().saturating_sub(now.unix_ms)
}

/// Seconds, to the nearest.
fn rounded_s(ms: u64) -> i64 {
    (ms.saturating_add(MS_PER_S / 2) / MS_PER_S) as i64
}

pub(super) fn persist<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let key = next_key(&mut arguments)?;
    let expires = exchange.shard.peek(key)?.is_some_and(|item| item.expiry != Expiry::NEVER);
    if expires {
        match exchange.shard.submit(key, Op::Touch(Expiry::NEVER))? {
            Reply::Touched => {}
            other => return Err(refusal(&other)),
        }
    }
    exchange.reply.integer(i64::from(expires));
    Ok(())
}
