//! The arguments of the meta commands (protocol.txt, "Meta Debug" to "Meta No-Op").

use super::base64::{self, DECODED_BYTES_MAX};
use super::command::{Command, Exptime, Meta, MetaKey};
use super::number::{parse_i64, parse_u32, parse_u64};
use super::parse::error_lines::{
    BAD_ARITHMETIC_MODE, BAD_BASE64, BAD_FORMAT, BAD_INITIAL, BAD_META_DELTA, BAD_MODE_LENGTH,
    BAD_STORE_MODE, BAD_TOKEN, DUPLICATE_FLAG, ERROR, FLAGS_ARE_TOO_LONG, FLAGS_TOO_LONG, INVALID_FLAG,
    INVALID_OR_DUPLICATE_FLAG, OPAQUE_TOO_LONG,
};
use super::parse::{Message, Parsed, Refusal, value_length};
use super::token::{Tokens, is_key};
use crate::request::{Direction, StoreMode};

/// Longest opaque, its flag `O` included.
pub(super) const OPAQUE_BYTES_MAX: usize = 32;

/// Most words of a meta line (memcached's `MFLAG_MAX_OPT_LENGTH`).
const WORDS_MAX: usize = 20;

/// `mg <key> <flags>*`
#[inline]
pub(super) fn get(mut words: Tokens<'_>) -> Result<Command<'_>, Refusal> {
    let key = key(&mut words)?;
    let meta = flags(key, words, WORDS_MAX - 2, FLAGS_ARE_TOO_LONG)?;
    check_opaque(&meta)?;
    Ok(Command::MetaGet(meta))
}

/// `ms <key> <datalen> <flags>*`
pub(super) fn store<'a>(message: Message<'a>, mut words: Tokens<'a>) -> Parsed<'a> {
    let key = key(&mut words);
    if key == Err(ERROR.into()) {
        return message.without_value(Err(ERROR.into()));
    }
    let Some(value_bytes) = words.next().and_then(value_length) else {
        return message.refuse_with_value(BAD_FORMAT.into(), None);
    };
    let parsed = key.and_then(|key| {
        let meta = flags(key, words, WORDS_MAX - 3, FLAGS_TOO_LONG)?;
        let mode = match meta.mode {
            None | Some(b'S') => StoreMode::Set,
            Some(b'E') => StoreMode::Add,
            Some(b'A') => StoreMode::Append,
            Some(b'P') => StoreMode::Prepend,
            Some(b'R') => StoreMode::Replace,
            Some(_) => return Err(BAD_STORE_MODE.into()),
        };
        check_opaque(&meta)?;
        Ok((meta, mode))
    });
    let (meta, mode) = match parsed {
        Ok(parsed) => parsed,
        Err(refusal) => return message.refuse_with_value(refusal, Some(value_bytes)),
    };
    // Quiet hides success only: an error is always told. Whatever the mode, memcached lets the old item go.
    match message.value(meta.key, value_bytes, false, true) {
        Ok((value, bytes)) => Parsed::Command(Command::MetaStore { meta, mode, value }, bytes),
        Err(reason) => reason.into(),
    }
}

/// `md <key> <flags>*`
pub(super) fn delete(mut words: Tokens<'_>) -> Result<Command<'_>, Refusal> {
    let key = key(&mut words)?;
    let meta = flags_in_few_words(key, words)?;
    check_opaque(&meta)?;
    Ok(Command::MetaDelete(meta))
}

/// `ma <key> <flags>*`
pub(super) fn arithmetic(mut words: Tokens<'_>) -> Result<Command<'_>, Refusal> {
    let key = key(&mut words)?;
    let meta = flags_in_few_words(key, words)?;
    let direction = match meta.mode {
        None | Some(b'I' | b'+') => Direction::Increment,
        Some(b'D' | b'-') => Direction::Decrement,
        Some(_) => return Err(BAD_ARITHMETIC_MODE.into()),
    };
    check_opaque(&meta)?;
    Ok(Command::MetaArithmetic { meta, direction })
}

/// `me <key> [b]`
pub(super) fn debug(mut words: Tokens<'_>) -> Result<Command<'_>, Refusal> {
    let word = words.next().filter(|word| is_key(word)).ok_or(Refusal::from(BAD_FORMAT))?;
    let binary = words.next() == Some(b"b");
    if binary && base64::decode(word, &mut [0; DECODED_BYTES_MAX]).is_none() {
        return Err(BAD_FORMAT.into());
    }
    Ok(Command::MetaDebug(MetaKey { word, binary }))
}

#[inline]
fn key<'a>(words: &mut Tokens<'a>) -> Result<&'a [u8], Refusal> {
    let word = words.next().ok_or(Refusal::from(ERROR))?;
    if is_key(word) { Ok(word) } else { Err(BAD_FORMAT.into()) }
}

fn check_opaque(meta: &Meta<'_>) -> Result<(), Refusal> {
    let is_too_long = |word: &[u8]| word[0] == b'O' && word.len() > OPAQUE_BYTES_MAX;
    if meta.has(b'O') && meta.words.into_iter().any(is_too_long) {
        return Err(OPAQUE_TOO_LONG.into());
    }
    Ok(())
}

/// `md` and `ma` say the same thing for whatever is wrong with a flag.
fn flags_in_few_words<'a>(key: &'a [u8], words: Tokens<'a>) -> Result<Meta<'a>, Refusal> {
    flags(key, words, WORDS_MAX - 2, FLAGS_TOO_LONG).map_err(|refusal| {
        if refusal.line == FLAGS_TOO_LONG { refusal } else { INVALID_OR_DUPLICATE_FLAG.into() }
    })
}

/// Reads the flags. An unknown or repeated flag ends it; of several bad arguments the last is told, as memcached
/// does.
#[inline]
fn flags<'a>(
    key: &'a [u8],
    words: Tokens<'a>,
    count_max: usize,
    too_many: &'static [u8],
) -> Result<Meta<'a>, Refusal> {
    let mut meta = Meta {
        key: MetaKey { word: key, binary: false },
        words,
        present: 0,
        touch: None,
        vivify: None,
        recache: None,
        flags: 0,
        compare_cas: None,
        new_cas: None,
        mode: None,
        initial: 0,
        delta: 1,
    };
    if words.into_iter().count() > count_max {
        return Err(too_many.into());
    }
    let mut complaint = None;
    for word in words {
        let (flag, argument) = (word[0], &word[1..]);
        if flag >= 0x7f || meta.has(flag) {
            return Err(DUPLICATE_FLAG.into());
        }
        meta.present |= 1 << flag;
        let mut bad = |line| complaint = Some(line);
        match flag {
            b'c' | b'f' | b'h' | b'k' | b'l' | b'q' | b's' | b't' | b'u' | b'v' | b'x' | b'I' | b'L'
            | b'O' | b'P' => {}
            b'b' => {
                meta.key.binary = true;
                if base64::decode(key, &mut [0; DECODED_BYTES_MAX]).is_none() {
                    bad(BAD_BASE64);
                }
            }
            b'N' => {
                meta.vivify = exptime(argument).or_else(|| {
                    bad(BAD_TOKEN);
                    None
                })
            }
            b'T' => {
                meta.touch = exptime(argument).or_else(|| {
                    bad(BAD_TOKEN);
                    None
                })
            }
            b'R' => {
                meta.recache = exptime(argument).or_else(|| {
                    bad(BAD_TOKEN);
                    None
                })
            }
            b'C' => {
                meta.compare_cas = parse_u64(argument).or_else(|| {
                    bad(BAD_TOKEN);
                    None
                })
            }
            b'E' => {
                meta.new_cas = parse_u64(argument).or_else(|| {
                    bad(BAD_TOKEN);
                    None
                })
            }
            b'F' => {
                meta.flags = parse_u32(argument).unwrap_or_else(|| {
                    bad(BAD_FORMAT);
                    0
                })
            }
            b'J' => {
                meta.initial = parse_u64(argument).unwrap_or_else(|| {
                    bad(BAD_INITIAL);
                    0
                })
            }
            b'D' => {
                meta.delta = parse_u64(argument).unwrap_or_else(|| {
                    bad(BAD_META_DELTA);
                    0
                })
            }
            b'M' => match argument {
                &[mode] => meta.mode = Some(mode),
                _ => bad(BAD_MODE_LENGTH),
            },
            _ => return Err(INVALID_FLAG.into()),
        }
    }
    complaint.map_or(Ok(meta), |line| Err(Refusal::from(line)))
}

fn exptime(argument: &[u8]) -> Option<Exptime> {
    parse_i64(argument).map(Exptime)
}
