//! What is served on a port. Someone who writes a service of their own implements [`Service`] for datagrams,
//! [`StreamService`] for byte streams, or both, registers a [`ServiceFactory`] under a name, and names it in the
//! configuration; the daemon does the rest.

mod output;
mod stream;

pub use output::Output;
pub use stream::{Next, Progress, StreamService};

use std::net::SocketAddr;

use crate::metrics::WorkerMetrics;
use crate::table::Table;
use crate::time::Now;

/// Which way a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Past the kernel's stack.
    Bypass,
    /// From an ordinary socket: its listener's only way, or what the XDP program does not see or passes on.
    Kernel,
}

/// One datagram, borrowed from the frame it came in.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// Which of our addresses it was sent to.
    pub destination: SocketAddr,
    /// Its payload.
    pub payload: &'a [u8],
    /// Which way it came.
    pub via: Via,
}

/// Where the replies to one datagram go: back to its source, from the address it was sent to.
pub trait Replies {
    /// Largest payload of one reply, in bytes: what a frame holds and the link's MTU lets through.
    fn payload_bytes_max(&self) -> usize;

    /// Reply datagrams that can be sent right now. A reply of several datagrams checks this first, so that it
    /// goes out whole or not at all.
    fn room(&self) -> usize;

    /// Sends one datagram made of `parts`, in order. False when there is no room or it is too long; the worker
    /// counts it.
    fn send(&mut self, parts: &[&[u8]]) -> bool;
}

/// What a service has at hand while it handles a datagram.
pub struct Context<'a> {
    /// The time of this poll.
    pub now: Now,
    /// The shard's table.
    pub table: &'a mut dyn Table,
    /// The worker's counters.
    pub metrics: &'a WorkerMetrics,
}

/// A protocol served on a port. Each worker has an instance of its own, used from one thread; nothing in it may
/// allocate, lock, read a clock or make a system call per request.
pub trait Service: Send {
    /// Handles one datagram. Whatever the bytes are, it returns: bad input is answered in the protocol's words
    /// or counted and dropped.
    fn datagram(&mut self, context: &mut Context<'_>, datagram: &Datagram<'_>, replies: &mut dyn Replies);

    /// The key a datagram is most likely about, found without parsing all of it. While one datagram is served, the
    /// table's memory for those behind it is already on its way into the cache; a wrong guess costs only that.
    fn key_hint<'d>(&self, payload: &'d [u8]) -> Option<&'d [u8]> {
        let _ = payload;
        None
    }

    /// Writes the protocol's own "temporarily unavailable" for a datagram into `reply` and returns its length;
    /// 0 sends nothing. Called off the request path, by the companion, while the worker is stale.
    fn unavailable(&self, request: &[u8], reply: &mut [u8]) -> usize {
        let _ = (request, reply);
        0
    }
}

/// What a factory is told about the listener it serves.
#[derive(Clone, Debug)]
pub struct ServiceSetup {
    /// Number of the worker.
    pub worker: usize,
    /// Workers there are.
    pub workers: usize,
    /// Largest reply over datagrams, in bytes over all of them.
    pub reply_bytes_max: usize,
    /// Connections that may be open at once, over streams.
    pub connections_max: usize,
    /// Largest item the table takes, in bytes.
    pub item_bytes_max: usize,
    /// When the worker was made.
    pub started: Now,
}

/// What keeps a service from starting.
pub type ServiceError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a service's instance for each worker, and those the control plane and the sentinel ask for
/// [`Service::unavailable`] alone.
pub trait ServiceFactory: Send + Sync {
    /// The instance for one worker that serves datagrams; `None` when the protocol has no such form.
    ///
    /// # Errors
    /// Whatever keeps the service from starting; the daemon then does not start.
    fn create(&self, setup: &ServiceSetup) -> Result<Option<Box<dyn Service>>, ServiceError>;

    /// The instance for one worker's transport that serves byte streams; `None` when the protocol has no such form.
    ///
    /// # Errors
    /// Whatever keeps the service from starting; the daemon then does not start.
    fn create_stream(&self, setup: &ServiceSetup) -> Result<Option<Box<dyn StreamService>>, ServiceError> {
        let _ = setup;
        Ok(None)
    }
}

/// A closure serves datagrams.
impl<F> ServiceFactory for F
where
    F: Fn(&ServiceSetup) -> Result<Box<dyn Service>, ServiceError> + Send + Sync,
{
    fn create(&self, setup: &ServiceSetup) -> Result<Option<Box<dyn Service>>, ServiceError> {
        self(setup).map(Some)
    }
}
