//! Connections: accepted, read into provided buffers, answered, closed.
//!
//! A connection has one receive and one send under way at most, so that its bytes keep their order without a link between
//! operations. It receives only while what comes can be kept: not while its client does not read its replies, nor while the
//! pool has no block for a request that is not whole. So a client that sends without reading fills the kernel's own
//! buffers, its window shuts, and nobody else notices.
//!
//! | used up | what happens |
//! |---|---|
//! | connections | who connects is closed at once |
//! | provided buffers | receives are tried again with the next poll |
//! | blocks for what is unread | whose request needs one of that size waits; a connection whose first bytes find none is reset |
//! | chunks for what is to be sent | each connection may have a quarter of what is free, so that the last ones are never taken; requests wait for room |
//!
//! Each connection has one receive at a time and not one that goes on: how much may come is known with each, so that nothing
//! has to be thrown away. Arming them costs some 5 % of a busy worker's time.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use rustix::net::Shutdown;

use super::buffers::Buffers;
use super::connection::{Connection, Phase};
use super::error::KernelError;
use super::gather::Gathers;
use super::ring::{Completion, Ring, Token, error_of};
use crate::limits::{
    KERNEL_BEGINNING_BYTES, KERNEL_CHUNK_BYTES, KERNEL_CHUNKS, KERNEL_OUTPUT_BYTES_LONG,
    KERNEL_RECEIVE_BUFFERS, KERNEL_RECEIVE_BYTES, STREAM_INPUT_BYTES_LONG, STREAM_INPUT_BYTES_MAX,
    STREAM_INPUTS_LONG_MAX, STREAM_OUTPUT_BYTES_MAX,
};
use crate::metrics::{TcpEvent, WorkerMetrics};
use crate::net::tcp::chain::Chain;
use crate::net::tcp::pool::{Blocks, Chunks, Class};
use crate::service::{Next, Output, Progress};
use crate::time::{NS_PER_S, Now};
use crate::transport::server::Server;
use crate::transport::streams::{Admission, StreamListeners};

/// Time in which a client has to read [`READ_BYTES_MIN`] of the replies that wait for it, or all of them, or its connection is
/// given up.
const STALLED_NS: u64 = 60 * NS_PER_S;
/// A kilobyte a second: less than any link that a client of a cache is behind.
const READ_BYTES_MIN: usize = 64 << 10;
/// Time a client is given to close after we have.
const LINGER_NS: u64 = 5 * NS_PER_S;
/// Connections looked at in one sweep, of which there are some a second.
const SWEPT: usize = 4_096;

/// After what time a connection is closed.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a byte either way; 0 is never.
    pub idle_ns: u64,
    /// With a request that is not whole; 0 is never.
    pub request_ns: u64,
}

struct ListeningSocket {
    descriptor: OwnedFd,
    accepting: bool,
}

/// The connections of one worker.
pub(super) struct Connections {
    listeners: StreamListeners,
    sockets: Vec<ListeningSocket>,
    slots: Box<[Option<Connection>]>,
    free: Vec<u32>,
    /// To be looked at once the completions are done with.
    listed: Vec<u32>,
    /// Those that wait for a pool, to be looked at when something was given back; and a list in reserve for their exchange.
    waiting: Vec<u32>,
    waited: Vec<u32>,
    /// Something was given back to a pool since they were looked at.
    released: bool,
    pools: Pools,
    patience: Patience,
    counts: [u64; TcpEvent::ALL.len()],
    /// Where the next sweep begins.
    swept: usize,
    closing: bool,
    suspended: bool,
    /// A failed accept was told in the log.
    accept_failed: bool,
}

/// What all connections share.
struct Pools {
    buffers: Buffers,
    blocks: Blocks<()>,
    chunks: Chunks,
    gathers: Gathers,
}

