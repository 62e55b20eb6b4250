//! The arguments of the classic text commands (protocol.txt, "Storage commands" to "Other commands").

use super::command::{Command, Exptime, Get, MetaKey, Store};
use super::number::{parse_i64, parse_u32, parse_u64};
use super::parse::error_lines::{BAD_DELTA, BAD_EXPTIME, BAD_FORMAT, DELETE_USAGE, ERROR};
use super::parse::{Message, Parsed, Refusal, value_length};
use super::token::{Tokens, is_key};
use crate::request::{Direction, StoreMode};

/// Most words behind a command's name that any classic command but a read takes.
const ARGUMENTS_MAX: usize = 6;

/// The words behind a command's name.
struct Arguments<'a> {
    words: [&'a [u8]; ARGUMENTS_MAX],
    count: usize,
}

impl<'a> Arguments<'a> {
    #[inline]
    fn collect(tokens: Tokens<'a>) -> Self {
        let mut arguments = Self { words: [&[]; ARGUMENTS_MAX], count: 0 };
        for word in tokens {
            // One too many is as wrong as any number more.
            if arguments.count == ARGUMENTS_MAX {
                arguments.count += 1;
                break;
            }
            arguments.words[arguments.count] = word;
            arguments.count += 1;
        }
        arguments
    }

    /// As many words as this, and the quiet mark if the last is `noreply`.
    #[inline]
    fn expect(self, counts: std::ops::RangeInclusive<usize>) -> Result<(Self, bool), Refusal> {
        if !counts.contains(&self.count) {
            return Err(ERROR.into());
        }
        let quiet = self.count.checked_sub(1).is_some_and(|last| self.words[last] == b"noreply");
        Ok((self, quiet))
    }
}

#[inline]
fn key(word: &[u8], quiet: bool) -> Result<&[u8], Refusal> {
    if is_key(word) { Ok(word) } else { Err(Refusal { line: BAD_FORMAT, quiet }) }
}

#[inline]
fn exptime(word: &[u8], line: &'static [u8], quiet: bool) -> Result<Exptime, Refusal> {
    parse_i64(word).map(Exptime).ok_or(Refusal { line, quiet })
}

/// `get <key>+`, `gets <key>+`
#[inline]
pub(super) fn get(words: Tokens<'_>, cas: bool) -> Result<Command<'_>, Refusal> {
    let mut rest = words;
    let first = rest.next().ok_or(Refusal::from(ERROR))?;
    // Every key is looked at before the first is read, so that a bad line is answered with nothing but its error.
    if is_key(first) && rest.all(is_key) {
        Ok(Command::Get(Get { keys: words, cas, touch: None }))
    } else {
        Err(BAD_FORMAT.into())
    }
}

/// `gat <exptime> <key>*`, `gats <exptime> <key>*`. memcached takes no key at all, too.
fn get_and_touch(words: Tokens<'_>, cas: bool) -> Result<Command<'_>, Refusal> {
    let mut keys = words;
    let first = keys.next().ok_or(Refusal::from(ERROR))?;
    let touch = Some(exptime(first, BAD_EXPTIME, false)?);
    if keys.clone().all(is_key) { Ok(Command::Get(Get { keys, cas, touch })) } else { Err(BAD_FORMAT.into()) }
}

/// `<set|add|replace|append|prepend> <key> <flags> <exptime> <bytes> [noreply]`,
/// `cas <key> <flags> <exptime> <bytes> <cas unique> [noreply]`
#[inline]
pub(super) fn store<'a>(message: Message<'a>, name: &[u8], words: Tokens<'a>) -> Parsed<'a> {
    let compares = name == b"cas";
    let least = if compares { 5 } else { 4 };
    let (Arguments { words, .. }, quiet) = match Arguments::collect(words).expect(least..=least + 1) {
        Ok(arguments) => arguments,
        Err(refusal) => return message.without_value(Err(refusal)),
    };
    let refusal = Refusal { line: BAD_FORMAT, quiet };
    let Some(value_bytes) = value_length(words[3]) else { return message.refuse_with_value(refusal, None) };
    let cas = if compares { parse_u64(words[4]).map(Some) } else { Some(None) };
    let (Some(flags), Some(exptime), Some(cas), true) =
        (parse_u32(words[1]), parse_i64(words[2]), cas, is_key(words[0]))
    else {
        // The length is known: swallowing the value keeps its bytes from being taken for commands.
        return message.refuse_with_value(refusal, Some(value_bytes));
    };
    let mode = match name {
        b"add" => StoreMode::Add,
        b"replace" => StoreMode::Replace,
        b"append" => StoreMode::Append,
        b"prepend" => StoreMode::Prepend,
        _ => StoreMode::Set,
    };
    let key = words[0];
    let replaces = mode == StoreMode::Set && !compares;
    match message.value(MetaKey { word: key, binary: false }, value_bytes, quiet, replaces) {
        Ok((value, bytes)) => {
            let exptime = Exptime(exptime);
            Parsed::Command(Command::Store(Store { key, mode, flags, exptime, cas, value, quiet }), bytes)
        }
        Err(reason) => reason.into(),
    }
}

/// Every command that is not asked for often.
pub(super) fn other<'a>(name: &[u8], words: Tokens<'a>) -> Result<Command<'a>, Refusal> {
    match name {
        b"gat" => get_and_touch(words, false),
        b"gats" => get_and_touch(words, true),
        b"delete" => delete(words),
        b"incr" => arithmetic(words, Direction::Increment),
        b"decr" => arithmetic(words, Direction::Decrement),
        b"touch" => touch(words),
        b"flush_all" => flush_all(words),
        b"verbosity" => verbosity(words),
        b"version" => Ok(Command::Version),
        b"stats" => Ok(Command::Statistics(words)),
        b"shutdown" => Ok(Command::Shutdown),
        b"quit" => Ok(Command::Quit),
        _ => Err(ERROR.into()),
    }
}

