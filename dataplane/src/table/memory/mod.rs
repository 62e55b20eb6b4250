//! The memory table: an arena, an index that never rehashes, eviction and expiry.
//!
//! | file | what it owns |
//! |---|---|
//! | `record` | the bytes of one item |
//! | `log` | a circular stretch of the arena: head, tail, room |
//! | `arena` | the region, its two logs, the records in them |
//! | `index` | key to record: buckets of one cache line |
//! | `reclaim` | making room: which item leaves, which is moved, how much of that one request may cause |
//! | `read`, `write`, `arithmetic` | what requests do |
//! | `sweep` | expired and flushed items, found in the background |
//! | `scan` | stable cursors over all keys, and a key at random |
//! | `verify` | the invariants of all of the above, checked by walking the whole table |
//!
//! After construction nothing is allocated, nothing grows and nothing fails for want of room: a full table evicts.

mod arena;
mod arithmetic;
mod index;
mod log;
mod read;
mod reclaim;
mod record;
mod scan;
mod sweep;
mod verify;
mod write;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use rapidhash::v3::{RapidSecrets, rapidhash_v3_micro_inline};

use crate::limits::{ITEM_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::memory::{MemoryError, Placement};
use crate::request::{Item, Op, Recache, Reply, Request};
use crate::table::{Hint, Submission, Table, TableStatistics};
use crate::time::{NS_PER_S, Now};

use arena::Arena;
use index::{BUCKET_BYTES, BUCKET_SLOTS, Index, Slot};
use record::{HEADER_BYTES_MAX, HEADER_BYTES_MIN, Word};

pub use index::KeyHash;
pub use reclaim::{
    RECLAIM_BYTES_BASE, RECLAIM_BYTES_PER_BYTE, RECLAIM_MOVES_BASE, RECLAIM_MOVES_BYTES, ReclaimWork,
};
pub use sweep::{SWEEP_INTERVAL_NS, SWEEP_RECORDS_MAX};

/// Mean bytes of key and value that the index is sized for when nothing better is known.
pub const EXPECTED_ITEM_BYTES_DEFAULT: u32 = 256;

/// Part of the index's entries that are taken when the arena is full of items of the expected size, in percent: blocks
/// differ by chance, and the fullest must not overflow often.
const INDEX_LOAD_PERCENT: u64 = 90;

/// What a table is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTableConfig {
    /// Bytes of arena and index together.
    pub capacity_bytes: u64,
    /// Largest item: key and value, in bytes; at most [`ITEM_BYTES_MAX`].
    pub item_bytes_max: u32,
    /// Mean bytes of key and value, which divides the capacity between arena and index. Smaller items than this fill
    /// the index before the arena (part of the arena then stays unused), larger ones leave part of the index
    /// unused: 5.7 bytes an item that is not there.
    pub expected_item_bytes: u32,
    /// Where the memory lies.
    pub placement: Placement,
}

impl Default for MemoryTableConfig {
    /// 64 MiB for the largest items there may be.
    fn default() -> Self {
        Self {
            capacity_bytes: 64 << 20,
            item_bytes_max: ITEM_BYTES_MAX as u32,
            expected_item_bytes: EXPECTED_ITEM_BYTES_DEFAULT,
            placement: Placement::default(),
        }
    }
}

/// Why a table cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The largest item does not fit often enough.
    #[error(
        "a table of {capacity_bytes} bytes is too small for items of {item_bytes_max} bytes: give it at least \
         {capacity_bytes_min} bytes, or lower the largest item"
    )]
    CapacityTooSmall {
        /// Bytes asked for.
        capacity_bytes: u64,
        /// Largest item, in bytes.
        item_bytes_max: u32,
        /// Fewest bytes that do.
        capacity_bytes_min: u64,
    },
    /// The largest item is none, or larger than a request can carry.
    #[error("the largest item must have 1 to {item_bytes_limit} bytes (key and value), not {item_bytes_max}")]
    ItemSize {
        /// Largest item asked for, in bytes.
        item_bytes_max: u32,
        /// Most bytes it may have.
        item_bytes_limit: usize,
    },
    /// No expected size to size the index by.
    #[error("the expected mean item size must have at least 1 byte")]
    ExpectedItemSize,
    /// The memory cannot be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A table in memory, of one shard.
