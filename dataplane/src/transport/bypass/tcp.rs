//! Byte streams over a port: our own TCP on the frames of one queue.

use std::fmt;
use std::net::SocketAddr;

use super::FrameWriter;
use crate::limits::PACKET_BYTES_MAX;
use crate::metrics::{TcpEvent, WorkerMetrics};
use crate::net::tcp::too_big::TooBig;
use crate::net::tcp::{
    self, Admission as SynAdmission, Closed, Config, ConfigError, FlowId, Foreseen, Handler, Io, Seeds,
    Stack, Taken,
};
use crate::port::Port;
use crate::service::{Next, Output, Progress};
use crate::table::Hint;
use crate::time::Now;
use crate::transport::server::Server;
use crate::transport::streams::{Admission, StreamListeners};

/// Largest IP packet that a stack may send or be sent: a received one must fit a frame behind its headroom, Ethernet
/// header and VLAN tags included, or the XDP program passes it to the kernel.
pub const STREAM_MTU_BYTES_MAX: usize = PACKET_BYTES_MAX - LINK_BYTES_MAX;

/// Ethernet and two VLAN tags.
const LINK_BYTES_MAX: usize = 14 + 2 * 4;

/// The streams of one queue. A flow lives and ends with its queue's lane: the NIC brings all its frames there.
pub struct Streams {
    stack: Stack,
    listeners: StreamListeners,
}

impl Streams {
    /// For these listeners; the last time it allocates.
    ///
    /// # Errors
    /// When a bound of the configuration does not hold.
    pub fn new(config: Config, seeds: Seeds, listeners: StreamListeners) -> Result<Self, ConfigError> {
        Ok(Self { stack: Stack::new(config, seeds)?, listeners })
    }

    /// Takes frames with TCP segments.
    #[inline]
    pub(super) fn receive<P: Port>(
        &mut self,
        frames: &[&[u8]],
        server: &mut impl Server,
        writer: &mut FrameWriter<'_, P>,
    ) {
        let Self { stack, listeners } = self;
        let metrics = writer.metrics;
        stack.receive_batch(server.now(), frames, &mut Conversations { listeners, server, metrics }, writer);
    }

    /// Sends what is to be sent, one acknowledgement for all the segments of a batch, and does what time asks for.
    #[inline]
    pub(super) fn poll<P: Port>(&mut self, server: &mut impl Server, writer: &mut FrameWriter<'_, P>) {
        let Self { stack, listeners } = self;
        let metrics = writer.metrics;
        stack.poll(server.now(), &mut Conversations { listeners, server, metrics }, writer);
    }

    /// Says whether more frames lie there than were taken.
    #[inline]
    pub(super) fn frames_wait(&mut self, now: Now, wait: bool) {
        self.stack.frames_wait(now, wait);
    }

    /// Whether there is something to do though no frame came.
    #[inline]
    pub(super) fn is_due(&self, now: Now) -> bool {
        self.next_due_ns().is_some_and(|due_ns| due_ns <= now.monotonic_ns)
    }

    /// Closes every connection, once what was sent has gone: nobody is left waiting for a worker that ends.
    pub fn close_all(&mut self) {
        self.stack.close_all();
    }

    /// A router says that a packet was too large. What is none of these connections', or cannot be, is passed over.
    pub fn packet_too_big(&mut self, now: Now, message: &TooBig) {
        self.stack.packet_too_big(now, message);
    }

