//! The plainest table: a map, with no bound on its capacity. Tests hold the real tables and the protocols
//! against it.

use std::collections::BTreeMap;

use super::{Submission, Table, TableStatistics};
use crate::limits::VALUE_BYTES_MAX;
use crate::request::{
    Arithmetic, Delete, Direction, Get, Item, Op, Recache, Reply, Request, Store, StoreMode,
};
use crate::time::{Expiry, MS_PER_S, Now};

/// An item.
#[derive(Clone, Debug)]
struct Entry {
    value: Vec<u8>,
    flags: u32,
    cas: u64,
    expiry: Expiry,
    written_unix_ms: u64,
    read_unix_ms: u64,
    fetched: bool,
    stale: bool,
    /// Some reader holds the right to recache.
    claimed: bool,
}

impl Entry {
    fn new(now: Now, value: Vec<u8>, flags: u32, expiry: Expiry, cas: u64) -> Self {
        Self {
            value,
            flags,
            cas,
            expiry,
            written_unix_ms: now.unix_ms,
            read_unix_ms: now.unix_ms,
            fetched: false,
            stale: false,
            claimed: false,
        }
    }

    fn read(&mut self, now: Now) {
        self.fetched = true;
        self.read_unix_ms = now.unix_ms;
    }

    fn item(&self, now: Now) -> Item<'_> {
        Item {
            value: &self.value,
            flags: self.flags,
            cas: self.cas,
            expiry: self.expiry,
            idle_s: u32::try_from(now.unix_s().saturating_sub(self.read_unix_ms / MS_PER_S))
                .unwrap_or(u32::MAX),
            fetched: self.fetched,
            stale: self.stale,
            recache: Recache::None,
        }
    }
}

/// A table that is obviously right, and neither bounded nor fast.
#[derive(Clone, Debug, Default)]
pub struct ModelTable {
    entries: BTreeMap<Vec<u8>, Entry>,
    cas_last: u64,
    /// When a flush takes effect that has not yet.
    flush_at_unix_ms: Option<u64>,
    items_total: u64,
    expirations: u64,
    /// An item as it was, while a reply tells of it.
    told: Option<Entry>,
}

/// Where a key stands in the order of scans, which nothing changes.
fn place(key: &[u8]) -> u64 {
    rapidhash::v3::rapidhash_v3(key)
}

/// The refusal of a value that there is no room for.
fn no_room(entry: &Entry, bytes_max: Option<usize>) -> Option<Reply<'static>> {
    let value_bytes = entry.value.len();
    bytes_max.filter(|&bytes_max| value_bytes > bytes_max).map(|_| Reply::NoRoom { value_bytes })
}