#[derive(Debug)]
pub struct MemoryTable {
    arena: Arena,
    index: Index,
    secrets: RapidSecrets,
    /// A value on its way from one record to another.
    scratch: Box<[u8]>,
    item_bytes_max: usize,
    capacity_bytes: u64,
    /// The CAS given last.
    cas: u64,
    /// When the flush that was asked for takes effect; `u64::MAX` when none was.
    flush_at_unix_ms: u64,
    /// Live items that have an expiry field, whether or not they expire.
    expiring: u64,
    counts: Counts,
    work: ReclaimWork,
    sweep: sweep::Sweep,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    items: u64,
    items_total: u64,
    live_bytes: u64,
    /// Of these items and bytes, those that were flushed and not taken out yet: nobody is told of them.
    flushed_items: u64,
    flushed_bytes: u64,
    evictions: u64,
    evictions_unfetched: u64,
    evictions_index: u64,
    expirations: u64,
}

/// An item that was found: its index entry and its record.
#[derive(Clone, Copy, Debug)]
struct Found {
    slot: Slot,
    offset: usize,
    word: Word,
}

impl MemoryTable {
    /// An empty table, its memory faulted in.
    ///
    /// # Errors
    /// [`TableError`] when the sizes do not go together or the memory cannot be had.
    pub fn new(config: MemoryTableConfig) -> Result<Self, TableError> {
        // One secret a process, so that clients cannot choose keys that meet in one bucket.
        static SECRET: OnceLock<u64> = OnceLock::new();
        Self::with_hash_seed(config, *SECRET.get_or_init(|| RandomState::new().build_hasher().finish()))
    }

