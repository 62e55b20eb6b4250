//! The packet as the kernel hands it over: a linear part between two pointers, and perhaps further buffers.

use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::layout::PACKET_BYTES_MAX;
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

    /// True when the packet fits a UMEM frame and lies in one piece: in the linear part.
    #[inline(always)]
    pub(super) fn fits_a_frame(&self) -> bool {
        let bytes = self.bytes();
        bytes <= PACKET_BYTES_MAX && self.is_linear_to(bytes)
    }

    /// True when the linear part has at least `bytes` bytes.
    // As in `read`, arithmetic on packet pointers with what the packet says: the verifier allows it with CAP_PERFMON alone.
    #[inline(always)]
    fn is_linear_to(&self, bytes: usize) -> bool {
        bytes <= self.end - self.start
    }

    /// Bytes of the packet, over all its buffers.
    #[inline(always)]
    fn bytes(&self) -> usize {
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
        self.is_linear_to(bytes) || bytes <= self.bytes()
    }
}
