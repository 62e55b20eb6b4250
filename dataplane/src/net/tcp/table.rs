//! Which record a segment belongs to: a fixed open-addressing table from the two ends of a flow to whichever kind
//! of record it has, so that one look-up answers for flows, half-open and waiting records alike.
//!
//! A slot is eight bytes: 32 bits of a secret-keyed hash and the record's number. The table is at most half full,
//! so that a look-up touches one cache line as a rule; the ends themselves are compared in the record.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_micro_inline};

use super::ends::Ends;
use super::pool::NIL;

/// Where a flow's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An open flow.
    Flow(u32),
    /// A record of `listen`.
    HalfOpen(u32),
    /// A record of `time_wait`.
    Waiting(u32),
}

const KIND_SHIFT: u32 = 30;
const NUMBER: u32 = (1 << KIND_SHIFT) - 1;

impl Place {
    const fn pack(self) -> u32 {
        match self {
            Self::Flow(number) => number,
            Self::HalfOpen(number) => 1 << KIND_SHIFT | number,
            Self::Waiting(number) => 2 << KIND_SHIFT | number,
        }
    }

    const fn unpack(word: u32) -> Self {
        match word >> KIND_SHIFT {
            0 => Self::Flow(word & NUMBER),
            1 => Self::HalfOpen(word & NUMBER),
            _ => Self::Waiting(word & NUMBER),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    /// [`NIL`] when the slot is free.
    place: u32,
}

const FREE: Slot = Slot { hash: 0, place: NIL };

/// The table.
pub(super) struct Table {
    slots: Box<[Slot]>,
    mask: usize,
    secrets: RapidSecrets,
    used: usize,
}

impl Table {
    /// For this many records; `seed` keys the hash, so that nobody outside can aim at one slot.
    pub(super) fn new(records: usize, seed: u64) -> Self {
        let slots = (records * 2).next_power_of_two();
        Self {
            slots: vec![FREE; slots].into_boxed_slice(),
            mask: slots - 1,
            secrets: RapidSecrets::seed(seed),
            used: 0,
        }
    }

    /// The hash under which these ends are found.
    #[inline]
    pub(super) fn hash(&self, ends: &Ends) -> u32 {
        rapidhash_v3_micro_inline::<true, false>(&ends.octets(), &self.secrets) as u32
    }

    /// Reads where a look-up of this hash starts; what it gives means nothing.
    #[inline]
    pub(super) fn touch(&self, hash: u32) -> u32 {
        self.slots[hash as usize & self.mask].hash
    }

    /// The record of this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(Place) -> bool) -> Option<Place> {
        let mut at = hash as usize & self.mask;
        loop {
            let slot = self.slots[at];
            if slot.place == NIL {
                return None;
            }
            if slot.hash == hash && is_it(Place::unpack(slot.place)) {
                return Some(Place::unpack(slot.place));
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Adds a record; its ends are in no other.
    pub(super) fn insert(&mut self, hash: u32, place: Place) {
        assert!(self.used * 2 < self.slots.len(), "more records than the table was made for");
        self.used += 1;
        let mut at = hash as usize & self.mask;
        while self.slots[at].place != NIL {
            at = (at + 1) & self.mask;
        }
        self.slots[at] = Slot { hash, place: place.pack() };
    }

    /// Removes a record, and closes the gap, so that look-ups never step over the removed.
    pub(super) fn remove(&mut self, hash: u32, place: Place) {
        let word = place.pack();
        let mut gap = hash as usize & self.mask;
        while self.slots[gap].place != word {
            assert!(self.slots[gap].place != NIL, "no such record");
            gap = (gap + 1) & self.mask;
        }
        self.used -= 1;
        let mut at = gap;
        loop {
            at = (at + 1) & self.mask;
            let slot = self.slots[at];
            if slot.place == NIL {
                break;
            }
            // It may move into the gap unless its home lies behind the gap.
            let from_home = at.wrapping_sub(slot.hash as usize) & self.mask;
            if from_home >= (at.wrapping_sub(gap) & self.mask) {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = FREE;
    }

    /// Records in it.
    pub(super) const fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_list(
            // Few hashes, and some at the wrap of the table: long chains that overlap.
            steps in proptest::collection::vec((0u32..40, prop_oneof![0u32..6, 122u32..128]), 1..200)
        ) {
            let mut table = Table::new(64, 7);
            let mut model: Vec<(u32, Place)> = Vec::new();
            for (number, hash) in steps {
                let place = match number % 3 {
                    0 => Place::Flow(number),
                    1 => Place::HalfOpen(number),
                    _ => Place::Waiting(number),
                };
                if let Some(index) = model.iter().position(|&(_, known)| known == place) {
                    let (hash, place) = model.swap_remove(index);
                    table.remove(hash, place);
                } else {
                    model.push((hash, place));
                    table.insert(hash, place);
                }
                for &(hash, place) in &model {
                    prop_assert_eq!(table.find(hash, |found| found == place), Some(place));
                }
                prop_assert_eq!(table.used(), model.len());
                let slots = table.slots.iter().filter(|slot| slot.place != NIL).count();
                prop_assert_eq!(slots, model.len());
            }
        }
    }
}
