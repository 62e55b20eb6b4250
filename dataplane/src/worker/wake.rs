//! Waking a sleeping thread: an eventfd (`eventfd(2)`), one system call by whoever wakes, none by a worker that
//! is awake.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::limits::QUEUES_MAX;
use crate::time::NS_PER_S;

/// Something a thread can sleep on and others can wake; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    /// A new one, not woken.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Wakes whoever sleeps on it, now or next.
    pub fn wake(&self) {
        // The only failure of a non-blocking add is a counter at its limit: then it is awake anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Forgets past wakes. True when there was one. Clear first and look for work afterwards, or a wake between the
    /// two is lost.
    pub fn clear(&self) -> bool {
        rustix::io::read(&self.0, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a worker sleeps on at most: its own wake-up, its ordinary sockets, and its lanes.
const HANDLES_MAX: usize = QUEUES_MAX + 2;

/// Sleeps until one of these is readable, or the time is over (`poll(2)`). True when the first is.
pub(super) fn sleep<'d>(handles: impl Iterator<Item = BorrowedFd<'d>>, timeout_ns: u64) -> bool {
    let handles: ArrayVec<BorrowedFd<'_>, HANDLES_MAX> = handles.collect();
    let mut polled: ArrayVec<PollFd<'_>, HANDLES_MAX> =
        handles.iter().map(|handle| PollFd::from_borrowed_fd(*handle, PollFlags::IN)).collect();
    let timeout = Timespec {
        tv_sec: (timeout_ns / NS_PER_S).cast_signed(),
        tv_nsec: (timeout_ns % NS_PER_S).cast_signed(),
    };
    // A signal or a failure wakes it early, which costs one empty round.
    let _ = poll(&mut polled, Some(&timeout));
    polled.first().is_some_and(|first| !first.revents().is_empty())
}
