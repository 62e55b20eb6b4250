//! The table's invariants, checked by walking all of it.

use super::MemoryTable;
use super::arena::Generation;
use super::record::{Record, key};

impl MemoryTable {
    /// Walks both logs and the index and panics at the first thing that is not as it must be: records follow each
    /// other from tail to head without gap or overlap; each live one has exactly one index entry, in a bucket of its
    /// key; every entry points to a live record; items, bytes and dead bytes add up. For tests; takes time in
    /// proportion to the table.
    pub fn verify(&self) {
        let (mut items, mut live_bytes, mut expiring) = (0, 0, 0);
        let (mut flushed_items, mut flushed_bytes) = (0, 0);
        for generation in [Generation::Probation, Generation::Main] {
            let log = self.arena.log(generation);
            let mut dead_bytes = 0;
            let mut at = log.tail();
            while at < log.head() {
                let offset = log.offset(at);
                assert_eq!(log.logical(offset), at, "{generation:?}: logical offsets do not come back");
                let (record, span) = self.arena.record(offset);
                match record {
                    Record::Padding | Record::Dead { .. } => dead_bytes += span,
                    Record::Live(word) => {
                        let (found, hash) = self.found_at(offset, word);
                        assert_eq!(found.offset, offset);
                        let stored = key(self.arena.at(offset), word);
                        let entries = self.lookup(hash, stored).expect("a live record's key is found");
                        assert_eq!(entries.offset, offset, "two live records have the key {stored:?}");
                        assert!(word.payload_bytes() <= self.item_bytes_max, "an item is too large");
                        items += 1;
                        live_bytes += word.payload_bytes() as u64;
                        expiring += u64::from(word.has_expiry());
                        if self.arena.is_flushed(offset) {
                            flushed_items += 1;
                            flushed_bytes += word.payload_bytes() as u64;
                        }
                    }
                }
                at += span as u64;
            }
            assert_eq!(at, log.head(), "{generation:?}: the last record ends past the head");
            assert_eq!(dead_bytes, log.dead_bytes(), "{generation:?}: dead bytes were miscounted");
        }
        let entries: usize = (0..self.index.blocks())
            .flat_map(|block| self.index.block(block))
            .map(|bucket| self.index.entries(bucket).count())
            .sum();
        assert_eq!(entries as u64, items, "the index has entries without a live record");
        assert_eq!(self.counts.items, items, "items were miscounted");
        assert_eq!(self.counts.live_bytes, live_bytes, "live bytes were miscounted");
        assert_eq!(self.counts.flushed_items, flushed_items, "flushed items were miscounted");
        assert_eq!(self.counts.flushed_bytes, flushed_bytes, "flushed bytes were miscounted");
        assert_eq!(self.expiring, expiring, "expiring items were miscounted");
        assert!(self.counts.live_bytes <= self.arena.used_bytes() as u64);
        assert!((self.arena.used_bytes() + self.index.bytes()) as u64 <= self.capacity_bytes);
    }
}
