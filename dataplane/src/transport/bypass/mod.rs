//! Datagrams and streams over a port: frames in, the service's replies out through the frames of the same queue.
//!
//! A request is read where it was received and each reply is written into a frame of its own, so that no request
//! byte is overwritten while the reply is made of it. Every received frame is released in the poll that took it,
//! after the whole batch was served.

mod tcp;

pub use tcp::{STREAM_MTU_BYTES_MAX, Streams};

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;
use dataplane_ebpf::packet::{self, Transport};

use crate::config::ChecksumPolicy;
use crate::limits::{BATCH_FRAMES, FRAME_BYTES, REPLY_FRAMES_AT_HAND};
use crate::metrics::{DropReason, WorkerMetrics};
use crate::net::reply::ReplyHeaders;
use crate::net::udp::{self, UdpDatagram};
use crate::port::{FrameAccounts, FrameBatch, Port, PortDrops, PortError, PortSurvey, QueueOwner, Umem};
use crate::service::{Datagram, Replies, Via};
use crate::table::Hint;
use crate::transport::server::Server;

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

    /// Takes one batch, has each datagram and segment served, and sends the replies. Returns the number of frames
    /// taken. Without `streams` segments are dropped and counted.
    ///
    /// The batch is gone through three times: parsed, with what the table will need on its way into the cache; then
    /// the items themselves; then served. So the waits for memory of up to 64 requests overlap. Datagrams are served
    /// first, then segments, whose connections' records are fetched in the same way.
    ///
    /// # Errors
    /// [`PortError`] when the port cannot go on, the gravest of them; what had been received was served for all
    /// that, and what could not be sent is queued or counted as dropped.
    pub fn poll(
        &mut self,
        metrics: &WorkerMetrics,
        server: &mut impl Server,
        mut streams: Option<&mut Streams>,
    ) -> Result<usize, PortError> {
        let Self { port, queue, umem, checksum, batch, mtu_bytes, .. } = self;
        let stocked = queue.poll();
        let mut outcome = PortError::graver(stocked, port.receive(batch));
        let frames = batch.len();
        let link = Link { checksum: *checksum, mtu_bytes: *mtu_bytes };
        let mut lane = Serving { port, queue, umem, link, metrics, sent: 0 };
        if frames > 0 {
            let served = lane.batch(batch, server, streams.as_deref_mut());
            outcome = PortError::graver(outcome, served);
            for frame in batch.drain(..) {
                lane.port.release(frame);
            }
            metrics.frames_received.add(frames as u64);
        }
        if let Some(streams) = streams
            && streams.is_due(server.now())
        {
            outcome = PortError::graver(outcome, lane.make_room());
            streams.frames_wait(server.now(), frames == BATCH_FRAMES);
            streams.poll(server, &mut lane.writer());
        }
        if lane.sent > 0 {
            metrics.frames_sent.add(lane.sent);
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

    /// MTU of the link, as last read, in bytes.
    #[must_use]
    pub fn mtu_bytes(&self) -> usize {
        self.mtu_bytes
    }

    /// What it makes of checksums.
    #[must_use]
    pub fn checksum(&self) -> ChecksumPolicy {
        self.checksum
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

/// One lane while it serves.
struct Serving<'a, P, Q> {
    port: &'a mut P,
    queue: &'a mut Q,
    umem: &'a Umem,
    link: Link,
    metrics: &'a WorkerMetrics,
    /// Frames handed to the port.
    sent: u64,
}

/// A frame that was parsed.
enum Parsed<'a> {
    Datagram(UdpDatagram<'a>, Option<Hint>),
    /// The whole frame: the stack keeps to its own checks.
    Segment(&'a [u8]),
}

impl<P: Port, Q: QueueOwner> Serving<'_, P, Q> {
    #[inline]
    fn batch<S: Server>(
        &mut self,
        batch: &FrameBatch,
        server: &mut S,
        streams: Option<&mut Streams>,
    ) -> Result<(), PortError> {
        let mut requests: ArrayVec<(UdpDatagram<'_>, Option<Hint>), BATCH_FRAMES> = ArrayVec::new();
        let mut segments: ArrayVec<&[u8], BATCH_FRAMES> = ArrayVec::new();
        let umem = self.umem;
        for frame in batch {
            match self.parse(umem.packet(frame), server) {
                Ok(Parsed::Datagram(request, hint)) => requests.push((request, hint)),
                Ok(Parsed::Segment(frame)) => segments.push(frame),
                Err(reason) => self.metrics.dropped(reason),
            }
        }
        for (_, hint) in &requests {
            if let Some(hint) = *hint {
                server.anticipate(hint);
            }
        }
        let mut outcome = Ok(());
        for (request, _) in &requests {
            // Not once that has failed: the rest is served with what there is.
            if outcome.is_ok() {
                outcome = self.make_room();
            }
            self.datagram(request, server);
        }
        // Segments of one stream stay in order; between those of different ones, and datagrams, there is none.
        match streams {
            Some(streams) => {
                // Each is answered by one frame at most, before the stream's own turn.
                for segments in segments.chunks(REPLY_FRAMES_AT_HAND) {
                    if outcome.is_ok() {
                        outcome = self.make_room();
                    }
                    streams.receive(segments, server, &mut self.writer());
                }
            }
            None => self.metrics.dropped_many(DropReason::NoService, segments.len() as u64),
        }
        outcome
    }

    #[inline]
    fn parse<'f, S: Server>(&self, packet: &'f [u8], server: &S) -> Result<Parsed<'f>, DropReason> {
        let parsed = packet::parse(packet).map_err(|_| DropReason::Malformed)?;
        if matches!(parsed.transport, Transport::Tcp(_)) {
            return Ok(Parsed::Segment(packet));
        }
        let request = udp::verify(packet, &parsed, self.link.checksum)?;
        let hint = server.prepare(&datagram_of(&request));
        Ok(Parsed::Datagram(request, hint))
    }

    #[inline]
    fn datagram<S: Server>(&mut self, request: &UdpDatagram<'_>, server: &mut S) {
        let headers = request.reply_headers();
        let payload_bytes_max = headers.payload_bytes_max(self.link.mtu_bytes);
        let mut replies = FrameReplies { writer: self.writer(), headers, payload_bytes_max };
        server.serve(&datagram_of(request), &mut replies);
    }

    /// Long replies use up ring and frames at hand within a batch; the owner has more, and what was sent comes back.
    #[inline]
    fn make_room(&mut self) -> Result<(), PortError> {
        if self.port.available().min(self.port.transmit_room()) < REPLY_FRAMES_AT_HAND {
            return PortError::graver(self.port.flush(), self.queue.poll());
        }
        Ok(())
    }

    #[inline]
    fn writer(&mut self) -> FrameWriter<'_, P> {
        FrameWriter { port: self.port, umem: self.umem, metrics: self.metrics, sent: &mut self.sent }
    }
}