/// `delete <key> [0] [noreply]`: the 0 is what is left of a delay that memcached once had.
fn delete(words: Tokens<'_>) -> Result<Command<'_>, Refusal> {
    let (Arguments { words, count }, quiet) = Arguments::collect(words).expect(1..=3)?;
    let quiet = quiet && count > 1;
    let is_zero = words[1] == b"0";
    let valid = match count {
        1 => true,
        2 => is_zero || quiet,
        _ => is_zero && quiet,
    };
    if !valid {
        return Err(Refusal { line: DELETE_USAGE, quiet });
    }
    Ok(Command::Delete { key: key(words[0], quiet)?, quiet })
}

/// `<incr|decr> <key> <value> [noreply]`
fn arithmetic(words: Tokens<'_>, direction: Direction) -> Result<Command<'_>, Refusal> {
    let (Arguments { words, .. }, quiet) = Arguments::collect(words).expect(2..=3)?;
    let key = key(words[0], quiet)?;
    let delta = parse_u64(words[1]).ok_or(Refusal { line: BAD_DELTA, quiet })?;
    Ok(Command::Arithmetic { key, direction, delta, quiet })
}

/// `touch <key> <exptime> [noreply]`
fn touch(words: Tokens<'_>) -> Result<Command<'_>, Refusal> {
    let (Arguments { words, .. }, quiet) = Arguments::collect(words).expect(2..=3)?;
    let key = key(words[0], quiet)?;
    Ok(Command::Touch { key, exptime: exptime(words[1], BAD_EXPTIME, quiet)?, quiet })
}

/// `flush_all [delay] [noreply]`
fn flush_all(words: Tokens<'_>) -> Result<Command<'_>, Refusal> {
    let (Arguments { words, count }, quiet) = Arguments::collect(words).expect(0..=2)?;
    let has_delay = count > usize::from(quiet);
    let delay = if has_delay { exptime(words[0], BAD_EXPTIME, quiet)? } else { Exptime(0) };
    Ok(Command::FlushAll { delay, quiet })
}

/// `verbosity <level> [noreply]`
fn verbosity(words: Tokens<'_>) -> Result<Command<'_>, Refusal> {
    let (Arguments { words, .. }, quiet) = Arguments::collect(words).expect(1..=2)?;
    match parse_u32(words[0]) {
        Some(_) => Ok(Command::Verbosity { quiet }),
        None => Err(Refusal { line: BAD_FORMAT, quiet }),
    }
}
