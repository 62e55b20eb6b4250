//! Provided buffers (`io_uring_register_buf_ring(3)`): the kernel takes one for what it receives, when it receives, so that
//! a thousand idle connections hold none.
//!
//! ```text
//! ring, shared with the kernel: entries of 16 bytes { address, length, id }, their count a power of two; the 16-bit tail
//! lies in the unused last two bytes of entry 0. We write entries and move the tail, the kernel reads what is behind it.
//! ```
//! Invariant: a buffer is either the kernel's (between [`Buffers::give_back`] and the completion that names it) or held by
//! one [`Buffer`].

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use memmap2::{MmapMut, MmapRaw};

use super::error::KernelError;
use super::ring::Ring;

/// Bytes between the ends of buffers and the next one's start: without them all would start at the same place of a page,
/// and thereby in the same few sets of the cache.
const SKEW_BYTES: usize = 64;

/// A buffer that the kernel has filled.
#[derive(Debug)]
#[must_use = "a buffer that is not given back is lost"]
pub(super) struct Buffer {
    id: u16,
    length: usize,
}

/// A group of buffers of one size.
pub(super) struct Buffers {
    /// The ring of those that the kernel may take.
    ring: MmapRaw,
    /// Their bytes.
    memory: MmapRaw,
    group: u16,
    count: u16,
    buffer_bytes: usize,
    /// Where the next one is put.
    tail: u16,
}

impl Buffers {
    /// Registers a group. `count` is a power of two.
    pub(super) fn register(
        ring: &Ring,
        group: u16,
        count: u16,
        buffer_bytes: usize,
    ) -> Result<Self, KernelError> {
        assert!(count.is_power_of_two() && u32::try_from(buffer_bytes).is_ok());
        let failed = KernelError::system("making buffers for ordinary sockets");
        let map = |bytes| MmapMut::map_anon(bytes).map(MmapRaw::from);
        let entries = map(usize::from(count) * size_of::<BufRingEntry>());
        let memory = map(usize::from(count) * (buffer_bytes + SKEW_BYTES));
        let (entries, memory) = match (entries, memory) {
            (Ok(entries), Ok(memory)) => (entries, memory),
            (Err(error), _) | (_, Err(error)) => return Err(failed(error)),
        };
        let address = entries.as_mut_ptr() as u64;
        // SAFETY: the address is that of a mapping, page-aligned as the kernel wants it, of `count` entries; it is unmapped
        // only when this is dropped, which `Kernel` does after the ring is retired.
        let registered =
            unsafe { ring.uring().submitter().register_buf_ring_with_flags(address, count, group, 0) };
        registered.map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL) => KernelError::TooOld(source),
            _ => KernelError::System { what: "registering buffers for ordinary sockets", source },
        })?;
        let mut buffers = Self { ring: entries, memory, group, count, buffer_bytes, tail: 0 };
        for id in 0..count {
            buffers.put(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Number of the group.
    pub(super) fn group(&self) -> u16 {
        self.group
    }

    /// The buffer that a completion names, with so many bytes in it.
    #[inline]
    pub(super) fn filled(&self, id: u16, length: usize) -> Buffer {
        assert!(id < self.count, "the kernel names buffers that it was given");
        Buffer { id, length: length.min(self.buffer_bytes) }
    }

    /// Its bytes.
    #[inline]
    pub(super) fn bytes<'a>(&'a self, buffer: &'a Buffer) -> &'a [u8] {
        let start = usize::from(buffer.id) * (self.buffer_bytes + SKEW_BYTES);
        // SAFETY: `filled` has bounded id and length, so the range lies inside the mapping, which lives as long as `self`;
        // the kernel, which named this buffer in a completion, does not write it again before it is given back, and that
        // takes the `Buffer` borrowed here.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(start), buffer.length) }
    }

    /// Lets the kernel have it again, from the next [`Buffers::publish`] on.
    #[inline]
    pub(super) fn give_back(&mut self, buffer: Buffer) {
        self.put(buffer.id);
    }

    #[inline]
    fn put(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        let start = usize::from(id) * (self.buffer_bytes + SKEW_BYTES);
        // SAFETY: the index is below the count of entries in the mapping, entries are aligned in it, and the kernel does
        // not read this one before the tail moves past it: no more buffers are put than there are places. Written field by
        // field, since the last two bytes of entry 0 are the tail.
        unsafe {
            let entry = &mut *self.ring.as_mut_ptr().cast::<BufRingEntry>().add(index);
            entry.set_addr(self.memory.as_ptr() as u64 + start as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    #[inline]
    pub(super) fn publish(&mut self) {
        let base = self.ring.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the mapping starts with entry 0, whose last two bytes are the tail; only this thread writes it, and the
        // kernel reads it as one 16-bit load.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        // Release: the entries are written before the kernel sees them counted.
        tail.store(self.tail, Ordering::Release);
    }
}
