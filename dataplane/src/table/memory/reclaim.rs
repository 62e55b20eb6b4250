//! Making room in a log: its oldest records leave, one at a time, until the new one fits.
//!
//! What happens to the record at the tail:
//!
//! - dead, expired or flushed: its room is free;
//! - in probation and read since it was written, or main still has room: it moves to main;
//! - in main and its CLOCK counter is above 0: it moves to the head, the counter one lower;
//! - in main and much of main is dead: it moves to the head, so that the dead room is used before a live item
//!   leaves;
//! - else it is evicted.
//!
//! A record that is evicted or leaves probation gives its room to the new one, so of these a request sees no more
//! than its own size has room for. A move within main gives nothing: of those one request may make only so many;
//! after that everything live at main's tail is evicted. So all work is bounded in proportion to the size stored.

use super::arena::Generation;
use super::index::{POSITION_RESERVED, Slot};
use super::record::{self, Record, Word};
use super::{Found, KeyHash, MemoryTable};
use crate::time::Now;

/// Records that one request may move within main, whatever its size.
pub const RECLAIM_MOVES_BASE: u32 = 32;
/// A request may move one more record for so many bytes that it stores.
pub const RECLAIM_MOVES_BYTES: usize = 512;
/// Bytes that one request may have moved within main when it begins to move its last record.
pub const RECLAIM_BYTES_BASE: usize = 64 << 10;
/// Further bytes it may have moved by then, for each byte that it stores.
pub const RECLAIM_BYTES_PER_BYTE: usize = 4;

/// Main is compacted rather than evicted from while its dead bytes exceed this part of it: one over this. At an
/// eighth, some seven bytes are moved for each that is gained.
const COMPACT_PART: usize = 8;

/// Main has room for items that were not read while more than this is free of it: so many bytes, or one over this of
/// a small one.
const ROOM_BYTES: usize = 16 << 10;
const ROOM_PART: usize = 64;

/// Reads in probation that are worth a place in main.
const PROMOTE_CLOCK: u8 = 1;

/// What making room has cost since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimWork {
    /// Records moved from probation to main.
    pub promotions_total: u64,
    /// Records moved within main.
    pub moves_total: u64,
    /// Bytes moved within main.
    pub moved_bytes_total: u64,
    /// Most records moved within main by one request.
    pub moves_max: u32,
    /// Most bytes moved within main by one request.
    pub moved_bytes_max: usize,
}

/// What one request may still move within main.
#[derive(Clone, Copy, Debug)]
struct Budget {
    moves: u32,
    moves_max: u32,
    bytes: usize,
    bytes_max: usize,
}

impl Budget {
    fn of(span: usize) -> Self {
        Self {
            moves: 0,
            moves_max: RECLAIM_MOVES_BASE + (span / RECLAIM_MOVES_BYTES) as u32,
            bytes: 0,
            bytes_max: RECLAIM_BYTES_BASE + span * RECLAIM_BYTES_PER_BYTE,
        }
    }

    fn allows_a_move(&self) -> bool {
        self.moves < self.moves_max && self.bytes < self.bytes_max
    }

    fn count(&mut self, span: usize) {
        assert!(self.allows_a_move(), "a request moves more than it may");
        self.moves += 1;
        self.bytes += span;
    }
}

impl MemoryTable {
    /// Makes room for a record of `span` bytes and takes it; returns its offset.
    pub(super) fn make_room(&mut self, now: Now, generation: Generation, span: usize) -> usize {
        if !self.arena.log(generation).fits(span) {
            let mut budget = Budget::of(span);
            self.reclaim(now, generation, span, &mut budget);
            self.work.moves_total += u64::from(budget.moves);
            self.work.moved_bytes_total += budget.bytes as u64;
            self.work.moves_max = self.work.moves_max.max(budget.moves);
            self.work.moved_bytes_max = self.work.moved_bytes_max.max(budget.bytes);
        }
        self.arena.reserve(generation, span)
    }

    fn reclaim(&mut self, now: Now, generation: Generation, span: usize, budget: &mut Budget) {
        while !self.arena.log(generation).fits(span) {
            assert!(
                !self.arena.log(generation).is_empty(),
                "{span} bytes do not fit an empty {generation:?} log"
            );
            self.reclaim_tail(now, generation, budget);
        }
    }

