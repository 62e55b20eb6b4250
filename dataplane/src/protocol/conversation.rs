//! A conversation over a stream with a table of its own, for tests, fuzzing and simulation, whatever the protocol.

use std::net::{Ipv4Addr, SocketAddr};

use crate::limits::ITEM_BYTES_MAX;
use crate::metrics::WorkerMetrics;
use crate::service::{Context, Next, Output, ServiceSetup, StreamService};
use crate::table::Table;
use crate::time::Now;

/// The number of the one connection.
const CONNECTION: usize = 0;

/// A listener with room for everything.
#[must_use]
pub fn roomy_setup() -> ServiceSetup {
    ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: 4 << 20,
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

/// One worker's service, with one connection to it.
#[derive(Debug)]
pub struct Conversation<S, T> {
    /// What it works on.
    pub table: T,
    /// What it counted.
    pub metrics: WorkerMetrics,
    /// Nothing more is taken.
    pub closed: bool,
    /// What the connection waits for.
    pub next: Next,
    service: S,
    unread: Vec<u8>,
    output: SendBuffer,
}

impl<S: StreamService, T: Table> Conversation<S, T> {
    /// A conversation with a service about `table`, whose send buffer takes so many bytes.
    pub fn with_service(table: T, mut service: S, capacity: usize) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
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
    /// When the service breaks its promises to whoever drives it.
    pub fn take(&mut self, now: Now, bytes: &[u8]) {
        if self.closed {
            return;
        }
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
            Next::Close => {
                self.closed = true;
                self.unread.clear();
            }
        }
    }

    /// Sends what waits to be sent, at most so many bytes of it.
    pub fn send(&mut self, bytes_max: usize) -> Vec<u8> {
        let bytes = bytes_max.min(self.output.bytes.len());
        self.output.bytes.drain(..bytes).collect()
    }

    /// Takes bytes, in whatever pieces, and gives back the replies to all requests that are now whole. The send buffer is
    /// emptied whenever the connection waits for room.
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
