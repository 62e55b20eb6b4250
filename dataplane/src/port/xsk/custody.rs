//! Which chunks the kernel has, and for what: the account that makes reclaiming them safe.
//!
//! One byte a chunk says who may touch it. A chunk enters the kernel's hands by [`Custody::surrender`], with
//! the token, and leaves them by [`Custody::reclaim`], which makes a token only when the chunk is in the very
//! state that the ring implies. So an address that is foreign, named twice, or named by the wrong ring never
//! becomes a second token for a chunk, whatever the shared memory says.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::limits::FRAME_BYTES;
use crate::port::{Frame, Umem};

/// Who has a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Holder {
    /// User space: there is a token.
    User = 0,
    /// The kernel, to receive into.
    Receive = 1,
    /// The kernel, to send.
    Transmit = 2,
}

/// Why an address was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disbelief {
    address: u64,
    length: u32,
    reason: &'static str,
}

impl std::fmt::Display for Disbelief {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "address {}, length {}: {}", self.address, self.length, self.reason)
    }
}

/// Who has each chunk of one UMEM.
#[derive(Debug)]
pub(super) struct Custody {
    holders: Box<[AtomicU8]>,
}

impl Custody {
    /// All chunks in user space's hands: for a UMEM whose tokens have just been made.
    pub(super) fn of(umem: &Umem) -> Self {
        Self { holders: (0..umem.frames()).map(|_| AtomicU8::new(Holder::User as u8)).collect() }
    }

    /// Gives a chunk to the kernel. Returns the packet's offset and length.
    #[inline]
    pub(super) fn surrender(&self, umem: &Umem, frame: Frame, to: Holder) -> (u64, u32) {
        let (address, length) = umem.surrender(frame);
        let holder = &self.holders[Umem::chunk_of(address) as usize];
        debug_assert_eq!(holder.load(Ordering::Relaxed), Holder::User as u8, "there was a token");
        // Relaxed: whoever reclaims the chunk learnt its address from the kernel, which learnt it from a ring
        // counter stored after this.
        holder.store(to as u8, Ordering::Relaxed);
        (address, length)
    }

    /// Takes a chunk back from the kernel, if it has it for that purpose.
    #[inline]
    pub(super) fn reclaim(
        &self,
        umem: &Umem,
        address: u64,
        length: u32,
        from: Holder,
    ) -> Result<Frame, Disbelief> {
        let disbelief = |reason| Disbelief { address, length, reason };
        let holder = usize::try_from(Umem::chunk_of(address))
            .ok()
            .and_then(|chunk| self.holders.get(chunk))
            .ok_or_else(|| disbelief("outside the UMEM"))?;
        if address % FRAME_BYTES as u64 + u64::from(length) > FRAME_BYTES as u64 {
            return Err(disbelief("crosses a chunk"));
        }
        // An exchange, not a load and a store: rings read by two threads may name the same chunk at the same
        // moment.
        holder
            .compare_exchange(from as u8, Holder::User as u8, Ordering::Relaxed, Ordering::Relaxed)
            .map_err(|_| disbelief("a chunk that the kernel does not have for this"))?;
        // SAFETY: the chunk was surrendered, which took its token, and since the exchange just now no other
        // reclaim of it can succeed; that it came back through a ring says that the kernel is done with it.
        unsafe { umem.reclaim(address, length) }.ok_or_else(|| disbelief("outside the UMEM"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HugePages, Placement};

    fn umem(frames: usize) -> (Umem, Vec<Frame>) {
        Umem::allocate(frames, Placement { huge_pages: HugePages::Never, node: None }).expect("a few KiB")
    }

    #[test]
    fn a_chunk_comes_back_once_and_only_from_where_it_went() {
        let (umem, mut frames) = umem(2);
        let custody = Custody::of(&umem);
        let (address, _) = custody.surrender(&umem, frames.pop().expect("two"), Holder::Receive);
        assert!(custody.reclaim(&umem, address, 0, Holder::Transmit).is_err(), "it was not for sending");
        let frame =
            custody.reclaim(&umem, address + 256, 100, Holder::Receive).expect("it was for receiving");
        assert_eq!((frame.address(), frame.len()), (address + 256, 100));
        assert!(custody.reclaim(&umem, address, 0, Holder::Receive).is_err(), "twice");
        assert!(custody.reclaim(&umem, 0, 0, Holder::Receive).is_err(), "never surrendered");
    }

    #[test]
    fn an_address_that_is_not_believed_leaves_the_chunk_where_it_was() {
        let (umem, mut frames) = umem(2);
        let custody = Custody::of(&umem);
        let (address, _) = custody.surrender(&umem, frames.pop().expect("two"), Holder::Receive);
        for (address, length) in [(address + 4000, 97), (8192, 1), (u64::MAX, 1), (u64::MAX, u32::MAX)] {
            assert!(custody.reclaim(&umem, address, length, Holder::Receive).is_err(), "{address}+{length}");
        }
        assert!(custody.reclaim(&umem, address, 4096, Holder::Receive).is_ok());
    }
}
