//! A [`Umem`] is the memory that packets are received into and sent from, cut into chunks of
//! [`FRAME_BYTES`] (`struct xdp_umem_reg`, Linux `include/uapi/linux/if_xdp.h`).
//!
//! Ownership is the safety argument: a [`Frame`] is a linear token (neither `Clone` nor `Copy`) for one chunk, and
//! each chunk has at most one token in user space. Borrowing the token borrows the bytes, so two holders
//! can never see the same chunk, and the kernel writes only to chunks whose tokens were given up to it.

use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::limits::FRAME_BYTES;
use crate::memory::{MemoryError, Placement, Region};

/// Why a UMEM cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UmemError {
    /// A UMEM needs frames, and an address space for them.
    #[error("a UMEM of {frames} frames: give it 1 to {max}", max = u32::MAX)]
    FrameCount {
        /// Frames asked for.
        frames: usize,
    },
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The right to one chunk of a UMEM, and which of its bytes hold a packet.
#[derive(Debug)]
#[must_use = "a dropped frame is a lost frame: release it to its port"]
pub struct Frame {
    /// Offset of the packet from the start of the UMEM.
    address: u64,
    /// Bytes of the packet.
    length: u32,
    /// Which UMEM: a token is worth nothing in another.
    umem: NonZeroU32,
}

impl Frame {
    /// Bytes of the packet.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// True when no packet has been written to it.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Offset of the packet from the start of the UMEM, as AF_XDP descriptors have it.
    #[inline]
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }
}

/// Packet memory shared with the kernel.
#[derive(Debug)]
pub struct Umem {
    region: Region,
    base: NonNull<u8>,
    frames: u32,
    id: NonZeroU32,
}

// SAFETY: the bytes are reached only through `Frame` tokens, of which there is one a chunk; the token's borrow is
// the exclusion, whichever thread it is on. The region itself is never resized or moved.
unsafe impl Send for Umem {}
// SAFETY: as above; `&Umem` alone reaches no byte.
unsafe impl Sync for Umem {}

/// Numbers UMEMs, so that a token cannot be used in another.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

fn next_id() -> NonZeroU32 {
    NonZeroU32::new(NEXT_ID.fetch_add(1, Ordering::Relaxed)).expect("fewer than 2^32 UMEMs in a process")
}

impl Umem {
    /// Maps a UMEM and hands out the tokens of all its chunks.
    ///
    /// # Errors
    /// [`UmemError`] when the count is absurd or the memory cannot be had.
    pub fn allocate(frames: usize, placement: Placement) -> Result<(Self, Vec<Frame>), UmemError> {
        let count = u32::try_from(frames).ok().filter(|&count| count > 0);
        let Some(count) = count else { return Err(UmemError::FrameCount { frames }) };
        let mut region = Region::allocate(frames * FRAME_BYTES, placement)?;
        let base = NonNull::new(region.as_mut_ptr()).expect("a mapping never lies at null");
        let umem = Self { region, base, frames: count, id: next_id() };
        let tokens = umem.tokens();
        Ok((umem, tokens))
    }

    /// One token a chunk. To be called once an id.
    fn tokens(&self) -> Vec<Frame> {
        let token = |index| Frame { address: index * FRAME_BYTES as u64, length: 0, umem: self.id };
        (0..u64::from(self.frames)).map(token).collect()
    }

