//! Reading: get, with what meta gets do beside it, and touch.

use super::record::{Meta, write_word};
use super::{Found, KeyHash, MemoryTable, seconds};
use crate::request::{Get, Recache, Reply};
use crate::table::Submission;
use crate::time::{Expiry, MS_PER_S, Now};

/// The value's length, when it is longer than there is room for.
#[inline]
pub(super) fn no_room(found: &Found, bytes_max: Option<usize>) -> Option<usize> {
    let value_bytes = found.word.value_bytes();
    bytes_max.filter(|&bytes_max| value_bytes > bytes_max).map(|_| value_bytes)
}

impl MemoryTable {
    #[inline(always)]
    pub(super) fn get(&mut self, now: Now, hash: KeyHash, key: &[u8], get: &Get) -> Submission<'_> {
        let Some(found) = self.find(now, hash, key) else {
            return match get.vivify {
                Some(expiry) => Submission::Done(self.vivify(now, hash, key, expiry, get)),
                None => Submission::Done(Reply::NotFound),
            };
        };
        if let Some(value_bytes) = no_room(&found, get.value_bytes_max) {
            return Submission::Done(Reply::NoRoom { value_bytes });
        }
        let recache = if get.claim { self.recache(now, &found, get.recache_below_s) } else { Recache::None };
        let mut word = found.word;
        if recache == Recache::Won {
            word = word.with_token_sent(true);
        }
        if !get.peek {
            word = word.read(seconds(now));
        }
        // A key read again within the second, its counter at the top, is left as it is: its line stays clean.
        if word != found.word {
            write_word(self.arena.at_mut(found.offset), word);
        }
        let Some(expiry) = get.touch else {
            return Submission::Done(Reply::Value(self.item(now, found.offset, word, found.word, recache)));
        };
        let offset = self.set_expiry(now, Found { word, ..found }, key, expiry);
        Submission::Done(Reply::Value(self.item(now, offset, self.arena.word(offset), found.word, recache)))
    }

    pub(super) fn touch(&mut self, now: Now, hash: KeyHash, key: &[u8], expiry: Expiry) -> Reply<'_> {
        let Some(found) = self.find(now, hash, key) else { return Reply::NotFound };
        let word = found.word.read(seconds(now));
        write_word(self.arena.at_mut(found.offset), word);
        self.set_expiry(now, Found { word, ..found }, key, expiry);
        Reply::Touched
    }

    /// Who recomputes the item: the first reader of a stale one, or of one with less than `below_s` seconds left
    /// before this request touches it, until it is written again.
    fn recache(&self, now: Now, found: &Found, below_s: Option<u64>) -> Recache {
        if found.word.token_sent() {
            return Recache::Sent;
        }
        let expiry = super::record::expiry(self.arena.at(found.offset), found.word);
        let ends_soon = below_s.is_some_and(|below_s| {
            expiry != Expiry::NEVER
                && expiry.unix_ms().saturating_sub(now.unix_ms) < below_s.saturating_mul(MS_PER_S)
        });
        if found.word.stale() || ends_soon { Recache::Won } else { Recache::None }
    }

    /// An empty item, which the reader that made it is to fill.
    fn vivify(&mut self, now: Now, hash: KeyHash, key: &[u8], expiry: Expiry, get: &Get) -> Reply<'_> {
        if !self.takes(key, 0) {
            return Reply::TooLarge;
        }
        let meta = Meta { token_sent: true, expiry, ..self.new_meta(now, get.new_cas) };
        let offset = self.insert(now, hash, &meta, key, &[]);
        let word = self.arena.word(offset);
        if !get.peek {
            write_word(self.arena.at_mut(offset), word.read(seconds(now)));
        }
        Reply::Value(self.item(now, offset, word, word, Recache::Won))
    }
}
