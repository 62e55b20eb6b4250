//! Conversations with a table of their own, for tests, fuzzing and simulation: as bytes in a stream, and as
//! datagrams.

use std::net::{Ipv4Addr, SocketAddr};

use super::stream::MemcachedStreams;
use super::udp::{FRAME_HEADER_BYTES, FrameHeader, Memcached};
use crate::limits::{ITEM_BYTES_MAX, MEMCACHED_DATAGRAM_BYTES_MAX};
use crate::metrics::WorkerMetrics;
use crate::service::{
    Context, Datagram, Next, Output, Progress, Replies, Service, ServiceSetup, StreamService, Via,
};
use crate::table::Table;
use crate::table::model::ModelTable;
use crate::time::Now;

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

/// A send buffer of a size, as a connection has one.
#[derive(Debug)]
struct SendBuffer {
    bytes: Vec<u8>,
    capacity: usize,
}

impl Output for SendBuffer {
    fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a session pushes no more than there is room for");
        self.bytes.extend_from_slice(bytes);
    }
}

/// The number of the one connection.
const CONNECTION: usize = 0;

/// A service with one connection to it, and a table of its own.
#[derive(Debug)]
pub struct Conversation<T> {
    /// What it works on.
    pub table: T,
    /// What it counted.
    pub metrics: WorkerMetrics,
    /// Nothing more is taken.
    pub closed: bool,
    service: MemcachedStreams,
    output: SendBuffer,
    unread: Vec<u8>,
}

impl<T: Table> Conversation<T> {
    /// A conversation with `table`; the setup's largest reply is the size of its send buffer.
    pub fn new(table: T, setup: ServiceSetup) -> Self {
        let mut service = MemcachedStreams::new(&setup);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 11211));
        service.opened(CONNECTION, address, address);
        Self {
            table,
            metrics: WorkerMetrics::default(),
            closed: false,
            service,
            output: SendBuffer { bytes: Vec::new(), capacity: setup.reply_bytes_max },
            unread: Vec::new(),
        }
    }

    /// Takes bytes, in whatever pieces, and gives back the replies to all messages that are now whole. The send buffer
    /// is emptied whenever the stream waits for room.
    pub fn say(&mut self, now: Now, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(bytes);
        let mut replies = Vec::new();
        while !self.closed {
            let mut context = Context { now, table: &mut self.table, metrics: &self.metrics };
            let Progress { consumed, next } =
                self.service.advance(&mut context, CONNECTION, &self.unread, &mut self.output);
            let room = self.output.room();
            self.unread.drain(..consumed);
            replies.append(&mut self.output.bytes);
            match next {
                Next::Room { bytes } => {
                    assert!(
                        room < bytes && bytes <= self.output.capacity(),
                        "waits for room that it can have"
                    );
                }
                Next::Input { bytes } => {
                    assert!(bytes > self.unread.len(), "waits for more bytes than there are");
                    break;
                }
                Next::Close => self.closed = true,
            }
        }
        replies
    }
}

impl<T> Conversation<T> {
    /// Bytes taken and not yet consumed.
    pub fn unread_bytes(&self) -> usize {
        self.unread.len()
    }
}

/// The replies to one datagram, collected and bounded.
#[derive(Clone, Debug)]
pub struct CollectedReplies {
    /// The datagrams sent.
    pub datagrams: Vec<Vec<u8>>,
    /// Datagrams that can still be sent.
    pub room: usize,
    /// Largest payload.
    pub payload_bytes_max: usize,
}

impl Default for CollectedReplies {
    fn default() -> Self {
        Self { datagrams: Vec::new(), room: usize::MAX, payload_bytes_max: MEMCACHED_DATAGRAM_BYTES_MAX }
    }
}

impl Replies for CollectedReplies {
    fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    fn room(&self) -> usize {
        self.room
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        let datagram = parts.concat();
        if self.room == 0 || datagram.len() > self.payload_bytes_max {
            return false;
        }
        self.room -= 1;
        self.datagrams.push(datagram);
        true
    }
}

/// Puts a reply together from its datagrams, in whatever order; says what is wrong with them.
///
/// # Errors
/// What is wrong: a header that does not belong, a piece missing or twice.
pub fn reassemble(request_id: u16, datagrams: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let mut pieces = vec![None; datagrams.len()];
    for datagram in datagrams {
        let (header, piece) = FrameHeader::split(datagram).ok_or("a datagram without a frame header")?;
        if header.request_id != request_id {
            return Err(format!("request id {} instead of {request_id}", header.request_id));
        }
        if usize::from(header.total) != datagrams.len() {
            return Err(format!("{} datagrams say they are {}", datagrams.len(), header.total));
        }
        let slot =
            pieces.get_mut(usize::from(header.sequence)).ok_or("a sequence number beyond the total")?;
        if slot.replace(piece).is_some() {
            return Err(format!("sequence number {} twice", header.sequence));
        }
    }
    Ok(pieces.into_iter().flatten().flatten().copied().collect())
}

/// A memcached service over datagrams, with a table of its own.
#[derive(Debug)]
pub struct DatagramConversation<T = ModelTable> {
    /// The service.
    pub service: Memcached,
    /// What it works on.
    pub table: T,
    /// What it counted.
    pub metrics: WorkerMetrics,
}

impl DatagramConversation {
    /// A service on an empty model table.
    ///
    /// # Panics
    /// When the setup is refused.
    #[must_use]
    pub fn new(setup: &ServiceSetup) -> Self {
        Self::with_table(ModelTable::new(), setup)
    }
}

impl<T: Table> DatagramConversation<T> {
    /// A service on `table`.
    ///
    /// # Panics
    /// When the setup is refused.
    #[must_use]
    pub fn with_table(table: T, setup: &ServiceSetup) -> Self {
        Self {
            service: Memcached::new(setup).expect("a valid setup"),
            table,
            metrics: WorkerMetrics::default(),
        }
    }

    /// Hands over one datagram's payload.
    pub fn datagram(&mut self, now: Now, payload: &[u8], replies: &mut CollectedReplies) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 11211));
        let mut context = Context { now, table: &mut self.table, metrics: &self.metrics };
        let datagram = Datagram { source: address, destination: address, payload, via: Via::Bypass };
        self.service.datagram(&mut context, &datagram, replies);
    }

    /// Asks one message and gives back the whole reply.
    ///
    /// # Errors
    /// As [`reassemble`].
    pub fn ask(&mut self, now: Now, request_id: u16, message: &[u8]) -> Result<Vec<u8>, String> {
        let mut payload = Vec::with_capacity(FRAME_HEADER_BYTES + message.len());
        payload.extend_from_slice(&FrameHeader { request_id, sequence: 0, total: 1 }.to_bytes());
        payload.extend_from_slice(message);
        let mut replies = CollectedReplies::default();
        self.datagram(now, &payload, &mut replies);
        reassemble(request_id, &replies.datagrams)
    }
}
