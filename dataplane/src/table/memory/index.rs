//! The index: which record of the arena has a key. Fixed at construction, never rehashed.
//!
//! ```text
//! bucket, one cache line:  12 tags of 1 byte | 4 ghosts of 1 byte | 12 positions of 4 bytes
//! ```
//!
//! A tag is 8 bits of the key's hash, never 0; tag 0 is a free slot. Buckets are grouped in blocks of 64, one page,
//! and a key's hash chooses a block, for good. Within it the key may stand in either of two buckets, which differ by a
//! constant of its tag: so the second is known from the first and the tag, without a look at the key. A new key goes
//! to the emptier one; when both are full, entries move over to *their* other buckets to make room, as in cuckoo
//! hashing. Nothing ever leaves its block, and no key its tag: so block and tag are a cursor that stays good
//! whatever is written ([`scan`](super::MemoryTable::scan)).
//!
//! A ghost is the tag of a key that was evicted from probation without having been read: when it comes back it was
//! worth keeping. Ghosts use the four bytes that twelve entries leave of a line.

use crate::memory::{MemoryError, Placement, Region};

/// Bytes of a bucket: one cache line.
pub(super) const BUCKET_BYTES: usize = 64;
/// Most buckets of a block.
pub(super) const BLOCK_BUCKETS_MAX: u32 = 64;
/// Entries of a bucket.
pub(super) const BUCKET_SLOTS: usize = 12;
const GHOSTS: usize = 4;
const POSITIONS_AT: usize = BUCKET_SLOTS + GHOSTS;

/// A key's first bucket is taken without a look at the second while it has so many free slots: one cache line is
/// then enough to find the key again.
const FREE_SLOTS_AT_EASE: u32 = 4;

/// The position of an entry whose record is being rewritten.
pub(super) const POSITION_RESERVED: u32 = u32::MAX;

const _: () = assert!(POSITIONS_AT + 4 * BUCKET_SLOTS == BUCKET_BYTES);

/// The number of buckets to make when so many are wanted: whole blocks, or, below one, a power of two.
pub(super) fn buckets_for(wanted: u64) -> u64 {
    let block = u64::from(BLOCK_BUCKETS_MAX);
    if wanted < block { wanted.max(1).next_power_of_two() } else { wanted.next_multiple_of(block) }
}

/// A key's hash, under the table's secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyHash(pub(super) u64);

/// One entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    bucket: u32,
    slot: u8,
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Index {
    region: Region,
    blocks: u32,
    /// Buckets of a block, a power of two; 64 but in the tiniest tables.
    block_buckets: u32,
}

impl Index {
    /// An empty index of so many buckets; see [`buckets_for`].
    pub(super) fn new(buckets: u32, placement: Placement) -> Result<Self, MemoryError> {
        let block_buckets = buckets.min(BLOCK_BUCKETS_MAX);
        assert!(
            u64::from(buckets) == buckets_for(u64::from(buckets)),
            "{buckets} buckets make no whole blocks"
        );
        let region = Region::allocate(buckets as usize * BUCKET_BYTES, placement)?;
        Ok(Self { region, blocks: buckets / block_buckets, block_buckets })
    }

    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The buckets of a block.
    pub(super) fn block(&self, block: u32) -> std::ops::Range<u32> {
        assert!(block < self.blocks, "block {block} of {}", self.blocks);
        block * self.block_buckets..(block + 1) * self.block_buckets
    }

    /// All entries that may stand in one block.
    pub(super) fn block_slots(&self) -> usize {
        self.block_buckets as usize * BUCKET_SLOTS
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks as usize * self.block_slots() / BUCKET_SLOTS * BUCKET_BYTES
    }

    pub(super) fn huge_pages(&self) -> bool {
        self.region.huge_pages()
    }

    /// The two buckets a key may stand in: the upper half of the hash chooses the block, bits 8 to 14 the first bucket
    /// in it, and the tag, which is the lowest eight, the second.
    #[inline]
    pub(super) fn candidates(&self, hash: KeyHash) -> [u32; 2] {
        let block = (((hash.0 >> 32) * u64::from(self.blocks)) >> 32) as u32;
        let first = block * self.block_buckets + ((hash.0 >> 8) as u32 & (self.block_buckets - 1));
        [first, self.partner(first, tag(hash))]
    }

