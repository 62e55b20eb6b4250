//! The rings between the companion and one worker, with the wake-ups that go with them: either side may be asleep.

use std::io;

use crate::transport::companion::{CompanionControlEnd, CompanionWorkerEnd, companion};
use crate::worker::wake::Wake;

/// The companion's side.
#[derive(Debug)]
pub struct ControlLink {
    /// Requests to the worker, replies from it.
    pub end: CompanionControlEnd,
    /// Wakes the worker, after requests were pushed.
    pub requests_pushed: Wake,
    /// Is signalled by the worker after it pushed replies or spare buffers.
    pub replies_pushed: Wake,
}

/// The worker's side.
#[derive(Debug)]
pub struct WorkerLink {
    /// Requests from the companion, replies to it.
    pub end: CompanionWorkerEnd,
    /// Readable when requests were pushed: sleep on this, and drain it before looking into the ring.
    pub requests_pushed: Wake,
    /// To be signalled once after a batch of replies or spare buffers.
    pub replies_pushed: Wake,
}

/// Makes both sides, with `datagrams` buffers between them.
///
/// # Errors
/// When the process has no descriptors left.
pub fn link(datagrams: usize) -> io::Result<(ControlLink, WorkerLink)> {
    let (control, worker) = companion(datagrams);
    let (requests_pushed, replies_pushed) = (Wake::new()?, Wake::new()?);
    Ok((
        ControlLink {
            end: control,
            requests_pushed: requests_pushed.clone(),
            replies_pushed: replies_pushed.clone(),
        },
        WorkerLink { end: worker, requests_pushed, replies_pushed },
    ))
}
