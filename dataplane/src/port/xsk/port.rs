//! [`XskPort`]: the RX and TX rings of one AF_XDP socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;

use crate::limits::BATCH_FRAMES;
use crate::port::{Frame, FrameAccounts, FrameBatch, Port, PortDrops, PortError, PortSurvey, Umem};

use super::custody::Holder;
use super::doorbell::{Doorbell, send_by_copy};
use super::link::PortEnd;
use super::queue::Common;
use super::ring::{Consumer, Descriptor, Producer, RingFault};
use super::socket::XskStatistics;

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
    /// The next descriptor goes on with a packet that is being skipped.
    in_pieces: bool,
    /// Packets ever skipped because they came in several descriptors.
    skipped: u64,
    /// Busy polling was asked for, and whether it does anything has yet to show.
    busy_poll_unproven: bool,
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
        Self {
            receive,
            transmit,
            spare: ArrayVec::new(),
            owner,
            doorbell,
            taken: 0,
            submitted: 0,
            in_pieces: false,
            skipped: 0,
            busy_poll_unproven: doorbell.busy_poll,
            fault: None,
            common,
        }
    }

    /// What the kernel counts for this socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statistics(&self) -> io::Result<XskStatistics> {
        self.common.socket.statistics()
    }

    /// Copy mode: all that is queued, now.
    #[inline]
    fn send_by_copy(&mut self) -> Result<(), PortError> {
        let Self { transmit, common, doorbell, .. } = self;
        send_by_copy(transmit, &common.socket, doorbell.budget, || common.socket.wake_transmit())
    }
}

/// Keeps a frame for the next reply, or hands it to the owner.
#[inline]
fn give_back(spare: &mut ArrayVec<Frame, BATCH_FRAMES>, owner: &mut PortEnd, frame: Frame) {
    if let Err(full) = spare.try_push(frame) {
        let returned = owner.returns.push(full.element());
        assert!(returned.is_ok(), "the way back has room for every frame there is");
    }
}

impl Port for XskPort {
    #[inline]
    fn umem(&self) -> &Arc<Umem> {
        &self.common.umem
    }

    /// Skips packets that came in several descriptors (`XDP_PKT_CONTD`), to their last one: what a later piece
    /// holds is payload, and must not pass for headers. The socket does not ask for such packets
    /// (`XDP_USE_SG`), so there are none unless the kernel has a bug.
    #[inline]
    fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), PortError> {
        let Self { receive, common, spare, owner, in_pieces, skipped, .. } = self;
        let room = batch.remaining_capacity() as u32;
        let [head, tail] = receive.readable(room).map_err(|fault| common.socket.corrupt("RX", fault))?;
        let mut taken = 0;
        let mut outcome = Ok(());
        for descriptor in head.iter().chain(tail) {
            taken += 1;
            let &Descriptor { address, length, options } = descriptor;
            let continues = options & libc::XDP_PKT_CONTD != 0;
            match common.custody.reclaim(&common.umem, address, length, Holder::Receive) {
                Ok(frame) if !continues && !*in_pieces => batch.push(frame),
                Ok(frame) => {
                    *skipped += u64::from(!*in_pieces);
                    *in_pieces = continues;
                    give_back(spare, owner, frame);
                }
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
        give_back(&mut self.spare, &mut self.owner, frame);
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
            return self.common.socket.wake_transmit().map(drop);
        }
        Ok(())
    }

    fn backlog(&self) -> usize {
        self.transmit.pending() as usize
    }

    /// Two system calls, and a third until a packet has shown whether busy polling does anything.
    fn survey(&mut self) -> PortSurvey {
        let socket = &self.common.socket;
        if self.busy_poll_unproven && self.taken > 0 {
            self.busy_poll_unproven = false;
            socket.warn_unless_polled();
        }
        // Kernels before 5.9 count less and are not asked: their socket option is shorter.
        let counts = socket.statistics().unwrap_or_default();
        PortSurvey {
            mtu_bytes: socket.mtu_bytes().ok(),
            drops: PortDrops {
                ring_full: counts.receive_ring_full,
                no_frame: counts.receive_dropped,
                fill_ring_empty: counts.fill_ring_empty,
                fill_invalid: counts.fill_invalid,
                transmit_invalid: counts.transmit_invalid,
                in_pieces: self.skipped,
            },
        }
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
