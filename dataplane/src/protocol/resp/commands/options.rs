//! The options of `SET` and `GETEX`, and times to live.

use super::super::Arguments;
use super::super::errors::{Error, texts};
use super::{Failure, integer};
use crate::request::StoreMode;
use crate::time::{Expiry, MS_PER_S, Now};

/// Milliseconds in the unit of a time.
pub(super) const S: i64 = MS_PER_S as i64;
/// A time in milliseconds.
pub(super) const MS: i64 = 1;

/// A time to live, as it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime<'a> {
    pub(super) text: &'a [u8],
    pub(super) unit_ms: i64,
    /// From now on; else since the Unix epoch.
    pub(super) relative: bool,
}

impl<'a> Lifetime<'a> {
    /// When that is; it is positive. `command` is for the error.
    pub(super) fn expiry(self, now: Now, command: &'static str) -> Result<Expiry, Failure<'a>> {
        let number = integer(self.text)?;
        let start_ms = if self.relative { now.unix_ms as i64 } else { 0 };
        // Redis lets a sum of milliseconds wrap and refuses what is then negative: all of them.
        let at_unix_ms = Some(number)
            .filter(|&number| number > 0)
            .and_then(|number| number.checked_mul(self.unit_ms)?.checked_add(start_ms))
            .ok_or(Error::ExpireTime(command))?;
        Ok(Expiry::at_unix_ms(at_unix_ms as u64))
    }
}

/// Whose options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Set,
    Getex,
}

/// What the options ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options<'a> {
    pub(super) mode: StoreMode,
    pub(super) get: bool,
    pub(super) keep: bool,
    pub(super) persist: bool,
    pub(super) lifetime: Option<Lifetime<'a>>,
}

impl<'a> Options<'a> {
    /// Reads all that is left of the arguments.
    #[inline]
    pub(super) fn parse(mut arguments: Arguments<'a>, of: Of) -> Result<Self, Failure<'a>> {
        let mut options = Self::default();
        while let Some(word) = arguments.next() {
            options.option(word, &mut arguments, of)?;
        }
        Ok(options)
    }

    fn option(&mut self, word: &[u8], arguments: &mut Arguments<'a>, of: Of) -> Result<(), Failure<'a>> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let lifetime = |unit_ms, relative| Some((unit_ms, relative));
        let timed = match word.len() {
            2 if is("EX") => lifetime(S, true),
            2 if is("PX") => lifetime(MS, true),
            4 if is("EXAT") => lifetime(S, false),
            4 if is("PXAT") => lifetime(MS, false),
            _ => None,
        };
        // One kind of time excludes the others; the same once more replaces the first.
        let fits = |unit_ms, relative| {
            self.lifetime.is_none_or(|other| (other.unit_ms, other.relative) == (unit_ms, relative))
        };
        match timed {
            Some((unit_ms, relative)) if fits(unit_ms, relative) && !self.keep && !self.persist => {
                let text = arguments.next().ok_or(texts::SYNTAX)?;
                self.lifetime = Some(Lifetime { text, unit_ms, relative });
            }
            None if of == Of::Set && is("NX") && self.mode != StoreMode::Replace => {
                self.mode = StoreMode::Add;
            }
            None if of == Of::Set && is("XX") && self.mode != StoreMode::Add => {
                self.mode = StoreMode::Replace;
            }
            None if of == Of::Set && is("GET") => self.get = true,
            None if of == Of::Set && is("KEEPTTL") && self.lifetime.is_none() => self.keep = true,
            None if of == Of::Getex && is("PERSIST") && self.lifetime.is_none() => self.persist = true,
            _ => return Err(texts::SYNTAX.into()),
        }
        Ok(())
    }
}
