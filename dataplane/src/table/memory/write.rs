//! Writing: store in all its modes, delete, flush, and the three ways a record comes to be written.

use super::index::POSITION_RESERVED;
use super::read::no_room;
use super::record::{self, Meta};
use super::{Found, KeyHash, MemoryTable, seconds};
use crate::request::{Delete, Item, Recache, Reply, Store, StoreMode};
use crate::time::{Expiry, Now};

impl MemoryTable {
    pub(super) fn store(&mut self, now: Now, hash: KeyHash, key: &[u8], store: &Store<'_>) -> Reply<'_> {
        let found = self.find(now, hash, key);
        if !self.takes(key, store.value.len()) {
            // A client that could not set the new value must not go on reading the old one.
            if let (Some(found), StoreMode::Set, None) = (found, store.mode, store.compare_cas) {
                self.remove(found);
            }
            return Reply::TooLarge;
        }
        match found {
            Some(found) => self.store_over(now, found, key, store),
            None => self.store_new(now, hash, key, store),
        }
    }

    /// Bytes before the value in what a store writes for an absent key.
    fn offset_of(mode: StoreMode) -> usize {
        match mode {
            StoreMode::Range { offset } => offset as usize,
            _ => 0,
        }
    }

    fn store_new(&mut self, now: Now, hash: KeyHash, key: &[u8], store: &Store<'_>) -> Reply<'_> {
        let mut meta = Meta { flags: store.flags, expiry: store.expiry, ..Meta::default() };
        match (store.mode, store.compare_cas) {
            (StoreMode::Add, _) | (StoreMode::Set, None) => {}
            (StoreMode::Set | StoreMode::Replace, Some(_)) => return Reply::NotFound,
            (StoreMode::Replace, None) => return Reply::NotStored,
            (StoreMode::Append | StoreMode::Prepend | StoreMode::Range { .. }, _) => match store.vivify {
                Some(expiry) => meta.expiry = expiry,
                None => return Reply::NotStored,
            },
        }
        let zeros = Self::offset_of(store.mode);
        let value_bytes = zeros + store.value.len();
        if !self.takes(key, value_bytes) {
            return Reply::TooLarge;
        }
        let meta = Meta { flags: meta.flags, expiry: meta.expiry, ..self.new_meta(now, store.new_cas) };
        if zeros == 0 {
            self.insert(now, hash, &meta, key, store.value);
        } else {
            self.with_scratch(|table, scratch| {
                scratch[..zeros].fill(0);
                scratch[zeros..value_bytes].copy_from_slice(store.value);
                table.insert(now, hash, &meta, key, &scratch[..value_bytes])
            });
        }
        Reply::Stored { cas: meta.cas, value_bytes }
    }

    fn store_over(&mut self, now: Now, found: Found, key: &[u8], store: &Store<'_>) -> Reply<'_> {
        if let Some(value_bytes) = no_room(&found, store.old_bytes_max).filter(|_| !store.mode.joins()) {
            return Reply::NoRoom { value_bytes };
        }
        let tells_old = store.old_bytes_max.is_some() && !store.mode.joins();
        let bytes = self.arena.at(found.offset);
        let old = Meta::read(bytes, found.word);
        if store.mode == StoreMode::Add {
            // The key was asked for, so it counts as used.
            let word = found.word.accessed(seconds(now));
            record::write_word(self.arena.at_mut(found.offset), word);
            if tells_old {
                return Reply::Value(self.item(now, found.offset, word, found.word, Recache::None));
            }
            return Reply::NotStored;
        }
        let joins = store.mode.joins();
        let stale = match store.compare_cas {
            None => false,
            Some(cas) if cas == old.cas => false,
            Some(cas) if store.invalidate && !joins && cas < old.cas => true,
            Some(_) => return Reply::Exists,
        };
        let old_bytes = found.word.value_bytes();
        let value_bytes = match store.mode {
            StoreMode::Append | StoreMode::Prepend => old_bytes + store.value.len(),
            StoreMode::Range { offset } => old_bytes.max(offset as usize + store.value.len()),
            StoreMode::Set | StoreMode::Add | StoreMode::Replace => store.value.len(),
        };
        if !self.takes(key, value_bytes) {
            return Reply::TooLarge;
        }
        let mut meta = self.new_meta(now, store.new_cas);
        // Whoever writes an item uses it: without this the next request could evict what was just stored.
        meta.clock = found.word.accessed(seconds(now)).clock();
        if joins {
            (meta.flags, meta.expiry) = (old.flags, old.expiry);
            self.join(now, found, &meta, key, store, value_bytes);
            return Reply::Stored { cas: meta.cas, value_bytes };
        }
        meta.flags = store.flags;
        // A stale store brings a value, but no longer life and no new round of recaching.
        meta.expiry = if stale || store.keep_expiry { old.expiry } else { store.expiry };
        meta.stale = stale;
        meta.token_sent = stale && old.token_sent;
        if !tells_old {
            self.overwrite(now, found, &meta, key, store.value);
            return Reply::Stored { cas: meta.cas, value_bytes };
        }
        // The item is told after it was written over: its value is kept aside.
        self.scratch[..old_bytes].copy_from_slice(record::value(self.arena.at(found.offset), found.word));
        self.overwrite(now, found, &meta, key, store.value);
        Reply::Value(Item {
            value: &self.scratch[..old_bytes],
            flags: old.flags,
            cas: old.cas,
            expiry: old.expiry,
            idle_s: found.word.idle_s(seconds(now)),
            fetched: old.fetched,
            stale: old.stale,
            recache: Recache::None,
        })
    }

    /// Joins a value to the present one, which makes one of `value_bytes`.
    fn join(
        &mut self,
        now: Now,
        found: Found,
        meta: &Meta,
        key: &[u8],
        store: &Store<'_>,
        value_bytes: usize,
    ) {
        let old_bytes = found.word.value_bytes();
        if let StoreMode::Range { offset } = store.mode
            && value_bytes == old_bytes
        {
            // No longer than it was: only what changes is written, as a few bytes must not cost a copy of them all.
            let at = self.rewrite(now, found, meta, key);
            let word = self.arena.word(at);
            let value = record::value_mut(self.arena.at_mut(at), word);
            value[offset as usize..][..store.value.len()].copy_from_slice(store.value);
            self.counts.items_total += 1;
            return;
        }
        self.with_scratch(|table, scratch| {
            let old = record::value(table.arena.at(found.offset), found.word);
            let joined = &mut scratch[..value_bytes];
            let (old_at, new_at) = match store.mode {
                StoreMode::Prepend => (store.value.len(), 0),
                StoreMode::Range { offset } => (0, offset as usize),
                _ => (0, old_bytes),
            };
            joined[old_at..][..old_bytes].copy_from_slice(old);
            if new_at > old_bytes {
                joined[old_bytes..new_at].fill(0);
            }
            joined[new_at..][..store.value.len()].copy_from_slice(store.value);
            table.overwrite(now, found, meta, key, joined)
        });
    }

    pub(super) fn delete(&mut self, now: Now, hash: KeyHash, key: &[u8], delete: &Delete) -> Reply<'_> {
        let Some(found) = self.find(now, hash, key) else { return Reply::NotFound };
        let old = Meta::read(self.arena.at(found.offset), found.word);
        if delete.compare_cas.is_some_and(|cas| cas != old.cas) {
            return Reply::Exists;
        }
        if !delete.mark_stale && !delete.drop_value {
            if let Some(value_bytes) = no_room(&found, delete.old_bytes_max) {
                return Reply::NoRoom { value_bytes };
            }
            self.remove(found);
            if delete.old_bytes_max.is_some() {
                // Of a dead record only the first bytes are written over, which `found` still has.
                return Reply::Value(self.item(now, found.offset, found.word, found.word, Recache::None));
            }
            return Reply::Deleted;
        }
        let cas = self.next_cas(delete.new_cas);
        let mut meta = if delete.drop_value {
            // A new, empty item in the place of the old.
            Meta { cas, expiry: old.expiry, access_s: seconds(now), clock: old.clock, ..Meta::default() }
        } else {
            Meta { cas, ..old }
        };
        if delete.mark_stale {
            meta.expiry = delete.touch.unwrap_or(meta.expiry);
            meta.stale = true;
            meta.token_sent = false;
        }
        if delete.drop_value {
            self.overwrite(now, found, &meta, key, &[]);
        } else {
            self.rewrite(now, found, &meta, key);
        }
        Reply::Deleted
    }

    pub(super) fn flush_all(&mut self, now: Now, at_unix_ms: u64) -> Reply<'_> {
        // The later request stands for the earlier one, as in memcached.
        self.flush_at_unix_ms = at_unix_ms;
        self.flush_when_due(now);
        Reply::Done
    }

    /// What is in the logs when a flush falls due was written before its time, because every request looks here
    /// before it does anything.
    #[inline]
    pub(super) fn flush_when_due(&mut self, now: Now) {
        if now.unix_ms >= self.flush_at_unix_ms {
            self.flush_at_unix_ms = u64::MAX;
            self.arena.flush();
            self.counts.flushed_items = self.counts.items;
            self.counts.flushed_bytes = self.counts.live_bytes;
        }
    }

    /// The meta of an item written now.
    pub(super) fn new_meta(&mut self, now: Now, new_cas: Option<u64>) -> Meta {
        Meta { cas: self.next_cas(new_cas), access_s: seconds(now), ..Meta::default() }
    }

    /// Writes the item of a key that is absent; returns its offset.
    pub(super) fn insert(&mut self, now: Now, hash: KeyHash, meta: &Meta, key: &[u8], value: &[u8]) -> usize {
        let word = meta.word(key.len(), value.len());
        let span = self.arena.span(word.record_bytes());
        let generation = if self.index.take_ghost(hash) {
            super::arena::Generation::Main
        } else {
            self.arena.generation_for(span)
        };
        let offset = self.make_room(now, generation, span);
        self.arena.write(offset, span, meta, key, value);
        let slot = self.slot_for(hash);
        self.index.set(slot, hash, self.arena.position(offset));
        self.counts.items_total += 1;
        self.count_new(word);
        offset
    }

    /// Writes an item over one of the same key: where it lies when it is no longer than that, else at its log's
    /// head. `value` lies outside the arena. Returns the offset.
    pub(super) fn overwrite(
        &mut self,
        now: Now,
        found: Found,
        meta: &Meta,
        key: &[u8],
        value: &[u8],
    ) -> usize {
        let word = meta.word(key.len(), value.len());
        let room = self.arena.span(found.word.record_bytes());
        let span = self.arena.span(word.record_bytes());
        self.count_gone(found.word);
        let offset = if span <= room {
            self.arena.write(found.offset, room, meta, key, value);
            found.offset
        } else {
            let generation = match self.arena.generation(found.offset) {
                super::arena::Generation::Probation => self.arena.generation_for(span),
                main => main,
            };
            self.arena.kill(found.offset, found.word);
            // The entry stays the key's own while others leave, but must not be taken for one of theirs.
            self.index.set_position(found.slot, POSITION_RESERVED);
            let offset = self.make_room(now, generation, span);
            self.arena.write(offset, span, meta, key, value);
            self.index.set_position(found.slot, self.arena.position(offset));
            offset
        };
        self.counts.items_total += 1;
        self.count_new(word);
        offset
    }

    /// Gives an item another meta and keeps its value; returns its offset.
    pub(super) fn rewrite(&mut self, now: Now, found: Found, meta: &Meta, key: &[u8]) -> usize {
        let word = meta.word(key.len(), found.word.value_bytes());
        if word.header_bytes() == found.word.header_bytes() {
            let value = record::value(self.arena.at(found.offset), found.word);
            debug_assert_eq!(value.len(), word.value_bytes());
            self.count_gone(found.word);
            record::write_header(self.arena.at_mut(found.offset), meta, word);
            self.count_new(word);
            return found.offset;
        }
        self.with_scratch(|table, scratch| {
            let value = record::value(table.arena.at(found.offset), found.word);
            let copy = &mut scratch[..value.len()];
            copy.copy_from_slice(value);
            let offset = table.overwrite(now, found, meta, key, copy);
            // Nothing was stored: the same item has moved.
            table.counts.items_total -= 1;
            offset
        })
    }

    /// Gives an item another expiry and nothing else; returns its offset.
    pub(super) fn set_expiry(&mut self, now: Now, found: Found, key: &[u8], expiry: Expiry) -> usize {
        if self.arena.set_expiry(found.offset, found.word, expiry) {
            return found.offset;
        }
        let meta = Meta { expiry, ..Meta::read(self.arena.at(found.offset), found.word) };
        self.rewrite(now, found, &meta, key)
    }

    /// Lends out the buffer through which a value goes from one record to another.
    fn with_scratch<T>(&mut self, use_it: impl FnOnce(&mut Self, &mut [u8]) -> T) -> T {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = use_it(self, &mut scratch);
        self.scratch = scratch;
        result
    }
}
