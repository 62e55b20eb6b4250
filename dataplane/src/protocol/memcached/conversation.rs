//! Conversations with a table of their own, for tests, fuzzing and simulation: as bytes in a stream, and as
//! datagrams.

use std::net::{Ipv4Addr, SocketAddr};

use super::stream::MemcachedStreams;
use super::udp::{FRAME_HEADER_BYTES, FrameHeader, Memcached};
use crate::limits::MEMCACHED_DATAGRAM_BYTES_MAX;
use crate::metrics::WorkerMetrics;
use crate::protocol::conversation;
use crate::service::{Context, Datagram, Replies, Service, ServiceSetup, Via};
use crate::table::Table;
use crate::table::model::ModelTable;
use crate::time::Now;

pub use crate::protocol::conversation::roomy_setup;

/// A connection with a table of its own.
pub type Conversation<T> = conversation::Conversation<MemcachedStreams, T>;

impl<T: Table> Conversation<T> {
    /// A conversation about `table`; the setup's largest reply is the size of its send buffer.
    pub fn new(table: T, setup: &ServiceSetup) -> Self {
        Self::with_service(table, MemcachedStreams::new(setup), setup.reply_bytes_max)
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
