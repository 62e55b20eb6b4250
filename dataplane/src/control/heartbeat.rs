//! Whether workers are alive: each writes the time into its own slot of a map that the XDP program reads too.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use serde::{Deserialize, Serialize};

use crate::limits::{STALE_NS, WORKERS_MAX};
use crate::time::NS_PER_MS;

/// Where the workers' heartbeats can be read.
pub trait Heartbeats: Send + Sync {
    /// When a worker last beat, in nanoseconds of `CLOCK_MONOTONIC`; 0 before its first beat, and for a worker
    /// there is not.
    fn heartbeat_ns(&self, worker: usize) -> u64;

    /// True when a worker has not beaten for [`STALE_NS`].
    fn is_stale(&self, worker: usize, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.heartbeat_ns(worker)) > STALE_NS
    }

    /// Milliseconds since a worker's last beat.
    fn age_ms(&self, worker: usize, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.heartbeat_ns(worker)) / NS_PER_MS
    }
}

/// Where in the map the slots lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatLayout {
    /// Bytes before the first slot; a multiple of 8.
    pub offset_bytes: usize,
    /// Bytes from one slot to the next; a multiple of 8, at least 8.
    pub stride_bytes: usize,
    /// Slots there are: one a worker.
    pub slots: usize,
}

impl HeartbeatLayout {
    /// Bytes of map that the slots reach into; `None` when the layout cannot be.
    fn bytes(self) -> Option<usize> {
        let aligned = self.offset_bytes.is_multiple_of(8)
            && self.stride_bytes.is_multiple_of(8)
            && self.stride_bytes >= 8;
        let bytes = self.stride_bytes.checked_mul(self.slots)?.checked_add(self.offset_bytes)?;
        (aligned && (1..=WORKERS_MAX.max(crate::limits::QUEUES_MAX)).contains(&self.slots)).then_some(bytes)
    }
}

/// A read-only view of the heartbeat map.
#[derive(Debug)]
pub struct HeartbeatMap {
    map: MmapRaw,
    layout: HeartbeatLayout,
}

impl HeartbeatMap {
    /// Maps it; the descriptor may be closed afterwards. It must be of a BPF array made with `BPF_F_MMAPABLE` or of
    /// a memory file, and never become shorter.
    ///
    /// # Errors
    /// When the layout cannot be, or the kernel refuses.
    pub fn open(map: &impl AsFd, layout: HeartbeatLayout) -> io::Result<Self> {
        let bytes = layout.bytes().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{layout:?} cannot be a heartbeat map's layout"),
            )
        })?;
        let map = MmapOptions::new().len(bytes).map_raw_read_only(map.as_fd().as_raw_fd())?;
        Ok(Self { map, layout })
    }
}

impl Heartbeats for HeartbeatMap {
    fn heartbeat_ns(&self, worker: usize) -> u64 {
        if worker >= self.layout.slots {
            return 0;
        }
        let offset = self.layout.offset_bytes + worker * self.layout.stride_bytes;
        // SAFETY: `open` mapped `bytes()` bytes, which reach past the end of every slot below `slots`; a mapping
        // starts on a page and offset and stride are multiples of 8, so the slot is aligned. Others write it, but
        // only with whole 8-byte stores, and a relaxed load of 8 bytes is allowed on read-only memory.
        let slot = unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) };
        slot.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn memory(bytes: &[u8]) -> std::fs::File {
        let mut file = std::fs::File::from(
            rustix::fs::memfd_create("heartbeats", rustix::fs::MemfdFlags::CLOEXEC).expect("a memory file"),
        );
        file.write_all(bytes).expect("it takes bytes");
        file
    }

    #[test]
    fn slots_are_found_by_offset_and_stride() {
        let mut bytes = vec![0u8; 4096];
        bytes[16..24].copy_from_slice(&7u64.to_ne_bytes());
        bytes[80..88].copy_from_slice(&9u64.to_ne_bytes());
        let layout = HeartbeatLayout { offset_bytes: 16, stride_bytes: 64, slots: 2 };
        let map = HeartbeatMap::open(&memory(&bytes), layout).expect("it maps");
        assert_eq!((map.heartbeat_ns(0), map.heartbeat_ns(1), map.heartbeat_ns(2)), (7, 9, 0));
        assert!(!map.is_stale(0, STALE_NS + 7));
        assert!(map.is_stale(0, STALE_NS + 8));
        assert!(!map.is_stale(0, 0), "a beat ahead of the reader's clock is fresh");
        assert_eq!(map.age_ms(1, 9 + 3 * NS_PER_MS), 3);
    }

    #[test]
    fn layouts_that_cannot_be_are_refused() {
        let file = memory(&[0; 4096]);
        for (offset_bytes, stride_bytes, slots) in
            [(4, 8, 1), (0, 4, 1), (0, 0, 1), (0, 8, 0), (0, usize::MAX & !7, 9)]
        {
            let layout = HeartbeatLayout { offset_bytes, stride_bytes, slots };
            assert!(HeartbeatMap::open(&file, layout).is_err(), "{layout:?}");
        }
    }
}
