//! The arena: one region, two logs in it, and the records they hold.
//!
//! New items enter *probation*, a tenth of the arena; what is read there moves on to *main*, the rest. A scan of
//! keys that are read once so washes through probation only (the idea of S3-FIFO, SOSP '23).

use super::log::Log;
use super::record::{self, Meta, Record, Word};
use crate::memory::{MemoryError, Placement, Region};
use crate::time::{Expiry, Now};

/// Probation's part of the arena: one over this.
const PROBATION_PART: usize = 10;

/// A record larger than this part of probation goes to main at once: a few of them would leave nobody time to be
/// read a second time.
const PROBATION_RECORD_PART: usize = 8;

/// Main holds at least so many records of the largest size, so that one always fits once main is empty, wherever
/// its head stands.
pub(super) const MAIN_RECORDS_MIN: usize = 2;

/// Fewest bytes of an arena whose largest record has so many bytes.
pub(super) const fn arena_bytes_min(record_bytes_max: usize) -> usize {
    (MAIN_RECORDS_MIN * record_bytes_max).div_ceil(PROBATION_PART - 1) * PROBATION_PART + 2 * PROBATION_PART
}

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    Probation,
    Main,
}

/// The bytes of all items.
#[derive(Debug)]
pub(super) struct Arena {
    region: Region,
    probation: Log,
    main: Log,
    main_base: usize,
    /// A position counts granules of `1 << granule_shift` bytes, so that 32 bits reach every record. Below 4 GiB a
    /// granule is a byte and nothing is lost to rounding.
    granule_shift: u32,
}

impl Arena {
    /// An empty arena of at most `bytes`.
    pub(super) fn new(bytes: usize, placement: Placement) -> Result<Self, MemoryError> {
        let granule_shift = granule_shift(bytes);
        let region = Region::allocate(bytes, placement)?;
        let granules = (bytes - record::OVERREAD_BYTES) >> granule_shift;
        let main_base = (granules / PROBATION_PART) << granule_shift;
        let main_bytes = (granules << granule_shift) - main_base;
        Ok(Self {
            region,
            probation: Log::new(0, main_base),
            main: Log::new(main_base, main_bytes),
            main_base,
            granule_shift,
        })
    }

    pub(super) fn huge_pages(&self) -> bool {
        self.region.huge_pages()
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.probation.used_bytes() + self.main.used_bytes()
    }

    pub(super) fn log(&self, generation: Generation) -> &Log {
        match generation {
            Generation::Probation => &self.probation,
            Generation::Main => &self.main,
        }
    }

    fn log_mut(&mut self, generation: Generation) -> &mut Log {
        match generation {
            Generation::Probation => &mut self.probation,
            Generation::Main => &mut self.main,
        }
    }

    /// The log that a record at this offset is in.
    pub(super) fn generation(&self, offset: usize) -> Generation {
        if offset < self.main_base { Generation::Probation } else { Generation::Main }
    }

    /// The log a record of so many bytes goes to when its key is not known to be worth main.
    pub(super) fn generation_for(&self, span: usize) -> Generation {
        if span <= self.probation.capacity() / PROBATION_RECORD_PART {
            Generation::Probation
        } else {
            Generation::Main
        }
    }

    /// What the index keeps for a record at this offset.
    #[inline]
    pub(super) fn position(&self, offset: usize) -> u32 {
        debug_assert!(offset & ((1 << self.granule_shift) - 1) == 0, "offset {offset} is inside a granule");
        u32::try_from(offset >> self.granule_shift).expect("the granule was chosen so that positions fit")
    }

    /// The offset of a record from what the index keeps.
    #[inline]
    pub(super) fn offset(&self, position: u32) -> usize {
        (position as usize) << self.granule_shift
    }

    /// Bytes that a record takes from its log.
    #[inline]
    pub(super) fn span(&self, record_bytes: usize) -> usize {
        let granule = 1 << self.granule_shift;
        (record_bytes + granule - 1) & !(granule - 1)
    }

