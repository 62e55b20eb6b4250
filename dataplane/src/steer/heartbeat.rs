//! Heartbeats: one word a queue, in a map that is mapped into this process, so that a beat is a store and no system
//! call. The XDP program reads the same word and passes over a worker that stopped beating.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
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
    fn map(map: BorrowedFd<'_>, writable: bool) -> Result<Arc<Self>, SteerError> {
        let mut options = MmapOptions::new();
        options.len(BYTES);
        let memory = if writable {
            options.map_raw(map.as_raw_fd())
        } else {
            options.map_raw_read_only(map.as_raw_fd())
        };
        let memory = memory.map_err(|source| SteerError::Mapping { map: layout::QUEUES, source })?;
        assert_eq!(memory.len(), BYTES, "the mapping has every slot");
        Ok(Arc::new(Self { memory }))
    }

    /// One word of a queue's slot.
    fn word(&self, queue: u32, offset: usize) -> Option<&AtomicU64> {
        let queue = usize::try_from(queue).ok().filter(|&queue| queue < QUEUES_MAX)?;
        assert!(offset.is_multiple_of(size_of::<u64>()) && offset < size_of::<QueueSlot>());
        // SAFETY: `queue * size + offset` lies within the `BYTES` mapped, is a multiple of 8 from a page's start,
        // and stays mapped as long as `self`. Kernel and other processes access the word at any time, but only as
        // one aligned word, as atomics allow. A read-only mapping is only read: `beat` and `reset` are not
        // reachable from a `HeartbeatView`.
        Some(unsafe {
            AtomicU64::from_ptr(self.memory.as_mut_ptr().add(queue * size_of::<QueueSlot>() + offset).cast())
        })
    }
}

/// Heartbeats of all queues of one program.
#[derive(Debug)]
pub struct HeartbeatMap {
    slots: Arc<Slots>,
    /// Kept to be handed to another process.
    descriptor: OwnedFd,
}

impl HeartbeatMap {
    pub(super) fn new(map: BorrowedFd<'_>) -> Result<Self, SteerError> {
        let slots = Slots::map(map, true)?;
        let descriptor = map
            .try_clone_to_owned()
            .map_err(|source| SteerError::kernel("duplicating a map's descriptor", source))?;
        Ok(Self { slots, descriptor })
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

    /// What another party sees of it.
    #[must_use]
    pub fn view(&self) -> HeartbeatView {
        HeartbeatView { slots: Arc::clone(&self.slots) }
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

/// The map's descriptor, for another process to make a [`HeartbeatView`] from.
impl AsFd for HeartbeatMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
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

    /// Says that nobody serves the queue any more: its packets go to the kernel at once.
    pub fn stop(&mut self) {
        self.written_ns = 0;
        if let Some(word) = self.slots.word(self.queue, QueueSlot::HEARTBEAT_OFFSET) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// Heartbeats as somebody else sees them: the companion, which has to know whether a worker is stale.
#[derive(Clone, Debug)]
pub struct HeartbeatView {
    slots: Arc<Slots>,
}

impl HeartbeatView {
    /// From the descriptor of a [`HeartbeatMap`], inherited from the process that has it.
    ///
    /// # Errors
    /// [`SteerError::Mapping`] when it is no such map.
    pub fn from_fd(map: BorrowedFd<'_>) -> Result<Self, SteerError> {
        let descriptor = map
            .try_clone_to_owned()
            .map_err(|source| SteerError::kernel("duplicating a map's descriptor", source))?;
        let info = MapData::from_fd(descriptor)
            .and_then(|data| data.info())
            .map_err(|source| SteerError::map(layout::QUEUES, source))?;
        let slot_bytes = usize::try_from(info.value_size()).ok();
        if slot_bytes != Some(size_of::<QueueSlot>()) || info.max_entries() != layout::QUEUES_MAX {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is of another map");
            return Err(SteerError::Mapping { map: layout::QUEUES, source });
        }
        Slots::map(map, false).map(|slots| Self { slots })
    }

    /// The last beat of a queue's worker, `CLOCK_MONOTONIC` in nanoseconds; `None` before the first, and beyond
    /// the queues there are.
    #[must_use]
    pub fn beat_ns(&self, queue: u32) -> Option<u64> {
        let word = self.slots.word(queue, QueueSlot::HEARTBEAT_OFFSET)?;
        Some(word.load(Ordering::Relaxed)).filter(|&beat_ns| beat_ns != 0)
    }

    /// Nanoseconds since the last beat; `None` as for [`HeartbeatView::beat_ns`].
    #[must_use]
    pub fn age_ns(&self, queue: u32, now_ns: u64) -> Option<u64> {
        self.beat_ns(queue).map(|beat_ns| now_ns.saturating_sub(beat_ns))
    }

    /// True when the XDP program passes over the worker: it has not beaten for [`STALE_NS`], or never.
    #[must_use]
    pub fn is_stale(&self, queue: u32, now_ns: u64) -> bool {
        self.age_ns(queue, now_ns).is_none_or(|age_ns| age_ns > STALE_NS)
    }

    /// How often the XDP program found the worker stale.
    #[must_use]
    pub fn stale_episodes(&self, queue: u32) -> u64 {
        let word = self.slots.word(queue, std::mem::offset_of!(QueueSlot, stale_episodes));
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }
}
