//! The packet as the kernel hands it over: a linear part between two pointers, and perhaps further buffers.

use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::packet::Reader;

/// One packet.
pub(super) struct Frame<'a> {
    context: &'a XdpContext,
    start: usize,
    end: usize,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(super) fn new(context: &'a XdpContext) -> Self {
        Self { context, start: context.data(), end: context.data_end() }
    }

    /// Bytes of the packet, over all its buffers.
    #[inline(always)]
    pub(super) fn bytes(&self) -> usize {
        // SAFETY: the context is the one the kernel called us with, and the helper only reads it.
        unsafe { bpf_xdp_get_buff_len(self.context.ctx) as usize }
    }
}

impl Reader for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.start + offset;
        if start + N > self.end {
            return None;
        }
        // SAFETY: `start..start + N` lies between the packet's two pointers, which the verifier proves again; a
        // byte array has no alignment.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn has_bytes(&self, bytes: usize) -> bool {
        // The linear part answers nearly always, and without a call into the kernel.
        bytes <= self.end - self.start || bytes <= self.bytes()
    }
}
