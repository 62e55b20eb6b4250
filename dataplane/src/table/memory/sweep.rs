//! The background sweep: items that expired, or were flushed, and that nobody asks for again.
//!
//! It walks the logs from tail to head and begins anew. A table without items that expire, could
//! be given an expiry where they lie, or were flushed is not walked.

use super::MemoryTable;
use super::arena::Generation;
use super::record::Record;
use crate::time::{NS_PER_MS, Now};

/// Shortest time between two steps of the sweep, in nanoseconds.
pub const SWEEP_INTERVAL_NS: u64 = NS_PER_MS;

/// Records that one step looks at: about 10 us when none of them is in the cache, so 1 % of a core, and ten million
/// items in 80 s.
pub const SWEEP_RECORDS_MAX: u32 = 128;

/// Where the sweep stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    generation: Generation,
    /// Logical offset of a record in that log, or one that its tail has passed.
    at: u64,
    next_ns: u64,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { generation: Generation::Probation, at: 0, next_ns: 0 }
    }
}

impl MemoryTable {
    /// One step of the sweep, if it is time for one.
    pub(super) fn sweep(&mut self, now: Now) {
        if now.monotonic_ns < self.sweep.next_ns || !self.has_items_to_sweep() {
            return;
        }
        self.sweep.next_ns = now.monotonic_ns.saturating_add(SWEEP_INTERVAL_NS);
        for _ in 0..SWEEP_RECORDS_MAX {
            let log = self.arena.log(self.sweep.generation);
            let at = self.sweep.at.max(log.tail());
            if at >= log.head() {
                self.sweep.generation = match self.sweep.generation {
                    Generation::Probation => Generation::Main,
                    Generation::Main => Generation::Probation,
                };
                self.sweep.at = self.arena.log(self.sweep.generation).tail();
                continue;
            }
            let offset = log.offset(at);
            let at_tail = at == log.tail();
            let (record, span) = self.arena.record(offset);
            let mut dead = !matches!(record, Record::Live(_));
            if let Record::Live(word) = record
                && self.arena.is_gone(offset, word, now)
            {
                let (found, _) = self.found_at(offset, word);
                self.remove(found);
                self.counts.expirations += 1;
                dead = true;
            }
            if dead && at_tail {
                self.arena.pop_dead(self.sweep.generation, span);
            }
            self.sweep.at = at + span as u64;
        }
    }

    fn has_items_to_sweep(&self) -> bool {
        self.expiring > 0
            || self.arena.log(Generation::Probation).holds_flushed()
            || self.arena.log(Generation::Main).holds_flushed()
    }
}
