//! The two ends of a ring shared with the kernel (`net/xdp/xsk_queue.h`).
//!
//! ```text
//! byte 0           desc offset
//! | producer .. consumer .. flags .. | entry 0 | entry 1 | .. | entry size-1 |
//! ```
//! `producer` and `consumer` are free-running u32 counters, each written by one side only and each on a cache
//! line of its own; entry `n` lies in slot `n % size`, and `size` is a power of two. Entries
//! `consumer..producer` belong to the consuming side, all others to the producing one.
//!
//! Each end keeps its own counter and a copy of the other's, and looks at the shared one only when the copy
//! says there is nothing left to do: while both sides are busy, the cache line of an index moves once a
//! batch.
//!
//! # What is believed
//! Nothing that the other side wrote. A counter that moved backwards, or past what it can have reached, is a
//! [`RingFault`], in release builds too; every number of entries derived from it is at most `size`. The
//! entries themselves are checked by whoever knows what they mean. Our own counter is never read back.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::MmapRaw;

/// What can lie in a ring.
///
/// # Safety
/// The type must be `repr(C)`, of at most 8-byte alignment, without pointers, and valid for every bit
/// pattern: the kernel writes it.
pub(super) unsafe trait Entry: Copy {}

// SAFETY: an integer of 8-byte alignment.
unsafe impl Entry for u64 {}

/// `struct xdp_desc`: a packet in the UMEM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// Offset of the packet from the start of the UMEM.
    pub(super) address: u64,
    /// Bytes of the packet.
    pub(super) length: u32,
    /// `XDP_PKT_CONTD` and `XDP_TX_METADATA`; neither is used here.
    pub(super) options: u32,
}

// SAFETY: `repr(C)`, integers without padding, 8-byte alignment.
unsafe impl Entry for Descriptor {}

const _: () = {
    assert!(size_of::<Descriptor>() == size_of::<libc::xdp_desc>());
    assert!(std::mem::offset_of!(Descriptor, length) == std::mem::offset_of!(libc::xdp_desc, len));
    assert!(std::mem::offset_of!(Descriptor, options) == std::mem::offset_of!(libc::xdp_desc, options));
};

/// The other side moved its counter where it cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingFault {
    /// `producer` or `consumer`.
    pub(super) counter: &'static str,
    /// What it says.
    pub(super) found: u32,
    /// The least it can be.
    pub(super) least: u32,
    /// The most it can be.
    pub(super) most: u32,
}

impl std::fmt::Display for RingFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { counter, found, least, most } = self;
        write!(formatter, "{counter} index {found}, which can only be {least} to {most}")
    }
}

/// Where the parts of a ring lie in its mapping (`struct xdp_ring_offset`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) entries: usize,
}

impl Layout {
    /// Bytes of a mapping that holds `size` entries.
    pub(super) fn bytes<T>(&self, size: u32) -> Option<usize> {
        (size as usize).checked_mul(size_of::<T>())?.checked_add(self.entries)
    }
}

