//! Cursors over all keys.

use super::MemoryTable;
use super::record;
use crate::request::{Item, Recache};
use crate::time::Now;

/// Tags there are, 0 included.
const TAGS: usize = 256;

impl MemoryTable {
    /// Visits about `budget` keys from `cursor` on (0 at first). Returns the next cursor, 0 when all is done.
    ///
    /// A key that is in the table during the whole scan is visited exactly once, whatever is written in between; one
    /// that comes or goes is visited at most once each time it is there. A scan leaves recency alone, and no reader
    /// wins the right to recache by it. A cursor is a block of the index and a tag in it, which keys never change;
    /// one that no scan returned is as good as any.
    pub fn scan(&self, now: Now, cursor: u64, budget: usize, visit: &mut dyn FnMut(&[u8], Item<'_>)) -> u64 {
        // One step visits a block's keys with tags in a range as wide as the budget asks for.
        let tags = (TAGS * budget / self.index.block_slots()).clamp(1, TAGS) as u64;
        let blocks = u64::from(self.index.blocks());
        let mut cursor = cursor;
        let mut spent = 0;
        while cursor / (TAGS as u64) < blocks {
            let (block, tag) = (cursor / TAGS as u64, cursor % TAGS as u64);
            let last = (tag + tags - 1).min(u64::from(u8::MAX));
            for bucket in self.index.block(block as u32) {
                for (_, position) in self.index.entries_tagged(bucket, tag as u8..=last as u8) {
                    spent += 1;
                    let offset = self.arena.offset(position);
                    let word = self.arena.word(offset);
                    // A flush that is due and was not carried out yet hides everything.
                    if self.arena.is_gone(offset, word, now) || now.unix_ms >= self.flush_at_unix_ms {
                        continue;
                    }
                    let recache = if word.token_sent() { Recache::Sent } else { Recache::None };
                    visit(
                        record::key(self.arena.at(offset), word),
                        self.item(now, offset, word, word, recache),
                    );
                }
            }
            // A step costs the walk over its block even when it finds nothing.
            spent += 1;
            cursor = block * TAGS as u64 + last + 1;
            if spent >= budget {
                return if cursor / (TAGS as u64) < blocks { cursor } else { 0 };
            }
        }
        0
    }
}
