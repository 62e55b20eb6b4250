//! Conversations with a table of their own, for tests, fuzzing and simulation.

use std::net::{Ipv4Addr, SocketAddr};

use super::connection::OUTPUT_BYTES_ENOUGH;
use super::stream::Resp;
use crate::limits::ITEM_BYTES_MAX;
use crate::metrics::WorkerMetrics;
use crate::service::{Context, Next, Output, ServiceSetup, StreamService};
use crate::table::Table;
use crate::time::Now;

/// A listener whose items may be as long as any.
#[must_use]
pub fn roomy_setup() -> ServiceSetup {
    ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: 0,
        connections_max: 16,
        item_bytes_max: ITEM_BYTES_MAX,
        started: Now::default(),
    }
}

/// A send buffer that grows up to a capacity.
#[derive(Clone, Debug)]
pub struct SendBuffer {
    /// What waits to be sent.
    pub bytes: Vec<u8>,
    /// Most bytes that it takes.
    pub capacity: usize,
}

impl Output for SendBuffer {
    fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "{} bytes pushed into a room of {}", bytes.len(), self.room());
        self.bytes.extend_from_slice(bytes);
    }
}

/// The number of the one connection.
const CONNECTION: usize = 0;

/// One worker's service, with one connection to it.
#[derive(Debug)]
pub struct Conversation<T> {
    /// What it works on.
    pub table: T,
    /// What it counted.
    pub metrics: WorkerMetrics,
    /// Nothing more is taken.
    pub closed: bool,
    /// What the connection waits for.
    pub next: Next,
    service: Resp,
    unread: Vec<u8>,
    output: SendBuffer,
}

impl<T: Table> Conversation<T> {
    /// A conversation with `table`, with room for every reply.
    pub fn new(table: T, setup: &ServiceSetup) -> Self {
        Self::with_capacity(table, setup, 8 * OUTPUT_BYTES_ENOUGH)
    }

    /// One whose send buffer takes so many bytes.
    pub fn with_capacity(table: T, setup: &ServiceSetup, capacity: usize) -> Self {
        let mut service = Resp::new(setup);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 6379));
        service.opened(CONNECTION, address, address);
        Self {
            table,
            metrics: WorkerMetrics::default(),
            closed: false,
            next: Next::Input { bytes: 1 },
            service,
            unread: Vec::new(),
            output: SendBuffer { bytes: Vec::new(), capacity },
        }
    }

    /// Takes bytes and does what can be done with them and the room there is.
    ///
    /// # Panics
    /// When the connection breaks its promises to whoever drives it.
    pub fn take(&mut self, now: Now, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let mut context = Context { now, table: &mut self.table, metrics: &self.metrics };
        let progress = self.service.advance(&mut context, CONNECTION, &self.unread, &mut self.output);
        assert!(progress.consumed <= self.unread.len(), "consumes what is there");
        self.unread.drain(..progress.consumed);
        self.next = progress.next;
        match progress.next {
            Next::Input { bytes } => assert!(bytes > self.unread.len(), "waits for more than there is"),
            Next::Room { bytes } => {
                assert!(bytes > self.output.room(), "waits for more room than there is");
                assert!(bytes <= self.output.capacity, "waits for room that there can be");
            }
            Next::Close => self.closed = true,
        }
    }

    /// Sends what waits to be sent, at most so many bytes of it.
    pub fn send(&mut self, bytes_max: usize) -> Vec<u8> {
        let bytes = bytes_max.min(self.output.bytes.len());
        self.output.bytes.drain(..bytes).collect()
    }

    /// Takes bytes, in whatever pieces, and gives back the replies to all requests that are now whole.
    pub fn say(&mut self, now: Now, bytes: &[u8]) -> Vec<u8> {
        self.take(now, bytes);
        let mut replies = self.send(usize::MAX);
        while let Next::Room { .. } = self.next {
            self.take(now, &[]);
            replies.extend(self.send(usize::MAX));
        }
        replies
    }

    /// Bytes taken and not yet consumed.
    pub fn unread_bytes(&self) -> usize {
        self.unread.len()
    }
}
