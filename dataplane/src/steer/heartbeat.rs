//! Heartbeats: one word a queue, in a map that is mapped into this process, so that a beat is a store and no system
//! call. The XDP program reads the same word and passes over a worker that stopped beating.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane_ebpf::layout::{self, QueueSlot};
use memmap2::{MmapOptions, MmapRaw};

use super::SteerError;
use crate::limits::{QUEUES_MAX, SLEEP_NS_MAX, STALE_NS};
use crate::time::NS_PER_MS;

/// A worker that polls all the time writes its beat no more often: the NIC's core reads that cache line for every
/// packet, and each write would take it away.
pub const BEAT_INTERVAL_NS: u64 = NS_PER_MS;

const _: () = {
    // A beat may be skipped and the worker then sleep its longest: it must still look alive after that.
    assert!(BEAT_INTERVAL_NS + SLEEP_NS_MAX < STALE_NS / 2);
    assert!(STALE_NS == layout::STALE_NS);
    assert!(QUEUES_MAX == layout::QUEUES_MAX as usize);
};

const BYTES: usize = QUEUES_MAX * size_of::<QueueSlot>();

/// The mapped slots of all queues.
#[derive(Debug)]
struct Slots {
    memory: MmapRaw,
}

impl Slots {
    fn map(map: BorrowedFd<'_>) -> Result<Arc<Self>, SteerError> {
        let memory = MmapOptions::new()
            .len(BYTES)
            .map_raw(map.as_raw_fd())
            .map_err(|source| SteerError::Mapping { map: layout::QUEUES, source })?;
        assert_eq!(memory.len(), BYTES, "the mapping has every slot");
        Ok(Arc::new(Self { memory }))
    }

    /// One word of a queue's slot.
    fn word(&self, queue: u32, offset: usize) -> Option<&AtomicU64> {
        let queue = usize::try_from(queue).ok().filter(|&queue| queue < QUEUES_MAX)?;
        assert!(offset.is_multiple_of(size_of::<u64>()) && offset < size_of::<QueueSlot>());
        // SAFETY: `queue * size + offset` lies within the `BYTES` mapped, is a multiple of 8 from a page's start,
        // and stays mapped as long as `self`. Kernel and other processes access the word at any time, but only as
        // one aligned word, as atomics allow.
        Some(unsafe {
            AtomicU64::from_ptr(self.memory.as_mut_ptr().add(queue * size_of::<QueueSlot>() + offset).cast())
        })
    }
}

/// Heartbeats of all queues of one program.
#[derive(Debug)]
pub struct HeartbeatMap {
    slots: Arc<Slots>,
}

impl HeartbeatMap {
    pub(super) fn new(map: BorrowedFd<'_>) -> Result<Self, SteerError> {
        Slots::map(map).map(|slots| Self { slots })
    }

    /// The slot of a queue, for its worker. Each queue has one worker; two that beat one slot hide each other's
    /// death.
    ///
    /// # Errors
    /// [`SteerError::NoQueue`] beyond the queues the program feeds.
    pub fn slot(&self, queue: u32) -> Result<HeartbeatSlot, SteerError> {
        self.slots.word(queue, QueueSlot::HEARTBEAT_OFFSET).ok_or(SteerError::NoQueue { queue })?;
        Ok(HeartbeatSlot { slots: Arc::clone(&self.slots), queue, written_ns: 0 })
    }

    /// The last beat of a queue's worker, `CLOCK_MONOTONIC` in nanoseconds; `None` before the first, and beyond the
    /// queues there are.
    #[must_use]
    pub fn beat_ns(&self, queue: u32) -> Option<u64> {
        let word = self.slots.word(queue, QueueSlot::HEARTBEAT_OFFSET)?;
        Some(word.load(Ordering::Relaxed)).filter(|&beat_ns| beat_ns != 0)
    }

    /// How often the XDP program found the worker of a queue stale.
    #[must_use]
    pub fn stale_episodes(&self, queue: u32) -> u64 {
        let word = self.slots.word(queue, std::mem::offset_of!(QueueSlot, stale_episodes));
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Forgets every beat and every sticky flow's trace: what an earlier daemon left says nothing of this one.
    pub(super) fn reset(&self) {
        for queue in 0..layout::QUEUES_MAX {
            for offset in (0..size_of::<QueueSlot>()).step_by(size_of::<u64>()) {
                if let Some(word) = self.slots.word(queue, offset) {
                    word.store(0, Ordering::Relaxed);
                }
            }
        }
    }
}

/// A worker's own slot.
#[derive(Debug)]
pub struct HeartbeatSlot {
    slots: Arc<Slots>,
    queue: u32,
    written_ns: u64,
}

impl HeartbeatSlot {
    /// Says that the worker is alive at `now_ns` (`CLOCK_MONOTONIC`). Called once a poll; it writes at most once in
    /// [`BEAT_INTERVAL_NS`], and never makes a system call.
    #[inline]
    pub fn beat(&mut self, now_ns: u64) {
        if now_ns.wrapping_sub(self.written_ns) < BEAT_INTERVAL_NS {
            return;
        }
        self.written_ns = now_ns;
        if let Some(word) = self.slots.word(self.queue, QueueSlot::HEARTBEAT_OFFSET) {
            // Relaxed: the word orders nothing but itself.
            word.store(now_ns, Ordering::Relaxed);
        }
    }
}