    /// When it wants to be polled next though no frame comes, in nanoseconds of the monotonic clock; 0 is at once.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.stack.next_due_ns()
    }

    /// How often each event has happened, in the order of [`TcpEvent::ALL`].
    pub fn events(&self) -> impl Iterator<Item = (TcpEvent, u64)> + use<> {
        let counted = *self.stack.statistics();
        let finished = counted.closed[Closed::Finished.index()];
        TcpEvent::ALL.iter().map(move |&event| {
            let count = match event {
                TcpEvent::Accepted => counted.accepted,
                TcpEvent::Finished => finished,
                TcpEvent::Broken => counted.closed.iter().sum::<u64>() - finished,
                TcpEvent::NoConnection => counted.no_flow,
                TcpEvent::Cookie => counted.cookies_sent,
                TcpEvent::Retransmitted => counted.retransmissions,
                TcpEvent::Timeout => counted.timeouts,
                TcpEvent::ResetSent => counted.resets_out,
                TcpEvent::Malformed => counted.malformed,
                TcpEvent::Checksum => counted.ipv4_checksum + counted.tcp_checksum,
                TcpEvent::Stray => counted.stray,
                TcpEvent::OutOfWindow => counted.out_of_window + counted.old_timestamp,
                TcpEvent::NoRoom => counted.no_block,
                TcpEvent::NoFrame => counted.no_output,
                TcpEvent::PathShrunk => counted.path_shrunk,
                TcpEvent::Unfinished => counted.closed[Closed::Unfinished.index()],
                TcpEvent::Stalled => counted.closed[Closed::Stalled.index()],
                TcpEvent::ResetWithheld => counted.resets_withheld,
            };
            (event, count)
        })
    }

    /// The stack, to look at.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Streams").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// What the stack tells, told to the services.
struct Conversations<'a, S> {
    listeners: &'a mut StreamListeners,
    server: &'a mut S,
    metrics: &'a WorkerMetrics,
}

impl<S: Server> Handler for Conversations<'_, S> {
    fn admit(&mut self, local: SocketAddr, peer: SocketAddr) -> SynAdmission {
        match self.listeners.admit(local, peer, self.metrics) {
            Admission::Serve => SynAdmission::Accept,
            Admission::NoService => SynAdmission::Refuse,
            Admission::NotAllowed => SynAdmission::Ignore,
        }
    }

    fn opened(&mut self, flow: FlowId, local: SocketAddr, peer: SocketAddr, io: &mut Io<'_>) {
        if !self.listeners.opened(flow.index(), local, peer) {
            io.abort();
        }
    }

    #[inline]
    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        let mut context = self.server.context();
        let Progress { consumed, next } =
            self.listeners.advance(&mut context, flow.index(), bytes, &mut SendBuffer(io));
        match next {
            // The stack counts from behind what was consumed, as the service does.
            Next::Input { bytes: needed } => {
                if io.peer_finished() {
                    // What it waits for does not come.
                    io.close();
                }
                Taken { consumed, needed }
            }
            Next::Room { bytes: _ } => {
                io.wait_for_room();
                Taken { consumed, needed: 0 }
            }
            Next::Close => {
                io.close();
                // Nobody reads what follows.
                Taken::all(bytes.len())
            }
        }
    }

    #[inline]
    fn foresee(&self, flow: FlowId, bytes: &[u8]) -> Option<Foreseen> {
        let key = self.listeners.key_hint(flow.index(), bytes)?;
        Some(Foreseen(self.server.prepare_key(key).0))
    }

    #[inline]
    fn anticipate(&self, foreseen: Foreseen) {
        self.server.anticipate(Hint(foreseen.0));
    }

    fn finished(&mut self, _: FlowId, io: &mut Io<'_>) {
        // Whoever only stops asking is to hear all that he has asked for.
        if !io.waits_for_room() {
            io.close();
        }
    }

    fn closed(&mut self, flow: FlowId, _: Closed) {
        self.listeners.closed(flow.index());
    }
}

/// A flow's send buffer as a service sees it.
struct SendBuffer<'a, 'f>(&'a mut Io<'f>);

impl Output for SendBuffer<'_, '_> {
    fn room(&self) -> usize {
        self.0.room()
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn push(&mut self, bytes: &[u8]) {
        let sent = self.0.send(bytes);
        debug_assert_eq!(sent, bytes.len(), "a service sends what there is room for");
    }
}

impl<P: Port> tcp::Output for FrameWriter<'_, P> {
    #[inline]
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        // What it has no room for the stack sends later, so that this is no drop.
        self.room() > 0 && self.write(|chunk| Some(build(chunk))).is_ok()
    }
}
