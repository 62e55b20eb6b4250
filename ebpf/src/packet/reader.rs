//! Bounds-checked access to a packet.

/// A packet's bytes. An implementation answers `None` or `false` for whatever lies outside the packet.
pub trait Reader {
    /// `N` bytes from `offset` on.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// True when the packet has at least `bytes` bytes. Unlike those that [`Reader::read`] can reach, they may lie
    /// in further buffers of a multi-buffer packet.
    fn has_bytes(&self, bytes: usize) -> bool;
}

impl Reader for [u8] {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn has_bytes(&self, bytes: usize) -> bool {
        bytes <= self.len()
    }
}
