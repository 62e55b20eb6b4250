//! What a worker with a ring sleeps on besides its ordinary sockets: its own wake-up, and its lanes.
//!
//! The lanes' AF_XDP sockets are polled through an epoll of their own. A poll that the ring has on a descriptor keeps its
//! file open, and a ring whose process was killed is taken apart later than the process: until then an AF_XDP socket would
//! still be in the XDP program's map, and packets would go to a worker that is no more. An epoll keeps nothing open
//! (epoll(7), question 6).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::error::KernelError;
use super::ring::{Completion, Ring, Token};

/// The ring tells of the worker's wake-up under this number, and of all lanes under the next.
const WAKE: u32 = 0;
const LANES: u32 = 1;

/// What is slept on.
pub(super) struct Watch {
    lanes: OwnedFd,
    /// By lane: whether the epoll has its handle.
    watched: Vec<bool>,
    /// Whether the ring tells of the wake-up, and of the lanes.
    armed: [bool; 2],
}

impl Watch {
    pub(super) fn new(lanes_max: usize) -> Result<Self, KernelError> {
        let lanes = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|error| KernelError::System { what: "making an epoll", source: error.into() })?;
        Ok(Self { lanes, watched: vec![false; lanes_max], armed: [false; 2] })
    }

    /// Has the ring tell once of each.
    pub(super) fn arm<'d>(
        &mut self,
        ring: &mut Ring,
        wake: BorrowedFd<'_>,
        lanes: impl Iterator<Item = (usize, BorrowedFd<'d>)>,
    ) {
        for (lane, handle) in lanes {
            if let Some(watched) = self.watched.get_mut(lane).filter(|watched| !**watched) {
                // What cannot be watched is polled when the sleep is over, which is soon.
                let added = epoll::add(&self.lanes, handle, EventData::new_u64(lane as u64), EventFlags::IN);
                *watched = added.is_ok();
            }
        }
        for (number, handle) in [(WAKE, wake), (LANES, self.lanes.as_fd())] {
            if !std::mem::replace(&mut self.armed[number as usize], true) {
                ring.wait_for(handle, number);
            }
        }
    }

    /// The ring has told.
    pub(super) fn told(&mut self, number: u32) {
        if let Some(armed) = self.armed.get_mut(number as usize) {
            *armed = false;
        }
    }

    /// A lane's handle was closed, by which the epoll has let go of it.
    pub(super) fn forget(&mut self, lane: usize) {
        if let Some(watched) = self.watched.get_mut(lane) {
            *watched = false;
        }
    }

    /// Whether this tells of the wake-up.
    pub(super) fn is_wake(completion: &Completion) -> bool {
        completion.token == Token::Ready(WAKE)
    }
}
