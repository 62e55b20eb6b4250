//! [`XskQueue`] owns a queue's fill and completion rings and the frames that nobody uses.
//!
//! ```text
//!            fill ring                       RX ring
//!   owner ----------------> kernel (receive) --------> port -> worker
//!     ^  |                                              | ^
//!     |  +-------------------- supply ----------------- | +
//!     |<---------------------- returns -----------------+
//!     +---- completion ring --- kernel (send) <-- TX ring
//! ```
//! Of all frames, some are never given to the kernel to receive into, so that a flood of requests cannot take
//! the frames that replies need.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::limits::FRAME_BYTES;
use crate::port::{Frame, FrameAccounts, PortError, QueueOwner, Umem};

use super::custody::{Custody, Holder};
use super::link::OwnerEnd;
use super::ring::{Consumer, Producer};
use super::socket::Socket;

/// What the socket's two halves share: who may touch which chunk, and the socket itself.
pub(super) struct Common {
    pub(super) socket: Socket,
    pub(super) umem: Arc<Umem>,
    pub(super) custody: Custody,
}

/// Owner of the fill and completion rings of one AF_XDP queue.
pub struct XskQueue {
    // The rings come first: they must be unmapped before the socket can go.
    fill: Producer<u64>,
    completion: Consumer<u64>,
    /// Frames nobody uses; the last one in goes out first, as it may still be in the core's cache.
    free: Vec<Frame>,
    ports: Vec<OwnerEnd>,
    /// Most frames the kernel may have to receive into.
    filling_max: u64,
    /// Frames ever put in the fill ring.
    filled: u64,
    /// Frames ever taken from the completion ring.
    completed: u64,
    common: Arc<Common>,
}

impl std::fmt::Debug for XskQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("XskQueue").field("accounts", &self.accounts()).finish_non_exhaustive()
    }
}

impl XskQueue {
    pub(super) fn new(
        fill: Producer<u64>,
        completion: Consumer<u64>,
        frames: Vec<Frame>,
        reply_frames: u32,
        port: OwnerEnd,
        common: Arc<Common>,
    ) -> Self {
        let filling_max = frames.len() as u64 - u64::from(reply_frames);
        Self {
            fill,
            completion,
            free: frames,
            ports: vec![port],
            filling_max,
            filled: 0,
            completed: 0,
            common,
        }
    }

    /// Takes sent frames back.
    #[inline]
    fn reap(&mut self) -> Result<(), PortError> {
        let Self { completion, free, common, .. } = self;
        let [head, tail] =
            completion.readable(u32::MAX).map_err(|fault| common.socket.corrupt("completion", fault))?;
        let mut taken = 0;
        let mut outcome = Ok(());
        for &address in head.iter().chain(tail) {
            taken += 1;
            // The kernel names the packet's first byte; what comes back is the whole chunk.
            let chunk = address - address % FRAME_BYTES as u64;
            match common.custody.reclaim(&common.umem, chunk, 0, Holder::Transmit) {
                Ok(frame) => free.push(frame),
                Err(disbelief) => {
                    outcome = Err(common.socket.corrupt("completion", disbelief));
                    break;
                }
            }
        }
        if taken > 0 {
            completion.release(taken);
            self.completed += u64::from(taken);
        }
        outcome
    }

    /// Takes released frames back from the ports, and gives them free ones.
    #[inline]
    fn serve_ports(&mut self) {
        for port in &mut self.ports {
            let returned = port.returns.slots();
            if returned > 0
                && let Ok(frames) = port.returns.read_chunk(returned)
            {
                self.free.extend(frames);
            }
            let wanted = port.supply.slots().min(self.free.len());
            for frame in self.free.drain(self.free.len() - wanted..) {
                let supplied = port.supply.push(frame);
                assert!(supplied.is_ok(), "only this end takes room in it");
            }
        }
    }

    /// Stocks the fill ring, and wakes the kernel if it waits for that.
    #[inline]
    fn stock(&mut self) -> Result<(), PortError> {
        let quota = self.filling_max.saturating_sub(self.filling());
        let wanted = quota.min(self.free.len() as u64).min(u64::from(self.fill.size())) as u32;
        let Self { fill, free, common, .. } = self;
        let corrupt = |fault| common.socket.corrupt("fill", fault);
        if wanted > 0 {
            let room = fill.room(wanted).map_err(corrupt)?.min(wanted);
            let filled = fill.extend(room, || {
                let (address, _) = common.custody.surrender(&common.umem, free.pop()?, Holder::Receive);
                Some(address - address % FRAME_BYTES as u64)
            });
            if filled > 0 {
                fill.publish();
                self.filled += u64::from(filled);
                // The kernel raises its flag and then looks at the ring once more; we publish and then look
                // at the flag. Without a full fence between, both could miss the other.
                fence(Ordering::SeqCst);
            }
        }
        // Only drivers with zero-copy raise the flag. With nothing in the ring there is nothing to wake it
        // for.
        if fill.wakeup_wanted() && fill.refresh().map_err(corrupt)? > 0 {
            common.socket.wake_receive()?;
        }
        Ok(())
    }

    /// Frames in the fill ring, with the kernel to receive into, or received and not yet seen by a port.
    #[inline]
    fn filling(&self) -> u64 {
        let received: u64 = self.ports.iter().map(|port| port.noticed.received()).sum();
        // Only an impossible descriptor, for which its port gives up, could make it negative.
        self.filled.saturating_sub(received)
    }
}

impl QueueOwner for XskQueue {
    #[inline]
    fn poll(&mut self) -> Result<(), PortError> {
        self.reap()?;
        self.serve_ports();
        self.stock()
    }

    fn accounts(&self) -> FrameAccounts {
        let submitted: u64 = self.ports.iter().map(|port| port.noticed.submitted()).sum();
        let returned: usize = self.ports.iter().map(|port| port.returns.slots()).sum();
        FrameAccounts {
            total: u64::from(self.common.umem.frames()),
            filling: self.filling(),
            received: 0,
            // On another thread than the port's, a completion may be seen before the port's count is.
            sending: submitted.saturating_sub(self.completed),
            free: (self.free.len() + returned) as u64,
            held: 0,
        }
    }
}