impl Connections {
    pub(super) fn new(
        ring: &Ring,
        group: u16,
        sockets: Vec<OwnedFd>,
        listeners: StreamListeners,
        connections_max: usize,
        patience: Patience,
    ) -> Result<Self, KernelError> {
        let buffers = Buffers::register(ring, group, KERNEL_RECEIVE_BUFFERS, KERNEL_RECEIVE_BYTES)?;
        let class = |bytes, count| Class { bytes, count };
        let count = if sockets.is_empty() { 0 } else { connections_max };
        let blocks = if sockets.is_empty() {
            Blocks::new([class(1, 0); 4], &())
        } else {
            Blocks::new(
                [
                    // The beginning of a request, for every connection there may be.
                    class(KERNEL_BEGINNING_BYTES, connections_max),
                    class(KERNEL_RECEIVE_BYTES, 1_024),
                    class(STREAM_INPUT_BYTES_LONG, 256),
                    class(STREAM_INPUT_BYTES_MAX, STREAM_INPUTS_LONG_MAX),
                ],
                &(),
            )
        };
        let chunks = if sockets.is_empty() { 0 } else { KERNEL_CHUNKS };
        let sockets = sockets.into_iter().map(|descriptor| ListeningSocket { descriptor, accepting: false });
        Ok(Self {
            listeners,
            sockets: sockets.collect(),
            slots: (0..count).map(|_| None).collect(),
            free: (0..count as u32).rev().collect(),
            listed: Vec::with_capacity(count),
            waiting: Vec::with_capacity(count),
            waited: Vec::with_capacity(count),
            released: false,
            accept_failed: false,
            pools: Pools {
                buffers,
                blocks,
                chunks: Chunks::new(chunks, KERNEL_CHUNK_BYTES),
                gathers: Gathers::new(),
            },
            patience,
            counts: [0; TcpEvent::ALL.len()],
            swept: 0,
            closing: false,
            suspended: false,
        })
    }