/// What keeps the ring's memory alive. Held, never read: the ring's pointers lead into it.
enum Memory {
    Mapping(#[expect(dead_code, reason = "keeps the mapping alive")] MmapRaw),
    #[cfg(test)]
    Plain(#[expect(dead_code, reason = "keeps the memory alive")] std::sync::Arc<tests::PlainMemory>),
}

/// Pointers to the parts of a ring, all within `_memory`.
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Dropped with the ring, which unmaps it.
    _memory: Memory,
    _entries: PhantomData<T>,
}

// SAFETY: the pointers lead into memory that moves with the ring and outlives it; counters and flags are
// reached atomically, and of each ring there is one end in this process, so entries have one accessor on our
// side.
unsafe impl<T: Entry + Send> Send for Shared<T> {}

impl<T: Entry> Shared<T> {
    /// Takes the mapping of a ring. `None` when the layout does not fit the mapping: the offsets come from
    /// the kernel.
    fn new(memory: Memory, base: NonNull<u8>, length: usize, layout: Layout, size: u32) -> Option<Self> {
        assert!(size.is_power_of_two(), "a ring of {size} entries");
        let word_fits = |offset: usize| {
            offset.is_multiple_of(4) && offset.checked_add(4).is_some_and(|end| end <= length)
        };
        let words = [layout.producer, layout.consumer, layout.flags];
        let entries_fit =
            layout.entries.is_multiple_of(8) && layout.bytes::<T>(size).is_some_and(|bytes| bytes <= length);
        if !words.into_iter().all(word_fits) || !entries_fit || !base.addr().get().is_multiple_of(8) {
            return None;
        }
        // SAFETY: each offset was checked to lie, with what is there, within the `length` bytes at `base`.
        let at = |offset: usize| unsafe { base.add(offset) };
        Some(Self {
            producer: at(layout.producer).cast(),
            consumer: at(layout.consumer).cast(),
            flags: at(layout.flags).cast(),
            entries: at(layout.entries).cast(),
            size,
            _memory: memory,
            _entries: PhantomData,
        })
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: checked in `new` to be aligned and within memory that `self` keeps alive; only reached
        // atomically.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn wakeup_wanted(&self) -> bool {
        // SAFETY: as for the producer.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Slot of an entry.
    #[inline]
    fn slot(&self, counter: u32) -> NonNull<T> {
        let index = counter & (self.size - 1);
        // SAFETY: the mask keeps the index below `size`, and `new` checked that so many entries fit.
        unsafe { self.entries.add(index as usize) }
    }

    /// Lengths of `count` entries from `first` on, up to the ring's end and from its start again.
    #[inline]
    fn split(&self, first: u32, count: u32) -> (usize, usize) {
        debug_assert!(count <= self.size);
        let until_end = self.size - (first & (self.size - 1));
        (count.min(until_end) as usize, count.saturating_sub(until_end) as usize)
    }
}

/// The end that writes entries: fill and TX rings.
pub(super) struct Producer<T> {
    shared: Shared<T>,
    /// Our counter: entries before it are written.
    next: u32,
    /// Our counter as the kernel sees it.
    published: u32,
    /// The kernel's counter as last seen.
    consumed: u32,
}

impl<T: Entry> Producer<T> {
    /// Takes a fresh ring. `None` when the layout does not fit the mapping.
    pub(super) fn new(map: MmapRaw, layout: Layout, size: u32) -> Option<Self> {
        let (base, length) = (NonNull::new(map.as_mut_ptr())?, map.len());
        Some(Self::over(Shared::new(Memory::Mapping(map), base, length, layout, size)?))
    }

    fn over(shared: Shared<T>) -> Self {
        let start = shared.producer().load(Ordering::Relaxed);
        Self { shared, next: start, published: start, consumed: start }
    }

    /// Entries it has.
    pub(super) fn size(&self) -> u32 {
        self.shared.size
    }

    /// Entries written and not yet published.
    #[inline]
    pub(super) fn unpublished(&self) -> u32 {
        self.next.wrapping_sub(self.published)
    }

    /// Entries published that the kernel has not taken, as last seen.
    #[inline]
    pub(super) fn pending(&self) -> u32 {
        self.published.wrapping_sub(self.consumed)
    }

    /// The kernel wants a system call before it looks at the ring.
    #[inline]
    pub(super) fn wakeup_wanted(&self) -> bool {
        self.shared.wakeup_wanted()
    }

    /// Looks how far the kernel is, and returns [`Producer::pending`].
    #[inline]
    pub(super) fn refresh(&mut self) -> Result<u32, RingFault> {
        // Acquire: the kernel has read an entry before it moves past it, so we may write there again.
        let found = self.shared.consumer().load(Ordering::Acquire);
        if found.wrapping_sub(self.consumed) > self.pending() {
            return Err(fault("consumer", found, self.consumed, self.published));
        }
        self.consumed = found;
        Ok(self.pending())
    }

    /// Room for entries, looking at the kernel's counter only when less than `wanted` is known of.
    #[inline]
    pub(super) fn room(&mut self, wanted: u32) -> Result<u32, RingFault> {
        let known = self.known_room();
        if known >= wanted {
            return Ok(known);
        }
        self.refresh()?;
        Ok(self.known_room())
    }

