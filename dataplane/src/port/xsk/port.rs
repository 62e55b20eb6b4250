//! [`XskPort`]: the RX and TX rings of one AF_XDP socket, and its doorbell.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;

use crate::limits::BATCH_FRAMES;
use crate::port::{Frame, FrameAccounts, FrameBatch, Port, PortError, Umem};

use super::custody::Holder;
use super::link::PortEnd;
use super::queue::Common;
use super::ring::{Consumer, Descriptor, Producer, RingFault};
use super::socket::XskStatistics;

/// Whether the interface carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It does.
    Up,
    /// It has been set down. The socket stays bound, and goes on by itself once the interface is up again.
    Down,
}

/// How the doorbell has to be rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doorbell {
    /// The driver takes packets by itself once awake, and raises a flag when it went to sleep. In copy mode
    /// nothing is ever sent but inside the doorbell's system call.
    pub(super) zero_copy: bool,
    /// The doorbell drives reception too, so it is rung at every flush.
    pub(super) busy_poll: bool,
}

/// Batches of frames in and out of one AF_XDP socket.
pub struct XskPort {
    // The rings come first: they must be unmapped before the socket can go.
    receive: Consumer<Descriptor>,
    transmit: Producer<Descriptor>,
    /// Frames released here and not yet handed to the owner: most are allocated again at once.
    spare: ArrayVec<Frame, BATCH_FRAMES>,
    owner: PortEnd,
    doorbell: Doorbell,
    /// Frames ever taken from the RX ring.
    taken: u64,
    /// Frames ever published in the TX ring.
    submitted: u64,
    /// A TX ring that cannot be trusted is reported at the next flush.
    fault: Option<RingFault>,
    common: Arc<Common>,
}

impl std::fmt::Debug for XskPort {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("XskPort").field("accounts", &self.accounts()).finish_non_exhaustive()
    }
}

/// The descriptor to register in an XSKMAP, and to wait on.
impl AsFd for XskPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.common.socket.as_fd()
    }
}

impl XskPort {
    pub(super) fn new(
        receive: Consumer<Descriptor>,
        transmit: Producer<Descriptor>,
        owner: PortEnd,
        doorbell: Doorbell,
        common: Arc<Common>,
    ) -> Self {
        let spare = ArrayVec::new();
        Self { receive, transmit, spare, owner, doorbell, taken: 0, submitted: 0, fault: None, common }
    }

    pub(super) fn into_common(self) -> Arc<Common> {
        self.common
    }

    /// Asks the kernel whether the socket is still bound: one system call, for the worker to make now and
    /// then. A deleted interface shows itself here and at a doorbell, and nowhere else: `poll(2)` stays
    /// silent.
    ///
    /// # Errors
    /// [`PortError::Down`] when the interface is gone: the port has to be opened again.
    pub fn check(&self) -> Result<Link, PortError> {
        match self.common.socket.wake_receive() {
            Ok(()) => Ok(Link::Up),
            Err(PortError::Down { reason, .. }) if reason.raw_os_error() == Some(libc::ENETDOWN) => {
                Ok(Link::Down)
            }
            Err(error) => Err(error),
        }
    }

    /// What the kernel counts for this socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statistics(&self) -> io::Result<XskStatistics> {
        self.common.socket.statistics()
    }

    /// The NAPI that busy polling drives, once a packet has arrived from it. `None` after packets have
    /// arrived means that there is nothing to poll, and busy polling only costs system calls: so it is on a
    /// veth pair (Linux 6.18).
    ///
    /// # Errors
    /// The kernel's.
    pub fn napi_id(&self) -> io::Result<Option<NonZeroU32>> {
        self.common.socket.napi_id()
    }

    /// Copy mode: rings until all is taken, or until a ring takes nothing.
    #[inline]
    fn send_by_copy(&mut self) -> Result<(), PortError> {
        let mut pending = self.transmit.pending();
        loop {
            self.common.socket.wake_transmit()?;
            let left = self.transmit.refresh().map_err(|fault| self.common.socket.corrupt("TX", fault))?;
            // No progress: the device or the completion ring is full. That takes others to change, so the
            // next flush tries again. With progress this ends, as `left` falls each time.
            if left == 0 || left == pending {
                return Ok(());
            }
            pending = left;
        }
    }
}