    /// Does what is to be done with the record at a log's tail.
    fn reclaim_tail(&mut self, now: Now, generation: Generation, budget: &mut Budget) {
        let log = self.arena.log(generation);
        let offset = log.offset(log.tail());
        let (record, span) = self.arena.record(offset);
        let Record::Live(word) = record else {
            self.arena.pop_dead(generation, span);
            return;
        };
        if self.arena.is_gone(offset, word, now) {
            let (found, _) = self.found_at(offset, word);
            self.remove(found);
            self.counts.expirations += 1;
            return;
        }
        match generation {
            Generation::Main => {
                if (word.clock() > 0 || self.main_is_worth_compacting()) && budget.allows_a_move() {
                    budget.count(span);
                    self.move_tail(generation, word.clock().saturating_sub(1));
                    return;
                }
            }
            Generation::Probation => {
                if word.clock() >= PROMOTE_CLOCK
                    || self.main_has_room_for(span)
                    || self.main_is_worth_compacting()
                {
                    self.reclaim(now, Generation::Main, span, budget);
                    self.move_tail(generation, 0);
                    self.work.promotions_total += 1;
                    return;
                }
            }
        }
        let (found, hash) = self.found_at(offset, word);
        if generation == Generation::Probation {
            self.index.remember_ghost(found.slot, hash);
        }
        self.evict(found);
    }

    /// True while main fills for the first time, or again after much of it left. The gap that the last reclaim left
    /// does not count: only small items would slip into it.
    fn main_has_room_for(&self, span: usize) -> bool {
        let main = self.arena.log(Generation::Main);
        main.fits(span) && main.free_bytes() > (main.capacity() / ROOM_PART).min(ROOM_BYTES) + span
    }

    /// True when so much of main is dead that moving live items away from its tail pays.
    fn main_is_worth_compacting(&self) -> bool {
        let main = self.arena.log(Generation::Main);
        main.dead_bytes() > main.capacity() / COMPACT_PART || main.holds_flushed()
    }

    /// Moves the live record at a log's tail to main's head.
    fn move_tail(&mut self, from: Generation, clock: u8) {
        let log = self.arena.log(from);
        let offset = log.offset(log.tail());
        let (found, _) = self.found_at(offset, self.arena.word(offset));
        let target = self.arena.move_tail(from, Generation::Main, clock);
        self.index.set_position(found.slot, self.arena.position(target));
    }

    /// The index entry of the live record at this offset, and its key's hash.
    pub(super) fn found_at(&self, offset: usize, word: Word) -> (Found, KeyHash) {
        let hash = self.hash(record::key(self.arena.at(offset), word));
        let wanted = self.arena.position(offset);
        let entry = self.index.find(hash, |position| position == wanted);
        let Some((slot, _)) = entry else { panic!("the live record at {offset} is not in the index") };
        (Found { slot, offset, word }, hash)
    }

    fn evict(&mut self, found: Found) {
        self.counts.evictions += 1;
        self.counts.evictions_unfetched += u64::from(!found.word.fetched());
        self.remove(found);
    }

    /// A slot for a new key. When both of its buckets are full, the entry used least of late leaves, and the others
    /// lose as much of their CLOCK counters as it had. Among equals one in probation leaves first: the hole it
    /// leaves is soon at the tail.
    pub(super) fn slot_for(&mut self, hash: KeyHash) -> Slot {
        if let Some(slot) = self.index.free_slot(hash) {
            return slot;
        }
        let mut least: Option<((u8, bool, u64), Found)> = None;
        for bucket in self.index.candidates(hash) {
            for (slot, position) in self.index.entries(bucket) {
                assert!(position != POSITION_RESERVED, "an entry is being rewritten while another is made");
                let offset = self.arena.offset(position);
                let word = self.arena.word(offset);
                let generation = self.arena.generation(offset);
                let log = self.arena.log(generation);
                let rank = (word.clock(), generation == Generation::Main, log.logical(offset));
                if least.is_none_or(|(lowest, _)| rank < lowest) {
                    least = Some((rank, Found { slot, offset, word }));
                }
            }
        }
        let (_, found) = least.expect("full buckets have entries");
        let clock = found.word.clock();
        if clock > 0 {
            for bucket in self.index.candidates(hash) {
                for (_, position) in self.index.entries(bucket) {
                    let offset = self.arena.offset(position);
                    let word = self.arena.word(offset);
                    let lowered = word.with_clock(word.clock().saturating_sub(clock));
                    // Split borrows: the index is read while the arena is written.
                    record::write_word(self.arena.at_mut(offset), lowered);
                }
            }
        }
        let found = Found { word: self.arena.word(found.offset), ..found };
        self.counts.evictions_index += 1;
        self.evict(found);
        found.slot
    }
}