    /// As [`new`](Self::new), with a chosen seed for the hash, so that a simulation repeats itself exactly. Never
    /// for a table that serves clients one does not trust.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_hash_seed(config: MemoryTableConfig, seed: u64) -> Result<Self, TableError> {
        let sizes = Sizes::of(&config)?;
        Ok(Self {
            arena: Arena::new(sizes.arena_bytes, config.placement)?,
            index: Index::new(sizes.buckets, config.placement)?,
            secrets: RapidSecrets::seed(seed),
            scratch: vec![0; config.item_bytes_max as usize].into_boxed_slice(),
            item_bytes_max: config.item_bytes_max as usize,
            capacity_bytes: sizes.arena_bytes as u64 + u64::from(sizes.buckets) * BUCKET_BYTES as u64,
            cas: 0,
            flush_at_unix_ms: u64::MAX,
            expiring: 0,
            counts: Counts::default(),
            work: ReclaimWork::default(),
            sweep: sweep::Sweep::default(),
        })
    }

    /// True when arena and index lie in huge pages.
    #[must_use]
    pub fn huge_pages(&self) -> bool {
        self.arena.huge_pages() && self.index.huge_pages()
    }

    /// What making room has cost so far.
    #[must_use]
    pub fn reclaim_work(&self) -> ReclaimWork {
        self.work
    }

    /// Items evicted because the index was full: many of them while [`TableStatistics::used_bytes`] stays below the
    /// capacity say that items are smaller than [`MemoryTableConfig::expected_item_bytes`].
    #[must_use]
    pub fn evictions_index(&self) -> u64 {
        self.counts.evictions_index
    }

    /// The key's hash, with its place in the index on the way into the cache. For batches: prepare all keys, then
    /// [prefetch](Self::prefetch_item) all items, then [submit](Self::submit_hashed) all requests.
    #[inline]
    #[must_use]
    pub fn prepare(&self, key: &[u8]) -> KeyHash {
        let hash = self.hash(key);
        for bucket in self.index.candidates(hash) {
            prefetch(self.index.line(bucket));
        }
        hash
    }

    /// Brings the item of a prepared key on its way into the cache.
    #[inline]
    pub fn prefetch_item(&self, hash: KeyHash) {
        for position in self.index.likely(hash) {
            // Records are not aligned to lines: the key or the value of a small one often begins on the second.
            let bytes = self.arena.at(self.arena.offset(position));
            prefetch(bytes);
            prefetch(bytes.get(BUCKET_BYTES..).unwrap_or(bytes));
        }
    }

    /// [`Table::submit`] of a request whose key was [prepared](Self::prepare).
    #[inline]
    pub fn submit_hashed(&mut self, now: Now, hash: KeyHash, request: &Request<'_>) -> Submission<'_> {
        debug_assert!(hash == self.hash(request.key), "the hash is another key's");
        self.answer(now, hash, request)
    }

    /// Whether an item may be as large as this. A value that is joined from parts is one like others.
    fn takes(&self, key: &[u8], value_bytes: usize) -> bool {
        value_bytes <= VALUE_BYTES_MAX && key.len() + value_bytes <= self.item_bytes_max
    }

    /// Gets are inlined into whoever submits: a reply that is copied from frame to frame waits, each time, for the
    /// memory its parts came from, and no later request starts meanwhile.
    #[inline(always)]
    fn answer(&mut self, now: Now, hash: KeyHash, request: &Request<'_>) -> Submission<'_> {
        self.flush_when_due(now);
        let key = request.key;
        let key_is_sound = !key.is_empty() && key.len() <= KEY_BYTES_MAX;
        match &request.op {
            Op::Get(get) if key_is_sound => self.get(now, hash, key, get),
            _ => Submission::Done(self.answer_other(now, hash, request)),
        }
    }

    #[inline(never)]
    fn answer_other(&mut self, now: Now, hash: KeyHash, request: &Request<'_>) -> Reply<'_> {
        let key = request.key;
        if let Op::FlushAll { at_unix_ms } = request.op {
            return self.flush_all(now, at_unix_ms);
        }
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Reply::TooLarge;
        }
        match request.op {
            Op::Get(_) => unreachable!("a get of a sound key is answered by `answer`"),
            Op::Store(store) => self.store(now, hash, key, &store),
            Op::Arithmetic(arithmetic) => self.arithmetic(now, hash, key, &arithmetic),
            Op::Add(delta) => self.add(now, hash, key, delta),
            Op::Delete(delete) => self.delete(now, hash, key, &delete),
            Op::Touch(expiry) => self.touch(now, hash, key, expiry),
            Op::FlushAll { .. } => Reply::Done,
        }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(rapidhash_v3_micro_inline::<true, false>(key, &self.secrets))
    }

    /// The item of a key, whether or not it is to be seen.
    #[inline(always)]
    fn lookup(&self, hash: KeyHash, key: &[u8]) -> Option<Found> {
        let mut found = None;
        let (slot, _) = self.index.find(hash, |position| {
            let offset = self.arena.offset(position);
            let bytes = self.arena.at(offset);
            let word = record::live_word(bytes);
            found = Some((offset, word));
            word.key_bytes() == key.len() && record::key(bytes, word) == key
        })?;
        found.map(|(offset, word)| Found { slot, offset, word })
    }

    /// The item of a key. One that expired or was flushed is removed instead.
    #[inline(always)]
    fn find(&mut self, now: Now, hash: KeyHash, key: &[u8]) -> Option<Found> {
        let found = self.lookup(hash, key)?;
        if self.arena.is_gone(found.offset, found.word, now) {
            self.remove_gone(found);
            return None;
        }
        Some(found)
    }

    /// Takes out an item that expired or was flushed.
    #[cold]
    fn remove_gone(&mut self, found: Found) {
        self.remove(found);
        self.counts.expirations += 1;
    }

    /// Takes an item out of index and arena.
    fn remove(&mut self, found: Found) {
        self.index.clear(found.slot);
        if self.arena.is_flushed(found.offset) {
            self.counts.flushed_items -= 1;
            self.counts.flushed_bytes -= found.word.payload_bytes() as u64;
        }
        self.count_gone(found.word);
        self.arena.kill(found.offset, found.word);
    }

    fn count_new(&mut self, word: Word) {
        self.counts.items += 1;
        self.counts.live_bytes += word.payload_bytes() as u64;
        self.expiring += u64::from(word.has_expiry());
    }

    fn count_gone(&mut self, word: Word) {
        assert!(self.counts.items > 0, "an item left a table that has none");
        self.counts.items -= 1;
        self.counts.live_bytes -= word.payload_bytes() as u64;
        self.expiring -= u64::from(word.has_expiry());
    }

    /// The CAS a write gives: the one asked for, else the next.
    fn next_cas(&mut self, asked: Option<u64>) -> u64 {
        asked.unwrap_or_else(|| {
            self.cas += 1;
            self.cas
        })
    }

    /// The item as a reader sees it: `word` is its own, `before` what that was before this read. The word is handed
    /// down because reading it back from where it was just written would hold up the reads behind it.
    #[inline(always)]
    fn item(&self, now: Now, offset: usize, word: Word, before: Word, recache: Recache) -> Item<'_> {
        let bytes = self.arena.at(offset);
        Item {
            value: record::value(bytes, word),
            flags: record::flags(bytes, word),
            cas: record::cas(bytes, word),
            expiry: record::expiry(bytes, word),
            idle_s: before.idle_s(seconds(now)),
            fetched: before.fetched(),
            stale: word.stale(),
            recache,
        }
    }
}