impl ModelTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every key that is there now, in order.
    pub fn keys(&self, now: Now) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().filter(move |(_, entry)| !entry.expiry.has_passed(now)).map(|(key, _)| &key[..])
    }

    fn cas(&mut self, given: Option<u64>) -> u64 {
        given.unwrap_or_else(|| {
            self.cas_last += 1;
            self.cas_last
        })
    }

    /// Whether a flush that is due, and that no request has carried out yet, has taken an item.
    fn is_hidden(&self, now: Now, entry: &Entry) -> bool {
        let flushed = self.flush_at_unix_ms.is_some_and(|at| at <= now.unix_ms && entry.written_unix_ms < at);
        flushed || entry.expiry.has_passed(now)
    }

    /// Lets go what is flushed or, of this key, expired.
    fn forget(&mut self, now: Now, key: &[u8]) {
        if let Some(at_unix_ms) = self.flush_at_unix_ms.take_if(|at_unix_ms| *at_unix_ms <= now.unix_ms) {
            self.entries.retain(|_, entry| entry.written_unix_ms >= at_unix_ms);
        }
        if self.entries.get(key).is_some_and(|entry| entry.expiry.has_passed(now)) {
            self.entries.remove(key);
            self.expirations += 1;
        }
    }

    fn insert(&mut self, key: &[u8], entry: Entry) -> u64 {
        let cas = entry.cas;
        self.items_total += 1;
        self.entries.insert(key.to_vec(), entry);
        cas
    }

    fn get(&mut self, now: Now, key: &[u8], get: &Get) -> Reply<'_> {
        if !self.entries.contains_key(key) {
            let Some(expiry) = get.vivify else { return Reply::NotFound };
            let cas = self.cas(get.new_cas);
            let mut entry = Entry::new(now, Vec::new(), 0, expiry, cas);
            entry.claimed = true;
            self.insert(key, entry);
            let entry = self.entries.get_mut(key).expect("just inserted");
            if !get.peek {
                entry.read(now);
            }
            return Reply::Value(Item { fetched: false, recache: Recache::Won, ..entry.item(now) });
        }
        let entry = self.entries.get_mut(key).expect("present");
        if let Some(reply) = no_room(entry, get.value_bytes_max) {
            return reply;
        }
        let mut recache = Recache::None;
        if get.claim {
            let runs_out = get.recache_below_s.is_some_and(|below_s| {
                entry.expiry != Expiry::NEVER
                    && entry.expiry.unix_ms() < now.unix_ms.saturating_add(below_s.saturating_mul(MS_PER_S))
            });
            if entry.claimed {
                recache = Recache::Sent;
            } else if entry.stale || runs_out {
                recache = Recache::Won;
                entry.claimed = true;
            }
        }
        if let Some(expiry) = get.touch {
            entry.expiry = expiry;
        }
        let (fetched, idle_s) = (entry.fetched, entry.item(now).idle_s);
        if !get.peek {
            entry.read(now);
        }
        Reply::Value(Item { fetched, idle_s, recache, ..entry.item(now) })
    }

    fn store(&mut self, now: Now, key: &[u8], store: &Store<'_>) -> Reply<'_> {
        let joined_bytes = |old: &[u8]| match store.mode {
            StoreMode::Append | StoreMode::Prepend => old.len() + store.value.len(),
            StoreMode::Range { offset } => old.len().max(offset as usize + store.value.len()),
            StoreMode::Set | StoreMode::Add | StoreMode::Replace => store.value.len(),
        };
        let joined = |old: &[u8]| match store.mode {
            StoreMode::Append => [old, store.value].concat(),
            StoreMode::Prepend => [store.value, old].concat(),
            StoreMode::Range { offset } => {
                let offset = offset as usize;
                let mut value = old.to_vec();
                value.resize(value.len().max(offset + store.value.len()), 0);
                value[offset..offset + store.value.len()].copy_from_slice(store.value);
                value
            }
            StoreMode::Set | StoreMode::Add | StoreMode::Replace => store.value.to_vec(),
        };
        let joins = store.mode.joins();
        let Some(old) = self.entries.get(key) else {
            let expiry = match store.mode {
                StoreMode::Set | StoreMode::Replace if store.compare_cas.is_some() => {
                    return Reply::NotFound;
                }
                StoreMode::Replace => return Reply::NotStored,
                StoreMode::Set | StoreMode::Add => store.expiry,
                _ => match store.vivify {
                    Some(expiry) => expiry,
                    None => return Reply::NotStored,
                },
            };
            let value_bytes = joined_bytes(&[]);
            if value_bytes > VALUE_BYTES_MAX {
                return Reply::TooLarge;
            }
            let value = joined(&[]);
            let cas = self.cas(store.new_cas);
            let entry = Entry::new(now, value, store.flags, expiry, cas);
            return Reply::Stored { cas: self.insert(key, entry), value_bytes };
        };
        let old_bytes_max = store.old_bytes_max.filter(|_| !joins);
        if let Some(reply) = no_room(old, old_bytes_max) {
            return reply;
        }
        if store.mode == StoreMode::Add {
            let entry = self.entries.get_mut(key).expect("present");
            if old_bytes_max.is_some() {
                self.told = Some(entry.clone());
            }
            // As memcached has it, the item that was in the way counts as used.
            entry.read_unix_ms = now.unix_ms;
            return match &self.told {
                Some(told) if old_bytes_max.is_some() => Reply::Value(told.item(now)),
                _ => Reply::NotStored,
            };
        }
        let mut stale = false;
        if let Some(expected) = store.compare_cas.filter(|&expected| expected != old.cas) {
            stale = store.invalidate && !joins && expected < old.cas;
            if !stale {
                return Reply::Exists;
            }
        }
        let value_bytes = joined_bytes(&old.value);
        if value_bytes > VALUE_BYTES_MAX {
            return Reply::TooLarge;
        }
        let value = joined(&old.value);
        let flags = if joins { old.flags } else { store.flags };
        let expiry = if joins || stale || store.keep_expiry { old.expiry } else { store.expiry };
        // A stale write leaves the right to recache with whoever has it; any other ends it.
        let claimed = stale && old.claimed;
        if old_bytes_max.is_some() {
            self.told = Some(old.clone());
        }
        let cas = self.cas(store.new_cas);
        let entry = Entry { stale, claimed, ..Entry::new(now, value, flags, expiry, cas) };
        self.insert(key, entry);
        match &self.told {
            Some(told) if old_bytes_max.is_some() => Reply::Value(told.item(now)),
            _ => Reply::Stored { cas, value_bytes },
        }
    }

    fn add(&mut self, now: Now, key: &[u8], delta: i64) -> Reply<'_> {
        let Some(entry) = self.entries.get(key) else {
            let cas = self.cas(None);
            self.insert(key, Entry::new(now, delta.to_string().into_bytes(), 0, Expiry::NEVER, cas));
            return Reply::Value(self.entries[key].item(now));
        };
        let number = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse::<i64>().ok());
        // A number is spelt in one way.
        let number = number.filter(|number| number.to_string().as_bytes() == entry.value);
        let Some(number) = number else { return Reply::NotANumber };
        let Some(sum) = number.checked_add(delta) else { return Reply::Overflow };
        let cas = self.cas(None);
        self.write_number(now, key, cas, sum.to_string())
    }

    fn write_number(&mut self, now: Now, key: &[u8], cas: u64, number: String) -> Reply<'_> {
        let entry = self.entries.get_mut(key).expect("present");
        let idle_s = entry.item(now).idle_s;
        entry.value = number.into_bytes();
        entry.cas = cas;
        (entry.written_unix_ms, entry.read_unix_ms) = (now.unix_ms, now.unix_ms);
        Reply::Value(Item { idle_s, ..entry.item(now) })
    }

    fn arithmetic(&mut self, now: Now, key: &[u8], arithmetic: &Arithmetic) -> Reply<'_> {
        let Some(entry) = self.entries.get(key) else {
            let Some((initial, expiry)) = arithmetic.initial else { return Reply::NotFound };
            let cas = self.cas(arithmetic.new_cas);
            self.insert(key, Entry::new(now, initial.to_string().into_bytes(), 0, expiry, cas));
            return Reply::Value(self.entries[key].item(now));
        };
        if arithmetic.compare_cas.is_some_and(|expected| expected != entry.cas) {
            return Reply::Exists;
        }
        // As many digits as 2^64 has: memcached takes no more, leading zeros or not.
        let is_number = (1..=20).contains(&entry.value.len()) && entry.value.iter().all(u8::is_ascii_digit);
        let number =
            std::str::from_utf8(&entry.value).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
        let Some(number): Option<u64> = number else { return Reply::NotANumber };
        let number = match arithmetic.direction {
            Direction::Increment => number.wrapping_add(arithmetic.delta),
            Direction::Decrement => number.saturating_sub(arithmetic.delta),
        };
        let cas = self.cas(arithmetic.new_cas);
        if let Some(expiry) = arithmetic.touch {
            self.entries.get_mut(key).expect("present").expiry = expiry;
        }
        self.write_number(now, key, cas, number.to_string())
    }

    fn delete(&mut self, now: Now, key: &[u8], delete: &Delete) -> Reply<'_> {
        let Some(entry) = self.entries.get(key) else { return Reply::NotFound };
        if delete.compare_cas.is_some_and(|expected| expected != entry.cas) {
            return Reply::Exists;
        }
        if !delete.mark_stale && !delete.drop_value {
            if let Some(reply) = no_room(entry, delete.old_bytes_max) {
                return reply;
            }
            let removed = self.entries.remove(key).expect("present");
            return match delete.old_bytes_max {
                Some(_) => Reply::Value(self.told.insert(removed).item(now)),
                None => Reply::Deleted,
            };
        }
        let cas = self.cas(delete.new_cas);
        let entry = self.entries.get_mut(key).expect("present");
        if delete.drop_value {
            *entry = Entry::new(now, Vec::new(), 0, entry.expiry, cas);
        }
        entry.cas = cas;
        if delete.mark_stale {
            entry.stale = true;
            entry.claimed = false;
            if let Some(expiry) = delete.touch {
                entry.expiry = expiry;
            }
        }
        Reply::Deleted
    }

    fn flush(&mut self, now: Now, at_unix_ms: u64) -> Reply<'_> {
        if at_unix_ms <= now.unix_ms {
            self.entries.clear();
            self.flush_at_unix_ms = None;
        } else {
            self.flush_at_unix_ms = Some(at_unix_ms);
        }
        Reply::Done
    }
}