    /// Has every socket accept connections.
    pub(super) fn accept(&mut self, ring: &mut Ring) {
        if self.closing {
            return;
        }
        for (number, socket) in self.sockets.iter_mut().enumerate().filter(|(_, socket)| !socket.accepting) {
            let accept =
                opcode::AcceptMulti::new(Fd(socket.descriptor.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
            // SAFETY: the entry points to no memory: it asks for no address.
            unsafe { ring.push(accept, Token::Accept(number as u32)) };
            socket.accepting = true;
        }
    }

    /// Somebody has connected.
    pub(super) fn accepted(
        &mut self,
        number: u32,
        completion: Completion,
        metrics: &WorkerMetrics,
        now: Now,
    ) {
        if let Some(socket) = self.sockets.get_mut(number as usize)
            && !completion.more()
        {
            // Taken up again by the next sweep: what ends it most often, a want of descriptors, lasts.
            socket.accepting = false;
        }
        if completion.result < 0 {
            self.count(TcpEvent::NoConnection);
            if !std::mem::replace(&mut self.accept_failed, true) {
                let error = error_of(completion.result);
                tracing::warn!(%error, "connections cannot be accepted; told once");
            }
            return;
        }
        // SAFETY: the completion of an accept carries a new descriptor, and hands it over.
        let descriptor = unsafe { OwnedFd::from_raw_fd(completion.result) };
        let ends = rustix::net::getsockname(&descriptor).and_then(|local| {
            let peer = rustix::net::getpeername(&descriptor)?;
            Ok((SocketAddr::try_from(local), peer.map(SocketAddr::try_from)))
        });
        // A client that has gone again has no address any more.
        let Ok((Ok(local), Some(Ok(peer)))) = ends else { return };
        if self.closing || self.listeners.admit(local, peer, metrics) != Admission::Serve {
            return;
        }
        let Some(slot) = self.free.pop() else {
            self.count(TcpEvent::NoConnection);
            return;
        };
        if !self.listeners.opened(slot as usize, local, peer) {
            self.free.push(slot);
            return;
        }
        let mut connection = Connection::new(descriptor, now.monotonic_ns);
        if self.suspended
            && let Some(words) = self.listeners.unavailable(local)
        {
            let Pools { chunks, .. } = &mut self.pools;
            connection.output.push(chunks, words, STREAM_OUTPUT_BYTES_MAX as u32);
            connection.phase = Phase::Finishing;
        }
        self.slots[slot as usize] = Some(connection);
        self.count(TcpEvent::Accepted);
        self.list(slot);
    }

    /// Bytes came, or the end.
    pub(super) fn received(&mut self, number: u32, completion: Completion, server: &mut impl Server) {
        let Self { listeners, slots, pools, counts, .. } = self;
        let buffer = completion
            .buffer()
            .map(|id| pools.buffers.filled(id, usize::try_from(completion.result).unwrap_or(0)));
        let Some(connection) = slots.get_mut(number as usize).and_then(Option::as_mut) else {
            debug_assert!(false, "a connection outlives its operations");
            return;
        };
        connection.receiving = false;
        match (completion.result, &buffer) {
            (1.., Some(buffer)) => {
                if connection.phase == Phase::Open {
                    connection.active_ns = server.now().monotonic_ns;
                    let Pools { buffers, blocks, chunks, .. } = pools;
                    let bytes = buffers.bytes(buffer);
                    let kept = if connection.unread.is_none() {
                        // The usual way: whole requests, served where they were received.
                        let done = advance(listeners, server, number, connection, bytes, chunks);
                        connection.keep(blocks, &bytes[done..])
                    } else {
                        let kept = connection.keep(blocks, bytes);
                        if kept && connection.unread_bytes() >= connection.needed {
                            advance_unread(listeners, server, number, connection, blocks, chunks);
                        }
                        kept
                    };
                    if !kept {
                        counts[TcpEvent::NoRoom as usize] += 1;
                        connection.phase = Phase::Over;
                    }
                }
            }
            // What we have shut down ourselves has not ended of itself.
            (0, _) => connection.ended |= connection.phase != Phase::Over,
            // Tried again once buffers have come back.
            (error, _) if error == -libc::ENOBUFS => {}
            _ => connection.phase = Phase::Over,
        }
        if let Some(buffer) = buffer {
            pools.buffers.give_back(buffer);
        }
        self.released = true;
        self.list(number);
    }

    /// Bytes have gone.
    pub(super) fn sent(&mut self, number: u32, completion: Completion, now: Now) {
        let Self { slots, pools, .. } = self;
        let Some(connection) = slots.get_mut(number as usize).and_then(Option::as_mut) else {
            debug_assert!(false, "a connection outlives its operations");
            return;
        };
        connection.sending = false;
        pools.gathers.release(number);
        match u32::try_from(completion.result) {
            Ok(sent) if sent > 0 => {
                connection.active_ns = now.monotonic_ns;
                connection.read_bytes += sent as usize;
                connection.output.consume(&mut pools.chunks, sent.min(connection.output.bytes()));
                self.released = true;
            }
            _ => connection.phase = Phase::Over,
        }
        self.list(number);
    }

    /// Once the completions are done with: sends, receives, and ends what is to end.
    pub(super) fn settle(&mut self, ring: &mut Ring, server: &mut impl Server) {
        self.settle_listed(ring, server);
        // After all others, who have given back what they had.
        if std::mem::take(&mut self.released) && !self.waiting.is_empty() {
            std::mem::swap(&mut self.waiting, &mut self.waited);
            for at in 0..self.waited.len() {
                let number = self.waited[at];
                if let Some(connection) = &mut self.slots[number as usize] {
                    connection.waiting = false;
                    self.list(number);
                }
            }
            self.waited.clear();
            self.settle_listed(ring, server);
        }
        self.pools.buffers.publish();
    }

    fn settle_listed(&mut self, ring: &mut Ring, server: &mut impl Server) {
        while let Some(number) = self.listed.pop() {
            self.settle_one(number, ring, server);
        }
    }

    fn settle_one(&mut self, number: u32, ring: &mut Ring, server: &mut impl Server) {
        let Self { listeners, slots, pools, waiting, counts, free, released, .. } = self;
        let Pools { buffers, blocks, chunks, gathers } = pools;
        let place = &mut slots[number as usize];
        let Some(connection) = place else { return };
        connection.listed = false;

        if connection.phase == Phase::Open
            && connection.room_wanted > 0
            && room(&connection.output, chunks) >= connection.room_wanted
        {
            connection.room_wanted = 0;
            advance_unread(listeners, server, number, connection, blocks, chunks);
        }
        if connection.phase == Phase::Open && connection.ended && connection.room_wanted == 0 {
            connection.phase = Phase::Finishing;
        }
        if connection.phase != Phase::Over && !connection.sending && connection.output.bytes() > 0 {
            gathers.send(ring, number, connection, chunks);
        }
        let drained = !connection.sending && connection.output.bytes() == 0;
        if connection.phase == Phase::Finishing && drained {
            let told = rustix::net::shutdown(&connection.descriptor, Shutdown::Write);
            connection.phase = if connection.ended || told.is_err() { Phase::Over } else { Phase::Lingering };
            connection.active_ns = server.now().monotonic_ns;
        }
        if connection.phase == Phase::Lingering && connection.ended {
            connection.phase = Phase::Over;
        }
        match connection.phase {
            Phase::Open | Phase::Lingering if connection.receiving || connection.ended => {}
            Phase::Open if connection.room_wanted > 0 => {}
            Phase::Open | Phase::Lingering => {
                let room = match connection.phase {
                    Phase::Lingering => KERNEL_RECEIVE_BYTES,
                    _ => connection.make_room(blocks, KERNEL_RECEIVE_BYTES),
                };
                if room > 0 {
                    receive(ring, number, connection, buffers, room);
                }
            }
            Phase::Finishing => {}
            Phase::Over if connection.receiving || connection.sending => {
                // Completes both at once.
                let _ = rustix::net::shutdown(&connection.descriptor, Shutdown::Both);
            }
            Phase::Over => {
                let event = if connection.ended { TcpEvent::Finished } else { TcpEvent::Broken };
                counts[event as usize] += 1;
                connection.release(blocks, chunks);
                *released = true;
                listeners.closed(number as usize);
                *place = None;
                free.push(number);
                return;
            }
        }
        // Nothing is under way that would bring it here again: it waits for what others have.
        let stuck = !connection.receiving && !connection.sending && !connection.waiting;
        if stuck && matches!(connection.phase, Phase::Open | Phase::Lingering) {
            connection.waiting = true;
            waiting.push(number);
        }
    }

    /// Closes whose time is over; wanted some times a second.
    pub(super) fn sweep(&mut self, ring: &mut Ring, now: Now) {
        self.accept(ring);
        let Patience { idle_ns, request_ns } = self.patience;
        let count = self.slots.len();
        for _ in 0..count.min(SWEPT) {
            let number = self.swept as u32;
            self.swept = (self.swept + 1) % count;
            let Some(connection) = &mut self.slots[number as usize] else { continue };
            let quiet_ns = now.monotonic_ns.saturating_sub(connection.active_ns);
            let incomplete = connection.phase == Phase::Open
                && connection.room_wanted == 0
                && connection.unread_bytes() > 0;
            if !incomplete {
                connection.incomplete_ns = 0;
            } else if connection.incomplete_ns == 0 {
                connection.incomplete_ns = now.monotonic_ns;
            }
            let waited_ns = match connection.incomplete_ns {
                0 => 0,
                since => now.monotonic_ns.saturating_sub(since),
            };
            if connection.output.bytes() == 0 {
                (connection.reading_since_ns, connection.read_bytes) = (now.monotonic_ns, 0);
            }
            let reading_ns = now.monotonic_ns.saturating_sub(connection.reading_since_ns);
            let stalled = reading_ns > STALLED_NS && connection.read_bytes < READ_BYTES_MIN;
            if reading_ns > STALLED_NS && !stalled {
                (connection.reading_since_ns, connection.read_bytes) = (now.monotonic_ns, 0);
            }
            let over = match connection.phase {
                Phase::Lingering => quiet_ns > LINGER_NS,
                Phase::Open | Phase::Finishing => {
                    stalled || idle_ns > 0 && quiet_ns > idle_ns || request_ns > 0 && waited_ns > request_ns
                }
                Phase::Over => true,
            };
            if over {
                connection.phase = Phase::Over;
                self.list(number);
            }
        }
    }

    /// Accepts nobody any more, and ends each connection once its replies have gone.
    pub(super) fn close_all(&mut self) {
        self.closing = true;
        for number in 0..self.slots.len() as u32 {
            if let Some(connection) = &mut self.slots[number as usize]
                && connection.phase == Phase::Open
            {
                connection.phase = Phase::Finishing;
                self.list(number);
            }
        }
    }

    /// See [`Kernel::set_suspended`](super::Kernel::set_suspended).
    pub(super) fn set_suspended(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// Whether replies are still on their way.
    pub(super) fn is_sending(&self) -> bool {
        self.slots.iter().flatten().any(|connection| connection.sending || connection.output.bytes() > 0)
    }

    /// Whether somebody waits to be looked at.
    pub(super) fn is_due(&self) -> bool {
        !self.listed.is_empty() || self.released && !self.waiting.is_empty()
    }

    /// Connections open.
    pub(super) fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How often each event has happened, in the order of [`TcpEvent::ALL`].
    pub(super) fn counts(&self) -> &[u64; TcpEvent::ALL.len()] {
        &self.counts
    }

    fn list(&mut self, number: u32) {
        if let Some(connection) = &mut self.slots[number as usize]
            && !connection.listed
        {
            connection.listed = true;
            self.listed.push(number);
        }
    }

    fn count(&mut self, event: TcpEvent) {
        self.counts[event as usize] += 1;
    }
}

/// Bytes a connection's output takes now. Beyond [`KERNEL_OUTPUT_BYTES_LONG`] it takes nothing, so that only a single reply
/// can be longer: who asks for much and reads slowly holds little.
fn room(output: &Chain, chunks: &Chunks) -> usize {
    let bytes = output.bytes() as usize;
    if bytes >= KERNEL_OUTPUT_BYTES_LONG {
        return 0;
    }
    (STREAM_OUTPUT_BYTES_MAX - bytes).min(chunks.available() / 4 * chunks.chunk_bytes())
}

/// Shows a connection's service its input; returns how much of it is done with.
#[inline]
fn advance(
    listeners: &mut StreamListeners,
    server: &mut impl Server,
    number: u32,
    connection: &mut Connection,
    input: &[u8],
    chunks: &mut Chunks,
) -> usize {
    let mut output = SendBuffer { chain: &mut connection.output, chunks };
    let Progress { consumed, next } =
        listeners.advance(&mut server.context(), number as usize, input, &mut output);
    if consumed > 0 {
        connection.incomplete_ns = 0;
    }
    match next {
        Next::Input { bytes } => connection.needed = bytes.max(input.len() - consumed + 1),
        Next::Room { bytes } => connection.room_wanted = bytes.clamp(1, STREAM_OUTPUT_BYTES_MAX),
        Next::Close => {
            connection.phase = Phase::Finishing;
            // Nobody reads what follows.
            return input.len();
        }
    }
    if connection.needed > STREAM_INPUT_BYTES_MAX {
        debug_assert!(false, "a service asks for no more than a message may have");
        connection.phase = Phase::Over;
    }
    consumed
}

/// The same with the bytes that are kept.
fn advance_unread(
    listeners: &mut StreamListeners,
    server: &mut impl Server,
    number: u32,
    connection: &mut Connection,
    blocks: &mut Blocks<()>,
    chunks: &mut Chunks,
) {
    let done = advance(listeners, server, number, connection, connection.peek(blocks), chunks);
    connection.consume(blocks, done);
}

/// Receives at most so many bytes.
fn receive(ring: &mut Ring, number: u32, connection: &mut Connection, buffers: &Buffers, most: usize) {
    let descriptor = Fd(connection.descriptor.as_fd().as_raw_fd());
    let receive = opcode::Recv::new(descriptor, std::ptr::null_mut(), most as u32)
        .buf_group(buffers.group())
        .build()
        .flags(squeue::Flags::BUFFER_SELECT);
    // SAFETY: the entry points to no memory; the kernel takes a provided buffer.
    unsafe { ring.push(receive, Token::Receive(number)) };
    connection.receiving = true;
}

/// A connection's output as a service sees it.
struct SendBuffer<'a> {
    chain: &'a mut Chain,
    chunks: &'a mut Chunks,
}

impl Output for SendBuffer<'_> {
    fn room(&self) -> usize {
        room(self.chain, self.chunks)
    }

    fn capacity(&self) -> usize {
        STREAM_OUTPUT_BYTES_MAX
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        let pushed = self.chain.push(self.chunks, bytes, STREAM_OUTPUT_BYTES_MAX as u32);
        debug_assert_eq!(pushed, bytes.len(), "a service sends what there is room for");
    }
}