impl Port for XskPort {
    #[inline]
    fn umem(&self) -> &Arc<Umem> {
        &self.common.umem
    }

    #[inline]
    fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), PortError> {
        let Self { receive, common, .. } = self;
        let room = batch.remaining_capacity() as u32;
        let [head, tail] = receive.readable(room).map_err(|fault| common.socket.corrupt("RX", fault))?;
        let mut taken = 0;
        let mut outcome = Ok(());
        for descriptor in head.iter().chain(tail) {
            taken += 1;
            let &Descriptor { address, length, .. } = descriptor;
            match common.custody.reclaim(&common.umem, address, length, Holder::Receive) {
                Ok(frame) => batch.push(frame),
                Err(disbelief) => {
                    outcome = Err(common.socket.corrupt("RX", disbelief));
                    break;
                }
            }
        }
        if taken > 0 {
            receive.release(taken);
            self.taken += u64::from(taken);
            self.owner.noticed.set_received(self.taken + u64::from(self.receive.seen()));
        }
        outcome
    }

    #[inline]
    fn allocate(&mut self) -> Option<Frame> {
        self.spare.pop().or_else(|| self.owner.supply.pop().ok())
    }

    #[inline]
    fn available(&self) -> usize {
        self.spare.len() + self.owner.supply.slots()
    }

    #[inline]
    fn transmit_room(&self) -> usize {
        self.transmit.known_room() as usize
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        if let Err(full) = self.spare.try_push(frame) {
            let returned = self.owner.returns.push(full.element());
            assert!(returned.is_ok(), "the way back has room for every frame there is");
        }
    }

    /// Also gives back an empty frame: the kernel refuses to send nothing, and never completes what it
    /// refused.
    #[inline]
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        if frame.is_empty() {
            return Err(frame);
        }
        match self.transmit.room(1) {
            Ok(0) => return Err(frame),
            Ok(_) => {}
            Err(fault) => {
                self.fault = Some(fault);
                return Err(frame);
            }
        }
        let (address, length) = self.common.custody.surrender(&self.common.umem, frame, Holder::Transmit);
        self.transmit.extend(1, || Some(Descriptor { address, length, options: 0 }));
        Ok(())
    }

    #[inline]
    fn flush(&mut self) -> Result<(), PortError> {
        if let Some(fault) = self.fault {
            return Err(self.common.socket.corrupt("TX", fault));
        }
        let fresh = self.transmit.unpublished();
        if fresh > 0 {
            self.submitted += u64::from(fresh);
            self.owner.noticed.set_submitted(self.submitted);
            self.transmit.publish();
        }
        if self.transmit.pending() == 0 {
            return if self.doorbell.busy_poll { self.common.socket.wake_receive() } else { Ok(()) };
        }
        if !self.doorbell.zero_copy {
            return self.send_by_copy();
        }
        // The driver raises its flag and then looks at the ring once more; we publish and then look at the
        // flag. Without a full fence between, both could miss the other.
        fence(Ordering::SeqCst);
        let pending = self.transmit.refresh().map_err(|fault| self.common.socket.corrupt("TX", fault))?;
        if self.doorbell.busy_poll || (pending > 0 && self.transmit.wakeup_wanted()) {
            return self.common.socket.wake_transmit();
        }
        Ok(())
    }

    fn backlog(&self) -> usize {
        self.transmit.pending() as usize
    }

    fn wait_handle(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn accounts(&self) -> FrameAccounts {
        FrameAccounts {
            total: 0,
            filling: 0,
            received: u64::from(self.receive.seen()),
            sending: u64::from(self.transmit.unpublished()),
            free: self.available() as u64,
            held: 0,
        }
    }
}
