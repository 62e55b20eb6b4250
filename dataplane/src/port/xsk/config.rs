//! What is asked of an AF_XDP socket.

use crate::config::{BusyPollConfig, CopyMode};
use crate::limits::{BATCH_FRAMES, REPLY_FRAMES_AT_HAND, SUPPLY_FRAMES_MAX};
use crate::memory::{HugePages, Placement};

use super::XskError;

/// Fewest descriptors in a ring: a batch must fit.
pub const RING_ENTRIES_MIN: u32 = BATCH_FRAMES as u32;
/// Most descriptors in a ring.
pub const RING_ENTRIES_MAX: u32 = 1 << 16;
/// Fewest frames: a batch received, and a batch of replies to it.
pub const FRAMES_MIN: u32 = 2 * BATCH_FRAMES as u32;

const _: () = {
    assert!(RING_ENTRIES_MIN.is_power_of_two());
    // The kernel takes a transmit budget (`XDP_MAX_TX_SKB_BUDGET`) of 32 to the ring's size.
    assert!(RING_ENTRIES_MIN >= 32);
    // The least there is for replies holds what a request must find at hand.
    assert!(RING_ENTRIES_MIN as usize >= REPLY_FRAMES_AT_HAND);
    assert!(FRAMES_MIN as usize / 2 >= REPLY_FRAMES_AT_HAND);
};

/// What is asked of an AF_XDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XskConfig {
    /// Interface name, in the caller's network namespace.
    pub interface: String,
    /// Queue of the interface.
    pub queue: u32,
    /// Frames of its UMEM, [`FRAMES_MIN`] or more.
    pub frames: u32,
    /// Descriptors in each ring: a power of two from [`RING_ENTRIES_MIN`] to [`RING_ENTRIES_MAX`]. Large
    /// rings ride out bursts and pauses; small ones keep the frames in use in the core's cache.
    pub ring_entries: u32,
    /// How packets get into the UMEM.
    pub copy: CopyMode,
    /// Huge pages for the UMEM.
    pub huge_pages: HugePages,
    /// NUMA node of the UMEM; `None` leaves it to the kernel.
    pub node: Option<u32>,
    /// The port's own calls drive the queue's NAPI; `None` leaves that to interrupts. Then also set
    /// `napi_defer_hard_irqs` and `gro_flush_timeout` of the interface, or interrupts keep competing for it;
    /// but not on an interface whose NAPI cannot be polled (as a veth pair's, Linux 6.18): packets would wait
    /// for that timeout. The first [`survey`](crate::port::Port::survey) after a packet says so in the log.
    pub busy_poll: Option<BusyPollConfig>,
    /// The XDP program runs in the kernel's generic hook, which can only copy.
    pub generic_xdp: bool,
}

impl XskConfig {
    /// Copy where zero-copy is not to be had, 4096 frames, rings of 2048, huge pages where there are any.
    #[must_use]
    pub fn new(interface: &str, queue: u32) -> Self {
        Self {
            interface: interface.to_owned(),
            queue,
            frames: 4096,
            ring_entries: 2048,
            copy: CopyMode::Auto,
            huge_pages: HugePages::Auto,
            node: None,
            busy_poll: None,
            generic_xdp: false,
        }
    }

    /// Checks what can be checked without the kernel.
    pub(super) fn validate(&self) -> Result<(), XskError> {
        let entries = self.ring_entries;
        if !entries.is_power_of_two() || !(RING_ENTRIES_MIN..=RING_ENTRIES_MAX).contains(&entries) {
            return Err(XskError::RingEntries { entries });
        }
        if self.frames < FRAMES_MIN {
            return Err(XskError::TooFewFrames { frames: self.frames });
        }
        if self.generic_xdp && self.copy == CopyMode::ZeroCopy {
            return Err(XskError::GenericZeroCopy { interface: self.interface.clone() });
        }
        Ok(())
    }

    /// Where its UMEM is to lie.
    pub(super) fn placement(&self) -> Placement {
        Placement { node: self.node, huge_pages: self.huge_pages }
    }

    /// Frames that are never given to the kernel to receive into, so that there is always one to reply with.
    pub(super) fn reply_frames(&self) -> u32 {
        self.ring_entries.min(self.frames / 2)
    }

    /// Free frames kept ready for a port: half of those for replies, or what one request must find at hand.
    pub(super) fn supply_frames(&self) -> u32 {
        (self.reply_frames() / 2).clamp(REPLY_FRAMES_AT_HAND as u32, SUPPLY_FRAMES_MAX as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_always_finds_the_frames_of_one_long_reply() {
        for (frames, ring_entries) in
            [(FRAMES_MIN, RING_ENTRIES_MIN), (4096, 64), (4096, 2048), (1 << 20, 1 << 16)]
        {
            let config = XskConfig { frames, ring_entries, ..XskConfig::new("eth0", 0) };
            let supply = config.supply_frames();
            assert!(supply as usize >= REPLY_FRAMES_AT_HAND, "{supply} of {frames} with {ring_entries}");
            assert!(supply <= config.reply_frames(), "{supply} of {frames} with {ring_entries}");
        }
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_with_its_bounds() {
        let good = XskConfig::new("eth0", 0);
        assert!(good.validate().is_ok());
        for entries in [0, 1, 32, 100, 1 << 17] {
            let error = XskConfig { ring_entries: entries, ..good.clone() }.validate().expect_err("refused");
            assert!(error.to_string().contains("power of two from 64 to 65536"), "{error}");
        }
        let error = XskConfig { frames: 127, ..good.clone() }.validate().expect_err("refused");
        assert!(error.to_string().contains("at least 128"), "{error}");
        let both = XskConfig { generic_xdp: true, copy: CopyMode::ZeroCopy, ..good };
        assert!(matches!(both.validate(), Err(XskError::GenericZeroCopy { .. })));
    }
}