    /// Frames it has.
    #[inline]
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frames as usize * FRAME_BYTES
    }

    /// First byte, for `XDP_UMEM_REG`.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// True when it lies in huge pages.
    #[must_use]
    pub fn huge_pages(&self) -> bool {
        self.region.huge_pages()
    }

    /// The packet in a frame.
    #[inline]
    #[must_use]
    pub fn packet<'f>(&'f self, frame: &'f Frame) -> &'f [u8] {
        self.check(frame);
        // SAFETY: `check` holds the range inside the region; the token is borrowed, so nobody writes to the chunk.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(frame.address as usize), frame.len()) }
    }

    /// The packet in a frame, to change in place.
    #[inline]
    #[must_use]
    pub fn packet_mut<'f>(&'f self, frame: &'f mut Frame) -> &'f mut [u8] {
        self.check(frame);
        // SAFETY: `check` holds the range inside the region; the token is borrowed mutably, so nobody else
        // reaches the chunk.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(frame.address as usize), frame.len()) }
    }

    /// Writes a packet into a frame: `write` gets the whole chunk and says how many bytes, from its start, are
    /// the packet.
    #[inline]
    pub fn compose(&self, frame: &mut Frame, write: impl FnOnce(&mut [u8]) -> usize) {
        frame.address -= frame.address % FRAME_BYTES as u64;
        frame.length = FRAME_BYTES as u32;
        let length = write(self.packet_mut(frame));
        assert!(length <= FRAME_BYTES, "a packet of {length} bytes was written to a chunk of {FRAME_BYTES}");
        frame.length = length as u32;
    }

    /// Gives a token up to the kernel or a simulated wire, which may write to the chunk from now on.
    /// Returns the offset and length for a descriptor.
    #[inline]
    pub(crate) fn surrender(&self, frame: Frame) -> (u64, u32) {
        self.check(&frame);
        (frame.address, frame.length)
    }

    /// Takes a token back for a chunk named by a descriptor. `None` when the range lies outside the UMEM or
    /// crosses a chunk.
    ///
    /// # Safety
    /// No token for this chunk may exist, and whoever it was surrendered to must be done with the chunk: the
    /// caller keeps account of chunks it surrendered, and refuses one that was not.
    #[inline]
    pub(crate) unsafe fn reclaim(&self, address: u64, length: u32) -> Option<Frame> {
        let frame = Frame { address, length, umem: self.id };
        self.contains(&frame).then_some(frame)
    }

    /// Number of the chunk an address lies in.
    #[inline]
    pub(crate) fn chunk_of(address: u64) -> u64 {
        address / FRAME_BYTES as u64
    }

    #[inline]
    fn contains(&self, frame: &Frame) -> bool {
        let within = frame.address % FRAME_BYTES as u64 + u64::from(frame.length) <= FRAME_BYTES as u64;
        within && frame.address < self.bytes() as u64
    }

    /// Release-mode check: tokens are made only from checked ranges, so only the UMEM can be wrong.
    #[inline]
    fn check(&self, frame: &Frame) {
        assert!(frame.umem == self.id, "a frame of UMEM {} was used with UMEM {}", frame.umem, self.id);
        debug_assert!(self.contains(frame), "{frame:?} lies outside its UMEM");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_distinct_and_hold_what_was_written() {
        let (umem, mut frames) = Umem::allocate(4, Placement::default()).expect("16 KiB");
        for (frame, byte) in frames.iter_mut().zip(1u8..) {
            umem.compose(frame, |chunk| {
                chunk[..100].fill(byte);
                100
            });
        }
        for (frame, byte) in frames.iter().zip(1u8..) {
            assert_eq!(umem.packet(frame), [byte; 100]);
        }
    }

    #[test]
    #[should_panic(expected = "was used with UMEM")]
    fn a_frame_is_worth_nothing_in_another_umem() {
        let (_first, frames) = Umem::allocate(1, Placement::default()).expect("4 KiB");
        let (second, _) = Umem::allocate(1, Placement::default()).expect("4 KiB");
        let _ = second.packet(&frames[0]);
    }

    #[test]
    fn descriptors_outside_the_umem_or_across_chunks_are_refused() {
        let (umem, frames) = Umem::allocate(2, Placement::default()).expect("8 KiB");
        for frame in frames {
            umem.surrender(frame);
        }
        for (address, length) in [(8192, 0), (u64::MAX, 1), (4095, 2), (0, 4097)] {
            // SAFETY: every token was surrendered above, and nothing else writes to this UMEM.
            assert!(unsafe { umem.reclaim(address, length) }.is_none(), "{address}+{length}");
        }
    }
}
