//! Datagrams over a port: frames in, the service's replies out through the frames of the same queue.
//!
//! A request is read where it was received and each reply is written into a frame of its own, so that no request
//! byte is overwritten while the reply is made of it. Every received frame is released in the poll that took it,
//! after the whole batch was served.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::config::ChecksumPolicy;
use crate::limits::{BATCH_FRAMES, FRAME_BYTES, REPLY_FRAMES_AT_HAND};
use crate::metrics::{DropReason, WorkerMetrics};
use crate::net::reply::ReplyHeaders;
use crate::net::udp::{self, UdpDatagram};
use crate::port::{FrameAccounts, FrameBatch, Port, PortDrops, PortError, PortSurvey, QueueOwner, Umem};
use crate::service::{Datagram, Replies, Via};
use crate::table::Hint;

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
    /// MTU of the link, as last read.
    mtu_bytes: usize,
    /// What the port had dropped when it was last counted.
    counted: PortDrops,
}

impl<P: Port, Q: QueueOwner> Bypass<P, Q> {
    /// Over this port and queue.
    #[must_use]
    pub fn new(mut port: P, queue: Q, checksum: ChecksumPolicy) -> Self {
        let umem = Arc::clone(port.umem());
        // A link whose MTU cannot be read bounds nothing: then the frame does.
        let mtu_bytes = port.survey().mtu_bytes.unwrap_or(FRAME_BYTES);
        Self {
            port,
            queue,
            umem,
            checksum,
            batch: FrameBatch::new(),
            mtu_bytes,
            counted: PortDrops::default(),
        }
    }

    /// Takes one batch, has each datagram served, and sends the replies. Returns the number of frames taken.
    ///
    /// The batch is gone through three times: parsed, with what the table will need on its way into the cache; then
    /// the items themselves; then served. So the waits for memory of up to 64 requests overlap.
    ///
    /// # Errors
    /// [`PortError`] when the port cannot go on, the gravest of them; what had been received was served for all
    /// that, and what could not be sent is queued or counted as dropped.
    pub fn poll(&mut self, metrics: &WorkerMetrics, server: &mut impl Server) -> Result<usize, PortError> {
        let Self { port, queue, umem, checksum, batch, mtu_bytes, .. } = self;
        let stocked = queue.poll();
        let mut outcome = PortError::graver(stocked, port.receive(batch));
        let frames = batch.len();
        if frames > 0 {
            let mut sent = 0;
            let link = Link { checksum: *checksum, mtu_bytes: *mtu_bytes };
            let served = serve_batch(port, queue, umem, link, batch, metrics, server, &mut sent);
            outcome = PortError::graver(outcome, served);
            for frame in batch.drain(..) {
                port.release(frame);
            }
            metrics.frames_received.add(frames as u64);
            metrics.frames_sent.add(sent);
        }
        // Also without work: what an earlier flush could not send yet goes out now.
        outcome = PortError::graver(outcome, port.flush());
        outcome.map(|()| frames)
    }

    /// Looks at what changes slowly: takes the link's MTU as it is now, and counts what the port has dropped since
    /// the last look. Makes system calls; wanted some times a second, and before the lane is given up.
    pub fn survey(&mut self, metrics: &WorkerMetrics) {
        let PortSurvey { mtu_bytes, drops } = self.port.survey();
        self.mtu_bytes = mtu_bytes.unwrap_or(self.mtu_bytes);
        let PortDrops { ring_full, no_frame, fill_ring_empty, fill_invalid, transmit_invalid, in_pieces } =
            drops;
        let counted = std::mem::replace(&mut self.counted, drops);
        for (reason, now, before) in [
            (DropReason::SocketRingFull, ring_full, counted.ring_full),
            (DropReason::SocketNoFrame, no_frame, counted.no_frame),
            (DropReason::FillInvalid, fill_invalid, counted.fill_invalid),
            (DropReason::TransmitInvalid, transmit_invalid, counted.transmit_invalid),
            (DropReason::InPieces, in_pieces, counted.in_pieces),
        ] {
            metrics.dropped_many(reason, now.saturating_sub(before));
        }
        metrics.fill_ring_empty.add(fill_ring_empty.saturating_sub(counted.fill_ring_empty));
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

/// What a lane's packets have to keep to.
#[derive(Clone, Copy)]
struct Link {
    checksum: ChecksumPolicy,
    mtu_bytes: usize,
}

/// Serves the datagrams of a batch, and counts in `sent` the replies handed to the port.
#[inline]
#[allow(clippy::too_many_arguments, reason = "the fields of one lane, borrowed apart")]
fn serve_batch<P: Port, Q: QueueOwner>(
    port: &mut P,
    queue: &mut Q,
    umem: &Umem,
    link: Link,
    batch: &FrameBatch,
    metrics: &WorkerMetrics,
    server: &mut impl Server,
    sent: &mut u64,
) -> Result<(), PortError> {
    let mut requests: ArrayVec<(UdpDatagram<'_>, Option<Hint>), BATCH_FRAMES> = ArrayVec::new();
    for frame in batch {
        match udp::receive(umem.packet(frame), link.checksum) {
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
    let mut outcome = Ok(());
    for (request, _) in &requests {
        // Long replies use up ring and frames at hand within a batch; the owner has more, and what was sent comes
        // back. Not once that has failed: the rest is served with what there is.
        if outcome.is_ok() && port.available().min(port.transmit_room()) < REPLY_FRAMES_AT_HAND {
            outcome = PortError::graver(port.flush(), queue.poll());
        }
        let headers = request.reply_headers();
        let payload_bytes_max = headers.payload_bytes_max(link.mtu_bytes);
        let mut replies = FrameReplies { port, umem, headers, payload_bytes_max, metrics, sent: 0 };
        server.serve(&datagram_of(request), &mut replies);
        *sent += replies.sent;
    }
    outcome
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
    payload_bytes_max: usize,
    metrics: &'a WorkerMetrics,
    sent: u64,
}

impl<P: Port> Replies for FrameReplies<'_, P> {
    fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    fn room(&self) -> usize {
        self.port.available().min(self.port.transmit_room())
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        if parts.iter().map(|part| part.len()).sum::<usize>() > self.payload_bytes_max {
            self.metrics.dropped(DropReason::ReplyTooLarge);
            return false;
        }
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