    /// The other bucket of an entry in this one.
    #[inline]
    fn partner(&self, bucket: u32, tag: u8) -> u32 {
        // Odd multiples spread a tag over the bits that are used; the lowest bit makes it another bucket.
        let difference = ((u32::from(tag) * 0x9D) >> 2) | 1;
        bucket ^ (difference & (self.block_buckets - 1))
    }

    /// The first bytes of a bucket, to prefetch.
    #[inline]
    pub(super) fn line(&self, bucket: u32) -> &[u8; BUCKET_BYTES] {
        let at = bucket as usize * BUCKET_BYTES;
        self.region.bytes()[at..at + BUCKET_BYTES].try_into().expect("a bucket is one line")
    }

    /// The entry of this hash whose position `is_it` accepts.
    #[inline(always)]
    pub(super) fn find(&self, hash: KeyHash, mut is_it: impl FnMut(u32) -> bool) -> Option<(Slot, u32)> {
        let buckets = self.candidates(hash);
        // Both lines are searched before either's entries are looked at: which of the two has the key cannot be
        // predicted, and a branch on it would wait for memory and keep the next request from starting.
        let [first, second] = buckets.map(|bucket| matches(self.line(bucket), tag(hash)).0);
        for at in Matches(first | second << BUCKET_SLOTS) {
            let in_second = usize::from(at) / BUCKET_SLOTS;
            let (bucket, slot) = (buckets[in_second], at - (in_second * BUCKET_SLOTS) as u8);
            let position = position(self.line(bucket), slot);
            if is_it(position) {
                return Some((Slot { bucket, slot }, position));
            }
        }
        None
    }

    /// The positions that a lookup of this hash would look at, to prefetch them.
    #[inline]
    pub(super) fn likely(&self, hash: KeyHash) -> impl Iterator<Item = u32> {
        self.candidates(hash).into_iter().flat_map(move |bucket| {
            let line = self.line(bucket);
            matches(line, tag(hash)).map(move |slot| position(line, slot))
        })
    }

    /// A free slot for this hash, if there is one or one can be made.
    pub(super) fn free_slot(&mut self, hash: KeyHash) -> Option<Slot> {
        let [first, second] = self.candidates(hash);
        let free = |bucket| matches(self.line(bucket), 0);
        let bucket = if free(first).count() >= FREE_SLOTS_AT_EASE {
            first
        } else if free(second).count() > free(first).count() {
            second
        } else {
            first
        };
        match free(bucket).next() {
            Some(slot) => Some(Slot { bucket, slot }),
            None => self.displace(first, 1).or_else(|| self.displace(second, 1)),
        }
    }

    /// Moves an entry out of a full bucket to its other one, after `depth` times making room there in the same way;
    /// returns the slot it left. All of it happens within a block, so within a page.
    fn displace(&mut self, bucket: u32, depth: u32) -> Option<Slot> {
        let line = *self.line(bucket);
        let entries = (0..BUCKET_SLOTS as u8).map(|slot| Slot { bucket, slot });
        for entry in entries.clone() {
            let partner = self.partner(bucket, line[usize::from(entry.slot)]);
            if let Some(slot) = matches(self.line(partner), 0).next() {
                return Some(self.shift(entry, Slot { bucket: partner, slot }));
            }
        }
        if depth == 0 {
            return None;
        }
        for entry in entries {
            let partner = self.partner(bucket, line[usize::from(entry.slot)]);
            // Only a block of one bucket pairs a bucket with itself.
            if partner != bucket
                && let Some(target) = self.displace(partner, depth - 1)
            {
                return Some(self.shift(entry, target));
            }
        }
        None
    }

    /// Moves an entry to a free slot; returns the slot it left.
    fn shift(&mut self, from: Slot, to: Slot) -> Slot {
        let line = *self.line(from.bucket);
        let tag = line[usize::from(from.slot)];
        assert!(tag != 0, "a free slot was moved");
        let target = self.line_mut(to.bucket);
        assert!(target[usize::from(to.slot)] == 0, "an entry was moved over another");
        target[usize::from(to.slot)] = tag;
        set_position(target, to.slot, position(&line, from.slot));
        self.clear(from);
        from
    }

