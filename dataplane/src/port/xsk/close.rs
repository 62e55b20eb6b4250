//! [`close`]: a socket's end, and the memory it leaves for the next one.

use std::sync::Arc;

use crate::memory::Placement;
use crate::port::{Frame, Umem};

use super::queue::Common;
use super::{XskConfig, XskPort, XskQueue};

/// The memory of a closed socket, for another one on the same queue.
#[derive(Debug)]
pub struct XskMemory {
    umem: Umem,
    placement: Placement,
    interface: String,
    queue: u32,
}

/// Closes a socket. `None` when the halves are not of one socket, or when somebody else still holds its
/// [`Umem`]: then the memory goes with the last of them.
///
/// Frames still in the worker's hands are worth nothing afterwards: using one panics.
#[must_use = "it spares the next socket a new UMEM; drop it where there will be none"]
pub fn close(port: XskPort, queue: XskQueue) -> Option<XskMemory> {
    // Each half's rings are unmapped as it falls apart here; the socket goes with the last reference.
    drop(port.into_common());
    XskMemory::of(queue.into_common())
}

impl XskMemory {
    /// Closes the socket, if this is the last reference, and keeps its memory.
    pub(super) fn of(common: Arc<Common>) -> Option<Self> {
        let Common { socket, umem, placement, .. } = Arc::into_inner(common)?;
        let (interface, queue) = socket.into_place();
        Some(Self { umem: Arc::into_inner(umem)?, placement, interface, queue })
    }

    /// True when a socket so configured can use it.
    pub(super) fn fits(&self, config: &XskConfig) -> bool {
        self.umem.frames() == config.frames
            && self.placement == config.placement()
            && self.interface == config.interface
            && self.queue == config.queue
    }

    pub(super) fn reuse(self) -> (Umem, Vec<Frame>) {
        // SAFETY: the socket that the old tokens were surrendered to is closed, with all its rings, and the
        // close of a socket ends its reception before it returns (`xsk_release` unbinds and waits for packets
        // under way). A zero-copy driver lets go of the memory a little later, but before it does so the
        // queue cannot be bound again, and `open` hands out no token before it has bound that very queue.
        unsafe { self.umem.recut() }
    }
}
