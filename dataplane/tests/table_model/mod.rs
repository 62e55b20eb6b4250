//! A plain model of a table: a map with the same semantics, no bounds and no eviction.

use std::collections::HashMap;

use dataplane::limits::VALUE_BYTES_MAX;
use dataplane::request::{
    Arithmetic, Delete, Direction, Get, Item, Op, Recache, Reply, Request, Store, StoreMode,
};
use dataplane::time::{Expiry, Now};

/// A reply that borrows nothing, so that two can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnedReply {
    Value(OwnedItem),
    Stored { cas: u64, value_bytes: usize },
    NoRoom { value_bytes: usize },
    Other(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnedItem {
    pub(crate) value: Vec<u8>,
    pub(crate) flags: u32,
    pub(crate) cas: u64,
    pub(crate) expiry: Expiry,
    pub(crate) idle_s: u32,
    pub(crate) fetched: bool,
    pub(crate) stale: bool,
    pub(crate) recache: Recache,
}

impl From<Item<'_>> for OwnedItem {
    fn from(item: Item<'_>) -> Self {
        Self {
            value: item.value.to_vec(),
            flags: item.flags,
            cas: item.cas,
            expiry: item.expiry,
            idle_s: item.idle_s,
            fetched: item.fetched,
            stale: item.stale,
            recache: item.recache,
        }
    }
}