    /// Every entry of a bucket: slot and position.
    pub(super) fn entries(&self, bucket: u32) -> impl Iterator<Item = (Slot, u32)> + Clone {
        self.entries_tagged(bucket, 1..=u8::MAX)
    }

    /// Every entry of a bucket with such a tag.
    pub(super) fn entries_tagged(
        &self,
        bucket: u32,
        tags: std::ops::RangeInclusive<u8>,
    ) -> impl Iterator<Item = (Slot, u32)> + Clone {
        let line = self.line(bucket);
        (0..BUCKET_SLOTS as u8)
            .filter(move |&slot| line[usize::from(slot)] != 0 && tags.contains(&line[usize::from(slot)]))
            .map(move |slot| (Slot { bucket, slot }, position(line, slot)))
    }

    /// Fills a slot.
    pub(super) fn set(&mut self, slot: Slot, hash: KeyHash, position: u32) {
        assert!(
            self.candidates(hash).contains(&slot.bucket),
            "a key was put into a bucket that is not its own"
        );
        let line = self.line_mut(slot.bucket);
        line[usize::from(slot.slot)] = tag(hash);
        set_position(line, slot.slot, position);
    }

    /// Points a slot elsewhere.
    pub(super) fn set_position(&mut self, slot: Slot, position: u32) {
        let line = self.line_mut(slot.bucket);
        assert!(line[usize::from(slot.slot)] != 0, "a free slot was pointed at a record");
        set_position(line, slot.slot, position);
    }

    /// Empties a slot.
    pub(super) fn clear(&mut self, slot: Slot) {
        let line = self.line_mut(slot.bucket);
        assert!(line[usize::from(slot.slot)] != 0, "a free slot was freed");
        line[usize::from(slot.slot)] = 0;
        set_position(line, slot.slot, 0);
    }

    /// Remembers in this slot's bucket that its key left unread; the oldest ghost is forgotten.
    pub(super) fn remember_ghost(&mut self, slot: Slot, hash: KeyHash) {
        let ghosts = &mut self.line_mut(slot.bucket)[BUCKET_SLOTS..POSITIONS_AT];
        ghosts.rotate_right(1);
        ghosts[0] = tag(hash);
    }

    /// True, once, when a key of this hash left unread not long ago.
    pub(super) fn take_ghost(&mut self, hash: KeyHash) -> bool {
        for bucket in self.candidates(hash) {
            let ghosts = &mut self.line_mut(bucket)[BUCKET_SLOTS..POSITIONS_AT];
            if let Some(ghost) = ghosts.iter_mut().find(|ghost| **ghost == tag(hash)) {
                *ghost = 0;
                return true;
            }
        }
        false
    }

    fn line_mut(&mut self, bucket: u32) -> &mut [u8; BUCKET_BYTES] {
        let at = bucket as usize * BUCKET_BYTES;
        (&mut self.region.bytes_mut()[at..at + BUCKET_BYTES]).try_into().expect("a bucket is one line")
    }
}

/// Eight bits of the hash, of the half that does not choose the bucket; never 0.
#[inline]
fn tag(hash: KeyHash) -> u8 {
    (hash.0 as u8).max(1)
}

#[inline]
fn position(line: &[u8; BUCKET_BYTES], slot: u8) -> u32 {
    let at = POSITIONS_AT + 4 * usize::from(slot);
    u32::from_le_bytes(line[at..at + 4].try_into().expect("four bytes"))
}

fn set_position(line: &mut [u8; BUCKET_BYTES], slot: u8, position: u32) {
    let at = POSITIONS_AT + 4 * usize::from(slot);
    line[at..at + 4].copy_from_slice(&position.to_le_bytes());
}

/// The slots of a line that hold a tag, one bit each: all twelve bytes are compared at once.
#[derive(Clone, Copy, Debug)]
struct Matches(u32);

impl Matches {
    fn count(self) -> u32 {
        self.0.count_ones()
    }
}

impl Iterator for Matches {
    type Item = u8;

