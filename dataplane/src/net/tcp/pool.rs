//! Fixed pools, made once and shared by all flows. Nothing here allocates after construction; whoever finds a pool
//! empty goes without, as the module's head says.

use super::turns::Supply;

/// No record: the end of a list, or none at all.
pub(crate) const NIL: u32 = u32::MAX;

/// Records of one kind, named by number.
pub(crate) struct Slab<T> {
    records: Box<[T]>,
    /// Numbers nobody holds; the last freed is the first taken, for it is still in the cache.
    free: Vec<u32>,
    /// How many were ever given back.
    given: u64,
}

impl<T: Clone> Slab<T> {
    pub(crate) fn new(count: usize, empty: T) -> Self {
        let free = (0..u32::try_from(count).expect("a pool of fewer than 2^32")).rev().collect();
        Self { records: vec![empty; count].into_boxed_slice(), free, given: 0 }
    }
}

impl<T> Slab<T> {
    /// Takes a record, whose content is whatever its last holder left.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives one back.
    #[inline]
    pub(crate) fn give(&mut self, number: u32) {
        debug_assert!(!self.free.contains(&number) || self.free.len() > 4_096, "given back twice");
        // Never beyond its first capacity: there are no more numbers than that.
        self.free.push(number);
        self.given += 1;
    }

    /// Records free now.
    pub(crate) fn available(&self) -> usize {
        self.free.len()
    }

    /// How it stands.
    pub(super) fn supply(&self) -> Supply {
        Supply { available: self.free.len(), given: self.given }
    }

    /// Records in all.
    pub(crate) fn count(&self) -> usize {
        self.records.len()
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> &T {
        &self.records[number as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.records[number as usize]
    }
}

/// Small chunks of bytes to be sent, each with the number of the next of its chain.
pub(crate) struct Chunks {
    bytes: Box<[u8]>,
    next: Slab<u32>,
    chunk_bytes: usize,
}

impl Chunks {
    pub(crate) fn new(count: usize, chunk_bytes: usize) -> Self {
        Self {
            bytes: vec![0; count * chunk_bytes].into_boxed_slice(),
            next: Slab::new(count, NIL),
            chunk_bytes,
        }
    }

    /// Bytes of one.
    #[inline]
    pub(crate) const fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// A chunk at the end of a chain.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<u32> {
        let chunk = self.next.take()?;
        *self.next.get_mut(chunk) = NIL;
        Some(chunk)
    }

    #[inline]
    pub(crate) fn give(&mut self, chunk: u32) {
        self.next.give(chunk);
    }

    #[inline]
    pub(crate) fn next(&self, chunk: u32) -> u32 {
        *self.next.get(chunk)
    }

    #[inline]
    pub(crate) fn link(&mut self, chunk: u32, next: u32) {
        *self.next.get_mut(chunk) = next;
    }

    #[inline]
    pub(crate) fn bytes(&self, chunk: u32) -> &[u8] {
        &self.bytes[chunk as usize * self.chunk_bytes..][..self.chunk_bytes]
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self, chunk: u32) -> &mut [u8] {
        &mut self.bytes[chunk as usize * self.chunk_bytes..][..self.chunk_bytes]
    }

    pub(crate) fn available(&self) -> usize {
        self.next.available()
    }

    /// How it stands.
    pub(super) fn supply(&self) -> Supply {
        self.next.supply()
    }

    pub(crate) fn count(&self) -> usize {
        self.next.count()
    }
}

/// Sizes of receive blocks.
pub const CLASSES: usize = 4;

/// One size of receive block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Bytes of a block.
    pub bytes: usize,
    /// How many there are.
    pub count: usize,
}

/// A receive block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId {
    class: u8,
    number: u32,
}

/// Contiguous blocks of a few sizes, for bytes that arrived and cannot be handed on yet. Beside its bytes each block
/// carries one `T`.
pub(crate) struct Blocks<T> {
    classes: [Class; CLASSES],
    bytes: [Box<[u8]>; CLASSES],
    notes: [Slab<T>; CLASSES],
}

impl<T: Clone> Blocks<T> {
    /// `classes` in rising order.
    pub(crate) fn new(classes: [Class; CLASSES], empty: &T) -> Self {
        Self {
            classes,
            bytes: classes.map(|class| vec![0; class.bytes * class.count].into_boxed_slice()),
            notes: classes.map(|class| Slab::new(class.count, empty.clone())),
        }
    }
}

