//! Cursors over all keys, and a key at random.

use super::MemoryTable;
use super::arena::Generation;
use super::record::{self, Record, Word};
use crate::request::{Item, Recache};
use crate::time::Now;

/// Tags there are, 0 included.
const TAGS: usize = 256;

/// Steps over blocks of the index that a scan takes in the time of a key: what they cost when they find nothing is a walk
/// over some neighbouring cache lines, where a key costs one anywhere, and its part of a reply.
const SCAN_STEPS_PER_KEY: usize = 8;

/// Blocks of the index that are looked at for a key at random before the table is taken for nearly empty.
const RANDOM_BLOCKS_MAX: usize = 64;

/// Records that are then looked at, from the oldest on, before the index is walked from end to end.
const RANDOM_RECORDS_MAX: usize = 1024;

impl MemoryTable {
    /// [`Table::scan`](crate::table::Table::scan). A cursor is a block of the index and a tag in it, which keys never
    /// change.
    pub(super) fn scan_from(
        &self,
        now: Now,
        cursor: u64,
        budget: usize,
        visit: &mut dyn FnMut(&[u8], Item<'_>),
    ) -> u64 {
        // One step visits the rest of a block, if that is no more than the budget asks for, or its keys with tags in a
        // range that has about as many when the block is full.
        let tags = (TAGS.saturating_mul(budget) / self.index.block_slots()).clamp(1, TAGS) as u64;
        let budget_steps = budget.saturating_mul(SCAN_STEPS_PER_KEY);
        let blocks = u64::from(self.index.blocks());
        let mut cursor = cursor;
        let mut spent_steps = 0;
        while cursor / (TAGS as u64) < blocks {
            let (block, tag) = (cursor / TAGS as u64, cursor % TAGS as u64);
            let left = self
                .index
                .block(block as u32)
                .flat_map(|bucket| self.index.entries_tagged(bucket, tag as u8..=u8::MAX));
            let last = match left.take(budget.saturating_add(1)).count() <= budget {
                true => u64::from(u8::MAX),
                false => (tag + tags - 1).min(u64::from(u8::MAX)),
            };
            for bucket in self.index.block(block as u32) {
                for (_, position) in self.index.entries_tagged(bucket, tag as u8..=last as u8) {
                    spent_steps += SCAN_STEPS_PER_KEY;
                    let offset = self.arena.offset(position);
                    let word = self.arena.word(offset);
                    if self.is_hidden(offset, word, now) {
                        continue;
                    }
                    let recache = if word.token_sent() { Recache::Sent } else { Recache::None };
                    visit(
                        record::key(self.arena.at(offset), word),
                        self.item(now, offset, word, word, recache),
                    );
                }
            }
            spent_steps += 1;
            cursor = block * TAGS as u64 + last + 1;
            if spent_steps >= budget_steps {
                return if cursor / (TAGS as u64) < blocks { cursor } else { 0 };
            }
        }
        0
    }

    /// [`Table::random_key`](crate::table::Table::random_key): some key of a block at random. In a table with fewer keys
    /// than blocks, where that may take long, one of the oldest.
    pub(super) fn key_at_random(&self, now: Now, random: u64) -> Option<&[u8]> {
        if self.counts.items == self.counts.flushed_items {
            return None;
        }
        let blocks = self.index.blocks();
        let first = (((random >> 32) * u64::from(blocks)) >> 32) as u32;
        let mut in_turn =
            (0..blocks).map(|ahead| ((u64::from(first) + u64::from(ahead)) % u64::from(blocks)) as u32);
        let found = in_turn
            .by_ref()
            .take(RANDOM_BLOCKS_MAX)
            .find_map(|block| self.key_of_block(now, block, random))
            .or_else(|| self.old_record(now))
            .or_else(|| in_turn.find_map(|block| self.key_of_block(now, block, random)))?;
        Some(record::key(self.arena.at(found.0), found.1))
    }

    /// The record of one of a block's keys.
    fn key_of_block(&self, now: Now, block: u32, random: u64) -> Option<(usize, Word)> {
        let slots = self.index.block(block).flat_map(|bucket| self.index.entries(bucket));
        let mut records = slots
            .map(|(_, position)| self.arena.offset(position))
            .map(|offset| (offset, self.arena.word(offset)))
            .filter(|&(offset, word)| !self.is_hidden(offset, word, now));
        let count = records.clone().count();
        if count == 0 { None } else { records.nth(random as u32 as usize % count) }
    }

    /// One of the oldest records.
    fn old_record(&self, now: Now) -> Option<(usize, Word)> {
        [Generation::Probation, Generation::Main].into_iter().find_map(|generation| {
            let log = self.arena.log(generation);
            let mut at = log.tail();
            for _ in 0..RANDOM_RECORDS_MAX {
                if at >= log.head() {
                    break;
                }
                let offset = log.offset(at);
                let (record, span) = self.arena.record(offset);
                if let Record::Live(word) = record
                    && !self.is_hidden(offset, word, now)
                {
                    return Some((offset, word));
                }
                at += span as u64;
            }
            None
        })
    }

    /// Whether an item is not to be seen: gone, or taken by a flush that is due and was not carried out yet.
    fn is_hidden(&self, offset: usize, word: Word, now: Now) -> bool {
        now.unix_ms >= self.flush_at_unix_ms || self.arena.is_gone(offset, word, now)
    }
}