impl Table for MemoryTable {
    #[inline]
    fn submit(&mut self, now: Now, request: &Request<'_>) -> Submission<'_> {
        let hash = self.hash(request.key);
        self.answer(now, hash, request)
    }

    #[inline]
    fn prepare(&self, key: &[u8]) -> Hint {
        Hint(MemoryTable::prepare(self, key).0)
    }

    #[inline]
    fn anticipate(&self, hint: Hint) {
        self.prefetch_item(KeyHash(hint.0));
    }

    /// Completes nothing, but looks for expired items; see [`SWEEP_INTERVAL_NS`].
    fn poll(&mut self, now: Now, _complete: &mut dyn FnMut(crate::request::Origin, Reply<'_>)) {
        self.flush_when_due(now);
        self.sweep(now);
    }

    fn scan(&self, now: Now, cursor: u64, budget: usize, visit: &mut dyn FnMut(&[u8], Item<'_>)) -> u64 {
        self.scan_from(now, cursor, budget, visit)
    }

    fn random_key(&self, now: Now, random: u64) -> Option<&[u8]> {
        self.key_at_random(now, random)
    }

    fn statistics(&self) -> TableStatistics {
        TableStatistics {
            items: self.counts.items - self.counts.flushed_items,
            items_total: self.counts.items_total,
            live_bytes: self.counts.live_bytes - self.counts.flushed_bytes,
            used_bytes: self.arena.used_bytes() as u64,
            capacity_bytes: self.capacity_bytes,
            evictions: self.counts.evictions,
            evictions_unfetched: self.counts.evictions_unfetched,
            expirations: self.counts.expirations,
        }
    }
}

/// How a capacity is divided.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    arena_bytes: usize,
    buckets: u32,
}

impl Sizes {
    fn of(config: &MemoryTableConfig) -> Result<Self, TableError> {
        let item_bytes_limit = ITEM_BYTES_MAX;
        let &MemoryTableConfig { capacity_bytes, item_bytes_max, expected_item_bytes, .. } = config;
        if item_bytes_max == 0 || item_bytes_max as usize > item_bytes_limit {
            return Err(TableError::ItemSize { item_bytes_max, item_bytes_limit });
        }
        if expected_item_bytes == 0 {
            return Err(TableError::ExpectedItemSize);
        }
        // What one item of the expected size takes of arena and index, in hundredths of a byte.
        let record_bytes = u64::from(expected_item_bytes) + HEADER_BYTES_MIN as u64;
        let entry_centibytes = (BUCKET_BYTES as u64 * 100 * 100) / (BUCKET_SLOTS as u64 * INDEX_LOAD_PERCENT);
        let divide = |capacity_bytes: u64| {
            let index_bytes = (u128::from(capacity_bytes) * u128::from(entry_centibytes)
                / u128::from(record_bytes * 100 + entry_centibytes)) as u64;
            let buckets = index::buckets_for(index_bytes.div_ceil(BUCKET_BYTES as u64));
            (capacity_bytes.saturating_sub(buckets * BUCKET_BYTES as u64), buckets)
        };
        let arena_bytes_min = arena::arena_bytes_min(item_bytes_max as usize + HEADER_BYTES_MAX + 64) as u64;
        let (arena_bytes, buckets) = divide(capacity_bytes);
        let (Ok(arena_bytes), Ok(buckets)) = (usize::try_from(arena_bytes), u32::try_from(buckets)) else {
            unreachable!(
                "a 64-bit machine counts every arena, and 2^32 lines are more than positions can fill"
            );
        };
        if (arena_bytes as u64) < arena_bytes_min {
            let index_share = arena_bytes_min * entry_centibytes / (record_bytes * 100);
            let mut capacity_bytes_min = arena_bytes_min + index_share;
            // Whole blocks of the index round it up, and what they take the arena lacks.
            while divide(capacity_bytes_min).0 < arena_bytes_min {
                capacity_bytes_min += arena_bytes_min - divide(capacity_bytes_min).0;
            }
            return Err(TableError::CapacityTooSmall { capacity_bytes, item_bytes_max, capacity_bytes_min });
        }
        Ok(Self { arena_bytes, buckets })
    }
}

/// Whole seconds of the monotonic clock: what last accesses are kept in.
#[inline]
fn seconds(now: Now) -> u64 {
    now.monotonic_ns / NS_PER_S
}

/// Asks for the cache line at the start of `bytes`.
#[inline]
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing the program can see and faults on no address; SSE, which has
    // the instruction, is part of every x86_64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