impl<T> Blocks<T> {
    /// The smallest free block of at least this many bytes.
    pub(crate) fn take(&mut self, bytes: usize) -> Option<BlockId> {
        (0..CLASSES)
            .filter(|&class| self.classes[class].bytes >= bytes)
            .find_map(|class| self.notes[class].take().map(|number| BlockId { class: class as u8, number }))
    }

    /// A free block of the smallest size that holds this many bytes, or of the next one, unless that is the largest: those are
    /// for what needs them.
    pub(crate) fn take_near(&mut self, bytes: usize) -> Option<BlockId> {
        let fitting = self.classes.iter().position(|class| class.bytes >= bytes)?;
        let last = if fitting + 2 < CLASSES { fitting + 1 } else { fitting };
        (fitting..=last)
            .find_map(|class| self.notes[class].take().map(|number| BlockId { class: class as u8, number }))
    }

    pub(crate) fn give(&mut self, block: BlockId) {
        self.notes[usize::from(block.class)].give(block.number);
    }

    /// Bytes of a block.
    pub(crate) const fn capacity(&self, block: BlockId) -> usize {
        self.classes[block.class as usize].bytes
    }

    /// Bytes of the largest block that is free; 0 when none is.
    #[inline]
    pub(crate) fn largest_free(&self) -> usize {
        (0..CLASSES)
            .rev()
            .find(|&class| self.notes[class].available() > 0)
            .map_or(0, |class| self.classes[class].bytes)
    }

    pub(crate) fn bytes(&self, block: BlockId) -> &[u8] {
        let class = usize::from(block.class);
        let bytes = self.classes[class].bytes;
        &self.bytes[class][block.number as usize * bytes..][..bytes]
    }

    pub(crate) fn note(&self, block: BlockId) -> &T {
        self.notes[usize::from(block.class)].get(block.number)
    }

    /// A block's note and its bytes.
    pub(crate) fn parts_mut(&mut self, block: BlockId) -> (&mut T, &mut [u8]) {
        let class = usize::from(block.class);
        let bytes = self.classes[class].bytes;
        (
            self.notes[class].get_mut(block.number),
            &mut self.bytes[class][block.number as usize * bytes..][..bytes],
        )
    }

    /// Copies bytes of one block to the start of another.
    pub(crate) fn copy(&mut self, from: BlockId, range: std::ops::Range<usize>, to: BlockId) {
        let (from_class, to_class) = (usize::from(from.class), usize::from(to.class));
        let from_start = from.number as usize * self.classes[from_class].bytes;
        let to_start = to.number as usize * self.classes[to_class].bytes;
        let source = from_start + range.start..from_start + range.end;
        if from_class == to_class {
            self.bytes[from_class].copy_within(source, to_start);
        } else {
            let [source_class, target_class] =
                self.bytes.get_disjoint_mut([from_class, to_class]).expect("two classes");
            target_class[to_start..to_start + source.len()].copy_from_slice(&source_class[source]);
        }
    }

    /// Free blocks of each size.
    pub(crate) fn available(&self) -> [usize; CLASSES] {
        std::array::from_fn(|class| self.notes[class].available())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_gives_out_each_number_once() {
        let mut slab = Slab::new(3, 0u8);
        let taken: Vec<u32> = std::iter::from_fn(|| slab.take()).collect();
        assert_eq!(taken, [0, 1, 2]);
        slab.give(1);
        assert_eq!((slab.take(), slab.take()), (Some(1), None));
    }

    #[test]
    fn a_block_is_of_the_smallest_size_that_is_free() {
        let class = |bytes| Class { bytes, count: 1 };
        let mut blocks = Blocks::new([class(1), class(2), class(4), class(8)], &0u8);
        let two = blocks.take(2).expect("a block");
        let four = blocks.take(2).expect("the next size");
        assert_eq!((blocks.capacity(two), blocks.capacity(four)), (2, 4));
        assert_eq!(blocks.largest_free(), 8);
        blocks.parts_mut(two).1.copy_from_slice(&[7, 9]);
        blocks.copy(two, 1..2, four);
        assert_eq!(blocks.bytes(four)[0], 9);
        let eight = blocks.take(5).expect("the largest");
        assert_eq!((blocks.take(2), blocks.largest_free()), (None, 1));
        for block in [two, four, eight] {
            blocks.give(block);
        }
        assert_eq!(blocks.available(), [1; CLASSES]);
    }
}