#[inline]
fn datagram_of<'a>(request: &UdpDatagram<'a>) -> Datagram<'a> {
    let UdpDatagram { source, destination, payload, .. } = *request;
    Datagram { source, destination, payload, via: Via::Bypass }
}

/// Writes frames and hands them to a port.
struct FrameWriter<'a, P> {
    port: &'a mut P,
    umem: &'a Umem,
    metrics: &'a WorkerMetrics,
    sent: &'a mut u64,
}

impl<P: Port> FrameWriter<'_, P> {
    /// Frames that can be sent right now.
    #[inline]
    fn room(&self) -> usize {
        self.port.available().min(self.port.transmit_room())
    }

    /// Sends the frame that `build` makes in a whole chunk; it returns how long that is. `None` and 0 send nothing.
    ///
    /// # Errors
    /// Why nothing was sent.
    #[inline]
    fn write(&mut self, build: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<(), DropReason> {
        let Some(mut frame) = self.port.allocate() else { return Err(DropReason::NoFrame) };
        let mut bytes = 0;
        self.umem.compose(&mut frame, |chunk| {
            bytes = build(chunk).unwrap_or(0);
            bytes
        });
        if bytes == 0 {
            self.port.release(frame);
            return Err(DropReason::ReplyTooLarge);
        }
        match self.port.transmit(frame) {
            Ok(()) => {
                *self.sent += 1;
                Ok(())
            }
            Err(frame) => {
                self.port.release(frame);
                Err(DropReason::TransmitFull)
            }
        }
    }
}

/// Replies to one datagram that leave through a port.
struct FrameReplies<'a, P> {
    writer: FrameWriter<'a, P>,
    headers: ReplyHeaders,
    payload_bytes_max: usize,
}

impl<P: Port> Replies for FrameReplies<'_, P> {
    fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    fn room(&self) -> usize {
        self.writer.room()
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        if parts.iter().map(|part| part.len()).sum::<usize>() > self.payload_bytes_max {
            self.writer.metrics.dropped(DropReason::ReplyTooLarge);
            return false;
        }
        let sent = self.writer.write(|chunk| self.headers.write(chunk, parts));
        if let Err(reason) = sent {
            self.writer.metrics.dropped(reason);
        }
        sent.is_ok()
    }
}