    #[inline]
    fn next(&mut self) -> Option<u8> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as u8;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

#[inline]
fn matches(line: &[u8; BUCKET_BYTES], tag: u8) -> Matches {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const LOW: u64 = u64::from_le_bytes([0x7F; 8]);
    const HIGH: u64 = !LOW;
    // Moves the lowest bit of each byte to its own place in the uppermost byte; no two meet on the way.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let half = |at: usize| {
        let bytes = u64::from_le_bytes(line[at..at + 8].try_into().expect("eight bytes"));
        let difference = bytes ^ (ONES * u64::from(tag));
        // The high bit of each byte that is zero once the tag is taken out, with no carry from byte to byte.
        let zero = !(((difference & LOW) + LOW) | difference) & HIGH;
        ((zero >> 7).wrapping_mul(GATHER) >> 56) as u32
    };
    Matches((half(0) | half(8) << 8) & ((1 << BUCKET_SLOTS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(buckets: u32) -> Index {
        Index::new(buckets, Placement::default()).expect("a small region")
    }

    #[test]
    fn tags_are_matched_in_their_own_byte_only() {
        let mut line = [0xFF; BUCKET_BYTES];
        for slot in 0..16 {
            line[slot] = [5, 4, 6, 0x85][slot % 4];
        }
        assert_eq!(matches(&line, 5).collect::<Vec<_>>(), [0, 4, 8], "and the ghost in byte 12 is no slot");
        assert_eq!(matches(&line, 0x85).collect::<Vec<_>>(), [3, 7, 11]);
        assert_eq!(matches(&line, 0).count(), 0);
    }

    #[test]
    fn two_buckets_take_entries_until_both_are_full() {
        let mut index = index(2);
        // A key whose two buckets are the two there are.
        let hash =
            (1..).map(KeyHash).find(|&hash| index.candidates(hash) == [0, 1]).expect("a tag that pairs them");
        assert_eq!(index.candidates(hash), [0, 1]);
        for position in 0..2 * BUCKET_SLOTS as u32 {
            let slot = index.free_slot(hash).expect("there is room");
            index.set(slot, hash, position);
        }
        assert_eq!(index.free_slot(hash), None);
        for wanted in 0..2 * BUCKET_SLOTS as u32 {
            let (slot, position) = index.find(hash, |position| position == wanted).expect("it is there");
            assert_eq!(position, wanted);
            index.clear(slot);
        }
        assert_eq!(index.find(hash, |_| true), None);
    }

    #[test]
    fn keys_find_slots_while_entries_come_and_go_in_a_nearly_full_index() {
        let mut index = index(64 * BLOCK_BUCKETS_MAX);
        let slots = 64 * BLOCK_BUCKETS_MAX as usize * BUCKET_SLOTS;
        let live = slots * super::super::INDEX_LOAD_PERCENT as usize / 100;
        let hash_of = |n: usize| KeyHash(rapidhash::v3::rapidhash_v3(&n.to_le_bytes()));
        let mut missed = Vec::new();
        let turns = 5 * live;
        for n in 0..turns {
            if n >= live && missed.binary_search(&(n - live)).is_err() {
                let gone = n - live;
                let (slot, _) =
                    index.find(hash_of(gone), |position| position == gone as u32).expect("it is there");
                index.clear(slot);
            }
            match index.free_slot(hash_of(n)) {
                Some(slot) => index.set(slot, hash_of(n), n as u32),
                None => missed.push(n),
            }
        }
        println!("{} of {turns} keys found no slot", missed.len());
        assert!(missed.len() * 1_000 <= turns, "{} of {turns} keys found no slot", missed.len());
    }

    #[test]
    fn a_ghost_is_seen_once_and_the_oldest_is_forgotten() {
        let mut index = index(1);
        let hash = KeyHash;
        let slot = Slot { bucket: 0, slot: 0 };
        for n in 1..=5 {
            index.remember_ghost(slot, hash(n));
        }
        assert!(!index.take_ghost(hash(1)));
        assert!(index.take_ghost(hash(2)));
        assert!(!index.take_ghost(hash(2)));
        assert!(index.take_ghost(hash(5)));
        assert_eq!(index.entries(0).count(), 0, "ghosts are no entries");
    }
}
