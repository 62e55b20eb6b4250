//! Datagrams over a port: frames in, the service's replies out through the frames of the same queue.
//!
//! A request is read where it was received and each reply is written into a frame of its own, so that no request
//! byte is overwritten while the reply is made of it. Every received frame is released in the poll that took it,
//! after the whole batch was served.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::config::ChecksumPolicy;
use crate::limits::{BATCH_FRAMES, MEMCACHED_DATAGRAM_BYTES_MAX, REPLY_BYTES_MAX};
use crate::metrics::{DropReason, WorkerMetrics};
use crate::net::reply::ReplyHeaders;
use crate::net::udp::{self, UdpDatagram};
use crate::port::{FrameAccounts, FrameBatch, Port, PortError, QueueOwner, Umem};
use crate::service::{Datagram, Replies, Via};
use crate::table::Hint;

/// Frames a request finds at hand for its reply, if there are any: those of the longest reply a listener may give.
const REPLY_FRAMES_AT_HAND: usize = REPLY_BYTES_MAX.div_ceil(MEMCACHED_DATAGRAM_BYTES_MAX);

/// What serves datagrams: first told what comes, in two steps, then handed each.
pub trait Server {
    /// Starts what a datagram will need on its way into the cache.
    fn prepare(&self, datagram: &Datagram<'_>) -> Option<Hint>;

    /// The second step, when the rest of the batch was prepared.
    fn anticipate(&self, hint: Hint);

    /// Serves a datagram.
    fn serve(&mut self, datagram: &Datagram<'_>, replies: &mut dyn Replies);
}

/// One queue's port, its owner and the frames in hand.
#[derive(Debug)]
pub struct Bypass<P, Q> {
    port: P,
    queue: Q,
    umem: Arc<Umem>,
    checksum: ChecksumPolicy,
    batch: FrameBatch,
}

impl<P: Port, Q: QueueOwner> Bypass<P, Q> {
    /// Over this port and queue.
    #[must_use]
    pub fn new(port: P, queue: Q, checksum: ChecksumPolicy) -> Self {
        let umem = Arc::clone(port.umem());
        Self { port, queue, umem, checksum, batch: FrameBatch::new() }
    }

    /// Takes one batch, has each datagram served, and sends the replies. Returns the number of frames taken.
    ///
    /// The batch is gone through three times: parsed, with what the table will need on its way into the cache; then
    /// the items themselves; then served. So the waits for memory of up to 64 requests overlap.
    ///
    /// # Errors
    /// [`PortError`] when the port cannot go on; what had been received by then was served.
    pub fn poll(&mut self, metrics: &WorkerMetrics, server: &mut impl Server) -> Result<usize, PortError> {
        self.queue.poll()?;
        let Self { port, queue, umem, checksum, batch } = self;
        let received = port.receive(batch);
        let frames = batch.len();
        let mut served = Ok(());
        if frames > 0 {
            let mut sent = 0;
            served = serve_batch(port, queue, umem, *checksum, batch, metrics, server, &mut sent);
            for frame in batch.drain(..) {
                port.release(frame);
            }
            metrics.frames_received.add(frames as u64);
            metrics.frames_sent.add(sent);
        }
        // Also without work: what an earlier flush could not send yet goes out now.
        port.flush()?;
        served.and(received).map(|()| frames)
    }

    /// Where every frame is, between polls.
    #[must_use]
    pub fn accounts(&self) -> FrameAccounts {
        let held = FrameAccounts { held: self.batch.len() as u64, ..FrameAccounts::default() };
        self.port.accounts() + self.queue.accounts() + held
    }

    /// True when frames wait for another poll to be sent.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        self.port.backlog() > 0
    }

    /// What to wait on for frames.
    #[must_use]
    pub fn wait_handle(&self) -> Option<BorrowedFd<'_>> {
        self.port.wait_handle()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> &P {
        &self.port
    }
}

/// Serves the datagrams of a batch, and counts in `sent` the replies handed to the port.
#[inline]
#[allow(clippy::too_many_arguments, reason = "the fields of one lane, borrowed apart")]
fn serve_batch<P: Port, Q: QueueOwner>(
    port: &mut P,
    queue: &mut Q,
    umem: &Umem,
    checksum: ChecksumPolicy,
    batch: &FrameBatch,
    metrics: &WorkerMetrics,
    server: &mut impl Server,
    sent: &mut u64,
) -> Result<(), PortError> {
    let mut requests: ArrayVec<(UdpDatagram<'_>, Option<Hint>), BATCH_FRAMES> = ArrayVec::new();
    for frame in batch {
        match udp::receive(umem.packet(frame), checksum) {
            Ok(request) => {
                let hint = server.prepare(&datagram_of(&request));
                requests.push((request, hint));
            }
            Err(reason) => metrics.dropped(reason),
        }
    }
    for &(_, hint) in &requests {
        if let Some(hint) = hint {
            server.anticipate(hint);
        }
    }
    for (request, _) in &requests {
        // Long replies use up ring and frames at hand within a batch; the owner has more, and what was sent comes back.
        if port.available().min(port.transmit_room()) < REPLY_FRAMES_AT_HAND {
            port.flush()?;
            queue.poll()?;
        }
        let headers = request.reply_headers();
        let mut replies = FrameReplies { port, umem, headers, metrics, sent: 0 };
        server.serve(&datagram_of(request), &mut replies);
        *sent += replies.sent;
    }
    Ok(())
}

#[inline]
fn datagram_of<'a>(request: &UdpDatagram<'a>) -> Datagram<'a> {
    let UdpDatagram { source, destination, payload, .. } = *request;
    Datagram { source, destination, payload, via: Via::Bypass }
}

/// Replies that leave through a port.
struct FrameReplies<'a, P> {
    port: &'a mut P,
    umem: &'a Umem,
    headers: ReplyHeaders,
    metrics: &'a WorkerMetrics,
    sent: u64,
}

impl<P: Port> Replies for FrameReplies<'_, P> {
    fn payload_bytes_max(&self) -> usize {
        self.headers.payload_bytes_max()
    }

    fn room(&self) -> usize {
        self.port.available().min(self.port.transmit_room())
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        let Some(mut frame) = self.port.allocate() else {
            self.metrics.dropped(DropReason::NoFrame);
            return false;
        };
        let mut written = false;
        self.umem.compose(&mut frame, |chunk| {
            let length = self.headers.write(chunk, parts);
            written = length.is_some();
            length.unwrap_or(0)
        });
        if !written {
            self.port.release(frame);
            self.metrics.dropped(DropReason::ReplyTooLarge);
            return false;
        }
        match self.port.transmit(frame) {
            Ok(()) => {
                self.sent += 1;
                true
            }
            Err(frame) => {
                self.port.release(frame);
                self.metrics.dropped(DropReason::TransmitFull);
                false
            }
        }
    }
}
