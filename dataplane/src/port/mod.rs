//! A port moves batches of frames between one NIC queue and one worker; it knows nothing of what is in them.
//!
//! Frames live in a [`Umem`]. Whoever holds a [`Frame`] owns its chunk; handing it to a port hands the chunk on.
//! Apart from the port stands the queue's owner, which keeps the kernel's fill ring stocked and takes sent
//! frames back from its completion ring, so that one queue can feed several workers.

pub mod sim;
mod umem;
pub mod xsk;

pub use umem::{Frame, Umem, UmemError};

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::limits::BATCH_FRAMES;

/// Frames moved in one call.
pub type FrameBatch = ArrayVec<Frame, BATCH_FRAMES>;

/// Why a port cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The interface went down, lost the queue, or is gone; the port has to be bound again.
    #[error("{interface} queue {queue}: {reason}; the port is bound again once the link is back")]
    Down {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
        /// What the kernel said.
        reason: std::io::Error,
    },
    /// The kernel handed out a ring index or descriptor that cannot be.
    #[error("{interface} queue {queue}: {ring} ring holds an impossible entry ({detail})")]
    Corrupt {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
        /// Which ring.
        ring: &'static str,
        /// What was found.
        detail: String,
    },
}

impl PortError {
    /// True while the link is set down: the port stays bound and goes on once it is up again. Any other failure
    /// means that it has to be opened anew.
    #[must_use]
    pub fn recovers_by_itself(&self) -> bool {
        matches!(self, Self::Down { reason, .. } if reason.raw_os_error() == Some(libc::ENETDOWN))
    }

    /// Of two outcomes of one poll, the one that says more: a ring that cannot be trusted before an interface
    /// that is gone, that before a link that is down, and of two alike the first.
    pub(crate) fn graver(first: Result<(), Self>, second: Result<(), Self>) -> Result<(), Self> {
        fn gravity(outcome: &Result<(), PortError>) -> u8 {
            match outcome {
                Ok(()) => 0,
                Err(error) if error.recovers_by_itself() => 1,
                Err(PortError::Down { .. }) => 2,
                Err(PortError::Corrupt { .. }) => 3,
            }
        }
        if gravity(&second) > gravity(&first) { second } else { first }
    }
}

/// Where every frame of a UMEM is. At rest `owned()` equals `total`, else frames were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameAccounts {
    /// Frames the UMEM has.
    pub total: u64,
    /// In the fill ring, or with the kernel to receive into.
    pub filling: u64,
    /// Received and not yet taken by the worker.
    pub received: u64,
    /// In the TX ring, or with the kernel, or sent and not yet taken back.
    pub sending: u64,
    /// Free for replies, or on the way back to the queue's owner.
    pub free: u64,
    /// In the worker's hands.
    pub held: u64,
}

impl FrameAccounts {
    /// Frames accounted for.
    #[must_use]
    pub fn owned(&self) -> u64 {
        self.filling + self.received + self.sending + self.free + self.held
    }

    /// Frames nobody has, or several have; zero unless there is a bug. Where a queue's owner and its port are on
    /// two threads, a frame that passes between them may be counted at neither or both for a moment.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.total.abs_diff(self.owned())
    }
}

impl std::ops::Add for FrameAccounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            filling: self.filling + other.filling,
            received: self.received + other.received,
            sending: self.sending + other.sending,
            free: self.free + other.free,
            held: self.held + other.held,
        }
    }
}

/// Packets that never reached the worker or the wire, ever, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortDrops {
    /// Received with no room in the RX ring: the worker is too slow.
    pub ring_full: u64,
    /// Received with no free frame for them, or too long for one.
    pub no_frame: u64,
    /// Times the kernel, or its driver, found no free frame. Where the kernel copies, each is also a packet in
    /// `no_frame`; with zero-copy the NIC may have dropped packets of which nobody here knows the number.
    pub fill_ring_empty: u64,
    /// Free frames that the kernel refused; zero unless there is a bug.
    pub fill_invalid: u64,
    /// Packets to send that the kernel refused; zero unless there is a bug.
    pub transmit_invalid: u64,
    /// Received in several pieces; zero unless the kernel has a bug.
    pub in_pieces: u64,
}

