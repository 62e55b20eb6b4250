//! Each worker's own heartbeat, in a sealed memory file that the sentinel and the control plane map: apart from the XDP
//! program's, which are one a queue and go when a NIC goes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::control::heartbeat::HeartbeatLayout;
use crate::steer::BEAT_INTERVAL_NS;
use crate::worker::driver::Beat;

/// A cache line a worker, so that none disturbs another.
const STRIDE_BYTES: usize = 64;

/// The workers' heartbeats, to write.
#[derive(Debug)]
pub(super) struct WorkerHeartbeats {
    file: File,
    map: Arc<MmapRaw>,
    workers: usize,
}

impl WorkerHeartbeats {
    pub(super) fn new(workers: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("heartbeats", flags)?);
        file.set_len((workers * STRIDE_BYTES) as u64)?;
        // Whoever maps it may rely on its length.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let map = Arc::new(MmapOptions::new().map_raw(&file)?);
        Ok(Self { file, map, workers })
    }

    /// Where the slots lie.
    pub(super) fn layout(&self) -> HeartbeatLayout {
        HeartbeatLayout { offset_bytes: 0, stride_bytes: STRIDE_BYTES, slots: self.workers }
    }

    /// The file, for another mapping of it.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// One worker's beat.
    pub(super) fn beat(&self, worker: usize) -> Beat {
        assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        let map = Arc::clone(&self.map);
        let mut written_ns = 0u64;
        Box::new(move |now_ns| {
            if now_ns.wrapping_sub(written_ns) < BEAT_INTERVAL_NS {
                return;
            }
            written_ns = now_ns;
            // SAFETY: the slot lies within the map, whose length is sealed (`worker` was checked above); a map starts on a
            // page and the stride is a multiple of 8, so it is aligned; every access to it, from whichever process,
            // is one atomic of 8 bytes; the map lives as long as this closure.
            let slot = unsafe { AtomicU64::from_ptr(map.as_mut_ptr().add(worker * STRIDE_BYTES).cast()) };
            slot.store(now_ns, Ordering::Relaxed);
        })
    }
}