impl From<Reply<'_>> for OwnedReply {
    fn from(reply: Reply<'_>) -> Self {
        Self::Other(match reply {
            Reply::Value(item) => return Self::Value(item.into()),
            Reply::Stored { cas, value_bytes } => return Self::Stored { cas, value_bytes },
            Reply::NoRoom { value_bytes } => return Self::NoRoom { value_bytes },
            Reply::NotFound => "not found",
            Reply::NotStored => "not stored",
            Reply::Exists => "exists",
            Reply::Deleted => "deleted",
            Reply::Touched => "touched",
            Reply::NotANumber => "not a number",
            Reply::Overflow => "overflow",
            Reply::TooLarge => "too large",
            Reply::OutOfMemory => "out of memory",
            Reply::Done => "done",
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ModelItem {
    value: Vec<u8>,
    flags: u32,
    cas: u64,
    expiry: Expiry,
    accessed_s: u64,
    fetched: bool,
    stale: bool,
    token_sent: bool,
}

impl ModelItem {
    pub(crate) fn seen(&self, now: Now, recache: Recache) -> OwnedItem {
        OwnedItem {
            value: self.value.clone(),
            flags: self.flags,
            cas: self.cas,
            expiry: self.expiry,
            idle_s: (now_s(now) - self.accessed_s) as u32,
            fetched: self.fetched,
            stale: self.stale,
            recache,
        }
    }

    /// As a scan shows it.
    pub(crate) fn scanned(&self, now: Now) -> OwnedItem {
        self.seen(now, if self.token_sent { Recache::Sent } else { Recache::None })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) items: HashMap<Vec<u8>, ModelItem>,
    item_bytes_max: usize,
    cas: u64,
    flush_at_unix_ms: Option<u64>,
}

/// Bytes of the value a store makes of what is there.
fn joined_bytes(store: &Store<'_>, old: &[u8]) -> usize {
    match store.mode {
        StoreMode::Append | StoreMode::Prepend => old.len() + store.value.len(),
        StoreMode::Range { offset } => old.len().max(offset as usize + store.value.len()),
        StoreMode::Set | StoreMode::Add | StoreMode::Replace => store.value.len(),
    }
}

/// The value a store makes of what is there.
fn joined(store: &Store<'_>, old: &[u8]) -> Vec<u8> {
    match store.mode {
        StoreMode::Append => [old, store.value].concat(),
        StoreMode::Prepend => [store.value, old].concat(),
        StoreMode::Range { offset } => {
            let (offset, end) = (offset as usize, offset as usize + store.value.len());
            let kept = |range: std::ops::Range<usize>| old.get(range).unwrap_or_default();
            let mut before = kept(0..offset.min(old.len())).to_vec();
            before.resize(offset, 0);
            [&before, store.value, kept(end..old.len().max(end))].concat()
        }
        StoreMode::Set | StoreMode::Add | StoreMode::Replace => store.value.to_vec(),
    }
}

fn no_room(item: &ModelItem, bytes_max: Option<usize>) -> Option<OwnedReply> {
    let value_bytes = item.value.len();
    bytes_max.filter(|&bytes_max| value_bytes > bytes_max).map(|_| OwnedReply::NoRoom { value_bytes })
}

fn now_s(now: Now) -> u64 {
    now.monotonic_ns / 1_000_000_000
}

impl Model {
    pub(crate) fn new(item_bytes_max: u32) -> Self {
        Self { item_bytes_max: item_bytes_max as usize, ..Self::default() }
    }

    /// The CAS given last.
    pub(crate) fn cas_given(&self) -> u64 {
        self.cas
    }

    /// Drops what time has taken.
    pub(crate) fn advance(&mut self, now: Now) {
        if self.flush_at_unix_ms.is_some_and(|at| at <= now.unix_ms) {
            self.flush_at_unix_ms = None;
            self.items.clear();
        }
        self.items.retain(|_, item| !item.expiry.has_passed(now));
    }

    pub(crate) fn submit(&mut self, now: Now, request: &Request<'_>) -> OwnedReply {
        self.advance(now);
        let key = request.key;
        if let Op::FlushAll { at_unix_ms } = request.op {
            self.flush_at_unix_ms = Some(at_unix_ms);
            self.advance(now);
            return OwnedReply::Other("done");
        }
        if key.is_empty() || key.len() > 250 {
            return OwnedReply::Other("too large");
        }
        match request.op {
            Op::Get(get) => self.get(now, key, get),
            Op::Store(store) => self.store(now, key, store),
            Op::Arithmetic(arithmetic) => self.arithmetic(now, key, arithmetic),
            Op::Add(delta) => self.add(now, key, delta),
            Op::Delete(delete) => self.delete(now, key, delete),
            Op::Touch(expiry) => match self.items.get_mut(key) {
                Some(item) => {
                    (item.expiry, item.accessed_s, item.fetched) = (expiry, now_s(now), true);
                    OwnedReply::Other("touched")
                }
                None => OwnedReply::Other("not found"),
            },
            Op::FlushAll { .. } => unreachable!(),
        }
    }

    fn cas(&mut self, asked: Option<u64>) -> u64 {
        asked.unwrap_or_else(|| {
            self.cas += 1;
            self.cas
        })
    }

    fn fresh(&mut self, now: Now, value: &[u8], expiry: Expiry, asked: Option<u64>) -> ModelItem {
        ModelItem {
            value: value.to_vec(),
            flags: 0,
            cas: self.cas(asked),
            expiry,
            accessed_s: now_s(now),
            fetched: false,
            stale: false,
            token_sent: false,
        }
    }

    fn takes(&self, key: &[u8], value_bytes: usize) -> bool {
        value_bytes <= VALUE_BYTES_MAX && key.len() + value_bytes <= self.item_bytes_max
    }

    fn get(&mut self, now: Now, key: &[u8], get: Get) -> OwnedReply {
        if !self.items.contains_key(key) {
            let Some(expiry) = get.vivify else { return OwnedReply::Other("not found") };
            if !self.takes(key, 0) {
                return OwnedReply::Other("too large");
            }
            let item = ModelItem { token_sent: true, ..self.fresh(now, b"", expiry, get.new_cas) };
            let seen = item.seen(now, Recache::Won);
            self.items.insert(key.to_vec(), ModelItem { fetched: !get.peek, ..item });
            return OwnedReply::Value(seen);
        }
        let item = self.items.get_mut(key).expect("just seen");
        if let Some(reply) = no_room(item, get.value_bytes_max) {
            return reply;
        }
        let ends_soon = get.recache_below_s.is_some_and(|below| {
            item.expiry != Expiry::NEVER
                && u128::from(item.expiry.unix_ms().saturating_sub(now.unix_ms)) < u128::from(below) * 1_000
        });
        let recache = match (item.token_sent, item.stale || ends_soon) {
            _ if !get.claim => Recache::None,
            (true, _) => Recache::Sent,
            (false, true) => Recache::Won,
            (false, false) => Recache::None,
        };
        item.token_sent |= recache == Recache::Won;
        if let Some(expiry) = get.touch {
            item.expiry = expiry;
        }
        let seen = item.seen(now, recache);
        if !get.peek {
            (item.accessed_s, item.fetched) = (now_s(now), true);
        }
        OwnedReply::Value(seen)
    }

    fn store(&mut self, now: Now, key: &[u8], store: Store<'_>) -> OwnedReply {
        if !self.takes(key, store.value.len()) {
            if store.mode == StoreMode::Set && store.compare_cas.is_none() {
                self.items.remove(key);
            }
            return OwnedReply::Other("too large");
        }
        let joins = store.mode.joins();
        let Some(old) = self.items.get(key).cloned() else {
            let expiry = match store.mode {
                StoreMode::Add => store.expiry,
                StoreMode::Set if store.compare_cas.is_none() => store.expiry,
                StoreMode::Set | StoreMode::Replace if store.compare_cas.is_some() => {
                    return OwnedReply::Other("not found");
                }
                _ if joins && store.vivify.is_some() => store.vivify.unwrap(),
                _ => return OwnedReply::Other("not stored"),
            };
            if !self.takes(key, joined_bytes(&store, &[])) {
                return OwnedReply::Other("too large");
            }
            let value = joined(&store, &[]);
            let item = ModelItem { flags: store.flags, ..self.fresh(now, &value, expiry, store.new_cas) };
            let cas = item.cas;
            self.items.insert(key.to_vec(), item);
            return OwnedReply::Stored { cas, value_bytes: value.len() };
        };
        let old_bytes_max = store.old_bytes_max.filter(|_| !joins);
        if let Some(reply) = no_room(&old, old_bytes_max) {
            return reply;
        }
        let told = old_bytes_max.map(|_| OwnedReply::Value(old.seen(now, Recache::None)));
        if store.mode == StoreMode::Add {
            self.items.get_mut(key).expect("just seen").accessed_s = now_s(now);
            return told.unwrap_or(OwnedReply::Other("not stored"));
        }
        let mut stale = false;
        if let Some(cas) = store.compare_cas
            && cas != old.cas
        {
            if !store.invalidate || joins || cas > old.cas {
                return OwnedReply::Other("exists");
            }
            stale = true;
        }
        if !self.takes(key, joined_bytes(&store, &old.value)) {
            return OwnedReply::Other("too large");
        }
        let value = joined(&store, &old.value);
        let mut item = self.fresh(now, &value, store.expiry, store.new_cas);
        item.flags = store.flags;
        if store.keep_expiry {
            item.expiry = old.expiry;
        }
        if joins {
            (item.flags, item.expiry) = (old.flags, old.expiry);
        }
        if stale {
            (item.expiry, item.stale, item.token_sent) = (old.expiry, true, old.token_sent);
        }
        let cas = item.cas;
        self.items.insert(key.to_vec(), item);
        told.unwrap_or(OwnedReply::Stored { cas, value_bytes: value.len() })
    }

    fn add(&mut self, now: Now, key: &[u8], delta: i64) -> OwnedReply {
        let Some(old) = self.items.get(key) else {
            let digits = delta.to_string();
            if !self.takes(key, digits.len()) {
                return OwnedReply::Other("too large");
            }
            let item = self.fresh(now, digits.as_bytes(), Expiry::NEVER, None);
            let seen = item.seen(now, Recache::None);
            self.items.insert(key.to_vec(), item);
            return OwnedReply::Value(seen);
        };
        let text = String::from_utf8_lossy(&old.value).into_owned();
        let Some(number) = text.parse::<i64>().ok().filter(|number| number.to_string() == text) else {
            return OwnedReply::Other("not a number");
        };
        let Some(sum) = number.checked_add(delta) else { return OwnedReply::Other("overflow") };
        let digits = sum.to_string();
        if !self.takes(key, digits.len()) {
            return OwnedReply::Other("too large");
        }
        let cas = self.cas(None);
        let item = self.items.get_mut(key).expect("just seen");
        (item.value, item.cas) = (digits.into_bytes(), cas);
        let seen = item.seen(now, Recache::None);
        item.accessed_s = now_s(now);
        OwnedReply::Value(seen)
    }

    fn arithmetic(&mut self, now: Now, key: &[u8], request: Arithmetic) -> OwnedReply {
        let Some(old) = self.items.get(key).cloned() else {
            let Some((initial, expiry)) = request.initial else { return OwnedReply::Other("not found") };
            if !self.takes(key, initial.to_string().len()) {
                return OwnedReply::Other("too large");
            }
            let item = self.fresh(now, initial.to_string().as_bytes(), expiry, request.new_cas);
            let seen = item.seen(now, Recache::None);
            self.items.insert(key.to_vec(), item);
            return OwnedReply::Value(seen);
        };
        if request.compare_cas.is_some_and(|cas| cas != old.cas) {
            return OwnedReply::Other("exists");
        }
        let digits = old.value.len() <= 20 && old.value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(&old.value).unwrap_or_default();
        let (true, Ok(number)) = (digits, text.parse::<u64>()) else {
            return OwnedReply::Other("not a number");
        };
        let number = match request.direction {
            Direction::Increment => number.wrapping_add(request.delta),
            Direction::Decrement => number.saturating_sub(request.delta),
        };
        if !self.takes(key, number.to_string().len()) {
            return OwnedReply::Other("too large");
        }
        let cas = self.cas(request.new_cas);
        let item = self.items.get_mut(key).expect("just seen");
        item.value = number.to_string().into_bytes();
        item.cas = cas;
        item.expiry = request.touch.unwrap_or(item.expiry);
        let seen = item.seen(now, Recache::None);
        item.accessed_s = now_s(now);
        OwnedReply::Value(seen)
    }

    fn delete(&mut self, now: Now, key: &[u8], delete: Delete) -> OwnedReply {
        let Some(old) = self.items.get(key) else { return OwnedReply::Other("not found") };
        if delete.compare_cas.is_some_and(|cas| cas != old.cas) {
            return OwnedReply::Other("exists");
        }
        if delete.mark_stale || delete.drop_value {
            let kept = if delete.drop_value {
                let expiry = old.expiry;
                self.fresh(now, b"", expiry, delete.new_cas)
            } else {
                let old = old.clone();
                ModelItem { cas: self.cas(delete.new_cas), ..old }
            };
            let item = self.items.get_mut(key).expect("just seen");
            *item = kept;
            if delete.mark_stale {
                (item.stale, item.token_sent) = (true, false);
                item.expiry = delete.touch.unwrap_or(item.expiry);
            }
        } else {
            if let Some(reply) = no_room(old, delete.old_bytes_max) {
                return reply;
            }
            let removed = self.items.remove(key).expect("just seen");
            if delete.old_bytes_max.is_some() {
                return OwnedReply::Value(removed.seen(now, Recache::None));
            }
        }
        OwnedReply::Other("deleted")
    }
}
