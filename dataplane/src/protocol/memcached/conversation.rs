//! Conversations with a table of their own, for tests, fuzzing and simulation: as bytes in a stream, and as
//! datagrams.

use std::net::{Ipv4Addr, SocketAddr};

use super::parse::{Incomplete, Parsed, parse};
use super::reply::{ReplyBuffer, lines};
use super::session::{Executed, Session};
use super::udp::{FRAME_HEADER_BYTES, FrameHeader, Memcached};
use crate::limits::{MEMCACHED_DATAGRAM_BYTES_MAX, VALUE_BYTES_MAX};
use crate::metrics::WorkerMetrics;
use crate::service::{Context, Datagram, Replies, Service, ServiceSetup, Via};
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
        item_bytes_max: VALUE_BYTES_MAX + crate::limits::KEY_BYTES_MAX,
        started: Now::default(),
    }
}

/// A byte stream's end of the protocol: pipelining, values in pieces, and refused values swallowed.
#[derive(Debug)]
pub struct Conversation<T> {
    /// What it works on.
    pub table: T,
    /// What it counted.
    pub metrics: WorkerMetrics,
    /// Nothing more is taken.
    pub closed: bool,
    session: Session,
    reply: ReplyBuffer,
    setup: ServiceSetup,
    unread: Vec<u8>,
    skip_bytes: usize,
}

impl<T: Table> Conversation<T> {
    /// A conversation with `table`.
    pub fn new(table: T, setup: ServiceSetup) -> Self {
        Self {
            table,
            metrics: WorkerMetrics::default(),
            closed: false,
            session: Session::new(&setup),
            reply: ReplyBuffer::new(setup.reply_bytes_max),
            setup,
            unread: Vec::new(),
            skip_bytes: 0,
        }
    }

    /// Takes bytes, in whatever pieces, and gives back the replies to all messages that are now whole.
    pub fn say(&mut self, now: Now, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(bytes);
        let mut replies = Vec::new();
        while !self.closed {
            let skipped = self.skip_bytes.min(self.unread.len());
            self.unread.drain(..skipped);
            self.skip_bytes -= skipped;
            if self.skip_bytes > 0 || self.unread.is_empty() {
                break;
            }
            let mut context = Context { now, table: &mut self.table, metrics: &self.metrics };
            match parse(&self.unread, self.setup.item_bytes_max) {
                Parsed::Command(command, bytes) => {
                    assert!(
                        (1..=self.unread.len()).contains(&bytes),
                        "consumes what is there, and something"
                    );
                    match self.session.execute(&mut context, &command, &mut self.reply) {
                        Executed::Done => {}
                        Executed::Close => self.closed = true,
                        Executed::Pending => self.reply.push(lines::REPLY_PENDING),
                    }
                    self.skip_bytes = bytes;
                }
                Parsed::Invalid(error) => {
                    assert!(error.skip_bytes > 0, "an error moves on");
                    self.session.refuse(&mut context, &error, &mut self.reply);
                    self.closed = error.fatal;
                    self.skip_bytes = error.skip_bytes;
                }
                Parsed::Incomplete(Incomplete::Line) => break,
                Parsed::Incomplete(Incomplete::Value { bytes, .. }) => {
                    assert!(bytes > self.unread.len(), "says how much is missing");
                    break;
                }
            }
            replies.extend_from_slice(self.reply.as_bytes());
            self.reply.clear();
        }
        replies
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