impl Table for ModelTable {
    fn submit(&mut self, now: Now, request: &Request<'_>) -> Submission<'_> {
        let key = request.key;
        self.forget(now, key);
        Submission::Done(match &request.op {
            Op::Get(get) => self.get(now, key, get),
            Op::Store(store) => self.store(now, key, store),
            Op::Arithmetic(arithmetic) => self.arithmetic(now, key, arithmetic),
            Op::Add(delta) => self.add(now, key, *delta),
            Op::Delete(delete) => self.delete(now, key, delete),
            Op::Touch(expiry) => match self.entries.get_mut(key) {
                Some(entry) => {
                    entry.expiry = *expiry;
                    entry.read(now);
                    Reply::Touched
                }
                None => Reply::NotFound,
            },
            Op::FlushAll { at_unix_ms } => self.flush(now, *at_unix_ms),
        })
    }

    fn scan(&self, now: Now, cursor: u64, budget: usize, visit: &mut dyn FnMut(&[u8], Item<'_>)) -> u64 {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|(key, entry)| (place(key), key, entry))
            .filter(|(place, ..)| *place >= cursor)
            .collect();
        entries.sort_unstable_by_key(|&(place, key, _)| (place, key));
        let mut rest = entries.into_iter().peekable();
        let mut spent = 0;
        while let Some((place, key, entry)) = rest.next() {
            if !self.is_hidden(now, entry) {
                let recache = if entry.claimed { Recache::Sent } else { Recache::None };
                visit(key, Item { recache, ..entry.item(now) });
            }
            spent += 1;
            // Keys of one place are never parted.
            if spent >= budget && rest.peek().is_some_and(|&(next, ..)| next > place) {
                return place + 1;
            }
        }
        0
    }

    fn random_key(&self, now: Now, random: u64) -> Option<&[u8]> {
        let live = self.entries.iter().filter(|(_, entry)| !self.is_hidden(now, entry));
        let count = live.clone().count();
        let (key, _) = live.clone().nth(usize::try_from(random).unwrap_or(usize::MAX).checked_rem(count)?)?;
        Some(key)
    }

    fn statistics(&self) -> TableStatistics {
        let live_bytes = self.entries.iter().map(|(key, entry)| (key.len() + entry.value.len()) as u64).sum();
        TableStatistics {
            items: self.entries.len() as u64,
            items_total: self.items_total,
            live_bytes,
            used_bytes: live_bytes,
            capacity_bytes: u64::MAX,
            evictions: 0,
            evictions_unfetched: 0,
            expirations: self.expirations,
        }
    }
}