/// What a port finds when it looks around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSurvey {
    /// Bytes of the longest packet, without its link header, that the link carries; `None` when it cannot be
    /// read, as while the interface is gone.
    pub mtu_bytes: Option<usize>,
    /// What was dropped since the port was opened.
    pub drops: PortDrops,
}

/// Batches of frames in and out. Every call is non-blocking, and none but [`Port::flush`] and
/// [`Port::survey`] makes a system call.
pub trait Port {
    /// The memory its frames lie in.
    fn umem(&self) -> &Arc<Umem>;

    /// Moves received frames into `batch` until it is full or none are left.
    ///
    /// # Errors
    /// [`PortError`] when the ring cannot be trusted or the port is down.
    fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), PortError>;

    /// A free frame to write a reply into; `None` when all are in use.
    fn allocate(&mut self) -> Option<Frame>;

    /// Frames that [`Port::allocate`] could give right now.
    fn available(&self) -> usize;

    /// Frames that [`Port::transmit`] would take right now.
    fn transmit_room(&self) -> usize;

    /// Gives a frame back unsent.
    fn release(&mut self, frame: Frame);

    /// Queues a frame for sending; it leaves with the next [`Port::flush`]. A full ring gives the frame back.
    ///
    /// # Errors
    /// The frame itself, when there is no room for it.
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame>;

    /// Publishes what was queued and, when the kernel wants it, rings the doorbell: at most one system call per
    /// poll in the common case.
    ///
    /// # Errors
    /// [`PortError::Down`] when the interface is gone.
    fn flush(&mut self) -> Result<(), PortError>;

    /// Frames queued that the last [`Port::flush`] could not hand over; another one is due soon.
    fn backlog(&self) -> usize {
        0
    }

    /// Looks at what changes slowly. Makes system calls: for the start and for now and then, not for every poll.
    fn survey(&mut self) -> PortSurvey {
        PortSurvey::default()
    }

    /// What to wait on for received frames; `None` where waiting makes no sense (a simulated wire).
    fn wait_handle(&self) -> Option<BorrowedFd<'_>>;

    /// Frames this port holds on its own side: received, queued to send, free.
    fn accounts(&self) -> FrameAccounts;
}

/// Owner of a queue's fill and completion rings.
pub trait QueueOwner {
    /// Takes sent frames back, stocks the fill ring, and supplies ports with free frames. Non-blocking.
    ///
    /// # Errors
    /// [`PortError`] when a ring cannot be trusted.
    fn poll(&mut self) -> Result<(), PortError>;

    /// Frames on the owner's side: filling, sending, free; `total` is the UMEM's.
    fn accounts(&self) -> FrameAccounts;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_failure_is_the_one_reported() {
        let interface = || "eth0".to_owned();
        let down = |errno| {
            let reason = std::io::Error::from_raw_os_error(errno);
            Err(PortError::Down { interface: interface(), queue: 0, reason })
        };
        let corrupt =
            || PortError::Corrupt { interface: interface(), queue: 0, ring: "RX", detail: String::new() };
        let by_gravity = |rank: usize| match rank {
            0 => Ok(()),
            1 => down(libc::ENETDOWN),
            2 => down(libc::ENXIO),
            _ => Err(corrupt()),
        };
        for (first, second) in (0..4).flat_map(|first| (0..4).map(move |second| (first, second))) {
            let graver = PortError::graver(by_gravity(first), by_gravity(second));
            assert_eq!(format!("{graver:?}"), format!("{:?}", by_gravity(first.max(second))));
        }
    }

    #[test]
    fn a_frame_that_two_have_shows_as_much_as_one_that_nobody_has() {
        let accounts = FrameAccounts { total: 10, filling: 5, free: 5, ..FrameAccounts::default() };
        assert_eq!(accounts.lost(), 0);
        assert_eq!(FrameAccounts { free: 4, ..accounts }.lost(), 1);
        assert_eq!(FrameAccounts { free: 7, ..accounts }.lost(), 2);
    }
}