    #[inline]
    pub(super) fn known_room(&self) -> u32 {
        self.shared.size - self.next.wrapping_sub(self.consumed)
    }

    /// Writes what `entries` gives, until it ends, the `room` is used up, or the ring is full as far as is
    /// known. Returns how many were written. The kernel sees them after [`Producer::publish`].
    #[inline]
    pub(super) fn extend(&mut self, room: u32, mut entries: impl FnMut() -> Option<T>) -> u32 {
        let room = room.min(self.known_room());
        let mut written = 0;
        while written < room
            && let Some(entry) = entries()
        {
            // SAFETY: the slot lies in the ring, and `written` is below the room known of: the entry belongs
            // to this side, whose one end is borrowed exclusively.
            unsafe { self.shared.slot(self.next).write(entry) };
            self.next = self.next.wrapping_add(1);
            written += 1;
        }
        written
    }

    /// Lets the kernel see what was written.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.published = self.next;
        // Release: entries, and the packets they name, are written before the kernel can see the counter.
        self.shared.producer().store(self.published, Ordering::Release);
    }
}

/// The end that reads entries: RX and completion rings.
pub(super) struct Consumer<T> {
    shared: Shared<T>,
    /// Our counter: entries before it are given back.
    next: u32,
    /// The kernel's counter as last seen.
    produced: u32,
}

impl<T: Entry> Consumer<T> {
    /// Takes a fresh ring. `None` when the layout does not fit the mapping.
    pub(super) fn new(map: MmapRaw, layout: Layout, size: u32) -> Option<Self> {
        let (base, length) = (NonNull::new(map.as_mut_ptr())?, map.len());
        Some(Self::over(Shared::new(Memory::Mapping(map), base, length, layout, size)?))
    }

    fn over(shared: Shared<T>) -> Self {
        let start = shared.consumer().load(Ordering::Relaxed);
        Self { shared, next: start, produced: start }
    }

    /// Entries seen and not yet given back.
    #[inline]
    pub(super) fn seen(&self) -> u32 {
        self.produced.wrapping_sub(self.next)
    }

    /// Looks how far the kernel is, and returns how many entries there are.
    #[inline]
    pub(super) fn refresh(&mut self) -> Result<u32, RingFault> {
        // Acquire: entries, and the packets they name, were written before the counter moved past them.
        let found = self.shared.producer().load(Ordering::Acquire);
        let most = self.next.wrapping_add(self.shared.size);
        if found.wrapping_sub(self.produced) > most.wrapping_sub(self.produced) {
            return Err(fault("producer", found, self.produced, most));
        }
        self.produced = found;
        Ok(self.seen())
    }

    /// Up to `limit` entries, oldest first, as one slice up to the ring's end and one from its start. Looks
    /// at the kernel's counter only when fewer than `limit` are known of.
    #[inline]
    pub(super) fn readable(&mut self, limit: u32) -> Result<[&[T]; 2], RingFault> {
        let mut known = self.seen();
        if known < limit {
            known = self.refresh()?;
        }
        let (head, tail) = self.shared.split(self.next, known.min(limit));
        // SAFETY: both runs lie in the ring, of which `split` never leaves the bounds; entries between `next`
        // and `produced` belong to this side until `release`, which the borrow forbids meanwhile; every bit
        // pattern is an entry.
        unsafe {
            Ok([
                std::slice::from_raw_parts(self.shared.slot(self.next).as_ptr(), head),
                std::slice::from_raw_parts(self.shared.entries.as_ptr(), tail),
            ])
        }
    }

    /// Gives the oldest `count` entries back.
    #[inline]
    pub(super) fn release(&mut self, count: u32) {
        assert!(count <= self.seen(), "{count} entries given back of {} seen", self.seen());
        self.next = self.next.wrapping_add(count);
        // Release: the entries are read before the kernel may write there again.
        self.shared.consumer().store(self.next, Ordering::Release);
    }
}

#[cold]
fn fault(counter: &'static str, found: u32, least: u32, most: u32) -> RingFault {
    RingFault { counter, found, least, most }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
pub(super) mod tests;