    /// The bytes from this offset on.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> &[u8] {
        &self.region.bytes()[offset..]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, offset: usize) -> &mut [u8] {
        &mut self.region.bytes_mut()[offset..]
    }

    /// The word of the live record at this offset.
    #[inline]
    pub(super) fn word(&self, offset: usize) -> Word {
        record::live_word(self.at(offset))
    }

    /// What the record at this offset of a log says of itself, and the bytes it takes.
    pub(super) fn record(&self, offset: usize) -> (Record, usize) {
        let record = record::read(self.at(offset));
        let span = match record {
            Record::Padding => 1 << self.granule_shift,
            Record::Dead { bytes } => bytes,
            Record::Live(word) => self.span(word.record_bytes()),
        };
        (record, span)
    }

    /// True when the item at this offset is to be seen no more: expired or flushed.
    #[inline]
    pub(super) fn is_gone(&self, offset: usize, word: Word, now: Now) -> bool {
        (word.has_expiry() && record::expiry(self.at(offset), word).has_passed(now))
            || self.is_flushed(offset)
    }

    /// True when the item at this offset was flushed.
    pub(super) fn is_flushed(&self, offset: usize) -> bool {
        self.log(self.generation(offset)).is_flushed(offset)
    }

    /// Takes room for a record of so many bytes from a log in which it fits.
    pub(super) fn reserve(&mut self, generation: Generation, span: usize) -> usize {
        let reservation = self.log_mut(generation).reserve(span);
        if let Some((start, end)) = reservation.skipped {
            record::write_dead(&mut self.region.bytes_mut()[start..end]);
        }
        reservation.offset
    }

    /// Writes an item to room of `span` bytes. What it leaves of the room is dead.
    pub(super) fn write(&mut self, offset: usize, span: usize, meta: &Meta, key: &[u8], value: &[u8]) {
        let word = meta.word(key.len(), value.len());
        let taken = self.span(word.record_bytes());
        assert!(taken <= span, "a record of {taken} bytes was written into room for {span}");
        record::write(self.at_mut(offset), meta, key, value);
        if taken < span {
            record::write_dead(&mut self.region.bytes_mut()[offset + taken..offset + span]);
            let generation = self.generation(offset);
            self.log_mut(generation).count_dead(span - taken);
        }
    }

    /// Makes the live record at this offset dead.
    pub(super) fn kill(&mut self, offset: usize, word: Word) {
        let span = self.span(word.record_bytes());
        record::write_dead(&mut self.region.bytes_mut()[offset..offset + span]);
        let generation = self.generation(offset);
        self.log_mut(generation).count_dead(span);
    }

    /// Lets go of the dead record at a log's tail.
    pub(super) fn pop_dead(&mut self, generation: Generation, span: usize) {
        self.log_mut(generation).pop(span, true);
    }

    /// Moves the live record at `from`'s tail to `to`'s head, with a CLOCK counter of `clock`; returns its new
    /// offset. Between two logs it has to fit; within one it always does.
    pub(super) fn move_tail(&mut self, from: Generation, to: Generation, clock: u8) -> usize {
        let source = self.log(from).offset(self.log(from).tail());
        let word = self.word(source);
        let span = self.span(word.record_bytes());
        // Popping first gives the record its own room again when the log is full; the copy below may overlap.
        self.log_mut(from).pop(span, false);
        let target = self.reserve(to, span);
        let bytes = self.region.bytes_mut();
        bytes.copy_within(source..source + span, target);
        record::write_word(&mut bytes[target..], word.with_clock(clock));
        target
    }

    /// Makes all items disappear, without touching one.
    pub(super) fn flush(&mut self) {
        self.probation.flush();
        self.main.flush();
    }

    /// Gives the item another expiry where it lies; false when its record has no field for it.
    pub(super) fn set_expiry(&mut self, offset: usize, word: Word, expiry: Expiry) -> bool {
        record::set_expiry(self.at_mut(offset), word, expiry)
    }
}

/// The smallest granule with which 32 bits count the arena, with [`POSITION_RESERVED`](super::index) to spare.
fn granule_shift(bytes: usize) -> u32 {
    let mut shift = 0;
    while bytes >> shift >= u32::MAX as usize {
        shift += 1;
    }
    shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granule_is_a_byte_until_four_gibibytes() {
        assert_eq!(granule_shift(1 << 20), 0);
        assert_eq!(granule_shift((u32::MAX - 1) as usize), 0);
        assert_eq!(granule_shift(1 << 32), 1);
        assert_eq!(granule_shift(64 << 30), 5);
    }

    #[test]
    fn a_record_moves_within_a_full_log() {
        let mut arena = Arena::new(2_000, Placement::default()).expect("a small region");
        let meta = Meta {
            cas: 1,
            flags: 0,
            expiry: Expiry::NEVER,
            access_s: 0,
            clock: 1,
            fetched: false,
            stale: false,
            token_sent: false,
        };
        let span = record::HEADER_BYTES_MIN + 1 + 50;
        let mut count = 0;
        while arena.log(Generation::Main).fits(span) {
            let offset = arena.reserve(Generation::Main, span);
            arena.write(offset, span, &meta, &[b'a' + count], &[count; 50]);
            count += 1;
        }
        let used = arena.log(Generation::Main).used_bytes();
        for turn in 0..3 * count {
            let offset = arena.move_tail(Generation::Main, Generation::Main, 2);
            let word = arena.word(offset);
            assert_eq!(record::key(arena.at(offset), word), [b'a' + turn % count]);
            assert_eq!(record::value(arena.at(offset), word), [turn % count; 50]);
            assert_eq!(word.clock(), 2);
            // What the log skipped at its end is dead, and is at the tail by now.
            let log = arena.log(Generation::Main);
            let (record, bytes) = arena.record(log.offset(log.tail()));
            if matches!(record, Record::Dead { .. } | Record::Padding) {
                arena.pop_dead(Generation::Main, bytes);
            }
        }
        assert!(arena.log(Generation::Main).used_bytes() <= used + span);
    }
}
