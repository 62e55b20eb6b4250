//! What passes between a queue's owner and a port: free frames one way, released frames the other, and two
//! counts.
//!
//! The counts keep accounts exact. The kernel moves frames from the fill ring to the RX ring at any time, so
//! neither end may count what it finds there: each counts what *user space* has noticed. A frame is `filling`
//! until the port has seen it in its RX ring, and `received` from then on; `sending` is the port's until the
//! port has published it, and the owner's from then on. One number decides for both ends, so no frame is
//! counted twice or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::port::Frame;

/// What a port has noticed and done, for the queue's owner to read. Written by the port alone.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// Frames seen in the RX ring.
    received: AtomicU64,
    /// Frames published in the TX ring.
    submitted: AtomicU64,
}

impl Noticed {
    #[inline]
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_received(&self, count: u64) {
        self.received.store(count, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn set_submitted(&self, count: u64) {
        self.submitted.store(count, Ordering::Relaxed);
    }
}

/// The port's end.
#[derive(Debug)]
pub(super) struct PortEnd {
    /// Free frames from the owner.
    pub(super) supply: rtrb::Consumer<Frame>,
    /// Frames released to the owner.
    pub(super) returns: rtrb::Producer<Frame>,
    pub(super) noticed: Arc<Noticed>,
}

/// The owner's end.
#[derive(Debug)]
pub(super) struct OwnerEnd {
    /// Free frames to the port.
    pub(super) supply: rtrb::Producer<Frame>,
    /// Frames released by the port.
    pub(super) returns: rtrb::Consumer<Frame>,
    pub(super) noticed: Arc<Noticed>,
}

/// Links a port with its owner. The way back has room for every frame there is, so that a release never
/// fails.
pub(super) fn link(supply: usize, frames: usize) -> (PortEnd, OwnerEnd) {
    let (supply_in, supply_out) = rtrb::RingBuffer::new(supply);
    let (returns_in, returns_out) = rtrb::RingBuffer::new(frames);
    let noticed = Arc::new(Noticed::default());
    (
        PortEnd { supply: supply_out, returns: returns_in, noticed: Arc::clone(&noticed) },
        OwnerEnd { supply: supply_in, returns: returns_out, noticed },
    )
}
